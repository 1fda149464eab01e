"""Samplers side by side: draws per gradient and per second, and gradients until accuracy.

Ours against NUTS (BlackJAX's and NumPyro's) and MCLMC, unadjusted and adjusted (BlackJAX's), on
posteriors and Gaussians, each with four chains, the same starts and the same number of warm-up
steps, over several seeds. For each contender the table tells, medians over seeds where not said
otherwise,

- the smallest bulk effective sample size of a coordinate, per 1,000 gradients and per CPU second;
- gradients of one chain, warm-up included, until max_i b_i² < 0.01, where b_i² is the squared error
  of a chain's mean of x_i², over the variance of x_i², averaged over all chains of all seeds (what
  100 independent draws have);
- the error of the variances, averaged over coordinates, and the largest in absolute value.

A sampler whose effective sample size is below 400 is not rated. On funnels the question is only
whether a sampler says that it has not converged. Last come seconds for a single step: of ULA, MALA
and MCLMC, of Brownian paths and of adaptive steps on them, against peers and against what no
sampler can go below.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import _brownian_paths
import _langevin_steps
import _microcanonical_steps
import jax
import numpy as np
from _contenders import Run, contenders
from _harness import Options, Report, parse_options
from _targets import WHERE, Moments, Problem, funnels, problems

from shoal.inference import Result
from shoal.inference.summary import summarize

# Steps of warm-up, and for each kind of contender draws, by how hard a problem is.
WARMUP = 1000
DRAWS = {
    "auto": 10_000,
    "auto, adjusted": 1000,
    "BlackJAX NUTS": 1000,
    "NumPyro NUTS": 1000,
    "BlackJAX MCLMC": 5000,
    "BlackJAX adjusted MCLMC": 5000,
}
HARDER = {"Gaussian, condition 10,000": 4, "Brownian motion": 4, "stochastic volatility": 4}


class Rating(NamedTuple):
    """What a contender reached on a problem."""

    ess: float
    ess_per_1000: float
    ess_per_second: float
    until_accurate: float
    variance_error: float
    largest_error: float


def rate(runs: list[Run], moments: Moments | None) -> Rating:
    """Rate the runs of all seeds."""
    smallest, per_gradient, per_second = [], [], []
    for run in runs:
        summary = summarize(Result({"x": run.draws}, {}))
        smallest.append(float(np.nanmin(summary.columns["ess_bulk"])))
        per_gradient.append(1000 * smallest[-1] / run.gradients.sum())
        per_second.append(smallest[-1] / run.seconds)
    medians = [float(np.median(values)) for values in (smallest, per_gradient, per_second)]
    if moments is None:
        return Rating(*medians, np.nan, np.nan, np.nan)
    draws = np.concatenate([run.draws for run in runs]).astype(np.float64)
    ratio = draws.var((0, 1)) / moments.variance - 1
    largest = float(ratio[np.argmax(np.abs(ratio))])
    return Rating(*medians, gradients_until_accurate(runs, moments), float(ratio.mean()), largest)


def gradients_until_accurate(runs: list[Run], moments: Moments) -> float:
    """Return gradients of a chain until max b² < 0.01, infinite if never."""
    count = np.arange(1, runs[0].draws.shape[1] + 1)[:, None]
    error, spent, num = 0.0, 0.0, 0
    for run in runs:
        for chain, gradients in zip(run.draws, run.gradients, strict=True):
            means = np.cumsum(chain.astype(np.float64) ** 2, 0) / count
            error = error + (means - moments.square) ** 2 / moments.square_variance
            spent = spent + run.warmup + np.cumsum(gradients)
            num += 1
    is_accurate = np.max(np.asarray(error) / num, 1) < 0.01
    return float(spent[np.argmax(is_accurate)] / num) if is_accurate.any() else np.inf


def compare(problem: Problem, options: Options, seeds: int) -> dict[str, Rating]:
    """Run all contenders, in turns over the seeds, and print what they reached."""
    scale = 4 if options.quick else 1
    made = {}
    for name, make in contenders().items():
        # NUTS takes long trajectories where others need more draws.
        draws = DRAWS[name] * (1 if "NUTS" in name else HARDER.get(problem.name, 1))
        made[name] = make(problem, WARMUP // scale, draws // scale)
    runs: dict[str, list[Run]] = {name: [] for name in made}
    for seed in range(seeds):
        for name, contender in made.items():
            runs[name].append(contender(jax.random.key(seed)))
    ratings = {name: rate(found, problem.moments) for name, found in runs.items()}
    print(f"\n{problem.name}, d = {problem.dim}")
    print(
        f"{'':24}{'ESS':>8}{'/1k grad':>10}{'/s':>9}{'until b²':>11}{'variances':>11}{'worst':>8}"
    )
    for name, found in ratings.items():
        rated = f"{found.ess_per_1000:10.2f}{found.ess_per_second:9.0f}"
        if found.ess < 400:
            rated = f"{'not rated':>19}"
        print(
            f"{name:24}{found.ess:8.0f}{rated}{found.until_accurate:11.0f}"
            f"{found.variance_error:11.1%}{found.largest_error:8.1%}",
            flush=True,
        )
    return ratings


def bars(name: str, ratings: dict[str, Rating], report: Report) -> None:
    """Add the rows of a problem."""
    auto, nuts = ratings["auto"], ratings["BlackJAX NUTS"]
    until = lambda found: found.until_accurate
    row = f"{name}: gradients until b² < 0.01, "
    report.row(row + "auto / BlackJAX NUTS", *_pair(until(auto), until(nuts)), 0.5)
    peer = until(ratings["BlackJAX MCLMC"])
    report.row(row + "auto / BlackJAX MCLMC", *_pair(until(auto), peer), 1.0)
    report.row(
        f"{name}: |error of variances|, mean over coordinates, auto / 3 %",
        abs(auto.variance_error), 0.03, abs(auto.variance_error) / 0.03, 1.0,
    )  # fmt: skip
    if name in ("Gaussian, condition 100", "stochastic volatility"):
        ours = ratings["auto, adjusted"].ess_per_1000
        ratio = nuts.ess_per_1000 / ours
        row = f"{name}: ESS per gradient, BlackJAX NUTS / auto, adjusted"
        report.row(row, nuts.ess_per_1000, ours, ratio, 1 / 1.5)


def _pair(ours: float, peer: float) -> tuple[float, float, float]:
    """Return two numbers and their ratio; one that is never reached is infinitely worse."""
    if np.isinf(ours):
        return ours, peer, np.inf
    return ours, peer, ours / peer


def show_funnels(options: Options) -> None:
    """Print which samplers notice that they have not converged, and the spread of the neck."""
    for name, make in funnels().items():
        problem = make()
        print(f"\n{name}: converged only if R-hat < 1.01 and ESS >= 400")
        for sampler, make_contender in contenders().items():
            draws = DRAWS[sampler] // (4 if options.quick else 1)
            run: Any = make_contender(problem, WARMUP, draws)(jax.random.key(0))
            summary = summarize(Result({"x": run.draws}, {}))
            spread = float(run.draws[..., 0].std())
            print(f"{sampler:24} sd of the first {spread:6.2f}  {summary.verdict()}", flush=True)


def main() -> None:
    options = parse_options("Langevin samplers against NUTS and MCLMC")
    data = options.data or os.environ.get("SHOAL_BENCH_DATA")
    if data is None:
        print(f"two of eight problems left out; for all, {WHERE}")
    report = Report(options)
    for name, make in problems(None if data is None else Path(data)).items():
        ratings = compare(make(), options, seeds=1 if options.quick else 3)
        bars(name, ratings, report)
    show_funnels(options)
    for steps in (_langevin_steps, _microcanonical_steps, _brownian_paths):
        steps.add_rows(report)
    report.finish()


if __name__ == "__main__":
    main()
