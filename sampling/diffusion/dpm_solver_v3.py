"""DPM-Solver-v3: exponential integration about a model's own statistics, entry by entry.

With l, s and b of `statistics` the noise prediction is ε = l x / sigma + e^λ f, and f follows a
linear law f' = s f + b up to what changes slowly. With L = ∫ l and S = ∫ s the flow at unit
variance has the exact solution (Zheng et al. 2023, DPM-Solver-v3, eqs. 9 and 13)

    x_t / alpha_t = e^{L_s - L_t} x_s / alpha_s - ∫_s^t e^{L - L_t} f dλ,
    f(λ) = e^{S - S_s} (g(λ) + ∫_s^λ e^{S_s - S} b dr),

where g, which is constant where the law holds, is replaced by the polynomial through its values at
the last points. With n + 1 points the order is n + 1 whatever the statistics, and Gaussian data
with independent entries are solved exactly in one step. l = 0, s = -1, b = 0 is the multistep
family in the noise, l = 1, s = b = 0 that in the data.

A corrector repeats the last step with the new value of f in it, at no further call. f stays as it
was seen and the next step starts from the corrected x.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.schedules import Schedule, unit_scales
from shoal.sampling.diffusion._v3_integrals import Curves
from shoal.sampling.diffusion.exponential import order_at
from shoal.sampling.diffusion.program import Evaluation, Expression, Program, Tape, constant
from shoal.sampling.diffusion.solver import LinearSolver, Steps
from shoal.sampling.diffusion.statistics import Statistics


class Point(NamedTuple):
    """A value of f, and x at the same λ, perhaps corrected since."""

    half_log_snr: float
    position: Expression
    f: Expression


def residual(curves: Curves, here: Evaluation) -> Expression:
    """Return f = (1 - l) x / alpha - data."""
    alpha, _ = unit_scales(np.array(here.half_log_snr))
    return (1 - curves.l(here.half_log_snr)) / alpha * here.position - here.data


def v3_step(
    curves: Curves, base: Expression, s: float, t: float, points: Sequence[Point],
    pseudo: bool = False,
) -> Expression:  # fmt: skip
    """Return x at ``t`` from ``base`` at ``s``; the first of ``points`` is at ``s``."""
    weights = curves.step(s, t, [point.half_log_snr for point in points], pseudo)
    x = weights.base * base + constant(weights.constant)
    for weight, point in zip(weights.points, points, strict=True):
        x = x + weight * point.f
    return x


@dataclasses.dataclass(frozen=True, eq=False)
class DPMSolverV3(LinearSolver):
    """See `dpm_solver_v3`."""

    curves: Curves
    order: int
    corrector: bool
    pseudo_predictor: bool
    pseudo_corrector: bool

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        clock = steps(num_steps)
        tape = Tape()
        x, points, order = tape.start, list[Point](), 0
        for i, (s, t) in enumerate(zip(clock[:-1], clock[1:], strict=True)):
            here = tape.evaluate(x, s)
            new = Point(s, here.position, tape.keep(residual(self.curves, here), "f"))
            if self.corrector and order + self.pseudo_corrector > 1:
                start, *older = points
                seen = [start, new, *older][: order + self.pseudo_corrector]
                corrected = v3_step(
                    self.curves, start.position, start.half_log_snr, s, seen, self.pseudo_corrector
                )
                new = new._replace(position=tape.keep(corrected, "corrected"))
            points.insert(0, new)
            order = order_at(i, num_steps, self.order, lower_order_final)
            x = v3_step(self.curves, new.position, s, t, points[:order], self.pseudo_predictor)
        return tape.finish(x, clock[-1])


def dpm_solver_v3(
    statistics: Statistics, order: int = 3, corrector: bool = True,
    pseudo_predictor: bool = False, pseudo_corrector: bool = False, corrector_region: Any = None,
) -> DPMSolverV3:  # fmt: skip
    return DPMSolverV3(Curves(statistics), order, corrector, pseudo_predictor, pseudo_corrector)


def degenerate(form: str, schedule: Schedule, shape: tuple[int, ...] = ()) -> Statistics:
    """Return statistics that make DPM-Solver-v3 the multistep solver in "data" or "noise"."""
    if form not in ("data", "noise"):
        raise ValueError(f'form must be "data" or "noise", got {form!r}')
    ends = schedule.half_log_snr(np.array([schedule.t_max, schedule.t_min]))
    fill = lambda value: np.full((3, *shape), value)
    l, s = (1.0, 0.0) if form == "data" else (0.0, -1.0)  # noqa: E741
    return Statistics(np.linspace(*ends, 3), fill(l), fill(s), fill(0.0))
