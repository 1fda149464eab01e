"""DPM-Solver-12 and -23: steps as long as an error estimate allows.

A step of order p from λ_s, of length h, has one of order p - 1 inside of it for no more calls.
Their difference, over what is tolerated, decides (Lu et al. 2022, DPM-Solver, appendix C):

    δ = max(atol, rtol max(|x_low|, |x_previous|)),
    E = max over samples of RMS((x_high - x_low) / δ).

The step is accepted if E <= 1, and the next is tried with h safety E^{-1/p}. The number of calls
is known only afterwards. All of it is one compiled loop.
"""

# ruff: noqa: D102 (methods are documented in the protocol)

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from shoal.sampling.core import _checks
from shoal.sampling.core.denoiser import convert
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion.solver import Problem, Record, Solver, check_reach

_NUM_TERMS = 18
_LEAST_CHANGE = 0.05


class State(NamedTuple):
    """Where the loop is: position, lower-order position before it, λ, step length, counts."""

    position: jax.Array
    previous: jax.Array
    half_log_snr: jax.Array
    step: jax.Array
    num_evaluations: jax.Array
    failed_at: jax.Array


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """See `adaptive`."""

    order: int
    form: str
    rtol: float
    atol: float
    initial_step: float
    safety: float
    per_sample: bool

    def run(self, problem: Problem) -> tuple[jax.Array, Record]:
        clock = problem.steps(1)
        if not all(map(math.isfinite, clock)):
            raise ValueError(
                f"grid must be finite in log(alpha / sigma) for adaptive, got {clock}; take "
                "t_min > 0 and t_max < 1"
            )
        if problem.num_steps < self.order:
            raise ValueError(
                f"num_steps must be at least {self.order}, the calls of one adaptive step; got "
                f"{problem.num_steps}"
            )
        if problem.trajectory:
            raise ValueError("trajectory must be False: adaptive steps are as many as it takes")
        check_reach(problem.denoiser, clock)
        x = problem.position
        cast = lambda value: jnp.asarray(value, x.dtype)
        ends, scale = cast(clock), cast(problem.scale(clock))
        solve = functools.partial(self._solve, problem.denoiser.data, ends, problem.num_steps)
        if self.per_sample:
            state = jax.vmap(lambda one: solve(one[None]))(x / scale[0])
            state = state._replace(position=state.position[:, 0], failed_at=state.failed_at[:, 0])
        else:
            state = solve(x / scale[0])
        arrived = state.half_log_snr == ends[1]
        evaluations = jnp.broadcast_to(state.num_evaluations, x.shape[:1])
        failed_at = jnp.where((state.failed_at < 0) & ~arrived, evaluations, state.failed_at)
        alive = (failed_at < 0).reshape(-1, *[1] * (x.ndim - 1))
        end = jnp.where(alive, state.position * scale[1], jnp.nan)
        calls = evaluations * problem.denoiser.num_calls
        return end, Record(cast(problem.schedule.time(clock)), ends, calls, failed_at, None)

    def _solve(
        self, predict: Callable[..., jax.Array], ends: jax.Array, cap: int, x: jax.Array
    ) -> State:
        """Go from one end to the other with steps common to the samples of ``x``."""
        direction = jnp.sign(ends[1] - ends[0])

        def goes_on(state: State) -> jax.Array:
            under_way = state.half_log_snr != ends[1]
            affordable = state.num_evaluations + self.order <= cap
            return under_way & affordable & jnp.any(state.failed_at < 0)

        def attempt(state: State) -> State:
            remaining = jnp.abs(ends[1] - state.half_log_snr)
            h = jnp.minimum(state.step, remaining)
            low, high, finite = _attempt(
                predict, self.form, self.order, state.position, state.half_log_snr, direction * h
            )
            failed_at = _first_failure(state.failed_at, finite, state.num_evaluations)
            tolerated = jnp.maximum(
                self.atol, self.rtol * jnp.maximum(jnp.abs(low), jnp.abs(state.previous))
            )
            axes = tuple(range(1, x.ndim))
            errors = jnp.sqrt(jnp.mean(((high - low) / tolerated) ** 2, axes))
            error = jnp.max(jnp.where(failed_at < 0, errors, 0.0))
            accept = error <= 1
            # An error that overflowed would stop the clock.
            change = jnp.maximum(self.safety * error ** (-1 / self.order), _LEAST_CHANGE)
            there = jnp.where(h == remaining, ends[1], state.half_log_snr + direction * h)
            return State(
                jnp.where(accept, high, state.position),
                jnp.where(accept, low, state.previous),
                jnp.where(accept, there, state.half_log_snr),
                change * h,
                state.num_evaluations + self.order,
                failed_at,
            )

        failed_at = jnp.full(x.shape[:1], -1, jnp.int32)
        step = jnp.asarray(self.initial_step, x.dtype)
        start = State(x, x, ends[0], step, jnp.zeros((), jnp.int32), failed_at)
        return jax.lax.while_loop(goes_on, attempt, start)


