"""Softmax over keys with squared-distance costs: log-normaliser and mean, a tile at a time."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from shoal.sampling.core._kernel_sums import (
    distance_factors,
    dot,
    fixed_mean,
    squared_distances,
)
from shoal.sampling.core._tiles import Reduction, Ring, block_sides, reduce_pairs


@functools.partial(jax.jit, static_argnums=(5, 6))
def log_normaliser_and_mean(
    x: jax.Array,
    y: jax.Array,
    bias: jax.Array,
    values: jax.Array | None,
    epsilon: Any,
    block_size: int | None,
    ring: Ring | None,
) -> tuple[jax.Array, jax.Array | None]:
    """Return log-normaliser ``(m,)`` and, given values, their mean ``(m, p)``."""
    epsilon = jnp.asarray(epsilon, x.dtype)
    a, c = distance_factors(x, y)
    # The inner where keeps 0 * inf out of the derivatives of a key that does not count.
    live = bias != -jnp.inf
    height = jnp.where(live, jnp.where(live, bias, 0) / epsilon, -jnp.inf)
    # Values far from zero keep their digits when averaged around their own mean.
    centre: Any = None if values is None else fixed_mean(values)
    values = None if values is None else values - centre
    identity = (-jnp.inf, 0.0, None if values is None else 0.0)
    reduction = Reduction(_softmax_tile, _join_softmax, identity, -jnp.inf)
    sides = block_sides(x.shape[0], y.shape[0], block_size, 1)
    peak, total, moment = reduce_pairs(
        reduction, 0.5 / epsilon, a, (c, values), height, sides, ring
    )
    dead = total == 0
    log_total = jnp.log(jnp.where(dead, 1, total))
    out = jnp.where(dead, -jnp.inf, log_total + _finite(peak))
    return out, None if moment is None else centre + moment / total[:, None]


def _softmax_tile(rate: jax.Array, a: jax.Array, points: Any, height: jax.Array) -> Any:
    """Return peak ``(b,)``, sum ``(b,)`` and moments ``(b, p)`` relative to the peak.

    The result does not depend on the peak, so that derivatives may hold it fixed.
    """
    c, values = points
    logits = height - rate * squared_distances(a, c)
    peak = jnp.max(jax.lax.stop_gradient(logits), axis=1)
    p = jnp.exp(logits - _finite(peak)[:, None])
    return peak, jnp.sum(p, axis=1), None if values is None else dot(p, values)


def _join_softmax(left: Any, right: Any) -> Any:
    """Bring two blocks to their common peak and add."""
    peak = jnp.maximum(left[0], right[0])
    scales = [jnp.exp(part[0] - _finite(peak)) for part in (left, right)]
    total = scales[0] * left[1] + scales[1] * right[1]
    if left[2] is None:
        return peak, total, None
    return peak, total, scales[0][:, None] * left[2] + scales[1][:, None] * right[2]


def _finite(peak: jax.Array) -> jax.Array:
    """Stand in zero for the peak of a block in which nothing counts."""
    return jnp.where(peak == -jnp.inf, 0, peak)
