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
    level, index
        The interval: number ``index`` of ``2**level`` equal ones; int32 scalars.
    node
        Its increment, parts of shape ``(d,)``.
    pending
        Increments over the intervals that lie ahead, ``(depth + 1, d)``, by level.
    """

    level: jax.Array
    index: jax.Array
    node: Increment
    pending: Increment


def start(seed: jax.Array, length: jax.Array, dim: int, levy: str, depth: int) -> Walk:
    """Stand at the whole of an interval of time."""
    root = tree.draw(tree.node_normals(seed, 0, levy, (dim,), length.dtype), length)
    pending = jax.tree.map(lambda part: jnp.zeros((depth + 1, dim), part.dtype), root)
    return Walk(jnp.int32(0), jnp.int32(0), root, pending)


def size(walk: Walk, length: jax.Array) -> jax.Array:
    """Return the length of the interval in time."""
    return length * jnp.exp2(-walk.level.astype(length.dtype))


def halves(seed: jax.Array, walk: Walk, length: jax.Array) -> tuple[Increment, Increment]:
    """Return the increments over the two halves of the interval."""
    dim, levy = walk.node.W.shape[0], tree.LEVY[len(jax.tree.leaves(walk.node)) - 1]
    number = (1 << walk.level) + walk.index
    normals = tree.node_normals(seed, number, levy, (dim,), length.dtype)
    return tree.halve(walk.node, normals, size(walk, length))


def down(walk: Walk, left: Increment, right: Increment, where: Any = True) -> Walk:
    """Go to the left half; stay unless ``where``."""
    slots = jnp.arange(len(walk.pending.W))[:, None]
    store = lambda slot, part: jnp.where((slots == walk.level + 1) & where, part, slot)
    return Walk(
        walk.level + where,
        jnp.where(where, 2 * walk.index, walk.index),
        _choose(where, left, walk.node),
        jax.tree.map(store, walk.pending, right),
    )


def on(walk: Walk) -> tuple[Walk, jax.Array]:
    """Go to the interval that follows; return also whether there was none."""
    following = walk.index + 1
    # Up from every right half: as often as the number of the next interval is even.
    up = jax.lax.population_count((following & -following) - 1)
    is_end = up == walk.level
    level = jnp.where(is_end, 0, walk.level - up)
    slots = jnp.arange(len(walk.pending.W))[:, None]
    read = lambda slot: jnp.sum(jnp.where(slots == level, slot, 0), axis=0)
    return walk._replace(
        level=level, index=following >> up, node=jax.tree.map(read, walk.pending)
    ), is_end


def _choose(where: Any, new: Increment, old: Increment) -> Increment:
    return jax.tree.map(lambda a, b: jnp.where(where, a, b), new, old)