def _attempt(
    predict: Callable[..., jax.Array],
    form: str,
    order: int,
    x: jax.Array,
    s: jax.Array,
    h: jax.Array,
) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
    """Return the lower and the higher order, and which samples each call was finite for."""
    finite = []

    def model(position: jax.Array, fraction: float) -> jax.Array:
        at = s + fraction * h
        data = predict(position, at)
        finite.append(jnp.all(jnp.isfinite(data), tuple(range(1, x.ndim))))
        return convert(data, position, *unit_scales(at), "data", form)

    (alpha_s, sigma_s), z = unit_scales(s), -h if form == "data" else h

    def move(fraction: float, constant: Any, linear: Any = 0.0) -> jax.Array:
        """Go a fraction of the step with the prediction constant + linear · fraction done."""
        alpha, sigma = unit_scales(s + fraction * h)
        ratio, gain = (sigma / sigma_s, alpha) if form == "data" else (alpha / alpha_s, -sigma)
        phi_1, phi_2 = _phi(1, fraction * z), _phi(2, fraction * z)
        return ratio * x + gain * fraction * h * (phi_1 * constant + phi_2 * linear)

    m_0 = model(x, 0.0)
    if order == 2:
        m_1 = model(move(1 / 2, m_0), 1 / 2)
        return move(1.0, m_0), move(1.0, m_1), finite
    m_1 = model(move(1 / 3, m_0), 1 / 3)
    m_2 = model(move(2 / 3, m_0, 2 * (m_1 - m_0)), 2 / 3)
    return move(1.0, m_0 + 1.5 * (m_1 - m_0)), move(1.0, m_0, 1.5 * (m_2 - m_0)), finite


def _first_failure(failed_at: jax.Array, finite: list[jax.Array], done: jax.Array) -> jax.Array:
    for i, good in enumerate(finite):
        failed_at = jnp.where((failed_at < 0) & ~good, done + i, failed_at)
    return failed_at


def _phi(k: int, z: jax.Array) -> jax.Array:
    """Return φ_1 or φ_2 inside a compiled program, accurate in its own precision for every z."""
    small = jnp.clip(z, -1, 1)
    series = jnp.zeros_like(z)
    for i in reversed(range(_NUM_TERMS)):
        series = series * small + 1 / math.factorial(i + k)
    large = jnp.where(jnp.abs(z) > 1, z, 1.0)
    exact = jnp.expm1(large) / large
    return jnp.where(jnp.abs(z) > 1, exact if k == 1 else (exact - 1) / large, series)


def adaptive(
    order: int = 3, form: str = "noise", *, rtol: float = 0.05, atol: float = 0.0078,
    initial_step: float = 0.05, safety: float = 0.9, per_sample: bool = False,
) -> Solver:  # fmt: skip
    """Adaptive DPM-Solver: steps in λ as long as an error estimate allows.

    ``num_steps`` is a cap on the calls of the denoiser, rejected steps included; samples that
    would need more are NaN and have ``record.failed_at`` >= 0. Of the grid only the ends count.

    Parameters
    ----------
    order
        2 (DPM-Solver-12) or 3 (DPM-Solver-23), which is also the number of calls of a step.
    form
        Prediction that is interpolated: ``"noise"`` (DPM-Solver) or ``"data"`` (DPM-Solver++).
    rtol, atol
        Error tolerated in one step, relative and absolute, of x at unit variance.
    initial_step
        First step to try, in λ.
    safety
        What the next step is shortened by, between 0 and 1.
    per_sample
        Whether each sample has steps of its own. Otherwise, as published, all have the same, those
        of the sample with the largest error: then a sample depends on the others of its batch.
        With it the denoiser is called on batches of one, mapped.

    References
    ----------
    Lu, Zhou, Bao, Chen, Li and Zhu (2022), DPM-Solver, appendix C.

    Examples
    --------
    >>> adaptive(3, rtol=0.01).rtol
    0.01
    """
    order = _checks.integer("order", order)
    if order not in (2, 3):
        raise ValueError(f"order must be 2 or 3, got {order}")
    if form not in ("noise", "data"):
        raise ValueError(f"form must be 'noise' or 'data', got {form!r}")
    _checks.check_flag("per_sample", per_sample)
    number = lambda name, value, high=math.inf: float(
        _checks.real_parameter(name, value, 0.0, high, scalar=True)
    )
    return Adaptive(
        order, form, number("rtol", rtol), number("atol", atol),
        number("initial_step", initial_step), number("safety", safety, 1.0), per_sample,
    )  # fmt: skip
