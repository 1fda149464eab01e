"""Fail unless mypy reports exactly the errors planted in tests/typing/wrong.py.

A checker that cannot resolve the package takes every name in it for ``Any`` and finds nothing.
The planted file uses shoal the way a user does and marks each line that must be refused with
``# error: CODE``; the other lines must pass.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLANTED = Path("tests/typing/wrong.py")


def main() -> int:
    """Compare marked with reported (line, code) pairs; return the exit status."""
    marked = {
        (number, match[1])
        for number, line in enumerate((ROOT / PLANTED).read_text().splitlines(), start=1)
        if (match := re.search(r"# error: ([\w-]+)", line))
    }
    # --strict: as a user's checker with strict re-export rules sees the package.
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", str(PLANTED)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    found = re.findall(rf"^{re.escape(str(PLANTED))}:(\d+).*error:.*\[([\w-]+)\]$", output, re.M)
    reported = {(int(number), code) for number, code in found}
    if marked and reported == marked:
        print(f"mypy reports the {len(marked)} planted errors and no other")
        return 0
    print(f"{PLANTED}: mypy is blind or sees too much; line and code of each difference:")
    print(f"  planted and not reported: {sorted(marked - reported)}")
    print(f"  reported and not planted: {sorted(reported - marked)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
