"""Reductions over all pairs of rows and columns, a tile of the pair matrix at a time.

A reduction is a monoid: ``tile`` reduces one block of rows against one block of columns,
``combine`` joins the results of two blocks of columns, ``identity`` is what an empty block gives.
Row blocks are mapped and column blocks scanned, so that no more than one tile exists at a time;
over a device mesh the column blocks travel round a ring. Tiles are recomputed when a derivative
is taken backwards, which keeps that at one tile too.
"""

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

# Entries of the pair matrix that exist at once, and the side of a square tile, by platform. A CPU's
# tile stays in its second-level cache; an accelerator needs one that fills the chip.
_DENSE_ENTRIES = {"cpu": 2**20}
_TILE_SIDE = {"cpu": 512}
_OTHER_DENSE_ENTRIES, _OTHER_TILE_SIDE = 2**24, 4096


class Ring(NamedTuple):
    """The devices along one axis of a mesh, round which blocks of columns travel.

    Attributes
    ----------
    mesh
        Device mesh.
    axis
        Name of the mesh axis over which rows and columns are split.
    """

    mesh: Mesh
    axis: str


class Reduction(NamedTuple):
    """How the pairs of rows and columns are reduced.

    Attributes
    ----------
    tile
        ``tile(parameters, rows, points, weights) -> partial``; every leaf of ``partial`` has the
        rows' leading axis.
    combine
        ``combine(partial, partial) -> partial``, associative.
    identity
        Pytree of the partial's structure whose leaves are numbers: what no column gives.
    padding
        Entry of ``weights`` that makes a column count for nothing.
    """

    tile: Callable[[Any, Any, Any, Any], Any]
    combine: Callable[[Any, Any], Any]
    identity: Any
    padding: float


def check_block_size(block_size: Any) -> int | None:
    """Pass on a positive integer or None."""
    if block_size is None:
        return None
    try:
        if isinstance(block_size, bool):
            raise TypeError
        size = operator.index(block_size)
    except TypeError:
        raise TypeError(f"block_size must be an integer or None, got {block_size!r}") from None
    if size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    return size


def check_ring(ring: Any) -> Ring | None:
    """Pass on a ring whose axis is one of its mesh, or None."""
    if ring is None:
        return None
    if not isinstance(ring, Ring):
        raise TypeError(f"ring must be a Ring(mesh, axis) or None, got {ring!r}")
    if ring.axis not in ring.mesh.axis_names:
        raise ValueError(f"ring.axis must be one of {ring.mesh.axis_names}, got {ring.axis!r}")
    # What jax.make_mesh returns may want shardings written into the types of arrays.
    return ring._replace(mesh=Mesh(ring.mesh.devices, ring.mesh.axis_names))


