"""A walk over a Brownian path from left to right in dyadic intervals, as an adaptive stepper needs.

The walk stands at an interval of the tree of `brownian`; it can go down to the left half of it, or
on to the interval that follows. Each interval is drawn when its parent is left for it, so a walk
draws at most twice as often as it goes on, whatever it tried and rejected. The path is that of
``brownian.path`` with the same key, ends and depth.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from shoal.sampling.langevin import _brownian_tree as tree
from shoal.sampling.langevin._brownian_tree import Increment


class Walk(NamedTuple):
    """A walk's place.

    Attributes
    ----------
    level, number
        The interval: the one with this number, from 0, of ``2**level`` equal ones; int32 scalars.
    node
        Its increment, parts of shape ``(d,)``.
    pending
        Increments over the intervals that lie ahead, ``(depth + 1, parts, d)``, by level.
    """

    level: jax.Array
    number: jax.Array
    node: Increment
    pending: jax.Array


def start(seed: jax.Array, length: jax.Array, dim: int, levy: str, depth: int) -> Walk:
    """Stand at the whole of an interval of time."""
    root = tree.draw(tree.node_normals(seed, 0, levy, (dim,), length.dtype), length)
    pending = jnp.zeros((depth + 1, len(levy), dim), length.dtype)
    return Walk(jnp.int32(0), jnp.int32(0), root, pending)


def size(walk: Walk, length: jax.Array) -> jax.Array:
    """Return the length of the interval in time."""
    return length * jnp.exp2(-walk.level.astype(length.dtype))


def halves(seed: jax.Array, walk: Walk, length: jax.Array) -> tuple[Increment, Increment]:
    """Return the increments over the two halves of the interval."""
    dim, levy = walk.node.W.shape[0], tree.LEVY[len(jax.tree.leaves(walk.node)) - 1]
    node = (1 << walk.level) + walk.number
    normals = tree.node_normals(seed, node, levy, (dim,), length.dtype)
    return tree.halve(walk.node, normals, size(walk, length))


def to_left(walk: Walk, left: Increment, where: Any) -> Walk:
    """Go to the left half where ``where``; the right one is not stored."""
    return walk._replace(
        level=walk.level + where,
        number=jnp.where(where, 2 * walk.number, walk.number),
        node=jax.tree.map(lambda a, b: jnp.where(where, a, b), left, walk.node),
    )


def store(walk: Walk, levels: jax.Array, parts: tuple[Increment, ...], where: jax.Array) -> Walk:
    """Keep intervals that lie ahead, by their levels ``(n,)``, those where ``where``, ``(n,)``."""
    # A scatter: a mask over the levels would be fused with all that the parts came from.
    slots = jnp.where(where, levels, len(walk.pending))
    rows = jnp.stack([jnp.stack(jax.tree.leaves(part)) for part in parts])
    return walk._replace(pending=walk.pending.at[slots].set(rows, mode="drop"))


def on(walk: Walk) -> tuple[Walk, jax.Array]:
    """Go to the interval that follows; return also whether there was none."""
    following = walk.number + 1
    # Up from every right half: as often as the number of the next interval is even.
    up = jax.lax.population_count((following & -following) - 1)
    is_end = up == walk.level
    level = jnp.where(is_end, 0, walk.level - up)
    node = Increment(*walk.pending[level])
    return walk._replace(level=level, number=following >> up, node=node), is_end
