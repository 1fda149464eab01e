"""Pareto sets after 120 evaluations: the hypervolume that is missing, and seconds.

The logarithm of the missing hypervolume (LHD) is against that of the whole front. The official
notebook takes the 100 points that pymoo gives on ZDT problems, whose volume is 0.005 lower, so its
figures can be far below what 120 points can reach: even placed at best, 100 points on the front of
ZDT1 lack 0.0044 of the whole. The bars are the literature's; both figures are shown.
"""

import time

import jax
import numpy as np
from _harness import Report

from shoal.models.multi_objective import MultiObjective, vlmop2, zdt1, zdt2
from shoal.sampling import stein

PROBLEMS = {"ZDT1": (zdt1(), -5.0), "ZDT2": (zdt2(), -4.4), "VLMOP2": (vlmop2(), -3.5)}


def volume(problem: MultiObjective, points: np.ndarray) -> float:
    """Return the hypervolume of points, in float64."""
    with jax.enable_x64(True):
        return float(stein.hypervolume(np.asarray(points, float), problem.reference_point))


def add_rows(report: Report) -> None:
    for name, (problem, most) in PROBLEMS.items():
        whole = problem.hypervolume_of_front()
        hundred = volume(problem, problem.pareto_front(100)) if name != "VLMOP2" else whole
        found, literature = [], []
        start = time.perf_counter()
        for seed in range(1 if report.options.quick else 3):
            result = stein.pareto_set(
                jax.random.key(seed),
                lambda x: np.asarray(problem(x)),
                problem.bounds,
                num_iterations=4 if report.options.quick else 20,
            )
            covered = volume(problem, result.y)
            found.append(np.log(whole - covered))
            literature.append(np.log(max(hundred - covered, 1e-14)))
        seconds = (time.perf_counter() - start) / len(found)
        mean = float(np.mean(literature))
        bar = None if report.options.quick else 0.0
        label = f"{name}, {len(result.y)} evaluations: "
        # Differences of logarithms, which may be negative.
        report.row(f"{label}LHD as in the literature, its bar", mean, most, mean - most, bar)
        exact = float(np.mean(found))
        report.row(f"{label}LHD to the whole front", exact, most, exact - most, None)
        report.row(f"{label}of the worst seed", max(found), most, max(found) - most, None)
        report.row(f"{label}seconds / 60", seconds, 60.0, seconds / 60, None)
