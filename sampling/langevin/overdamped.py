"""Overdamped Langevin dynamics: draws from exp(log_density), given its value and gradient.

One step of size h with inverse mass matrix M = L Lᵀ and a standard normal vector ξ proposes

    y = x + h M ∇log π(x) + √(2h) L ξ.

`ula` always moves there. It is biased: on a Gaussian with precision λ (and M = 1) its stationary
variance is 1 / (λ (1 - h λ / 2)), and it is stable for h < 2 / λ. `mala` accepts the move with the
Metropolis-Hastings probability and leaves π exactly invariant. Both cost one evaluation of value
and gradient a step; that of the current point is kept in the state. Where M is a function of the
position the drift gets the divergence of M besides: see `shoal.sampling.langevin.position_metric`.

References: Roberts and Tweedie, "Exponential convergence of Langevin distributions and their
discrete approximations", Bernoulli 2 (1996), sections 1.4.1 and 1.4.2; Roberts and Rosenthal,
"Optimal scaling of discrete approximations to Langevin diffusions", JRSS B 60 (1998), for the
acceptance rate 0.574.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core.algorithm import (
    Algorithm,
    LogDensity,
    Position,
    Sampler,
    Status,
    proposal_status,
)
from shoal.sampling.core.random import check_key
from shoal.sampling.langevin import position_metric
from shoal.sampling.langevin._accept import accept, choose, probability
from shoal.sampling.langevin.metric import Metric, as_metric
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler


class OverdampedState(NamedTuple):
    """Where a chain is.

    Attributes
    ----------
    position
        The point, a pytree of floating arrays.
    log_density
        Its log density, a scalar.
    score
        The gradient of the log density there, as a flat vector ``(d,)``.
    """

    position: Position
    log_density: jax.Array
    score: jax.Array


class Scheme(NamedTuple):
    """A proposal and what accepting it takes; `unadjusted` and `adjusted` make it an algorithm.

    Attributes
    ----------
    init
        ``init(position, key=None) -> state``.
    propose
        ``propose(key, state) -> (proposed state, log acceptance ratio, status)``.
    """

    init: Callable[..., Any]
    propose: Callable[[jax.Array, Any], tuple[Any, jax.Array, jax.Array]]


class OverdampedInfo(NamedTuple):
    """What happened in a step.

    Attributes
    ----------
    acceptance_rate
        The Metropolis-Hastings acceptance probability of the proposal, in [0, 1]. `ula` moves
        regardless; there the number tells how far its step is from being reversible.
    is_accepted
        Whether the chain moved to the proposal.
    status
        int8 `shoal.sampling.core.algorithm.Status` code of the proposal.
    """

    acceptance_rate: jax.Array
    is_accepted: jax.Array
    status: jax.Array


def ula(step_size: Any = 0.1, metric: Any = None) -> Sampler:
    """Unadjusted Langevin algorithm: cheap and biased by the step size.

    Parameters
    ----------
    step_size
        h > 0, a float or scalar array, in units of time (squared length over ``M``). The initial
        value where warm-up tunes it, to an acceptance rate of 0.98 that is not enforced: in few
        dimensions that leaves a variance some percent too large.
    metric
        M, the inverse mass matrix: None (identity), scalar, ``(d,)`` diagonal, ``(d, d)`` or a
        `shoal.sampling.langevin.metric.low_rank`, over the raveled position. The closer to the
        target's covariance, the better. Or a function of the position that returns ``(d,)`` or
        ``(d, d)``, which warm-up does not tune (`shoal.sampling.langevin.position_metric`).

    Returns
    -------
    Sampler
        Called with a log density, returns the `Algorithm`; state `OverdampedState` (or
        `PositionMetricState`), info `OverdampedInfo`. Works in the dtype of the position.

    Raises
    ------
    ValueError
        If ``step_size`` is not positive or ``metric`` not positive definite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.ula(step_size=0.1)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3))
    >>> state, info = algorithm.step(jax.random.key(0), state)
    >>> state.position.shape, bool(info.is_accepted)
    ((3,), True)
    """
    return _sampler(_build_ula, step_size, metric, 0.98, is_adjusted=False)


def mala(step_size: Any = 0.1, metric: Any = None) -> Sampler:
    """Metropolis-adjusted Langevin algorithm: `ula`'s move, accepted so that π is exact.

    Parameters
    ----------
    step_size
        h > 0, a float or scalar array, in units of time (squared length over ``M``). The initial
        value where warm-up tunes it, to an acceptance rate of 0.574.
    metric
        M, the inverse mass matrix: None (identity), scalar, ``(d,)`` diagonal, ``(d, d)`` or a
        `shoal.sampling.langevin.metric.low_rank`, over the raveled position. The closer to the
        target's covariance, the better. Or a function of the position that returns ``(d,)`` or
        ``(d, d)``, which warm-up does not tune (`shoal.sampling.langevin.position_metric`).

    Returns
    -------
    Sampler
        Called with a log density, returns the `Algorithm`; state `OverdampedState` (or
        `PositionMetricState`), info `OverdampedInfo`. Works in the dtype of the position.

    Raises
    ------
    ValueError
        If ``step_size`` is not positive or ``metric`` not positive definite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.mala(step_size=0.5)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3))
    >>> state, info = algorithm.step(jax.random.key(0), state)
    >>> 0.0 <= float(info.acceptance_rate) <= 1.0
    True
    """
    return _sampler(_build_mala, step_size, metric, 0.574, is_adjusted=True)


def _sampler(
    build: Any, step_size: Any, metric: Any, target_acceptance: float, is_adjusted: bool
) -> Sampler:
    settings = {"target_acceptance": target_acceptance, "is_adjusted": is_adjusted}
    prepare = {"step_size": check_positive("step_size"), "metric": as_metric}
    if callable(metric):
        # No leaf of a pytree: a function is part of the compiled program.
        return make_sampler(
            build, {"step_size": step_size}, prepare, options=(("metric", metric),), **settings
        )
    return make_sampler(build, {"step_size": step_size, "metric": metric}, prepare, **settings)


def _build_ula(log_density: LogDensity, step_size: Any, metric: Any) -> Algorithm:
    return unadjusted(_scheme(log_density, step_size, metric))


def _build_mala(log_density: LogDensity, step_size: Any, metric: Any) -> Algorithm:
    return adjusted(_scheme(log_density, step_size, metric))


def _scheme(log_density: LogDensity, step_size: Any, metric: Any) -> Scheme:
    if callable(metric):
        return Scheme(*position_metric.scheme(log_density, step_size, metric))

    def init(position: Position, key: jax.Array | None = None) -> OverdampedState:
        return OverdampedState(position, *evaluate_start(log_density, position, metric))

    def propose(key: jax.Array, state: OverdampedState) -> Any:
        return propose_along(jax.value_and_grad(log_density), step_size, metric, key, state)

    return Scheme(init, propose)


def unadjusted(scheme: Scheme) -> Algorithm:
    """Return the algorithm that goes wherever a scheme proposes, if all is finite there."""

    def step(key: jax.Array, state: Any) -> tuple[Any, OverdampedInfo]:
        check_key(key)
        proposal, log_acceptance, status = scheme.propose(key, state)
        is_accepted = status == Status.OK
        info = OverdampedInfo(probability(log_acceptance), is_accepted, status)
        return choose(is_accepted, proposal, state), info

    return Algorithm(scheme.init, step)


def adjusted(scheme: Scheme) -> Algorithm:
    """Return the algorithm that accepts or rejects what a scheme proposes."""

    def step(key: jax.Array, state: Any) -> tuple[Any, OverdampedInfo]:
        check_key(key)
        key_noise, key_accept = jax.random.split(key)
        proposal, log_acceptance, status = scheme.propose(key_noise, state)
        is_accepted = accept(key_accept, log_acceptance, status)
        info = OverdampedInfo(probability(log_acceptance), is_accepted, status)
        return choose(is_accepted, proposal, state), info

    return Algorithm(scheme.init, step)


def propose_along(
    value_and_drift: Callable[[Position], tuple[jax.Array, Position]],
    step_size: Any,
    metric: Metric,
    key: jax.Array,
    state: OverdampedState,
) -> tuple[OverdampedState, jax.Array, jax.Array]:
    """Propose a point; return its state, the log acceptance ratio and its status.

    In log π(y) - log π(x) + log q(y, x) - log q(x, y), with q the proposal's Gaussian density, the
    inverses of M cancel. What remains is the error of the trapezoidal rule along the move and a
    difference of norms:

        log π(y) - log π(x) - (y - x)·(s(x) + s(y)) / 2 - (h / 4) (|Lᵀs(y)|² - |Lᵀs(x)|²).

    ``value_and_drift(position)`` returns log π and s, a pytree. The ratio is exact for any function
    s, not only for the score of π.
    """
    x, unravel = ravel_pytree(state.position)
    h = jnp.asarray(step_size, x.dtype)
    noise = jax.random.normal(key, x.shape, x.dtype)
    pull = metric.whiten(state.score)
    y = x + metric.color(h * pull + jnp.sqrt(2 * h) * noise)
    value, drift = value_and_drift(unravel(y))
    score = ravel_pytree(drift)[0]
    # One sum over one product: each further reduction would be another pass over memory.
    norms = metric.whiten(score) ** 2 - pull**2
    change = jnp.sum((y - x) * (state.score + score) / 2 + h / 4 * norms)
    status = proposal_status(value, jnp.isfinite(change))
    log_acceptance = value - state.log_density - change
    log_acceptance = jnp.where(status == Status.OK, log_acceptance, -jnp.inf)
    return OverdampedState(unravel(y), value, score), log_acceptance, status
