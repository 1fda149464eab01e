"""A search for the best solver of one model: which steps, and how each one is made.

    python examples/schedule_search.py

Eight narrow Gaussians on a circle, five calls of the denoiser. A schedule says for every step where
it ends, whether the data or the noise is extrapolated, through how many points, and whether the
next call corrects it; the first step may do without a call, as there all is noise. The search
begins with known solvers, among them DPM-Solver++(2M), mixes and changes the best of what it has
seen, and at last moves the times by gradients. Errors are distances to the exact flow, on noises
that nothing was chosen by. The number checked is that of the schedule found over that of
DPM-Solver++(2M).
"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shoal.models.denoisers import ring_mixture
from shoal.sampling import diffusion
from shoal.sampling.diffusion.grids import half_log_snrs

SCHEDULE = diffusion.vp_linear()
CALLS = 5
COLORS = {"data": "C0", "noise": "C1"}


def known_schedule() -> diffusion.SolverSchedule:
    """Return DPM-Solver++(2M), even in λ."""
    clock = tuple(half_log_snrs(SCHEDULE, "logsnr", CALLS).tolist())
    return diffusion.multistep_schedule(CALLS, 2, relaxation="bh2")._replace(half_log_snr=clock)


def draw_schedule(ax: Axes, height: float, schedule: diffusion.SolverSchedule) -> None:
    """Draw each step as a bar, in the colour of its prediction, with its order."""
    clock = schedule.half_log_snr or ()
    for i, (step, start, end) in enumerate(zip(schedule.steps, clock, clock[1:], strict=False)):
        is_free = i == 0 and schedule.first is not None
        color = "grey" if is_free else COLORS[step.form]
        ax.barh(height, end - start, 0.4, start, color=color, edgecolor="white")
        text = str(step.update.order) + ("c" if step.corrector is not None else "")
        ax.text((start + end) / 2, height, text, ha="center", va="center", color="white")


def draw_figure(found: diffusion.SearchResult) -> Figure:
    figure = Figure(figsize=(11, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for height, schedule in ((1, known_schedule()), (0, found.schedule)):
        draw_schedule(left, height, schedule)
    for label, color in {**COLORS, "without a call": "grey"}.items():
        left.barh(0, 0, color=color, label=label)
    left.set_yticks([1, 0], ["DPM-Solver++(2M)", "found"])
    left.set(xlabel="λ = log(alpha / sigma), from noise to data", ylim=(-0.5, 1.9))
    left.set_title("Points of each step; c: corrected by the next call")
    left.legend(frameon=False, ncols=3, loc="upper center")
    right.plot(1 + np.arange(len(found.history)), found.history, label="best so far, in training")
    right.axhline(found.start_score, color="C2", label="DPM-Solver++(2M), held out")
    right.axhline(found.score, color="C3", label="found, held out")
    right.set(xlabel="schedules tried", ylabel="error, root mean square", ylim=(0, None))
    right.set_title("The rest is gradients")
    right.legend(frameon=False, loc="center right")
    return figure


def main(
    num_samples: int = 256,
    num_generations: int = 8,
    num_descents: int = 60,
    folder: Path = Path(),
) -> float:
    """Write ``schedule_search.png``; return the error found over that of DPM-Solver++(2M)."""
    found = diffusion.search_schedule(
        jax.random.key(0), ring_mixture(), SCHEDULE, CALLS, (2,), start=known_schedule(),
        num_samples=num_samples, num_heldout=4 * num_samples, num_generations=num_generations,
        num_descents=num_descents,
    )  # fmt: skip
    print(f"held-out error {found.score:.4f}, median {found.median:.4f}")
    print(f"DPM-Solver++(2M) {found.start_score:.4f}, {len(found.history)} schedules tried")
    draw_figure(found).savefig(folder / "schedule_search.png")
    return found.score / found.start_score


if __name__ == "__main__":
    print(f"held-out error, found / DPM-Solver++(2M): {main():.2f}")
