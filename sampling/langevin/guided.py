"""Reward-guided Langevin dynamics on a latent Gaussian prior.

The law is the prior tilted by a reward R at temperature T,

    π(x) ∝ exp(R(x) / T - |x|²/2),

as for the latent noise of a generative model whose output R judges. The dynamics is that of `ula`,
dx = (∇R/T - x) dt + √2 dW, and a step of size h solves it exactly but for the gradient, which it
holds fixed: with a = e^(-h) and a standard normal vector ξ,

    y = a x + (1 - a) ∇R(x)/T + √(1 - a²) ξ.

Where R is constant that leaves the prior exactly invariant, whatever h. Where R/T = b x - λx²/2 the
stationary mean b / (1 + λ) is exact, the variance is 1 / ((1 + λ) (1 - λ tanh(h/2))), and the step
is stable for λ tanh(h/2) < 1: for every h if λ < 1. In general the bias is of order h.

Adjusted, the move is accepted with the ratio in which the prior cancels (with c = 1 + a),

    log α = R(y)/T - R(x)/T + u(y)·(x - a y)/c - u(x)·(y - a x)/c
            - (tanh(h/2)/2) (|u(y)|² - |u(x)|²),    u = ∇R/T,

so that π is exact, and the acceptance rate does not fall with the dimension if R depends on few
coordinates.

*Adaptive time.* A clock G(R) > 0 runs the process at another speed where the reward is high. The
law stays π only if the speed's gradient enters the drift,

    dx = (G (∇R/T - x) + ∇G) dt + √(2G) dW,

which turns h into h G(R(x)) and u into (1/T + G'(R)/G(R)) ∇R: no second gradient. Without ∇G the
law would be proportional to π/G. A G that falls where R rises gives a correction against ∇R (the
released code of the paper adds it along ∇R). The unadjusted bias is of order h again. Adjusted, a
clock keeps π exact too, but the proposals of two points have different variances: the acceptance
rate then falls as the dimension grows.

References: Min et al., "ORIGEN: Zero-shot 3D orientation grounding in text-to-image generation",
arXiv 2503.22194 (its step is h = -log(1 - s)/2, with 1 - a to first order, s/2); Cotter, Roberts,
Stuart and White, "MCMC methods for functions: modifying old algorithms to make them faster",
Statistical Science 28 (2013), section 4.3 (pCNL, with a = (2 - δ)/(2 + δ), tanh(h/2) = δ/2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core._checks import (
    check_callable,
    check_entries,
    check_flag,
    real_parameter,
    real_scalar,
)
from shoal.sampling.core.algorithm import (
    Algorithm,
    LogDensity,
    Position,
    Sampler,
    Status,
    proposal_status,
)
from shoal.sampling.langevin.metric import as_metric
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler
from shoal.sampling.langevin.overdamped import Scheme, adjusted, unadjusted

Clock = Callable[[jax.Array], jax.Array]


class GuidedState(NamedTuple):
    """Where a chain is.

    Attributes
    ----------
    position
        The latent point, a pytree of floating arrays.
    log_density
        R/T - |x|²/2, a scalar: the log density of the tilted prior up to a constant.
    reward
        R, a scalar.
    reward_gradient
        ∇R, flat, ``(d,)``.
    """

    position: Position
    log_density: jax.Array
    reward: jax.Array
    reward_gradient: jax.Array


@dataclass(frozen=True)
class SigmoidClock:
    """A clock that falls from ``fast`` to ``slow`` as the reward rises; made by `sigmoid_clock`."""

    slow: float
    fast: float
    rate: float
    centre: float

    def __call__(self, reward: jax.Array) -> jax.Array:
        """Return G(R), of the shape of ``reward``."""
        return self.slow + (self.fast - self.slow) * jax.nn.sigmoid(
            self.rate * (self.centre - reward)
        )


def sigmoid_clock(
    slow: float = 1 / 3, fast: float = 4 / 3, rate: float = 0.6, centre: float = 0.0
) -> SigmoidClock:
    """Return the clock G(R) = slow + (fast - slow) / (1 + exp(rate (R - centre))).

    Large steps where the reward is poor, small ones where it is good. For rewards that are never
    positive the paper takes ``lambda r: 1/3 - jnp.tanh(0.3 * r)``, which is a clock as well.

    Parameters
    ----------
    slow, fast
        Limits of G at high and low reward, 0 < slow <= fast.
    rate
        Steepness, per unit of reward, >= 0.
    centre
        The reward at which G is halfway.

    Raises
    ------
    TypeError, ValueError
        If one is no finite real number or out of range.

    Examples
    --------
    >>> from shoal.sampling.langevin import guided
    >>> clock = guided.sigmoid_clock(slow=0.5, fast=1.5)
    >>> float(clock(0.0))
    1.0
    """
    real_parameter("slow", slow, 0.0, scalar=True)
    real_parameter("fast", fast, 0.0, scalar=True)
    real_parameter("rate", rate, 0.0, include_low=True, scalar=True)
    real_parameter("centre", centre, scalar=True)
    if slow > fast:
        raise ValueError(f"fast must be at least slow={slow}, got {fast}")
    return SigmoidClock(float(slow), float(fast), float(rate), float(centre))


def reward_guided(
    step_size: Any = 0.1, temperature: Any = 1.0, clock: Clock | None = None, adjust: bool = False
) -> Sampler:
    """Reward-guided Langevin sampler of N(0, I) exp(R / temperature), to be called with R.

    Parameters
    ----------
    step_size
        h > 0, a float or scalar array, in units of time. The initial value where warm-up tunes it:
        to an acceptance rate of 0.574 if adjusted, else to 0.98, which is not enforced.
    temperature
        T > 0 of the tilt, in units of the reward. Low: high rewards; high: the prior.
    clock
        G, a smooth function of the scalar R to a positive scalar, such as `sigmoid_clock()`, by
        which h is multiplied. None: constant speed.
    adjust
        Whether to accept or reject, which makes the law exact.

    Returns
    -------
    Sampler
        Called with the reward, a function of the position to a floating scalar, returns the
        `Algorithm`; state `GuidedState`, info
        `shoal.sampling.langevin.overdamped.OverdampedInfo`. One reward and gradient a step.

    Raises
    ------
    TypeError, ValueError
        If ``step_size`` or ``temperature`` is not positive, or ``clock`` no function; from
        ``init``, if the clock returns no positive scalar at the start.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.langevin import guided
    >>> sampler = guided.reward_guided(0.5, temperature=0.2, adjust=True)
    >>> algorithm = sampler(lambda x: -jnp.sum((x[:2] - 1.0) ** 2))
    >>> state = algorithm.init(jnp.zeros(16))
    >>> state, info = algorithm.step(jax.random.key(0), state)
    >>> state.position.shape, 0.0 <= float(info.acceptance_rate) <= 1.0
    ((16,), True)
    """
    check_flag("adjust", adjust)
    if clock is not None:
        check_callable("clock", clock)
    names = ("step_size", "temperature")
    return make_sampler(
        _build,
        dict(zip(names, (step_size, temperature), strict=True)),
        {name: check_positive(name) for name in names},
        options=(("adjust", adjust), ("clock", clock)),
        target_acceptance=0.574 if adjust else 0.98,
        is_adjusted=adjust,
    )


def _build(
    reward: LogDensity, step_size: Any, temperature: Any, clock: Clock | None, adjust: bool
) -> Algorithm:
    def init(position: Position, key: jax.Array | None = None) -> GuidedState:
        value, gradient = evaluate_start(reward, position, as_metric(None))
        if clock is not None:
            speed = real_scalar("clock", clock(value))
            check_entries(
                "clock at the start", speed, lambda g: (g > 0) & (g < jnp.inf), "positive"
            )
        return _state(position, value, gradient, temperature)

    def propose(key: jax.Array, state: GuidedState) -> Any:
        x, unravel = ravel_pytree(state.position)
        noise = jax.random.normal(key, x.shape, x.dtype)
        here = _pace(clock, step_size, temperature, state.reward)
        push = here.pull * state.reward_gradient
        move = (1 - here.decay) * push + jnp.sqrt(here.variance) * noise
        y = here.decay * x + move
        value, gradient = jax.value_and_grad(lambda flat: reward(unravel(flat)))(y)
        new = _state(unravel(y), value, gradient, temperature)
        there = _pace(clock, step_size, temperature, value)
        change = _guidance(there, there.pull * gradient, x - there.decay * y)
        change = change - _guidance(here, push, move)
        if clock is not None:
            change = change + _prior_change(here, there, x, y)
        status = proposal_status(new.log_density, jnp.isfinite(change) & (there.variance > 0))
        log_acceptance = (value - state.reward) / jnp.asarray(temperature, x.dtype) + change
        return new, jnp.where(status == Status.OK, log_acceptance, -jnp.inf), status

    return (adjusted if adjust else unadjusted)(Scheme(init, propose))


class _Pace(NamedTuple):
    """What a step from a point does: y = decay x + (1 - decay) pull ∇R + √variance ξ."""

    decay: jax.Array
    variance: jax.Array
    pull: jax.Array


def _pace(clock: Clock | None, step_size: Any, temperature: Any, reward: jax.Array) -> _Pace:
    h = jnp.asarray(step_size, reward.dtype)
    pull = 1 / jnp.asarray(temperature, reward.dtype)
    if clock is not None:
        speed, slope = jax.value_and_grad(clock)(reward)
        h, pull = h * speed, pull + slope / speed
    return _Pace(jnp.exp(-h), -jnp.expm1(-2 * h), pull)


def _state(
    position: Position, reward: jax.Array, gradient: jax.Array, temperature: Any
) -> GuidedState:
    x = ravel_pytree(position)[0]
    log_density = reward / jnp.asarray(temperature, x.dtype) - jnp.sum(x**2) / 2
    return GuidedState(position, log_density, reward, gradient)


def _guidance(pace: _Pace, push: jax.Array, move: jax.Array) -> jax.Array:
    """Return by how much the guidance raises the log density of a proposal: u·(y - ax)/c - ..."""
    share = (1 - pace.decay) / 2
    return jnp.sum(push * (move - share * push)) / (1 + pace.decay)


def _prior_change(here: _Pace, there: _Pace, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return log φ(y) q(y, x) - log φ(x) q(x, y) of the unguided moves, φ the prior.

    Written in |y - x|², as the norms of x and y are far larger than what they differ by.
    """
    norm = jnp.sum(x**2 + y**2) / 2
    square = jnp.sum((y - x) ** 2) / 2
    outer = 1 / (1 + there.decay) - 1 / (1 + here.decay)
    inner = there.decay / there.variance - here.decay / here.variance
    log_ratio = jnp.log(there.variance / here.variance)
    return -(norm * outer + square * inner + x.size / 2 * log_ratio)
