"""SADA: leave out calls of the denoiser where the path of a sample is steady.

Around DPM-Solver++(2M). With u the number of the step, y = dx/du and

    x̂_{i+1} = x_i + w_0 y_i + w_1 y_{i-1} + w_2 y_{i-2},

a step is steady if the mean over a sample of (x_{i+1} - x̂_{i+1}) (y_i - 2 y_{i-1} + y_{i-2}) is not
negative (Jiang et al. 2025, SADA, criterion 3.4, whose time runs backwards). The next call is then
not made: the noise stays what it was, the data become (x̂ - sigma ε) / alpha. In the last part of a
run, where x hardly turns, all calls but one in L are left out and the data are extrapolated by
Lagrange's polynomial through the last K that were kept.

The sums are Adams and Bashforth's only with the weights "adams-bashforth". Those of the paper are
of second order with a larger error, those of its code of first order: x̂ lags by y'/2. All that is
decided by the sign of a product, which no theorem bounds. The result is meant to be near that of
all calls, not near the solution, and even that fewer steps may do better: on the mixture of digits,
50 quadratic steps with 30 calls end 0.019 from those with 50 calls (46 and no Lagrange phase:
0.003), and 30 steps of DPM-Solver++(2M) 0.003. Here each sample is judged by itself, so that it
does not depend on its batch, unlike in the published code. The time is that of the grid, whose
steps count as equal, so that any grid and schedule will do.
"""

# ruff: noqa: D102 (methods are documented in the protocol)

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion.exponential import advance, midpoint_weights, order_at
from shoal.sampling.diffusion.program import DATA, Atom, Evaluation, Expression
from shoal.sampling.diffusion.solver import Problem, Record, Solver, check_reach

WEIGHTS = {
    "paper": (5 / 6, 5 / 6, -2 / 3),
    "released": (5 / 8, 3 / 4, -3 / 8),
    "adams-bashforth": (23 / 12, -16 / 12, 5 / 12),
}


class Row(NamedTuple):
    """What a step needs that is known beforehand; all arrays over the steps."""

    half_log_snr: Any
    alpha: Any
    sigma: Any
    speed: Any  # dλ/du
    solver: Any  # factors of x and of the last two predictions
    may_skip_next: Any
    is_lagrange: Any
    lagrange: Any
    keeps: Any


class State(NamedTuple):
    """What a step leaves to the next; ``y`` and ``kept`` are newest first."""

    x: jax.Array
    extrapolated: jax.Array
    data: jax.Array
    noise: jax.Array
    y: jax.Array
    kept: jax.Array
    skip: jax.Array
    num_skipped: jax.Array
    num_calls: jax.Array
    failed_at: jax.Array


