"""Stochastic-gradient Langevin dynamics: `ula` with a score that is estimated from minibatches.

With ĝ an unbiased estimate of ∇log π (`gradient_estimators`), drawn anew in each step, inverse mass
matrix M = L Lᵀ and temperature T (the target is π^(1/T)), a step of size h is

    x' = x + h M ĝ + √(2hT) L ξ,    ξ ~ N(0, I).

It costs one estimate; nothing is accepted or rejected. It is biased, by the step size and by the
noise of ĝ, which adds to the injected one: on a Gaussian with precision λ (M = 1) and noise of
variance s², the stationary variance is

    (T + h s²/2) / (λ (1 - h λ/2)),    stable for h < 2/λ.

Reference: Welling and Teh, "Bayesian learning via stochastic gradient Langevin dynamics", ICML
2011, equation 4 (whose step size is 2h).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core.algorithm import Algorithm, Position, Sampler, Status
from shoal.sampling.core.random import check_key
from shoal.sampling.langevin._accept import choose
from shoal.sampling.langevin._stochastic import (
    estimate_at,
    next_batch,
    start,
    step_size_at,
    stochastic_sampler,
)
from shoal.sampling.langevin.gradient_estimators import as_stochastic
from shoal.sampling.langevin.metric import Metric


class StochasticState(NamedTuple):
    """Where a chain of `sgld` is.

    Attributes
    ----------
    position
        The point, a pytree of floating arrays.
    log_density
        Estimate of its log density, from the batch that the next step uses.
    score
        Estimate of the gradient there, from the same batch, flat, ``(d,)``.
    memory
        What the estimator carries along.
    num_steps
        Steps taken, int32: where a schedule of step sizes stands.
    """

    position: Position
    log_density: jax.Array
    score: jax.Array
    memory: Any
    num_steps: jax.Array


class StochasticInfo(NamedTuple):
    """What happened in a step of `sgld`.

    Attributes
    ----------
    step_size
        h of the step.
    is_accepted
        Whether the step was taken: False only where the new point or the estimates there are not
        finite; the particle then stays.
    status
        int8 `shoal.sampling.core.algorithm.Status` code.
    """

    step_size: jax.Array
    is_accepted: jax.Array
    status: jax.Array


def sgld(step_size: Any = 0.001, metric: Any = None, temperature: Any = 1.0) -> Sampler:
    """Stochastic-gradient Langevin dynamics: `ula` with an estimated score.

    Parameters
    ----------
    step_size
        h > 0, a float or scalar array, as in `ula`; or a schedule, a function of the number of
        steps taken (warm-up included) such as those of optax. Keep the function: another one
        compiles anew. Nothing tunes h. Draws with a decreasing h are to be weighted by it.
    metric
        M, the inverse mass matrix: None (identity), scalar, ``(d,)`` diagonal or ``(d, d)``, over
        the raveled position.
    temperature
        T > 0: what is sampled is π^(1/T).

    Returns
    -------
    Sampler
        Called with minibatches (`minibatches`), with an estimator of them (`gradient_estimators`)
        or with a log density, whose gradients are exact, returns the `Algorithm`; state
        `StochasticState`, info `StochasticInfo`. ``init(position, key)`` draws the first batch.
        ``init(position, batch=batch)`` and ``step(key, state, batch)`` take it from the caller.

    Raises
    ------
    TypeError, ValueError
        If ``step_size`` or ``temperature`` is not positive or ``metric`` not positive definite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> from shoal.sampling.core import minibatches
    >>> density = minibatches.from_arrays(
    ...     lambda x: -0.5 * x**2, lambda x, y: -0.5 * (y - x) ** 2, jnp.arange(10.0), batch_size=2
    ... )
    >>> algorithm = langevin.sgld(step_size=0.01)(density)
    >>> state = algorithm.init(jnp.array(4.0), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> state.position.shape, int(info.status)
    ((), 0)

    Polynomial decay, and cosine cycles that each start anew (Zhang et al., "Cyclical stochastic
    gradient MCMC", ICLR 2020, equation 1):

    >>> import optax
    >>> decaying = langevin.sgld(lambda step: 0.01 * (10 + step) ** -0.33)
    >>> cyclical = langevin.sgld(
    ...     optax.join_schedules([optax.cosine_decay_schedule(0.01, 500)] * 4, [500, 1000, 1500])
    ... )
    """
    return stochastic_sampler(_build_sgld, step_size, metric, temperature)


def _build_sgld(
    log_density: Any,
    metric: Metric,
    temperature: Any,
    step_size: Any = None,
    schedule: Callable[[Any], Any] | None = None,
) -> Algorithm:
    density = as_stochastic(log_density)

    def init(position: Position, key: Any = None, batch: Any = None) -> StochasticState:
        return StochasticState(*start(density, position, metric, key, batch))

    def step(
        key: jax.Array, state: StochasticState, batch: Any = None
    ) -> tuple[StochasticState, StochasticInfo]:
        check_key(key)
        key_noise, key_batch = jax.random.split(key)
        x, unravel = ravel_pytree(state.position)
        h = step_size_at(step_size, schedule, state.num_steps, x.dtype)
        heat = 2 * h * jnp.asarray(temperature, x.dtype)
        noise = jnp.sqrt(heat) * jax.random.normal(key_noise, x.shape, x.dtype)
        x = x + metric.color(h * metric.whiten(state.score) + noise)
        batch = next_batch(density, key_batch, batch)
        estimate, status = estimate_at(density, unravel(x), batch, state.memory)
        is_accepted = status == Status.OK
        new = StochasticState(unravel(x), *estimate, state.num_steps)
        new = choose(is_accepted, new, state)._replace(num_steps=state.num_steps + 1)
        return new, StochasticInfo(h, is_accepted, status)

    return Algorithm(init, step)
