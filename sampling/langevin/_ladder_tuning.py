"""Tuning of parallel tempering: rungs by rejection rates, step sizes by acceptance rates."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import integer
from shoal.sampling.core.algorithm import LogDensity, Position, Sampler
from shoal.sampling.core.random import check_key, step_key
from shoal.sampling.langevin._ladder import adapt_ladder
from shoal.sampling.langevin._replicas import along_path, retempered


class Tuned(NamedTuple):
    """What `tune` found.

    Attributes
    ----------
    sampler
        The sampler with its new ladder and step sizes.
    rejection_rates
        ``(K - 1,)``: mean rejection rates of the pairs in the last round, on its ladder.
    barrier
        Their sum, an estimate of Λ.
    round_trips
        int: round trips of all walkers in the last round.
    num_steps
        int: steps of the last round, half of all.
    """

    sampler: Sampler
    rejection_rates: jax.Array
    barrier: jax.Array
    round_trips: int
    num_steps: int


def tune(
    key: jax.Array,
    sampler: Sampler,
    log_density: LogDensity,
    position: Position,
    num_steps: int = 4000,
    num_rounds: int = 6,
) -> Tuned:
    """Tune the ladder and each replica's step size of a `parallel` sampler by running it.

    In rounds that double in length every replica's ``step_scale`` follows its acceptance rate
    (Robbins and Monro) towards the sampler's own target; after each round but the last the ladder
    is adapted by the rejection rates of the round. The points go on from round to round, and
    nothing is adapted any more in the sampler returned.

    Parameters
    ----------
    key
        Typed key of shape ``()``.
    sampler
        What `parallel` returned.
    log_density
        The target.
    position
        Where all replicas start, one point.
    num_steps
        Steps of all rounds together, about.
    num_rounds
        Number of rounds.

    Returns
    -------
    Tuned
        To be sampled with, as in ``sample(key, model, tuned.sampler)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible.

    Notes
    -----
    Syed et al. (2022), algorithm 4.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> from shoal.sampling.langevin import tempering
    >>> start = tempering.parallel(langevin.mala(0.5), jnp.array([1.0, 0.9, 0.01]))
    >>> normal = lambda x: -0.5 * jnp.sum(x**2)
    >>> tuned = tempering.tune(jax.random.key(0), start, normal, jnp.zeros(2))
    >>> 0.05 < float(tuned.sampler.parameters["inverse_temperatures"][1]) < 0.2
    True
    """
    check_key(key)
    if not isinstance(sampler, Sampler) or "steps_per_swap" not in dict(sampler.options):
        raise TypeError(f"sampler must be what tempering.parallel returned, got {sampler!r}")
    rounds, total = integer("num_rounds", num_rounds), integer("num_steps", num_steps)
    first = max(total // (2**rounds - 1), 1)
    key_init, key_run = jax.random.split(key)
    state = sampler(log_density).init(position, key_init)
    # Arrays, not Python's numbers: those would compile anew.
    sampler = jax.tree.map(jnp.asarray, sampler)
    num_rungs = sampler.parameters["inverse_temperatures"].size
    scale = jnp.broadcast_to(sampler.parameters["step_scale"], (num_rungs,))
    sampler = sampler.replace(step_scale=scale)
    start = 0
    for number in range(rounds):
        length = first * 2**number
        before = state.round_trips
        state, sampler, rates = _round(
            key_run, sampler, log_density, state, jnp.int32(start), jnp.int32(length)
        )
        start += length
        if number < rounds - 1:
            state, sampler = _with_new_ladder(sampler, log_density, state, rates)
    cold = sampler.parameters["step_scale"][0]
    sampler = sampler.replace(
        step_size=sampler.parameters["step_size"] * cold,
        step_scale=sampler.parameters["step_scale"] / cold,
    )
    return Tuned(sampler, rates, jnp.sum(rates), int(state.round_trips - before), length)


# Compiled once for all rounds: their lengths are arguments.
@eqx.filter_jit
def _round(
    key: jax.Array,
    sampler: Sampler,
    log_density: LogDensity,
    state: Any,
    first: jax.Array,
    num_steps: jax.Array,
) -> tuple[Any, Sampler, jax.Array]:
    """Run a round; return the state, the sampler with new step sizes and the rejection rates."""
    target = sampler.target_acceptance

    def body(i: jax.Array, carry: Any) -> Any:
        state, log_scale, rejected = carry
        algorithm = sampler.replace(step_scale=jnp.exp(log_scale))(log_density)
        state, info = algorithm.step(step_key(key, first + i), state)
        if target is not None:
            gain = (first + i + 1.0) ** -0.6
            error = jnp.nan_to_num(info.replica_acceptance_rate) - target
            log_scale = log_scale + (gain * error).astype(log_scale.dtype)
        return state, log_scale, rejected + 1 - info.swap_acceptance_rate

    log_scale = jnp.log(sampler.parameters["step_scale"])
    zero = jnp.zeros(log_scale.size - 1, state.log_density.dtype)
    state, log_scale, rejected = jax.lax.fori_loop(0, num_steps, body, (state, log_scale, zero))
    return state, sampler.replace(step_scale=jnp.exp(log_scale)), rejected / num_steps


def _with_new_ladder(
    sampler: Sampler, log_density: LogDensity, state: Any, rates: jax.Array
) -> tuple[Any, Sampler]:
    """Adapt the ladder, with the step sizes between those of the old rungs."""
    old = sampler.parameters["inverse_temperatures"]
    new = adapt_ladder(old, rates)
    scale = sampler.parameters["step_scale"]
    scale = jnp.exp(jnp.interp(new, old[::-1], jnp.log(scale[::-1]))).astype(scale.dtype)
    reference = dict(sampler.options)["reference"]
    path = along_path(log_density, reference, old, state.replicas)
    replicas = retempered(state.replicas, path, new, new != old)
    state = state._replace(replicas=replicas)
    return state, sampler.replace(inverse_temperatures=new, step_scale=scale)