@dataclasses.dataclass(frozen=True)
class SADA:
    """See `sada`."""

    weights: tuple[float, float, float]
    between: tuple[float, float]
    max_skips: int
    lagrange: tuple[float, int, int] | None

    def run(self, problem: Problem) -> tuple[jax.Array, Record]:
        clock = problem.steps(problem.num_steps)
        if problem.num_steps < 3 or not np.isfinite(clock[:-1]).all():
            raise ValueError(
                "num_steps must be at least 3 and the grid finite in log(alpha / sigma) but at its "
                f"end for sada, got {problem.num_steps} and {clock}"
            )
        check_reach(problem.denoiser, clock)
        x = problem.position
        cast = lambda value: jnp.asarray(value, x.dtype)
        as_row = lambda value: value if value.dtype == bool else cast(value)
        rows = jax.tree.map(as_row, self.plan(clock, problem.lower_order_final))
        scale = cast(problem.scale(clock))
        num = x.shape[0]
        count = jnp.zeros(num, jnp.int32)
        num_kept = self.lagrange[2] if self.lagrange else 1
        several = lambda size: jnp.zeros((size, *x.shape), x.dtype)
        nothing = jnp.zeros_like(x)
        state = State(
            x / scale[0], nothing, nothing, nothing, several(2), several(num_kept),
            jnp.zeros(num, bool), count, count, count - 1,
        )  # fmt: skip
        step = functools.partial(self._step, problem)
        (state, _), positions = jax.lax.scan(step, (state, jnp.zeros((), jnp.int32)), rows)
        end = state.x * scale[-1]
        trajectory = None
        if problem.trajectory:
            path = positions * scale[:-1].reshape(-1, *[1] * x.ndim)
            trajectory = jnp.concatenate([path, end[None]])
        times = cast(problem.schedule.time(clock))
        calls = state.num_calls * problem.denoiser.num_calls
        return end, Record(times, cast(clock), calls, state.failed_at, trajectory)

    def plan(self, clock: np.ndarray, lower_order_final: bool) -> Row:
        """Return what is known beforehand, in float64."""
        num = len(clock) - 1
        index = np.arange(num)
        steps = range(num)
        alpha, sigma = unit_scales(clock[:-1])
        solver = [_two_points(clock, i, order_at(i, num, 2, lower_order_final)) for i in steps]
        # The criterion needs three values of y, of which the third is there at step 2.
        first = max(3, self.between[0] * num)
        judged = (index + 1 >= first) & (index + 1 < self.between[1] * num)
        late, kept, factors = np.zeros(num, bool), np.zeros(num, bool), np.zeros((num, 1))
        if self.lagrange is not None:
            begin, every, size = self.lagrange
            phase = index >= begin * num
            kept = index % every == 0
            late = phase & ~kept & (np.cumsum(kept) >= size)
            factors = np.array([_lagrange(i, every, size) for i in steps])
            judged = judged & ~np.roll(phase, -1)
        return Row(
            clock[:-1], alpha, sigma, np.gradient(clock[:-1]), np.array(solver), judged, late,
            factors, kept,
        )  # fmt: skip

    def _step(self, problem: Problem, carry: tuple[State, jax.Array], row: Row) -> Any:
        state, i = carry
        x = state.x
        wide = lambda mask: mask.reshape(-1, *[1] * (x.ndim - 1))
        axes = tuple(range(1, x.ndim))
        skip = state.skip | row.is_lagrange
        called = jax.lax.cond(
            jnp.all(skip),
            lambda: jnp.zeros_like(x),
            lambda: problem.denoiser.data(x, row.half_log_snr),
        )
        finite = jnp.all(jnp.isfinite(called), axes) | skip
        failed_at = jnp.where((state.failed_at < 0) & ~finite, i, state.failed_at)
        held = (state.extrapolated - row.sigma * state.noise) / row.alpha
        guess = jnp.where(row.is_lagrange, jnp.tensordot(row.lagrange, state.kept, 1), held)
        data = jnp.where(wide(skip), guess, called)
        noise = jnp.where(wide(state.skip), state.noise, (x - row.alpha * data) / row.sigma)
        y = row.speed * row.sigma * (row.sigma * x - noise)
        after = row.solver[0] * x + row.solver[1] * data + row.solver[2] * state.data
        w = self.weights
        extrapolated = x + w[0] * y + w[1] * state.y[0] + w[2] * state.y[1]
        bend = y - 2 * state.y[0] + state.y[1]
        steady = jnp.mean((after - extrapolated) * bend, axes) >= 0
        num_skipped = jnp.where(skip, state.num_skipped + 1, 0)
        skip_next = steady & row.may_skip_next & (num_skipped < self.max_skips)
        kept = jnp.concatenate([data[None], state.kept[:-1]])
        state = State(
            after, extrapolated, data, noise, jnp.stack([y, state.y[0]]),
            jnp.where(row.keeps, kept, state.kept), skip_next, num_skipped,
            state.num_calls + ~skip, failed_at,
        )  # fmt: skip
        return (state, i + 1), x if problem.trajectory else None


