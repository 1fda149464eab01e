"""Kinetic (underdamped) Langevin dynamics by splitting: positions with momenta.

The dynamics, with inverse mass matrix M = L Lᵀ, friction γ and a momentum w that is kept in
whitened coordinates, where its stationary law is N(0, I):

    dx = L w dt,    dw = Lᵀ∇log π(x) dt - γ w dt + √(2γ) dW.

A step of size h is a word over three maps that are each solved exactly,

    A:  x += t L w          B:  w += t Lᵀ∇log π(x)
    O:  w = e^(-γt) w + √(1 - e^(-2γt)) ξ,  ξ ~ N(0, I),

where a letter that occurs k times in the word runs for t = h / k each time. `baoab` is the word
BAOAB, `obabo` is OBABO and `aboba` ABOBA. All cost one gradient a step (that of the last point is
kept) and have order two. None corrects its bias. On a Gaussian with precision λ (M = 1) all are
stable for h √λ < 2, and in the stationary state

    BAOAB:  Var x = 1/λ exactly,                 Var w = 1 - h²λ/4
    ABOBA:  Var x = 1/λ exactly,                 Var w = 1/(1 - h²λ/4)
    OBABO:  Var x = 1/(λ (1 - h²λ/4)),           Var w = 1 exactly.

ABOBA takes its gradient in the middle of a step and ends where the density is not known.

Reference: Leimkuhler and Matthews, "Rational construction of stochastic numerical methods for
molecular sampling", Applied Mathematics Research eXpress 2013, section 2; Bussi and Parrinello,
"Accurate sampling using Langevin dynamics", Phys. Rev. E 75 (2007), for OBABO.
"""

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
from shoal.sampling.langevin._accept import choose
from shoal.sampling.langevin._midpoint import Evaluation, MidpointState, leapfrog_work
from shoal.sampling.langevin.metric import Metric, as_metric
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler


class KineticState(NamedTuple):
    """Where a chain is and how it moves.

    Attributes
    ----------
    position
        The point, a pytree of floating arrays.
    momentum
        Whitened momentum w, flat, ``(d,)``; the velocity is L w.
    log_density
        Log density of the point, a scalar.
    score
        The gradient of the log density there, flat, ``(d,)``.
    """

    position: Position
    momentum: jax.Array
    log_density: jax.Array
    score: jax.Array


class KineticInfo(NamedTuple):
    """What happened in a step.

    Attributes
    ----------
    acceptance_rate
        ``min(1, exp(-energy_error))``: what a Metropolis correction would have accepted. The step
        moves regardless; the number tells how coarse it is.
    energy_error
        Energy that the maps A and B failed to conserve (the heat exchanged in O is no error). For
        `aboba` they are those from the middle of the last step to the middle of this one.
    is_accepted
        Whether the step was taken. False only where the new point is not finite; the particle
        then stays and turns back: its momentum changes sign.
    status
        int8 `shoal.sampling.core.algorithm.Status` code.
    """

    acceptance_rate: jax.Array
    energy_error: jax.Array
    is_accepted: jax.Array
    status: jax.Array


def baoab(step_size: Any = 0.1, friction: Any = 1.0, metric: Any = None) -> Sampler:
    """BAOAB: second order, and exact in position on Gaussians.

    Parameters
    ----------
    step_size
        h > 0, in units of time (length over velocity). The initial value where warm-up tunes it, to
        a `KineticInfo.acceptance_rate` of 0.9.
    friction
        γ >= 0, per unit of time. Zero makes the dynamics Hamiltonian.
    metric
        M, the inverse mass matrix: None (identity), scalar, ``(d,)`` diagonal or ``(d, d)``, over
        the raveled position. The closer to the target's covariance, the better.

    Returns
    -------
    Sampler
        Called with a log density, returns the `Algorithm`; state `KineticState`, info
        `KineticInfo`. ``init`` needs a key, to draw the momentum. Works in the position's dtype.

    Raises
    ------
    ValueError
        If ``step_size`` is not positive, ``friction`` negative or ``metric`` not
        positive definite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.baoab(step_size=0.5)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> state.position.shape, int(info.status)
    ((3,), 0)
    """
    return _sampler("BAOAB", step_size, friction, metric, target_acceptance=0.9)


def obabo(step_size: Any = 0.1, friction: Any = 1.0, metric: Any = None) -> Sampler:
    """OBABO: second order, a leapfrog step between two partial refreshments of the momentum.

    Parameters, result and errors are those of `baoab`, but warm-up tunes the step size to an
    acceptance rate of 0.99: of the two, OBABO has the larger bias in position. It is the one that a
    Metropolis correction builds on.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.obabo(step_size=0.5)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> bool(info.is_accepted)
    True
    """
    return _sampler("OBABO", step_size, friction, metric, target_acceptance=0.99)


