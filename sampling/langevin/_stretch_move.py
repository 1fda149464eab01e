"""The stretch move of `shoal.sampling.langevin.ensemble`, half of an ensemble after the other."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import (
    check_callable,
    check_finite,
    check_position,
    real_scalar,
)
from shoal.sampling.core.algorithm import (
    Algorithm,
    LogDensity,
    Position,
    Status,
    proposal_status,
)
from shoal.sampling.core.particles import to_matrix
from shoal.sampling.core.random import check_key, particle_keys
from shoal.sampling.langevin._accept import accept, probability


class StretchState(NamedTuple):
    """An ensemble.

    Attributes
    ----------
    position
        Pytree of floating arrays ``(J, ...)``.
    log_density
        ``(J,)``.
    alive
        bool ``(J,)``: the particles that count. One that does not neither moves nor is a partner.
    """

    position: Position
    log_density: jax.Array
    alive: jax.Array


class StretchInfo(NamedTuple):
    """What happened in a step, for each particle: arrays ``(J,)``.

    Attributes
    ----------
    acceptance_rate
        Acceptance probability of its proposal.
    is_accepted
        Whether it moved.
    status
        int8 `Status` code of its proposal, ``FROZEN`` where it is not alive.
    """

    acceptance_rate: jax.Array
    is_accepted: jax.Array
    status: jax.Array


def build_stretch(log_density: LogDensity, a: Any) -> Algorithm:
    def init(position: Position, key: jax.Array | None = None) -> StretchState:
        num, dim = check_ensemble(log_density, position)
        if num < max(2 * dim, 4):
            raise ValueError(
                f"position holds {num} particles of {dim} coordinates; the stretch move needs at "
                f"least {max(2 * dim, 4)}"
            )
        evaluate = lambda point: real_scalar("log_density", log_density(point))
        values = jax.vmap(evaluate)(position)
        check_finite("log_density at the start", values)
        return StretchState(position, values, jnp.ones(num, bool))

    def step(key: jax.Array, state: StretchState) -> tuple[StretchState, StretchInfo]:
        check_key(key)
        x, from_matrix = to_matrix(state.position)
        evaluate = lambda rows: jax.vmap(log_density)(from_matrix(rows))
        keys = particle_keys(key, jnp.arange(len(x)))
        parts = x, state.log_density, state.alive
        # Halves by parity, so that rows appended to fill up devices change no particle's half.
        even = jax.tree.map(lambda leaf: leaf[0::2], parts)
        odd = jax.tree.map(lambda leaf: leaf[1::2], parts)
        even, even_info = _stretch_half(keys[0::2], a, evaluate, even, odd)
        odd, odd_info = _stretch_half(keys[1::2], a, evaluate, odd, even)
        (x, values, alive), info = _interleave((even, even_info), (odd, odd_info))
        return StretchState(from_matrix(x), values, alive), info

    return Algorithm(init, step)


def _stretch_half(keys: jax.Array, a: Any, evaluate: Any, half: Any, other: Any) -> tuple[Any, Any]:
    """Move one half of an ensemble, (points, log densities, alive), given the other."""
    x, value, alive = half
    key_draw, key_accept = jax.vmap(jax.random.split, out_axes=1)(keys)
    u = jax.vmap(lambda k: jax.random.uniform(k, (2,), x.dtype))(key_draw)
    partner, has_partner = _partners(u[:, 0], other[0], other[2])
    a = jnp.asarray(a, x.dtype)
    z = (1 + (a - 1) * u[:, 1]) ** 2 / a
    y = partner + z[:, None] * (x - partner)
    new = evaluate(y)
    status = proposal_status(new, jnp.isfinite(y).all(1))
    status = jnp.where(alive & has_partner, status, jnp.int8(Status.FROZEN))
    log_ratio = (x.shape[1] - 1) * jnp.log(z) + new - value
    log_ratio = jnp.where(status == Status.OK, log_ratio, -jnp.inf)
    is_accepted = jax.vmap(accept)(key_accept, log_ratio, status)
    moved = jnp.where(is_accepted[:, None], y, x), jnp.where(is_accepted, new, value), alive
    return moved, StretchInfo(probability(log_ratio), is_accepted, status)


def _partners(u: jax.Array, x: jax.Array, alive: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Choose a living row for each number in [0, 1); also tell whether there is any."""
    rank = jnp.cumsum(alive)
    # The product may round up to the number of the living.
    wanted = jnp.minimum(jnp.floor(u * rank[-1]).astype(rank.dtype) + 1, rank[-1])
    # The first row by whose end so many have been alive is itself alive.
    return x[jnp.searchsorted(rank, wanted)], rank[-1] > 0


def _interleave(even: Any, odd: Any) -> Any:
    """Put rows 0, 2, ... and 1, 3, ... of pytrees together."""

    def one(a: jax.Array, b: jax.Array) -> jax.Array:
        num = len(a) + len(b)
        order = np.argsort(np.concatenate([np.arange(0, num, 2), np.arange(1, num, 2)]))
        return jnp.concatenate([a, b])[order]

    return jax.tree.map(one, even, odd)


def check_ensemble(log_density: Any, position: Any) -> tuple[int, int]:
    check_callable("log_density", log_density)
    check_position("position", position)
    matrix = to_matrix(position)[0]
    return matrix.shape[0], matrix.shape[1]
