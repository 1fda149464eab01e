"""The unified framework: every decision of an exponential integrator free, step by step.

A step from λ_s to λ_t, h = λ_t - λ_s, takes a form of the prediction, a start among the points seen
so far, and Taylor's series of the prediction there (Liu et al. 2024, USF, section 3)

    data:   x_t = (sigma_t / sigma_s) x_s + alpha_t Σ_{k<n} h^{k+1} φ_{k+1}(-h) d^k x_0 / dλ^k
    noise:  x_t = (alpha_t / alpha_s) x_s - sigma_t Σ_{k<n} h^{k+1} φ_{k+1}(h) d^k ε / dλ^k
    v3:     the same about a model's statistics, see `dpm_solver_v3`

with every derivative from its own number m of points: row k of the solution of the m equations
f(λ_j) - f(λ_s) = Σ_k (λ_j - λ_s)^k f^{(k)} / k!. The first derivative may be multiplied by a factor
1 + O(h) ("relaxation"), the step may be repeated with the next prediction in it ("corrector"), and
the first call may be saved where x is nearly all noise ("analytic first step"). Known solvers are
schedules of such decisions; `search_schedule` looks for better ones.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion._decisions import (
    SolverSchedule,
    Update,
    active,
    check_schedule,
    relaxation_factor,
    series,
    weights,
)
from shoal.sampling.diffusion._v3_integrals import Curves
from shoal.sampling.diffusion.dpm_solver_v3 import residual
from shoal.sampling.diffusion.exponential import advance
from shoal.sampling.diffusion.program import Evaluation, Expression, Program, Tape, constant
from shoal.sampling.diffusion.solver import LinearSolver, Problem, Record, Steps, execute
from shoal.sampling.diffusion.statistics import Statistics


class Point(NamedTuple):
    """A call of the denoiser, and x where it was made, perhaps corrected since."""

    seen: Evaluation
    position: Expression

    @property
    def half_log_snr(self) -> float:
        return self.seen.half_log_snr

    def form(self, name: str) -> Expression:
        return self.seen.form(name)


@dataclasses.dataclass(frozen=True, eq=False)
class Unified(LinearSolver):
    """See `usf`."""

    schedule: SolverSchedule
    curves: Curves | None
    mean: Any

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        if num_steps != self.schedule.num_calls:
            raise ValueError(
                f"num_steps must be {self.schedule.num_calls}, the calls of the solver's "
                f"schedule; got {num_steps}"
            )
        return self.record(self._clock(steps))[0]

    def run(self, problem: Problem) -> tuple[jax.Array, Record]:
        program = self.program(problem.steps, problem.num_steps, problem.lower_order_final)
        if self.schedule.first is None:
            return execute(program, problem)
        clock = self._clock(problem.steps)
        return execute_from(problem, clock[0], self.record(clock)[1], program)

    def record(self, clock: np.ndarray) -> tuple[Program, tuple[Any, Any]]:
        """Return the table from the first call on, and the factor and offset that lead there."""
        tape, points = Tape(), list[Point]()
        steps, first, x = self.schedule.steps, (1.0, 0.0), tape.start
        for i, (step, s, t) in enumerate(zip(steps, clock[:-1], clock[1:], strict=True)):
            if i or self.schedule.first is None:
                here = Point(seen := tape.evaluate(x, s), seen.position)
                last = steps[i - 1]
                if i and last.corrector is not None:
                    origin, *others = _from(points, last.start)
                    x = self._advance(last.form, last.corrector, s, [origin, here, *others])
                    here = Point(here.seen, x := tape.keep(x, "corrected"))
                    if last.implicit:
                        here = Point(seen := tape.evaluate(x, s), seen.position)
            else:
                guess = self._guess(s, tape.start)
                first = _affine(self._advance(step.form, step.update, t, [guess]))
                here = self._guess(s, (tape.start - constant(first[1])) / first[0])
            points.insert(0, here)
            x = self._advance(step.form, step.update, t, _from(points, step.start))
            if i == 0 and self.schedule.first is not None:
                x = tape.start  # which is where the guess leads, but for rounding
        return tape.finish(x, clock[-1]), first

    def _clock(self, steps: Steps) -> np.ndarray:
        if self.schedule.half_log_snr is None:
            return steps(len(self.schedule.steps))
        return check_ends(np.array(self.schedule.half_log_snr), steps)

    def _guess(self, half_log_snr: float, x: Expression) -> Point:
        """Return what is taken for the first call, without making it."""
        alpha, sigma = unit_scales(np.array(half_log_snr))
        data = (1 - sigma) / alpha * x if self.schedule.first == "noise" else constant(self.mean)
        return Point(Evaluation(half_log_snr, x, data, Expression({})), x)

    def _advance(self, form: str, update: Update, t: float, points: list[Point]) -> Expression:
        """Return x at ``t`` from the first of ``points``."""
        s, start = points[0].half_log_snr, points[0].position
        needed = 1 + max(active(update), default=0)
        points = points[:needed]
        if form != "v3":
            rule = functools.partial(weights, update, t - s)
            return advance(form, start, s, t, points, rule)  # type: ignore[arg-type]
        assert self.curves is not None
        rule = functools.partial(series, update, relaxation_factor(update.relaxation, 0.0, t - s))
        clock = [point.half_log_snr for point in points]
        found = self.curves.step(s, t, clock, rule=rule)
        x = found.base * start + constant(found.constant)
        for weight, point in zip(found.points, points, strict=True):
            x = x + weight * residual(self.curves, point.seen)
        return x


def usf(
    schedule: SolverSchedule, *, statistics: Statistics | None = None, mean: Any = None
) -> Unified:
    """Make a solver of a schedule of decisions.

    ``num_steps`` of `solve` must be ``schedule.num_calls``, and ``lower_order_final`` changes
    nothing. Where the schedule has its own λ, only the ends of the grid count, and they must agree.
    With an analytic first step the record begins at the first call.

    Parameters
    ----------
    schedule
        What to do; `multistep_schedule` and `singlestep_schedule` give those of known solvers.
    statistics
        Of `estimate_statistics`, for steps of form "v3".
    mean
        Mean of the data, a scalar or of the shape of a sample, for ``first="data"``.

    Returns
    -------
    LinearSolver
        For `solve`.

    Raises
    ------
    TypeError, ValueError
        For impossible schedules, naming the step.

    References
    ----------
    Liu, Ning, Lin, Yang and Wang (2024), A unified sampling framework for solver searching of
    diffusion probabilistic models, section 3 and the released code.

    Examples
    --------
    DPM-Solver++(2M) with a corrector in its second step:

    >>> from shoal.sampling.diffusion import Update, multistep_schedule
    >>> schedule = multistep_schedule(4, 2, relaxation="bh2")
    >>> second = schedule.steps[1]._replace(corrector=Update(3))
    >>> steps = (schedule.steps[0], second, *schedule.steps[2:])
    >>> usf(schedule._replace(steps=steps)).schedule.num_calls
    4
    """
    check_schedule(schedule)
    if statistics is not None and not isinstance(statistics, Statistics):
        raise TypeError(f"statistics must be Statistics, got {type(statistics).__name__}")
    if statistics is None and any(step.form == "v3" for step in schedule.steps):
        raise ValueError('statistics must be given for steps of form "v3", got None')
    if mean is None and schedule.first == "data":
        raise ValueError('mean must be given for schedule.first == "data", got None')
    if mean is not None:
        mean = np.asarray(_checks.real_parameter("mean", mean), np.float64)
    return Unified(schedule, Curves(statistics) if statistics is not None else None, mean)


def execute_from(
    problem: Problem, half_log_snr: float, first: tuple[Any, Any], program: Program
) -> tuple[jax.Array, Record]:
    """Run a program whose first call is at a factor times the start, plus an offset."""
    cast = lambda value: jnp.asarray(value, problem.position.dtype)
    before, after = problem.scale(half_log_snr), problem.scale(program.half_log_snr[0])
    moved = cast(first[0] * after / before) * problem.position + cast(first[1] * after)
    return execute(program, problem._replace(position=moved))


def check_ends(clock: np.ndarray, steps: Steps) -> np.ndarray:
    """Return ``clock`` if it has the ends of the grid that was asked for."""
    ends = steps(1)
    if not np.allclose(ends, clock[[0, -1]], rtol=1e-5, atol=1e-5):
        raise ValueError(
            f"grid must go from {clock[0]} to {clock[-1]} in log(alpha / sigma), for which the "
            f"solver was made; got {ends[0]} to {ends[1]}"
        )
    return clock


def _affine(moved: Expression) -> tuple[Any, Any]:
    """Return the factor of the start, and the constant, that ``moved`` consists of."""
    of = lambda expression: next(iter(expression.terms))
    terms = moved.terms
    return terms[of(Tape().start)], terms.get(of(constant(0.0)), 0.0)


def _from(points: list[Point], start: int) -> list[Point]:
    """Return the start and the other points, newest first."""
    return [points[-start - 1], *points[: -start - 1], *points[-start:]]