def aboba(step_size: Any = 0.1, friction: Any = 1.0, metric: Any = None) -> Sampler:
    """ABOBA: second order, exact in position on Gaussians, with the gradient inside the step.

    Parameters and errors are those of `baoab`. The state is `MidpointState`: the density is not
    evaluated where a step ends, so a result's ``lp`` is NaN, and on a target with bounded support
    draws may lie outside of it by half a step.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.aboba(step_size=0.5)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> bool(info.is_accepted)
    True
    """
    return _sampler("ABOBA", step_size, friction, metric, target_acceptance=0.9)


def draw_momentum(key: jax.Array | None, like: jax.Array) -> jax.Array:
    """Draw a whitened momentum of the shape and dtype of ``like``.

    Raises
    ------
    ValueError, TypeError
        If ``key`` is None or no key.
    """
    if key is None:
        raise ValueError("key is None, but a kinetic sampler draws its momentum: give init a key")
    check_key(key)
    return jax.random.normal(key, like.shape, like.dtype)


def _sampler(
    word: str, step_size: Any, friction: Any, metric: Any, target_acceptance: float
) -> Sampler:
    return make_sampler(
        _build,
        {"step_size": step_size, "friction": friction, "metric": metric},
        {
            "step_size": check_positive("step_size"),
            "friction": check_positive("friction", allow_zero=True),
            "metric": as_metric,
        },
        options=(("word", word),),
        target_acceptance=target_acceptance,
        is_adjusted=False,
    )


def _build(
    log_density: LogDensity,
    step_size: Any,
    friction: Any,
    metric: Metric,
    word: str,
) -> Algorithm:
    # Else the word ends with a move away from the point of its gradient.
    ends_with_gradient = word.rindex("B") > word.rindex("A")

    def init(position: Position, key: jax.Array | None = None) -> KineticState | MidpointState:
        value, score = evaluate_start(log_density, position, metric)
        momentum = draw_momentum(key, score)
        if ends_with_gradient:
            return KineticState(position, momentum, value, score)
        start = Evaluation(ravel_pytree(position)[0], value, score)
        return MidpointState(position, momentum, start)

    def step(key: jax.Array, state: Any) -> tuple[Any, KineticInfo]:
        check_key(key)
        x, unravel = ravel_pytree(state.position)
        value_and_score = jax.value_and_grad(lambda flat: log_density(unravel(flat)))
        h = jnp.asarray(step_size, x.dtype)
        noise = jax.random.normal(key, (word.count("O"), *x.shape), x.dtype)
        old = state if ends_with_gradient else state.evaluated
        start = KineticState(x, state.momentum, old.log_density, old.score)
        end, at, work = _run_word(word, h, friction, metric, noise, value_and_score, start)
        new: Any
        if ends_with_gradient:
            new = end._replace(position=unravel(end.position))
        else:
            evaluated = Evaluation(at, end.log_density, end.score)
            work = leapfrog_work(metric, h, old, evaluated)
            new = MidpointState(unravel(end.position), end.momentum, evaluated)
        energy_error = work - (end.log_density - old.log_density)
        status = proposal_status(end.log_density, jnp.isfinite(work))
        is_accepted = status == Status.OK
        status = jnp.where(is_accepted & (energy_error > 1000), Status.DIVERGENCE, status)
        kept = choose(is_accepted, new, state._replace(momentum=-state.momentum))
        rate = jnp.where(is_accepted, jnp.exp(-jnp.maximum(energy_error, 0)), 0)
        return kept, KineticInfo(rate, energy_error, is_accepted, status.astype(jnp.int8))

    return Algorithm(init, step)


def _run_word(
    word: str,
    h: jax.Array,
    friction: Any,
    metric: Metric,
    noise: jax.Array,
    value_and_score: Any,
    state: KineticState,
) -> tuple[KineticState, jax.Array, jax.Array]:
    """Run the letters in turn; return the end, where the gradient was taken and the work of B.

    Positions are flat.

    That work is the change of |w|²/2 in B. Taken from the w after it, which is kept anyhow, it
    spares XLA a second computation of the noise that went into the w before it.
    """
    x, w, value, score = state
    at = x
    work = jnp.zeros_like(value)
    decay = jnp.asarray(friction, x.dtype) * h / word.count("O")
    score_is_stale = False
    draws = iter(noise)
    for letter in word:
        t = h / word.count(letter)
        if letter == "A":
            x = x + t * metric.color(w)
            score_is_stale = True
        elif letter == "B":
            if score_is_stale:
                at, (value, score) = x, value_and_score(x)
                score_is_stale = False
            kick = t * metric.whiten(score)
            w = w + kick
            work = work + jnp.sum(w * kick - 0.5 * kick**2)
        else:
            w = jnp.exp(-decay) * w + jnp.sqrt(-jnp.expm1(-2 * decay)) * next(draws)
    return KineticState(x, w, value, score), at, work