def sada(
    weights: str = "adams-bashforth", *, between: tuple[float, float] = (0.2, 0.94),
    max_skips: int = 4, lagrange: tuple[float, int, int] | None = (0.48, 4, 4),
) -> Solver:  # fmt: skip
    """DPM-Solver++(2M) that leaves out calls of the denoiser where a sample's path is steady.

    For many steps, some 50: fewer steps with a solver of higher order do better where few calls
    are wanted (see the module). ``num_steps`` is the number of steps, and ``record.num_calls`` the
    calls of each sample. A batch is evaluated as a whole unless none of it needs the call, so that
    time is saved by the Lagrange phase, and by the criterion for single samples.

    Parameters
    ----------
    weights
        ``"adams-bashforth"``, ``"paper"`` or ``"released"``, of the extrapolation, see the module.
    between
        Part of the run, as fractions of the steps, in which the criterion is used.
    max_skips
        Most steps in a row without a call by the criterion.
    lagrange
        Where the Lagrange phase begins, as a fraction of the steps; L, its steps per call; and K,
        the number of points. None for no such phase.

    Returns
    -------
    Solver
        For `solve`.

    Raises
    ------
    TypeError, ValueError
        For impossible arguments.

    References
    ----------
    Jiang, Wang, Luo, Zhang and others (2025), SADA: stability-guided adaptive diffusion
    acceleration, sections 3.3 and 3.4, and the released code.

    Examples
    --------
    >>> from shoal.sampling.core.denoiser import Denoiser
    >>> from shoal.sampling.diffusion import edm, solve
    >>> denoiser = Denoiser(lambda x, t: x * 0.25 / (0.25 + t**2), "data", edm())
    >>> x, record = solve(denoiser, edm(), sada(), 80.0 * jnp.ones((1, 2)), 50)
    >>> int(record.num_calls[0]) < 50
    True
    """
    weights = _checks.choice("weights", weights, tuple(WEIGHTS))
    begin, end = _pair("between", between)
    if not 0 <= begin <= end <= 1:
        raise ValueError(f"between must be two rising fractions, got {between}")
    max_skips = _checks.integer("max_skips", max_skips)
    if lagrange is not None:
        if not isinstance(lagrange, tuple) or len(lagrange) != 3:
            raise ValueError(f"lagrange must be three numbers or None, got {lagrange!r}")
        at = float(_checks.real_parameter("lagrange", lagrange[0], 0.0, include_low=True))
        every = _checks.integer("lagrange", lagrange[1], 2)
        lagrange = (at, every, _checks.integer("lagrange", lagrange[2], 2))
    return SADA(WEIGHTS[weights], (begin, end), max_skips, lagrange)


def _pair(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise ValueError(f"{name} must be two numbers, got {value!r}")
    first, second = (float(_checks.real_parameter(name, v, scalar=True)) for v in value)
    return first, second


def _two_points(clock: np.ndarray, i: int, order: int) -> tuple[float, float, float]:
    """Return the factors of x and of the last two predictions in a step of 2M."""
    start, nothing = Expression({Atom("x", 0): 1.0}), Expression({})
    atoms = [Atom(DATA, 0), Atom(DATA, 1)]
    points = [
        Evaluation(clock[i - j], start, Expression({atom: 1.0}), nothing)
        for j, atom in enumerate(atoms[:order])
    ]
    moved = advance("data", start, clock[i], clock[i + 1], points, midpoint_weights).terms
    return tuple(float(moved.get(atom, 0.0)) for atom in (Atom("x", 0), *atoms))  # type: ignore


def _lagrange(i: int, every: int, size: int) -> np.ndarray:
    """Return the weights at step ``i`` of the last kept data, newest first."""
    nodes = (i - 1) // every * every - every * np.arange(size)
    return np.array(
        [np.prod([(i - b) / (a - b) for b in nodes if b != a]) for a in nodes], np.float64
    )
