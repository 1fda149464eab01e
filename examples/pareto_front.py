"""A Pareto front from 70 evaluations: what is learned beside what chance finds.

    python examples/pareto_front.py

VLMOP2 in four dimensions, 20 points of a Latin hypercube and ten batches of five. The first panel
shows the evaluated values, the true front and the learned map from preferences to solutions; the
second the hypervolume that is still missing, after each batch, and for as many random points. The
number checked is the first over the second at the end.
"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from shoal.models.multi_objective import MultiObjective, vlmop2
from shoal.sampling import stein


def missing(problem: MultiObjective, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the hypervolume that the first ``counts`` values lack of the whole front's."""
    volumes = [float(stein.hypervolume(y[:n], problem.reference_point)) for n in counts]
    return problem.hypervolume_of_front() - np.array(volumes)


def draw_figure(problem: MultiObjective, found: stein.ParetoSet, curves: dict) -> Figure:
    figure = Figure(figsize=(10, 4.5), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    weights = np.linspace(0.01, 0.99, 100)
    learned = problem(found.solution(np.stack([weights, 1 - weights], 1)))
    left.plot(*problem.pareto_front().T, color="0.7", linewidth=6, label="true front")
    left.plot(*learned.T, color="C1", label="learned map")
    left.plot(*found.y[~found.is_nondominated].T, ".", color="C0", alpha=0.4, label="evaluated")
    left.plot(*found.y[found.is_nondominated].T, "o", color="C0", label="of them, nondominated")
    left.set(xlabel="first objective", ylabel="second objective", title="Values")
    for label, (counts, values) in curves.items():
        right.semilogy(counts, values, "o-", label=label)
    right.set(xlabel="evaluations", title="Missing hypervolume")
    left.legend(frameon=False)
    right.legend(frameon=False)
    return figure


def main(num_iterations: int = 10, num_steps: int = 1000, folder: Path = Path()) -> float:
    """Write ``pareto_front.png``; return the missing hypervolume over that of random points."""
    problem = vlmop2(dim=4)
    found = stein.pareto_set(
        jax.random.key(0), lambda x: np.asarray(problem(x)), problem.bounds,
        num_iterations=num_iterations, num_steps=num_steps,
    )  # fmt: skip
    counts = np.arange(20, len(found.y) + 1, 5)
    low, high = problem.bounds
    points = np.random.default_rng(0).uniform(low, high, (len(found.y), problem.dim))
    curves = {
        "learned": (counts, missing(problem, found.y, counts)),
        "random": (counts, missing(problem, np.asarray(problem(points)), counts)),
    }
    draw_figure(problem, found, curves).savefig(folder / "pareto_front.png")
    return curves["learned"][1][-1] / curves["random"][1][-1]


if __name__ == "__main__":
    print(f"missing hypervolume, over that of random points: {main():.3f}")
