"""Products of convex sets: consecutive blocks of one vector, each with its own mirror map."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import integer
from shoal.sampling.core._mirror_map import MirrorMap, check_size


class Block(NamedTuple):
    """How many points of how many coordinates a part of a product holds, one after the other."""

    num_points: int
    size: int
    dual_size: int


class Product(MirrorMap):
    """θ = (θ_1, θ_2, ...), ψ(θ) = Σ ψ_i(θ_i): every formula holds block by block.

    Attributes
    ----------
    maps
        The mirror map of each block.
    blocks
        The sizes of each block.
    """

    maps: tuple[MirrorMap, ...]
    blocks: tuple[Block, ...] = eqx.field(static=True)

    def to_dual(self, primal: jax.Array) -> jax.Array:
        """Return all η_i."""
        return self._each(lambda one, theta: one.to_dual(theta), primal)

    def to_primal(self, dual: jax.Array) -> jax.Array:
        """Return all θ_i."""
        pairs = zip(self.maps, self._split(dual, dual=True), strict=True)
        return _join(one.to_primal(eta) for one, eta in pairs)

    def dual_size(self, primal_size: int) -> int:
        """Return the sum of those of the blocks."""
        return sum(block.num_points * block.dual_size for block in self.blocks)

    def along(self, covector: jax.Array) -> jax.Array:
        """Restrict block by block."""
        return self._each(lambda one, part: one.along(part), covector)

    def hessian_product(self, primal: jax.Array, vector: jax.Array) -> jax.Array:
        """Return all H_i v_i."""
        triples = zip(self.maps, self._split(primal), self._split(vector, dual=True), strict=True)
        return _join(one.hessian_product(theta, part) for one, theta, part in triples)

    def inverse_hessian_product(self, primal: jax.Array, covector: jax.Array) -> jax.Array:
        """Return all H_i⁻¹ g_i."""
        return self._each(
            lambda one, theta, part: one.inverse_hessian_product(theta, part), primal, covector
        )

    def log_det_dual_hessian(self, dual: jax.Array) -> jax.Array:
        """Return the sum of those of all points."""
        pairs = zip(self.maps, self._split(dual, dual=True), strict=True)
        parts = [jnp.sum(one.log_det_dual_hessian(eta), -1) for one, eta in pairs]
        return sum(parts[1:], start=parts[0])

    def divergence(self, primal: jax.Array) -> jax.Array:
        """Return all D_i."""
        return self._each(lambda one, theta: one.divergence(theta), primal)

    def hessian_noise(self, key: jax.Array, primal: jax.Array) -> jax.Array:
        """Draw from each N(0, H_i), with a key of its own."""
        keys = iter(jax.random.split(key, len(self.maps)))
        return self._each(lambda one, theta: one.hessian_noise(next(keys), theta), primal)

    def check(self, primal: jax.Array) -> None:
        """Refuse what a block refuses, and shapes that do not fit."""
        check_size(primal, self._size, "the product")
        for index, (one, theta) in enumerate(zip(self.maps, self._split(primal), strict=True)):
            try:
                one.check(theta)
            except ValueError as error:
                raise ValueError(f"part {index} of position: {error}") from None

    @property
    def _size(self) -> int:
        return sum(block.num_points * block.size for block in self.blocks)

    def _split(self, vectors: jax.Array, dual: bool = False) -> Iterator[jax.Array]:
        """Yield the points of each block, ``(..., count, size)``."""
        shapes = [
            (block.num_points, block.dual_size if dual else block.size) for block in self.blocks
        ]
        ends = itertools.accumulate(map(math.prod, shapes))
        for shape, end in zip(shapes, ends, strict=True):
            part = vectors[..., end - math.prod(shape) : end]
            yield part.reshape(*vectors.shape[:-1], *shape)

    def _each(self, function: Callable[..., jax.Array], *primals: jax.Array) -> jax.Array:
        """Apply a function of a map and points, and of what has their shape."""
        return _join(map(function, self.maps, *map(self._split, primals)))


def product(parts: Sequence[tuple[Any, ...]]) -> Product:
    """Return the map of a vector that consists of blocks in sets of their own.

    Parameters
    ----------
    parts
        For each block, in order, ``(mirror, size)`` or ``(mirror, size, count)``: ``count`` points
        (by default one) of ``size`` primal coordinates, one after the other.

    Raises
    ------
    TypeError, ValueError
        If ``parts`` is empty, or an entry is no such tuple, has sizes that are no positive
        integers or a size that does not fit its map.

    Examples
    --------
    Two positive numbers, and two pairs of probabilities:

    >>> import jax.numpy as jnp
    >>> from shoal.sampling.core import mirror
    >>> sites = mirror.product([(mirror.orthant(), 2), (mirror.simplex(), 2, 2)])
    >>> sites.to_primal(jnp.zeros(4)).tolist()
    [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    """
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        raise TypeError(f"parts must be a sequence of (mirror, size), got {parts!r}")
    if not parts:
        raise ValueError(f"parts must hold at least one (mirror, size), got {parts!r}")
    pairs = [_part(f"parts[{index}]", part) for index, part in enumerate(parts)]
    return Product(tuple(one for one, _ in pairs), tuple(block for _, block in pairs))


def _part(name: str, part: Any) -> tuple[MirrorMap, Block]:
    is_part = isinstance(part, tuple) and len(part) in (2, 3) and isinstance(part[0], MirrorMap)
    if not is_part:
        raise TypeError(f"{name} must be (mirror, size) or (mirror, size, count), got {part!r}")
    mirror = part[0]
    size, count = integer(f"the size in {name}", part[1]), 1
    if len(part) == 3:
        count = integer(f"the count in {name}", part[2])
    point = jax.ShapeDtypeStruct((size,), jnp.result_type(float))
    try:
        shape = jax.eval_shape(mirror.to_dual, point).shape
    except (TypeError, ValueError):
        shape = None
    if shape != (mirror.dual_size(size),):
        raise ValueError(f"{name} has size {size}, which its map does not fit: {mirror}")
    return mirror, Block(count, size, mirror.dual_size(size))


def _join(parts: Any) -> jax.Array:
    flat = [part.reshape(*part.shape[:-2], -1) for part in parts]
    return jnp.concatenate(flat, -1)
