"""The accept-reject step that all adjusted samplers share."""

from typing import TypeVar

import jax
import jax.numpy as jnp

from shoal.sampling.core.algorithm import Status

State = TypeVar("State")


def accept(key: jax.Array, log_acceptance: jax.Array, status: jax.Array) -> jax.Array:
    """Decide whether to move, a boolean scalar: with the probability given, where all is finite."""
    # 1 - u lies in (0, 1], so that its logarithm is finite.
    uniform = 1 - jax.random.uniform(key, dtype=log_acceptance.dtype)
    return (jnp.log(uniform) <= log_acceptance) & (status == Status.OK)


def probability(log_acceptance: jax.Array) -> jax.Array:
    """Return the Metropolis-Hastings acceptance probability of a log ratio."""
    return jnp.exp(jnp.minimum(log_acceptance, 0))


def choose(is_accepted: jax.Array, new: State, old: State) -> State:
    """Return the new state where the move is accepted, else the old one."""
    return jax.tree.map(lambda a, b: jnp.where(is_accepted, a, b), new, old)
