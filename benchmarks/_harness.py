"""What every benchmark shares: options, interleaved timing, rows and the printed table.

A benchmark reads::

    options = parse_options("Pairwise reductions against the unfused matrix products")
    report = Report(options)
    times = interleave({"ours": lambda: f(x), "peer": lambda: g(x)}, rounds=options.rounds(20, 5))
    report.ratio("pairwise/matvec/n=4096,d=10", times, bar=1.0)
    report.finish()

Ratios are medians over rounds of ours/peer taken within one round, so that a machine that slows
down for a while slows both. Contenders take turns in going first.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax


@dataclass(frozen=True)
class Options:
    """Command line of a benchmark: ``[--quick] [--data DIR] --json PATH``."""

    quick: bool
    data: Path | None
    json: Path | None

    def rounds(self, full: int, quick: int) -> int:
        """Return the number of rounds to time: fewer with ``--quick``."""
        return quick if self.quick else full


def parse_options(description: str, argv: list[str] | None = None) -> Options:
    """Read the command line and print where the benchmark runs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller problems or fewer rounds")
    parser.add_argument("--data", type=Path, help="folder with data sets, where one is needed")
    parser.add_argument("--json", type=Path, help="file that receives the rows")
    args = parser.parse_args(argv)
    device = jax.devices()[0]
    print(f"{description}\njax {jax.__version__}, {device.platform}: {device.device_kind}")
    return Options(args.quick, args.data, args.json)


def interleave(
    contenders: Mapping[str, Callable[[], Any]], rounds: int, min_seconds: float = 0.02
) -> dict[str, list[float]]:
    """Time contenders in turns.

    Each contender is called twice beforehand (compilation, caches). One measurement repeats the
    call until ``min_seconds`` have about passed, waits for the result and divides.

    Returns
    -------
    dict
        Seconds per call by contender, one number a round, in the order of the rounds.
    """
    repeats = {}
    for name, call in contenders.items():
        jax.block_until_ready(call())
        start = time.perf_counter()
        jax.block_until_ready(call())
        repeats[name] = max(1, round(min_seconds / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(rounds):
        for name in order:
            start = time.perf_counter()
            for _ in range(repeats[name]):
                result = contenders[name]()
            jax.block_until_ready(result)
            times[name].append((time.perf_counter() - start) / repeats[name])
        order = order[1:] + order[:1]
    return times


def median_ratio(ours: list[float], peer: list[float]) -> float:
    """Median over rounds of ours/peer."""
    return statistics.median(a / b for a, b in zip(ours, peer, strict=True))


@dataclass
class Report:
    """Rows ``{"name", "ours", "peer", "ratio", "bar", "holds"}`` of one benchmark."""

    options: Options
    rows: list[dict[str, Any]] = field(default_factory=list)

    def ratio(
        self,
        name: str,
        times: Mapping[str, list[float]],
        bar: float | None,
        ours: str = "ours",
        peer: str = "peer",
    ) -> None:
        """Add a row of two contenders' median seconds and their median ratio."""
        pair = times[ours], times[peer]
        self.row(name, *map(statistics.median, pair), median_ratio(*pair), bar)

    def row(self, name: str, ours: float, peer: float, ratio: float, bar: float | None) -> None:
        """Add a row that holds where ``ratio`` is at most ``bar``; any unit, named in ``name``.

        A row for information alone has the bar None, and holds.
        """
        self.rows.append(
            {
                "name": name,
                "ours": float(ours),
                "peer": float(peer),
                "ratio": float(ratio),
                "bar": None if bar is None else float(bar),
                "holds": bar is None or bool(ratio <= bar),
            }
        )

    def finish(self) -> None:
        """Print the table and write the rows where ``--json`` says."""
        width = max(len(row["name"]) for row in self.rows)
        print(f"{'name':{width}}  {'ours':>10}  {'peer':>10}  {'ratio':>7}  {'bar':>6}  holds")
        for row in self.rows:
            bar = "-" if row["bar"] is None else f"{row['bar']:.3g}"
            print(
                f"{row['name']:{width}}  {row['ours']:10.4g}  {row['peer']:10.4g}  "
                f"{row['ratio']:7.3f}  {bar:>6}  {'yes' if row['holds'] else 'NO'}"
            )
        if self.options.json is not None:
            self.options.json.parent.mkdir(parents=True, exist_ok=True)
            self.options.json.write_text(json.dumps(self.rows, indent=1) + "\n")
