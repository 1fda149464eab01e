"""Noise of stochastic solvers: one Brownian path for each sample, the same on every grid.

In the clock s = exp(2 η λ) the noise of a stochastic solver is Brownian motion B, whatever the
grid: with the increments of one path a solution converges strongly as steps are refined. Here B is
drawn as U(λ) = B(s) / √s, which is a stationary Ornstein-Uhlenbeck process of rate η and so of unit
size everywhere. U is bisected along a fixed dyadic tree in λ: at a midpoint it is normal given both
ends. The law of U is exact at the tree's nodes, 0.001 apart in λ, and at any one point between
them.
"""

import jax
import jax.numpy as jnp

from shoal.sampling.core import random

_LOWEST, _HIGHEST = -32.0, 32.0
_DEPTH = 16


def increment(
    key: jax.Array, ids: jax.Array, piece: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """Return B's increment over a piece of the path, over its standard deviation.

    Parameters
    ----------
    key
        Typed key of the run.
    ids
        Number of each sample, ``(n,)``.
    piece
        λ at the piece's start and end, infinite ones counting as -32 and 32, and η; ``(3,)``.
    shape
        Shape of a sample.

    Returns
    -------
    jax.Array
        Standard normals ``(n, *shape)``, independent for intervals that do not overlap.
    """
    (low, high), decay = jnp.clip(piece[:2], _LOWEST, _HIGHEST), piece[2]
    one = lambda key: (_value(key, high, decay, shape), _value(key, low, decay, shape))
    after, before = jax.vmap(one)(random.particle_keys(key, ids))
    log_correlation = -decay * (high - low)
    remains = -jnp.expm1(2 * log_correlation)
    return (after - jnp.exp(log_correlation) * before) / jnp.sqrt(remains)


def _value(key: jax.Array, at: jax.Array, decay: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return U(``at``) of one sample, down the tree."""
    dtype = at.dtype
    draw = lambda node: jax.random.normal(jax.random.fold_in(key, node), shape, dtype)

    def bridge(node: jax.Array, to_left: jax.Array, to_right: jax.Array, u: tuple) -> jax.Array:
        # Correlations with the left end, with the right one, and of the two.
        left, right = jnp.exp(-decay * to_left), jnp.exp(-decay * to_right)
        free_left, free_right = -jnp.expm1(-2 * decay * to_left), -jnp.expm1(-2 * decay * to_right)
        free = -jnp.expm1(-2 * decay * (to_left + to_right))
        mean = (u[0] * left * free_right + u[1] * right * free_left) / free
        return mean + jnp.sqrt(free_left * free_right / free) * draw(node)

    def descend(_: int, carry: tuple) -> tuple:
        node, low, width, u_low, u_high = carry
        half = width / 2
        middle = bridge(node, half, half, (u_low, u_high))
        goes_right = at >= low + half
        return (
            2 * node + goes_right.astype(node.dtype),
            jnp.where(goes_right, low + half, low),
            half,
            jnp.where(goes_right, middle, u_low),
            jnp.where(goes_right, u_high, middle),
        )

    ends = jnp.asarray(_LOWEST, dtype), jnp.asarray(_HIGHEST - _LOWEST, dtype)
    # The nodes of the tree are numbered from 1; these two are none of them. Over so long a time
    # the ends are independent.
    root = (jnp.asarray(1, jnp.uint32), *ends, draw(0), draw(2 ** (_DEPTH + 2)))
    node, low, width, u_low, u_high = jax.lax.fori_loop(0, _DEPTH, descend, root)
    inside = bridge(node, at - low, low + width - at, (u_low, u_high))
    at_left, at_right = at <= low, at >= low + width
    return jnp.where(at_left, u_low, jnp.where(at_right, u_high, inside))