def block_sides(
    num_rows: int, num_columns: int, block_size: int | None, cost: int, aspect: int = 1
) -> tuple[int, int]:
    """Choose the sides of a tile.

    ``cost`` is the number of entries that a pair needs while it is reduced: 1, or d for a
    function known only pair by pair. ``aspect`` makes tiles taller without making them larger:
    faster, as fewer row blocks run through all columns, where a row's partial result is small.
    """
    if block_size is not None:
        return min(block_size, num_rows), min(block_size, num_columns)
    platform = jax.default_backend()
    if num_rows * num_columns * cost <= _DENSE_ENTRIES.get(platform, _OTHER_DENSE_ENTRIES):
        return num_rows, num_columns
    side = _TILE_SIDE.get(platform, _OTHER_TILE_SIDE)
    entries = max(1, side * side // cost)
    side = max(1, math.isqrt(entries))
    rows = min(num_rows, max(aspect * side, entries // num_columns))
    columns = min(num_columns, max(1, entries // rows))
    return _even(num_rows, rows), _even(num_columns, columns)


def _even(total: int, block: int) -> int:
    """Shrink a block so that all blocks are nearly full."""
    return -(-total // -(-total // block))


def reduce_pairs(
    reduction: Reduction,
    parameters: Any,
    rows: Any,
    points: Any,
    weights: Any,
    sides: tuple[int, int],
    ring: Ring | None = None,
) -> Any:
    """Reduce every row against all columns.

    Parameters
    ----------
    reduction
        What happens in a tile.
    parameters
        Pytree handed to every tile (kernel parameters).
    rows
        Pytree with leaves ``(m, ...)``.
    points, weights
        Pytrees with leaves ``(n, ...)``. They differ in how columns are padded: points with
        copies of the last one, where any function of the points is as good as there, weights
        with ``reduction.padding``.
    sides
        Rows and columns of a tile.
    ring
        Devices to share the work.

    Returns
    -------
    Any
        Pytree like the reduction's partial, leaves ``(m, ...)``.
    """
    if ring is None:
        return _reduce_blocks(reduction, parameters, rows, points, weights, sides)
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    size = ring.mesh.shape[ring.axis]
    rows = _pad(rows, size)
    points, weights = _pad(points, size), _pad(weights, size, reduction.padding)
    split, whole = PartitionSpec(ring.axis), PartitionSpec()
    step = [(device, (device + 1) % size) for device in range(size)]

    def on_device(parameters: Any, rows: Any, points: Any, weights: Any) -> Any:
        def turn(carry: Any, _: None) -> tuple[Any, None]:
            total, columns = carry
            points, weights = columns
            part = _reduce_blocks(reduction, parameters, rows, points, weights, sides)
            return (
                reduction.combine(total, part),
                jax.lax.ppermute(columns, ring.axis, step),
            ), None

        total = _empty(reduction, parameters, rows, points, weights)
        return jax.lax.scan(turn, (total, (points, weights)), length=size)[0][0]

    out = jax.shard_map(
        on_device,
        mesh=ring.mesh,
        in_specs=(whole, split, split, split),
        out_specs=split,
        check_vma=False,
    )(parameters, rows, points, weights)
    return jax.tree.map(lambda leaf: leaf[:num_rows], out)


def _reduce_blocks(
    reduction: Reduction,
    parameters: Any,
    rows: Any,
    points: Any,
    weights: Any,
    sides: tuple[int, int],
) -> Any:
    """Map over row blocks and scan over column blocks, on one device."""
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    num_columns = jax.tree.leaves((points, weights))[0].shape[0]
    row_side, column_side = min(sides[0], num_rows), min(sides[1], num_columns)
    if (row_side, column_side) == (num_rows, num_columns):
        return reduction.tile(parameters, rows, points, weights)
    columns = (
        _blocks(_pad(points, column_side), column_side),
        _blocks(_pad(weights, column_side, reduction.padding), column_side),
    )
    tile = jax.checkpoint(reduction.tile, prevent_cse=False)

    def reduce_row_block(row_block: Any) -> Any:
        def scan_column_block(total: Any, block: Any) -> tuple[Any, None]:
            return reduction.combine(total, tile(parameters, row_block, *block)), None

        first = jax.tree.map(lambda leaf: leaf[0], columns)
        if column_side == num_columns:
            return tile(parameters, row_block, *first)
        empty = _empty(reduction, parameters, row_block, *first)
        return jax.lax.scan(scan_column_block, empty, columns)[0]

    if row_side == num_rows:
        return reduce_row_block(rows)
    row_blocks = _blocks(_pad(rows, row_side), row_side)
    # Without this checkpoint the backward pass would keep the totals of every row block.
    out = jax.lax.map(jax.checkpoint(reduce_row_block, prevent_cse=False), row_blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_rows], out)


def _empty(reduction: Reduction, *arguments: Any) -> Any:
    """Return the partial result of no columns at all."""
    shapes = jax.eval_shape(reduction.tile, *arguments)
    return jax.tree.map(
        lambda shape, value: jnp.full(shape.shape, value, shape.dtype), shapes, reduction.identity
    )


def _pad(tree: Any, multiple: int, value: float | None = None) -> Any:
    """Lengthen leading axes to a multiple, by copies of the last entry or by a value."""

    def pad(leaf: jax.Array) -> jax.Array:
        width = [(0, -leaf.shape[0] % multiple)] + [(0, 0)] * (leaf.ndim - 1)
        if width[0][1] == 0:
            return leaf
        if value is None:
            return jnp.pad(leaf, width, mode="edge")
        return jnp.pad(leaf, width, constant_values=value)

    return jax.tree.map(pad, tree)


def _blocks(tree: Any, side: int) -> Any:
    """Split leading axes into blocks: ``(k * side, ...)`` becomes ``(k, side, ...)``."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, side, *leaf.shape[1:]), tree)
