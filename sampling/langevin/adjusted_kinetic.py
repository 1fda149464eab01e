"""Metropolis-adjusted kinetic Langevin dynamics: generalised HMC and MALT, both exact.

Both are OBABO (see `kinetic`) with an accept-reject step. O leaves the law of the momentum
invariant and BAB, a leapfrog step, can be run backwards, so that only the energy errors of BAB
enter the probability of acceptance,

    min(1, exp(-Σ Δ)),    Δ = log π(x) - log π(x') + (|w'|² - |w|²) / 2.

`ghmc` decides after every step: the momentum lives on where the step is accepted and is reversed
where it is not. `malt` decides at the end of a trajectory of N steps, all of it at once, and draws
a new momentum for the next one, so that nothing is ever reversed. With γ = 0 it is HMC; friction
spares it HMC's dependence on the trajectory's length.

Two O that follow each other are one of twice the time, and an O of a momentum just drawn, or never
used again, does nothing: each method draws one normal vector for each gradient.

References: Horowitz, "A generalized guided Monte Carlo algorithm", Phys. Lett. B 268 (1991), and
Bou-Rabee and Sanz-Serna, "Geometric integrators and the Hamiltonian Monte Carlo method", Acta
Numerica 27 (2018), section 5, for GHMC; Riou-Durand and Vogrinc, "Metropolis adjusted Langevin
trajectories", arXiv:2202.13230, section 3 (algorithm 1), for MALT.
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
from shoal.sampling.langevin._accept import accept, choose, probability
from shoal.sampling.langevin.kinetic import KineticInfo, KineticState, draw_momentum
from shoal.sampling.langevin.metric import Metric, as_metric
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler

MAX_NUM_STEPS = 1024


class MaltState(NamedTuple):
    """Where a chain is; the momentum does not outlive a trajectory.

    Attributes
    ----------
    position
        The point, a pytree of floating arrays.
    log_density
        Its log density, a scalar.
    score
        The gradient of the log density there, flat, ``(d,)``.
    """

    position: Position
    log_density: jax.Array
    score: jax.Array


class MaltInfo(NamedTuple):
    """What happened in a trajectory.

    Attributes
    ----------
    acceptance_rate
        The Metropolis-Hastings acceptance probability of its end, in [0, 1].
    energy_error
        Σ Δ, the energy that the maps A and B failed to conserve.
    num_integration_steps
        Steps taken, int32: N, or fewer where the trajectory met a number that is not finite.
    is_accepted
        Whether the chain moved to the end.
    status
        int8 `shoal.sampling.core.algorithm.Status` code. ``MAX_ITERATIONS`` where more than 1024
        steps would be needed: the trajectory is shorter than asked for, and as exact.
    """

    acceptance_rate: jax.Array
    energy_error: jax.Array
    num_integration_steps: jax.Array
    is_accepted: jax.Array
    status: jax.Array


class _Leap(NamedTuple):
    """A point of phase space (flat position) with its pull Lᵀ∇log π and the work done so far."""

    position: jax.Array
    momentum: jax.Array
    log_density: jax.Array
    score: jax.Array
    pull: jax.Array
    work: jax.Array


def ghmc(step_size: Any = 0.1, friction: Any = 1.0, metric: Any = None) -> Sampler:
    """Generalised Hamiltonian Monte Carlo: OBABO, accepted or turned back after every step.

    Parameters
    ----------
    step_size
        h > 0, in units of time (length over velocity). The initial value where warm-up tunes it, to
        an acceptance rate of 0.95: each rejection turns the chain round.
    friction
        γ >= 0, per unit of time. Zero never changes the energy, so that the chain is not ergodic;
        with γh large this is MALA.
    metric
        M, the inverse mass matrix: None (identity), scalar, ``(d,)`` diagonal or ``(d, d)``, over
        the raveled position. The closer to the target's covariance, the better.

    Returns
    -------
    Sampler
        Called with a log density, returns the `Algorithm`; state `kinetic.KineticState`, info
        `kinetic.KineticInfo`. ``init`` needs a key, to draw the momentum. Works in the position's
        dtype.

    Raises
    ------
    ValueError
        If ``step_size`` is not positive, ``friction`` negative or ``metric`` not
        positive definite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.ghmc(step_size=0.5)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> 0.0 <= float(info.acceptance_rate) <= 1.0
    True
    """
    return make_sampler(
        _build_ghmc,
        {"step_size": step_size, "friction": friction, "metric": metric},
        {
            "step_size": check_positive("step_size"),
            "friction": check_positive("friction", allow_zero=True),
            "metric": as_metric,
        },
        target_acceptance=0.95,
        is_adjusted=True,
    )


def malt(
    step_size: Any = 0.1,
    trajectory_length: Any = 2.0,
    friction: Any = 1.0,
    metric: Any = None,
) -> Sampler:
    """Metropolis-adjusted Langevin trajectories; Hamiltonian Monte Carlo where friction is 0.

    Parameters
    ----------
    step_size
        h > 0, in units of time (length over velocity). The initial value where warm-up tunes it, to
        an acceptance rate of 0.8. The trajectory keeps its length, so that the number of steps in
        it adapts.
    trajectory_length
        T > 0, a time. A trajectory has T / h steps: one more or one less at random where that is no
        whole number, so that its mean is T (and at least one). At most 1024 steps are taken. No
        change of it compiles anything.
    friction
        γ >= 0, per unit of time. The default, like that of the trajectory's length, is for a target
        that the metric whitens.
    metric
        M, the inverse mass matrix: None (identity), scalar, ``(d,)`` diagonal or ``(d, d)``, over
        the raveled position. The closer to the target's covariance, the better.

    Returns
    -------
    Sampler
        Called with a log density, returns the `Algorithm`; state `MaltState`, info `MaltInfo`.
        Works in the position's dtype.

    Raises
    ------
    ValueError
        If ``step_size`` or ``trajectory_length`` is not positive, ``friction`` negative or
        ``metric`` not positive definite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.malt(step_size=0.5)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> int(info.num_integration_steps)
    4
    """
    return make_sampler(
        _build_malt,
        {
            "step_size": step_size,
            "trajectory_length": trajectory_length,
            "friction": friction,
            "metric": metric,
        },
        {
            "step_size": check_positive("step_size"),
            "trajectory_length": check_positive("trajectory_length"),
            "friction": check_positive("friction", allow_zero=True),
            "metric": as_metric,
        },
        target_acceptance=0.8,
        is_adjusted=True,
    )


def _build_ghmc(
    log_density: LogDensity, step_size: Any, friction: Any, metric: Metric
) -> Algorithm:
    def init(position: Position, key: jax.Array | None = None) -> KineticState:
        value, score = evaluate_start(log_density, position, metric)
        return KineticState(position, draw_momentum(key, score), value, score)

    def step(key: jax.Array, state: KineticState) -> tuple[KineticState, KineticInfo]:
        check_key(key)
        key_noise, key_accept = jax.random.split(key)
        x, unravel = ravel_pytree(state.position)
        value_and_score = jax.value_and_grad(lambda flat: log_density(unravel(flat)))
        h = jnp.asarray(step_size, x.dtype)
        decay = jnp.exp(-jnp.asarray(friction, x.dtype) * h)
        momentum = _refresh(key_noise, decay, state.momentum)
        start = _start(metric, x, momentum, state)
        end = _leapfrog(value_and_score, metric, h, start)

        energy_error, status, log_acceptance = _judge(start, end)
        is_accepted = accept(key_accept, log_acceptance, status)
        new = KineticState(unravel(end.position), end.momentum, end.log_density, end.score)
        kept = choose(is_accepted, new, state._replace(momentum=-momentum))
        status = _with_divergence(status, energy_error)
        return kept, KineticInfo(probability(log_acceptance), energy_error, is_accepted, status)

    return Algorithm(init, step)


def _build_malt(
    log_density: LogDensity,
    step_size: Any,
    trajectory_length: Any,
    friction: Any,
    metric: Metric,
) -> Algorithm:
    def init(position: Position, key: jax.Array | None = None) -> MaltState:
        return MaltState(position, *evaluate_start(log_density, position, metric))

    def step(key: jax.Array, state: MaltState) -> tuple[MaltState, MaltInfo]:
        check_key(key)
        key_noise, key_number, key_accept = jax.random.split(key, 3)
        x, unravel = ravel_pytree(state.position)
        value_and_score = jax.value_and_grad(lambda flat: log_density(unravel(flat)))
        h = jnp.asarray(step_size, x.dtype)
        decay = jnp.exp(-jnp.asarray(friction, x.dtype) * h)
        wanted = jnp.asarray(trajectory_length, x.dtype) / h
        number = _draw_number(key_number, jnp.minimum(wanted, MAX_NUM_STEPS))
        start = _start(metric, x, jnp.zeros_like(x), state)

        def advance(leap: _Leap, i: jax.Array) -> _Leap:
            # Nothing is left of the momentum with which a trajectory begins.
            kept = jnp.where(i == 0, 0, decay)
            momentum = _refresh(jax.random.fold_in(key_noise, i), kept, leap.momentum)
            return _leapfrog(value_and_score, metric, h, leap._replace(momentum=momentum))

        end, num_taken = _run(advance, start, number)
        energy_error, status, log_acceptance = _judge(start, end)
        is_accepted = accept(key_accept, log_acceptance, status)
        new = MaltState(unravel(end.position), end.log_density, end.score)
        is_cut = (status == Status.OK) & (wanted > MAX_NUM_STEPS)
        status = jnp.where(is_cut, Status.MAX_ITERATIONS, status)
        status = _with_divergence(status, energy_error)
        rate = probability(log_acceptance)
        info = MaltInfo(rate, energy_error, num_taken, is_accepted, status)
        return choose(is_accepted, new, state), info

    return Algorithm(init, step)


def _start(metric: Metric, x: jax.Array, momentum: jax.Array, state: Any) -> _Leap:
    value, score = state.log_density, state.score
    return _Leap(x, momentum, value, score, metric.whiten(score), jnp.zeros_like(value))


def _refresh(key: jax.Array, decay: jax.Array, momentum: jax.Array) -> jax.Array:
    """Apply O, with e^(-γt) given."""
    noise = jax.random.normal(key, momentum.shape, momentum.dtype)
    # As a product, which is exact where γt is small.
    return decay * momentum + jnp.sqrt((1 - decay) * (1 + decay)) * noise


def _leapfrog(
    value_and_score: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    metric: Metric,
    h: jax.Array,
    leap: _Leap,
) -> _Leap:
    """Apply BAB, a leapfrog step of size h.

    The work is the change of |w|²/2 by the two kicks. Taken from the w after them, which is kept
    anyhow, it spares XLA a second computation of the noise that went into the w before them.
    """
    x = leap.position + h * metric.color(leap.momentum + h / 2 * leap.pull)
    value, score = value_and_score(x)
    pull = metric.whiten(score)
    kick = h / 2 * (leap.pull + pull)
    w = leap.momentum + kick
    work = leap.work + jnp.sum(w * kick - 0.5 * kick**2)
    return _Leap(x, w, value, score, pull, work)


def _run(
    advance: Callable[[_Leap, jax.Array], _Leap], start: _Leap, number: jax.Array
) -> tuple[_Leap, jax.Array]:
    """Advance ``number`` times, or until a number is not finite; return end and count.

    Stopping early leaves the reversed trajectory the same fate: it meets the same point.
    """

    def goes_on(carry: tuple[_Leap, jax.Array]) -> jax.Array:
        leap, taken = carry
        return (taken < number) & jnp.isfinite(leap.work + leap.log_density)

    def body(carry: tuple[_Leap, jax.Array]) -> tuple[_Leap, jax.Array]:
        leap, taken = carry
        return advance(leap, taken), taken + 1

    return jax.lax.while_loop(goes_on, body, (start, jnp.zeros_like(number)))


def _draw_number(key: jax.Array, mean: jax.Array) -> jax.Array:
    """Draw one of the two whole numbers next to ``mean`` that averages to it; int32, at least 1."""
    uniform = jax.random.uniform(key, dtype=mean.dtype)
    return jnp.maximum(jnp.floor(mean + uniform), 1).astype(jnp.int32)


def _judge(start: _Leap, end: _Leap) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return energy error, status and log acceptance ratio of the way from start to end."""
    energy_error = end.work - start.work - (end.log_density - start.log_density)
    status = proposal_status(end.log_density, jnp.isfinite(end.work))
    return energy_error, status, jnp.where(status == Status.OK, -energy_error, -jnp.inf)


def _with_divergence(status: jax.Array, energy_error: jax.Array) -> jax.Array:
    is_wild = (status == Status.OK) & (energy_error > 1000)
    return jnp.where(is_wild, Status.DIVERGENCE, status).astype(jnp.int8)
