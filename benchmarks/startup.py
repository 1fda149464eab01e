"""Seconds until Shoal is there: to import it, to have it ready to sample, and to print its help.

Every measurement is a fresh interpreter with warm file caches.
"""

import functools
import subprocess
import sys
from pathlib import Path

from _harness import Report, interleave, parse_options

SHOAL = Path(sys.executable).with_name("shoal")
READY = "import shoal; shoal.sample, shoal.langevin.mala"


def start(*command: str | Path) -> None:
    """Run a command to its end, without its output."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Time the starts side by side."""
    options = parse_options("Start-up in fresh processes, seconds")
    programs = {
        "shoal": "import shoal",
        "jax": "import jax",
        "ready": READY,
        "jax + blackjax": "import jax, blackjax",
        "jax + numpyro": "import jax, numpyro",
    }
    contenders = {
        name: functools.partial(start, sys.executable, "-c", program)
        for name, program in programs.items()
    }
    contenders["help"] = functools.partial(start, SHOAL, "--help")
    times = interleave(contenders, rounds=options.rounds(21, 7))

    report = Report(options)
    report.ratio("startup/import shoal, peer: import jax", times, 1.15, "shoal", "jax")
    # 0.15 s where `import jax` takes 0.5 s.
    report.ratio("startup/shoal --help, peer: import jax", times, 0.3, "help", "jax")
    for peer in ("jax + blackjax", "jax + numpyro"):
        report.ratio(f"startup/ready to sample, peer: {peer}", times, None, "ready", peer)
    report.finish()


if __name__ == "__main__":
    main()
