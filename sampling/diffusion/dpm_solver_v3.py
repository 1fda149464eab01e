"""DPM-Solver-v3: exponential integration about a model's own statistics, entry by entry.

With l, s and b of `statistics` the noise prediction is ε = l x / sigma + e^λ f, and f follows a
linear law f' = s f + b up to what changes slowly. With L = ∫ l and S = ∫ s the flow at unit
variance has the exact solution (Zheng et al. 2023, DPM-Solver-v3, eqs. 9 and 13)

    x_t / alpha_t = e^{L_s - L_t} x_s / alpha_s - ∫_s^t e^{L - L_t} f dλ,
    f(λ) = e^{S - S_s} (g(λ) + ∫_s^λ e^{S_s - S} b dr),

where g, which is constant where the law holds, is replaced by the polynomial through its values at
the last points. With p points the order is p whatever the statistics, and Gaussian data with
independent entries are solved exactly in one step. l = 0, s = -1, b = 0 is the multistep family in
the noise, l = 1, s = b = 0 that in the data.

A corrector repeats the last step with the new value of f among its points, at no further call. f
stays as it was seen, and the next step starts from the corrected x. With as many points as the step
had the order stays as it is, and the error is a fraction.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.multistep import polynomial_weights
from shoal.sampling.core.schedules import Schedule, unit_scales
from shoal.sampling.diffusion import startup
from shoal.sampling.diffusion._v3_integrals import Curves, newton_weights
from shoal.sampling.diffusion.exponential import order_at
from shoal.sampling.diffusion.program import Evaluation, Expression, Program, Tape, constant
from shoal.sampling.diffusion.solver import LinearSolver, Problem, Record, Steps
from shoal.sampling.diffusion.statistics import Statistics, along, turn


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
    curves: Curves, start: Expression, s: float, t: float, points: Sequence[Point],
    pseudo: bool = False,
) -> Expression:  # fmt: skip
    """Return x at ``t`` from ``start`` at ``s``, through ``points``."""
    rule = newton_weights if pseudo else polynomial_weights
    weights = curves.step(s, t, [point.half_log_snr for point in points], rule)
    x = weights.base * start + constant(weights.constant)
    for weight, point in zip(weights.points, points, strict=True):
        x = x + weight * point.f
    return x


@dataclasses.dataclass(frozen=True, eq=False)
class DPMSolverV3(LinearSolver):
    """See `dpm_solver_v3`."""

    statistics: Statistics
    curves: Curves
    order: int
    corrector: bool
    pseudo_predictor: bool
    pseudo_corrector: bool
    corrector_region: tuple[float, float] | None
    start: str
    # The region in λ, known with a schedule.
    reach: tuple[float, float] = (-np.inf, np.inf)

    def run(self, problem: Problem) -> tuple[jax.Array, Record]:
        solver = self
        if self.corrector_region is not None:
            with np.errstate(divide="ignore"):
                ends = problem.schedule.half_log_snr(np.array(self.corrector_region))
            solver = dataclasses.replace(self, reach=(min(ends), max(ends)))
        axes = self.statistics.axes
        if axes is None:
            return super(DPMSolverV3, solver).run(problem)
        problem = problem._replace(
            denoiser=along(problem.denoiser, axes), position=turn(problem.position, axes)
        )
        x, record = super(DPMSolverV3, solver).run(problem)
        if record.trajectory is not None:
            back = jax.vmap(lambda positions: turn(positions, axes.T))
            record = record._replace(trajectory=back(record.trajectory))
        return turn(x, axes.T), record

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        with np.errstate(over="ignore", invalid="ignore"):
            program = self._record(steps, num_steps, lower_order_final)
        _checks.check_entries(
            "statistics", program.matrices, np.isfinite, "such that steps have finite coefficients"
        )
        return program

    def _record(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        wanted = self.order - 2 if self.start == "sweeps" else 0
        clock, num_sweeps = startup.intervals(steps, num_steps, self.order, wanted)
        tape = Tape()

        def point(here: Evaluation) -> Point:
            f = residual(self.curves, here)
            return Point(here.half_log_snr, here.position, tape.keep(f, "f"))

        integrate = lambda start, s, t, calls: v3_step(
            self.curves, start, s, t, list(map(point, calls))
        )
        calls = startup.first_points(tape, clock, self.order, num_sweeps, integrate)
        points, x, order = [point(here) for here in calls], tape.start, 0
        for i in range(max(len(points) - 1, 0), len(clock) - 1):
            s, t = clock[i], clock[i + 1]
            if i >= len(points):
                new = point(tape.evaluate(x, s))
                points.insert(0, self._corrected(tape, new, points, order))
            order = order_at(i, len(clock) - 1, self.order, lower_order_final)
            seen = points[:order]
            x = v3_step(self.curves, points[0].position, s, t, seen, self.pseudo_predictor)
        return tape.finish(x, clock[-1])

    def _corrected(self, tape: Tape, new: Point, points: list[Point], order: int) -> Point:
        """Return the new point with x corrected; ``order`` is that of the step that led there."""
        order += self.pseudo_corrector
        s = new.half_log_snr
        if not self.corrector or order < 2 or not self.reach[0] <= s <= self.reach[1]:
            return new
        seen = [points[0], new, *points[1:]][:order]
        before = points[0].half_log_snr
        start = points[0].position
        corrected = v3_step(self.curves, start, before, s, seen, self.pseudo_corrector)
        return new._replace(position=tape.keep(corrected, "corrected"))


def dpm_solver_v3(
    statistics: Statistics, order: int = 3, corrector: bool = True,
    pseudo_predictor: bool = False, pseudo_corrector: bool = False,
    corrector_region: tuple[float, float] | None = None, *, start: str = "growing",
) -> DPMSolverV3:  # fmt: skip
    """DPM-Solver-v3 multistep: about the statistics of the model that is solved.

    The best of the multistep solvers where the statistics say much about the model: data of entries
    with different scales, and few calls. The defaults are the published ones for models in pixels.

    Parameters
    ----------
    statistics
        Of `estimate_statistics`, for this model and this range of times. Others cost accuracy, not
        order: what is solved is the model's own flow.
    order
        Points that a step goes through, at least 1; 3 is published.
    corrector
        Correct every step with the call after it, through as many points as the step went.
    pseudo_predictor
        Take the k-th derivative of g from k + 1 points in predictions: steadier with 5 calls.
    pseudo_corrector
        Take it so in corrections, and one point more.
    corrector_region
        Times ``(low, high)`` where the corrector works; None is all. With strong guidance it may
        help in the noisy half only, or in the other.
    start
        ``"growing"`` orders, or ``"sweeps"``: full order from the first step on, for
        (``order`` - 2) (``order`` - 1) more calls.

    Returns
    -------
    LinearSolver
        For `solve`; a grid must lie where the statistics are.

    Raises
    ------
    TypeError, ValueError
        For impossible arguments; by `solve`, for grids that reach beyond the statistics.

    References
    ----------
    Zheng, Lu, Chen and Zhu (2023), DPM-Solver-v3: improved diffusion ODE solver with empirical
    model statistics, algorithms 1 and 2, appendix on pseudo-orders and half-correctors. Their code
    has integrals by the trapezoid and rounds times to a table; here neither is.

    Examples
    --------
    One call solves Gaussian data, here of mean 1 and deviation 0.5:

    >>> import jax.numpy as jnp
    >>> from shoal.models.denoisers import gaussian
    >>> from shoal.sampling.diffusion import edm, estimate_statistics, solve
    >>> denoiser, schedule = gaussian([1.0], 0.25), edm(0.01, 10.0)
    >>> points = denoiser.fn.sample(jax.random.key(0), 100)
    >>> statistics = estimate_statistics(jax.random.key(1), denoiser, schedule, points)
    >>> x, record = solve(denoiser, schedule, dpm_solver_v3(statistics), jnp.array([[11.0]]), 1)
    >>> x.round(2), record.num_calls
    (Array([[1.5]], dtype=float32), Array([1], dtype=int32))
    """
    statistics = check_statistics(statistics)
    _checks.integer("order", order)
    for name, flag in (
        ("corrector", corrector), ("pseudo_predictor", pseudo_predictor),
        ("pseudo_corrector", pseudo_corrector),
    ):  # fmt: skip
        _checks.check_flag(name, flag)
    if corrector_region is not None:
        region = np.asarray(_checks.real_values("corrector_region", corrector_region), np.float64)
        if region.shape != (2,) or not 0 <= region[0] < region[1] < np.inf:
            raise ValueError(
                "corrector_region must be two times (low, high) with 0 <= low < high, got "
                f"{corrector_region!r}"
            )
        corrector_region = (float(region[0]), float(region[1]))
    start = _checks.choice("start", start, startup.STARTS)
    curves = Curves(statistics, along_axes=True)
    return DPMSolverV3(
        statistics, curves, order, corrector, pseudo_predictor, pseudo_corrector,
        corrector_region, start,
    )  # fmt: skip


def check_statistics(statistics: Any) -> Statistics:
    """Pass on statistics in float64, if they are some; else raise ``TypeError, ValueError``."""
    if not isinstance(statistics, Statistics):
        raise TypeError(
            "statistics must be Statistics, as estimate_statistics returns them, got "
            f"{type(statistics).__name__}"
        )
    parts = {name: part for name, part in statistics._asdict().items() if part is not None}
    for name, part in parts.items():
        _checks.check_finite(f"statistics.{name}", _checks.real_values(f"statistics.{name}", part))
    found = Statistics(**{name: np.asarray(part, np.float64) for name, part in parts.items()})
    grid = found.half_log_snr
    if grid.ndim != 1 or grid.size < 3 or not np.all(np.diff(grid) > 0):
        raise ValueError(
            "statistics.half_log_snr must be at least three rising numbers, got shape "
            f"{grid.shape}: {grid}"
        )
    for name in ("s", "b"):
        part = getattr(found, name)
        if part.shape != found.l.shape:
            raise ValueError(
                f"statistics.{name} must have shape {found.l.shape} as l has, got {part.shape}"
            )
    if found.l.shape[:1] != grid.shape:
        raise ValueError(
            f"statistics.l must have a row for each of the {grid.size} half_log_snr, got shape "
            f"{found.l.shape}"
        )
    return found


def degenerate(form: str, schedule: Schedule, shape: tuple[int, ...] = ()) -> Statistics:
    """Return statistics that make DPM-Solver-v3 the multistep solver in "data" or "noise".

    Examples
    --------
    >>> from shoal.sampling.diffusion import vp_linear
    >>> degenerate("data", vp_linear()).l
    array([1., 1., 1.])
    """
    form = _checks.choice("form", form, ("data", "noise"))
    ends = schedule.half_log_snr(np.array([schedule.t_max, schedule.t_min]))
    fill = lambda value: np.full((3, *shape), value)
    l, s = (1.0, 0.0) if form == "data" else (0.0, -1.0)  # noqa: E741
    return Statistics(np.linspace(ends[0], ends[1], 3), fill(l), fill(s), fill(0.0))
