"""How often would the table of seeded bugs cry wolf? Its statistical checks over many keys.

The package is as it is, so every statistic of every check should be standard normal, or narrower
where a cautious error was used. The suite has fixed keys; this is the rate at which another choice
of them would have raised an alarm.

That rate is the number of statistics in one run of the suite times the probability that one
exceeds 5.2, too rare to be seen. It is read off a normal law so wide that the counts beyond 3 and
beyond 4 are compatible with it (upper ends of one-sided 95 % intervals for Poisson counts), hence
larger than the truth; the fewer keys, the larger. (Statistics of one key are correlated, which
makes these intervals somewhat too short.) Statistics of counts are discrete and skewed, which
shows farther out than can be counted: the rate is multiplied by what the exact tail of the worst
of them, a binomial law, has beyond 5.2 relative to the normal one. A statistic that is zero for
every key cannot raise an alarm and is left out.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
from _harness import Report, parse_options
from scipy import stats

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from mutants.seeding import execute
from mutants.table import THRESHOLD, Check, families, load, precision

BAR = 1e-3
LAWS = "sampling/langevin/test_laws.py"
# The suite compares the numbers of ranks with 5 standard errors and their p value with 1e-6.
RANKS = 4 * 2 * stats.norm.sf(5.0) + 1e-6


def checks() -> list[Check]:
    """Return the statistical checks of the table and the cases that the suite runs beside them."""
    rows = {bug.check for bugs in families().values() for bug in bugs}
    laws = load(Check(LAWS, "SAMPLERS")), load(Check(LAWS, "METRICS"))
    cases = {Check(LAWS, "z_law", (sampler, metric)) for sampler in laws[0] for metric in laws[1]}
    return sorted({check for check in rows | cases if check.is_statistical}, key=str)


def moments(tests: object, name: str, key: jax.Array) -> np.ndarray:
    """Return what the test of the densities' draws compares, for any key."""
    density = tests.CASES[name][0]("float32")
    x = np.asarray(tests.draw(density, key), np.float64)
    centred = x - np.asarray(density.mean)
    i, j = np.triu_indices(density.dim)
    products = centred[:, i] * centred[:, j] - np.asarray(density.covariance)[i, j]
    values = np.concatenate([centred, products], axis=1)
    return values.mean(0) / (values.std(0) / np.sqrt(len(x)))


def excess_of_counts(trials: int = 20_000, probability: float = 0.1) -> float:
    """Return the tail beyond the threshold of the worst discrete statistic, relative to a normal.

    That is the number of copies of a particle in resampling.
    """
    law = stats.binom(trials, probability)
    low, high = (law.mean() + sign * THRESHOLD * law.std() for sign in (-1, 1))
    tail = law.cdf(np.ceil(low) - 1) + law.sf(np.floor(high))
    return max(1.0, tail / (2 * stats.norm.sf(THRESHOLD)))


def collect(z: Callable[[jax.Array], np.ndarray], seconds: float) -> np.ndarray:
    """Return statistics, a row for each key: as many keys as take so long, at least two."""
    rows, stop = [], None
    while stop is None or len(rows) < 2 or time.process_time() < stop:
        key = jax.random.fold_in(jax.random.key(2025), len(rows))
        rows.append(np.asarray(z(key), np.float64))
        # The clock starts when all is compiled.
        stop = stop or time.process_time() + seconds
    return np.stack(rows)


def largest_scale(count: int, total: int, level: float) -> float:
    """Return the widest normal law compatible with so many of ``total`` beyond a level."""
    most = stats.chi2.ppf(0.95, 2 * (count + 1)) / 2
    return level / stats.norm.isf(most / total / 2)


def summarise(report: Report, statistics: dict[str, np.ndarray]) -> None:
    """Add the rows of all statistics together."""
    per_run = sum(z.shape[1] for z in statistics.values())
    pooled = np.abs(np.concatenate([z[:, np.any(z, 0)].ravel() for z in statistics.values()]))
    information = partial(report.row, bar=None)
    rms = np.sqrt(np.mean(pooled**2))
    information(f"all {pooled.size} statistics: rms", rms, 1.0, rms)
    typical = stats.norm.isf((1 - 0.5 ** (1 / pooled.size)) / 2)
    largest = pooled.max()
    information("all: largest, and its median if normal", largest, typical, largest / typical)
    scale = 1.0
    for level in (3.0, 4.0):
        count, expected = np.sum(pooled >= level), 2 * stats.norm.sf(level) * pooled.size
        information(f"all: beyond {level:g}, count and expected", count, expected, count / expected)
        scale = max(scale, largest_scale(count, pooled.size, level))
    information("all: scale of the widest compatible normal law", scale, 1.0, scale)
    excess = excess_of_counts()
    information("tail beyond 5.2 of the worst discrete statistic", excess, 1.0, excess)
    rate = 2 * stats.norm.sf(THRESHOLD / scale) * excess * per_run + RANKS
    normal = 2 * stats.norm.sf(THRESHOLD) * per_run + RANKS
    bar = None if report.options.quick else 1.0
    report.row(
        f"false alarms in a run, {per_run} statistics / {BAR:g}", rate, normal, rate / BAR, bar
    )


def main() -> None:
    options = parse_options("False alarms of the statistical checks over many keys")
    report = Report(options)
    seconds = 0.2 if options.quick else 15.0
    statistics = {}
    for check in checks():
        function = load(check)
        with precision(function), contextlib.redirect_stdout(None):
            z = collect(lambda key: function(key, *check.arguments), seconds)
        statistics[f"{check.name} {' '.join(map(str, check.arguments))}".strip()] = z
    tests = execute("models/test_densities.py")
    for name in tests.CASES:
        statistics[f"moments of draws, {name}"] = collect(partial(moments, tests, name), seconds)
    for name, z in statistics.items():
        rms = np.sqrt(np.mean(z[:, np.any(z, 0)] ** 2))
        report.row(f"{name}: rms, {z.shape[0]} keys x {z.shape[1]}", rms, 1.0, rms, bar=None)
    summarise(report, statistics)
    report.finish()


if __name__ == "__main__":
    main()
