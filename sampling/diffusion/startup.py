"""How multistep solvers begin: with growing order, or at full order by sweeps.

A solver through p points has but one when it begins. The usual way is to let the order grow; the
first step then has an error of the second power of the step, and so has the result, however high p.
That is little where a grid begins at nearly pure noise, and all there is where it begins at data,
to encode, or half-way.

Sweeps (Picard iteration, or spectral deferred correction without its sub-steps) repeat the first
p points: the predictions found there are integrated anew from the start through all p of them, and
the denoiser is called again. Each sweep raises the order by one and costs p - 1 calls.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from shoal.sampling.diffusion.program import Evaluation, Expression, Tape
from shoal.sampling.diffusion.solver import Steps

Integrate: TypeAlias = Callable[[Expression, float, float, list[Evaluation]], Expression]

STARTS = ("growing", "sweeps")


def intervals(
    steps: Steps, num_steps: int, num_points: int, num_sweeps: int
) -> tuple[np.ndarray, int]:
    """Return the grid that ``num_steps`` calls suffice for, and the number of sweeps, 0 or given.

    Raises
    ------
    ValueError
        If there are too few calls, or there is no polynomial in λ at the grid's start.
    """
    if num_points == 1 or num_sweeps <= 0:
        return steps(num_steps), 0
    num_intervals = num_steps - num_sweeps * (num_points - 1)
    if num_intervals < num_points:
        raise ValueError(
            f"num_steps must be at least {num_steps - num_intervals + num_points} with start "
            f'"sweeps" and {num_points} points, got {num_steps}'
        )
    clock = steps(num_intervals)
    if not np.isfinite(clock[0]):
        raise ValueError('start "sweeps" needs a finite log(alpha / sigma) where the grid begins')
    return clock, num_sweeps


def first_points(
    tape: Tape, clock: np.ndarray, num_points: int, num_sweeps: int, integrate: Integrate
) -> list[Evaluation]:
    """Return calls at the first points of the grid, newest first; none without sweeps."""
    if not num_sweeps:
        return []
    x, points = tape.start, list[Evaluation]()
    for i in range(num_points):
        points.insert(0, tape.evaluate(x, clock[i]))
        x = integrate(points[0].position, clock[i], clock[i + 1], points)
    start, found = points[-1], points
    for _ in range(num_sweeps):
        points, found = found, [start]
        for t in clock[1:num_points]:
            x = integrate(start.position, clock[0], t, points)
            found.insert(0, tape.evaluate(x, t))
    return found
