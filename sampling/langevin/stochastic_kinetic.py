"""Kinetic dynamics with a score that is estimated from minibatches: SGHMC and SGNHT.

With ĝ an unbiased estimate of ∇log π (`gradient_estimators`), drawn anew in each step, inverse mass
matrix M = L Lᵀ, temperature T (the target is π^(1/T)) and the momentum w in whitened coordinates,
of law N(0, T I), a step of size h is

    B  w += (h/2) Lᵀĝ        A  x += (h/2) L w       D  z += (h/2) (|w|²/d - T) / m
    O  w = e^(-zh) w + √(γT (1 - e^(-2zh)) / z) ξ    D  A
    B  with ĝ at the new point, which the next step uses again.

`sghmc` leaves out D, so that z is the friction γ and the step is BAOAB. `sgnht` is BADODAB: its
friction z adapts until the momentum has temperature T, however strong the noise of ĝ is, which it
need not know; γ says how much noise is injected on top. Both cost one estimate a step; nothing is
accepted or rejected.

Both are biased, by the step size and by the noise of ĝ. Of variance s², it adds h²s² to the
variance of w in every step. `sghmc` takes the fraction (1 + e^(-γh))²/4 of what it is told of that
off the variance that O injects: then displacements over long times in a flat potential are exactly
right. `sgnht` corrects for it where s² is the same everywhere and in all coordinates, in the limit
h -> 0; the mean of |w|²/d is T at any h.

References: Chen, Fox and Guestrin, "Stochastic gradient Hamiltonian Monte Carlo", ICML 2014,
equation 13; Ding et al., "Bayesian sampling using stochastic gradient thermostats", NeurIPS 2014;
Leimkuhler and Shang, "Adaptive thermostats for noisy gradient systems", SIAM J. Sci. Comput. 38
(2016), section 4.2, BADODAB.
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


class StochasticKineticState(NamedTuple):
    """Where a chain of `sghmc` or `sgnht` is and how it moves.

    Attributes
    ----------
    position
        The point, a pytree of floating arrays.
    log_density, score, memory, num_steps
        As in `StochasticState`.
    momentum
        Whitened momentum w, flat, ``(d,)``; the velocity is L w.
    friction
        z, a scalar: γ all the time in `sghmc`, adapted in `sgnht`.
    """

    position: Position
    log_density: jax.Array
    score: jax.Array
    memory: Any
    num_steps: jax.Array
    momentum: jax.Array
    friction: jax.Array


class StochasticKineticInfo(NamedTuple):
    """What happened in a step of `sghmc` or `sgnht`.

    Attributes
    ----------
    step_size, is_accepted, status
        As in `StochasticInfo`; a particle that stays turns back, its momentum changes sign.
    temperature
        |w|²/d, the mean of its values before and after O. Its average over a run is T in `sgnht`;
        in `sghmc` it shows what the noise of the gradient adds.
    """

    step_size: jax.Array
    is_accepted: jax.Array
    status: jax.Array
    temperature: jax.Array


def sghmc(
    step_size: Any = 0.01,
    friction: Any = 1.0,
    metric: Any = None,
    temperature: Any = 1.0,
    gradient_noise: Any = 0.0,
) -> Sampler:
    """Stochastic-gradient Hamiltonian Monte Carlo: BAOAB with an estimated score.

    Parameters
    ----------
    step_size
        h > 0, in units of time as in `baoab`, or a schedule as in `sgld`.
    friction
        γ >= 0, per unit of time. To compensate noise of variance s² it takes γ > h s²/2.
    metric, temperature
        As in `sgld`.
    gradient_noise
        Variance s² >= 0 of the noise of Lᵀĝ, a scalar or ``(d,)``, to compensate; see
        `gradient_estimators.noise_variance`. What exceeds the friction's noise stays as heat.

    Returns
    -------
    Sampler
        As from `sgld`; state `StochasticKineticState`, info `StochasticKineticInfo`. ``init`` needs
        a key, to draw the momentum.

    Raises
    ------
    TypeError, ValueError
        If ``step_size`` or ``temperature`` is not positive, ``friction`` or ``gradient_noise``
        negative or ``metric`` not positive definite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> from shoal.sampling.core import minibatches
    >>> from shoal.sampling.langevin import gradient_estimators
    >>> density = minibatches.from_arrays(
    ...     lambda x: -0.5 * x**2, lambda x, y: -0.5 * (y - x) ** 2, jnp.arange(10.0), batch_size=2
    ... )
    >>> x = jnp.array(4.0)
    >>> noise = gradient_estimators.noise_variance(jax.random.key(0), density, x)
    >>> algorithm = langevin.sghmc(0.02, friction=4.0, gradient_noise=noise)(density)
    >>> state = algorithm.init(x, jax.random.key(1))
    >>> state, info = algorithm.step(jax.random.key(2), state)
    >>> bool(info.is_accepted)
    True
    """
    return stochastic_sampler(
        _build_sghmc, step_size, metric, temperature, friction=friction,
        gradient_noise=gradient_noise,
    )  # fmt: skip


def sgnht(
    step_size: Any = 0.01,
    friction: Any = 1.0,
    metric: Any = None,
    temperature: Any = 1.0,
    thermostat_mass: Any = 1.0,
) -> Sampler:
    """Stochastic-gradient Nosé-Hoover thermostat: BADODAB, for gradient noise of unknown strength.

    Parameters
    ----------
    step_size
        h > 0, in units of time as in `baoab`, or a schedule as in `sgld`.
    friction
        γ > 0: the strength of the injected noise, and the friction at the start. The gradient's
        noise comes on top, and z rises by about h s²/(2T) to balance it.
    metric, temperature
        As in `sgld`.
    thermostat_mass
        m > 0: how slowly z adapts, in squared units of time. z fluctuates with variance T/(d m);
        it must stay large against nothing but the bias that its lag causes.

    Returns
    -------
    Sampler
        As from `sghmc`.

    Raises
    ------
    TypeError, ValueError
        If a number is not positive or ``metric`` not positive definite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.sgnht(step_size=0.1)(lambda x: -0.5 * jnp.sum(x**2))
    >>> state = algorithm.init(jnp.zeros(100), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> bool(0.5 < info.temperature < 1.5), bool(abs(state.friction - 1) < 0.1)
    (True, True)
    """
    return stochastic_sampler(
        _build_sgnht, step_size, metric, temperature, friction=friction,
        thermostat_mass=thermostat_mass,
    )  # fmt: skip


# A build function of its own for each: a saved run knows its sampler by it.
def _build_sghmc(log_density: Any, **parameters: Any) -> Algorithm:
    return _build(log_density, **parameters)


def _build_sgnht(log_density: Any, **parameters: Any) -> Algorithm:
    return _build(log_density, **parameters)


def _build(
    log_density: Any,
    metric: Metric,
    temperature: Any,
    friction: Any,
    gradient_noise: Any = 0.0,
    thermostat_mass: Any = None,
    step_size: Any = None,
    schedule: Callable[[Any], Any] | None = None,
) -> Algorithm:
    density = as_stochastic(log_density)

    def init(position: Position, key: Any = None, batch: Any = None) -> StochasticKineticState:
        if key is None:
            raise ValueError(
                "key is None, but a kinetic sampler draws its momentum: give init a key"
            )
        check_key(key)
        key_momentum, key_batch = jax.random.split(key)
        common = start(density, position, metric, key_batch, batch)
        score = common.score
        _check_noise(gradient_noise, score.shape)
        draw = jax.random.normal(key_momentum, score.shape, score.dtype)
        momentum = jnp.sqrt(jnp.asarray(temperature, score.dtype)) * draw
        return StochasticKineticState(*common, momentum, jnp.asarray(friction, score.dtype))

    def heat(t: jax.Array, w: jax.Array) -> jax.Array | float:
        return 0.0 if thermostat_mass is None else _heat(t, w, temperature, thermostat_mass)

    def step(
        key: jax.Array, state: StochasticKineticState, batch: Any = None
    ) -> tuple[StochasticKineticState, StochasticKineticInfo]:
        check_key(key)
        key_noise, key_batch = jax.random.split(key)
        x, unravel = ravel_pytree(state.position)
        h = step_size_at(step_size, schedule, state.num_steps, x.dtype)
        noise = jax.random.normal(key_noise, x.shape, x.dtype)
        w = state.momentum + h / 2 * metric.whiten(state.score)
        x = x + h / 2 * metric.color(w)
        z = state.friction + heat(h / 2, w)
        before = jnp.mean(w**2)
        injected = _injected(h, z, jnp.asarray(friction * temperature, h.dtype), gradient_noise)
        w = jnp.exp(-z * h) * w + jnp.sqrt(injected) * noise
        measured = (before + jnp.mean(w**2)) / 2
        z = z + heat(h / 2, w)
        x = x + h / 2 * metric.color(w)
        batch = next_batch(density, key_batch, batch)
        (value, score, memory), status = estimate_at(density, unravel(x), batch, state.memory)
        w = w + h / 2 * metric.whiten(score)
        is_accepted = status == Status.OK
        new = StochasticKineticState(unravel(x), value, score, memory, state.num_steps, w, z)
        stay = state._replace(momentum=-state.momentum)
        new = choose(is_accepted, new, stay)._replace(num_steps=state.num_steps + 1)
        return new, StochasticKineticInfo(h, is_accepted, status, measured)

    return Algorithm(init, step)


def _check_noise(gradient_noise: Any, shape: tuple[int, ...]) -> None:
    if jnp.shape(gradient_noise) not in ((), shape):
        raise ValueError(
            f"gradient_noise has shape {jnp.shape(gradient_noise)}; it must be a scalar or "
            f"have shape {shape}"
        )


def _heat(t: jax.Array, w: jax.Array, temperature: Any, mass: Any) -> jax.Array:
    """D: by how much the friction changes."""
    excess = jnp.mean(w**2) - jnp.asarray(temperature, w.dtype)
    return t * excess / jnp.asarray(mass, w.dtype)


def _injected(h: jax.Array, z: jax.Array, strength: jax.Array, noise: Any) -> jax.Array:
    """Variance that O injects, of strength γT, less what the gradient's noise has put in."""
    variance = 2 * strength * h * _mean_decay(2 * z * h)
    share = ((1 + jnp.exp(-z * h)) / 2) ** 2
    return jnp.maximum(variance - share * h**2 * jnp.asarray(noise, h.dtype), 0)


def _mean_decay(u: jax.Array) -> jax.Array:
    """(1 - e^(-u)) / u, the mean of e^(-s) over s in (0, u); u of any sign, 1 at zero."""
    is_small = jnp.abs(u) < 1e-3
    safe = jnp.where(is_small, 1.0, u)
    return jnp.where(is_small, 1 - u / 2 + u**2 / 6, -jnp.expm1(-safe) / safe)
