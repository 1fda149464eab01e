"""Metropolis-adjusted microcanonical sampling: long turning paths, accepted so that π is exact.

A step draws a direction uniformly on the sphere and a number N of integrator steps, runs the maps A
and B of `shoal.sampling.langevin.microcanonical` N times, and accepts the end y of the path with
probability

    min(1, exp(-E)),    E = log π(x) - log π(y) + Σ ΔK,

the sum being that of the kinetic energies gained in all maps B. Path and word are reversible (turn
the direction round and run again) and exp(-ΔK) is the factor by which B changes the uniform measure
on the sphere, so that π is left exactly invariant.

N is uniform on 1, ..., n and, with a smaller probability, n + 1, so that its mean is ℓ / h for a
path length ℓ. A fixed number would resonate with a periodic motion.

References: Robnik, Cohn-Gordon and Seljak, "Metropolis adjusted microcanonical Hamiltonian Monte
Carlo", arXiv:2503.01707, sections 3 and 5, for the acceptance rate 0.9 and the law of N.
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
from shoal.sampling.langevin.metric import Metric, as_metric
from shoal.sampling.langevin.microcanonical import (
    MicrocanonicalState,
    as_length,
    check_dimension,
    draw_direction,
    in_dtype_of,
    length_or_default,
    run_word,
    word_of,
)
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler

MAX_NUM_STEPS = 1024


class MamsState(NamedTuple):
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


class MamsInfo(NamedTuple):
    """What happened in a step.

    Attributes
    ----------
    acceptance_rate
        The Metropolis-Hastings acceptance probability of the end of the path, in [0, 1].
    energy_error
        E, the energy that the path failed to conserve.
    num_integration_steps
        Integrator steps taken, int32: N, or fewer where the path met a number that is not finite.
    is_accepted
        Whether the chain moved.
    status
        int8 `shoal.sampling.core.algorithm.Status` code. ``MAX_ITERATIONS`` where ℓ / h
        exceeds 512, the largest mean of N: paths are shorter than asked for, and as exact.
    """

    acceptance_rate: jax.Array
    energy_error: jax.Array
    num_integration_steps: jax.Array
    is_accepted: jax.Array
    status: jax.Array


def mams(
    step_size: Any = 0.5,
    path_length: Any = None,
    metric: Any = None,
    integrator: str = "minimal_norm",
) -> Sampler:
    """Metropolis-adjusted microcanonical sampler: exact, with paths of random length.

    Parameters
    ----------
    step_size
        h > 0, a length. The initial value where warm-up tunes it, to an acceptance rate of 0.9. The
        path keeps its length, so that the number of steps in it adapts.
    path_length
        ℓ > 0, the mean length of a path. None is √d, right where the metric whitens the target.
        At most 1024 steps are taken, 512 in the mean, however long it is.
    metric
        M, the inverse mass matrix: None (identity), scalar, ``(d,)`` diagonal or ``(d, d)``, over
        the raveled position. The closer to the target's covariance, the better.
    integrator
        As in `shoal.sampling.langevin.mclmc`.

    Returns
    -------
    Sampler
        Called with a log density, returns the `Algorithm`; state `MamsState`, info `MamsInfo`.
        ``init`` needs at least two coordinates. Works in the position's dtype.

    Raises
    ------
    ValueError
        If a number is not positive, ``metric`` not positive definite or ``integrator`` unknown;
        ``init`` raises it for a position of one coordinate.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.mams(step_size=0.5, path_length=2.0)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> 1 <= int(info.num_integration_steps) <= 8
    True
    """
    return make_sampler(
        _build,
        {"step_size": step_size, "path_length": path_length, "metric": metric},
        {
            "step_size": check_positive("step_size"),
            "path_length": as_length("path_length"),
            "metric": as_metric,
        },
        options=(("word", word_of(integrator)),),
        target_acceptance=0.9,
        is_adjusted=True,
    )


def _build(
    log_density: LogDensity,
    step_size: Any,
    path_length: Any,
    metric: Metric,
    word: tuple[float, ...],
) -> Algorithm:
    def init(position: Position, key: jax.Array | None = None) -> MamsState:
        value, score = evaluate_start(log_density, position, metric)
        check_dimension(position)
        return MamsState(position, value, score)

    def step(key: jax.Array, state: MamsState) -> tuple[MamsState, MamsInfo]:
        check_key(key)
        key_direction, key_number, key_accept = jax.random.split(key, 3)
        x, unravel = ravel_pytree(state.position)
        value_and_score = jax.value_and_grad(lambda flat: log_density(unravel(flat)))
        h = jnp.asarray(step_size, x.dtype)
        mean = length_or_default(path_length, x) / h
        is_cut = mean > MAX_NUM_STEPS / 2
        number = draw_number(key_number, jnp.minimum(mean, MAX_NUM_STEPS / 2))
        direction = draw_direction(key_direction, x)
        begin = MicrocanonicalState(x, direction, state.log_density, state.score)
        mass = in_dtype_of(x, metric)
        advance = lambda point: run_word(word, h, mass, value_and_score, point)
        end, work, num_taken = _run_path(advance, begin, number)

        energy_error = work - (end.log_density - state.log_density)
        status = proposal_status(end.log_density, jnp.isfinite(work))
        log_acceptance = jnp.where(status == Status.OK, -energy_error, -jnp.inf)
        is_accepted = accept(key_accept, log_acceptance, status)
        new = MamsState(unravel(end.position), end.log_density, end.score)
        is_ok = status == Status.OK
        status = jnp.where(is_ok & is_cut, Status.MAX_ITERATIONS, status)
        status = jnp.where(is_ok & (energy_error > 1000), Status.DIVERGENCE, status)
        info = MamsInfo(
            probability(log_acceptance),
            energy_error,
            num_taken,
            is_accepted,
            status.astype(jnp.int8),
        )
        return choose(is_accepted, new, state), info

    return Algorithm(init, step)


def _run_path(
    advance: Callable[[MicrocanonicalState], tuple[MicrocanonicalState, jax.Array]],
    begin: MicrocanonicalState,
    number: jax.Array,
) -> tuple[MicrocanonicalState, jax.Array, jax.Array]:
    """Advance ``number`` times, or until a number is not finite; return end, work and steps."""

    def goes_on(carry: Any) -> jax.Array:
        state, work, taken = carry
        return (taken < number) & jnp.isfinite(work + state.log_density)

    def body(carry: Any) -> Any:
        state, work, taken = carry
        state, more = advance(state)
        return state, work + more, taken + 1

    work = jnp.zeros_like(begin.log_density)
    return jax.lax.while_loop(goes_on, body, (begin, work, jnp.zeros_like(number)))


def draw_number(key: jax.Array, mean: jax.Array) -> jax.Array:
    """Draw a number of steps, int32 of at least 1, whose mean is the given one if at least 1.

    It is ⌈u s⌉ for a uniform u in (0, 1] and s = n + f such that n places have probability 1 / s
    each and the last one f / s: n = ⌊2 mean - 1⌋, f = n (mean - (n + 1) / 2) / (n + 1 - mean).
    """
    mean = jnp.maximum(mean, 1)
    places = jnp.floor(2 * mean - 1)
    last = places * (mean - (places + 1) / 2) / (places + 1 - mean)
    uniform = 1 - jax.random.uniform(key, dtype=mean.dtype)
    return jnp.maximum(jnp.ceil(uniform * (places + last)), 1).astype(jnp.int32)
