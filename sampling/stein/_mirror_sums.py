"""Sums over particles of inverse Hessians of a mirror map, Σ_l b_l H(θ_l)⁻¹ v, and Hessians.

Stein methods in a mirrored space multiply each vector v by the inverse Hessian at each particle.
Where H⁻¹ is diagonal, or diag θ - θθᵀ as on the simplex, the sums over l are matrix products:

    Σ_l b_l diag(w_l) v = (Σ_l b_l w_l) ∘ v,
    Σ_l b_l (diag θ_l - θ_l θ_lᵀ) v = (Σ_l b_l θ_l) ∘ v - Σ_l b_l (θ_l·v) θ_l.

For other maps each particle's product is formed.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from shoal.sampling.core._kernel_sums import dot
from shoal.sampling.core.mirror import Box, Euclidean, MirrorMap, Orthant, Product, Simplex

_DIAGONAL = (Euclidean, Orthant, Box)


class Hessians(NamedTuple):
    """What a mirrored Stein method needs of the Hessians H_l at n points.

    Attributes
    ----------
    solve
        Maps gradients ``(n, m)`` to H_l⁻¹ g_l, ``(n, k)``.
    weighted_solve
        ``weighted_solve(weights, v)`` is Σ_l weights_l H_l⁻¹ v, ``(k,)``, for weights ``(n,)`` and
        a vector ``(m,)``; it may be mapped over both.
    multiply
        Maps vectors ``(n, k)`` to H_l v_l, ``(n, k)``.
    restrict
        Maps gradients ``(n, m)`` to those along the set, ``(n, k)``.
    is_cheap
        Whether ``weighted_solve`` keeps nothing of size n m.
    """

    solve: Callable[[jax.Array], jax.Array]
    weighted_solve: Callable[[jax.Array, jax.Array], jax.Array]
    multiply: Callable[[jax.Array], jax.Array]
    restrict: Callable[[jax.Array], jax.Array]
    is_cheap: bool


def mirror_hessians(mirror: MirrorMap, points: jax.Array) -> Hessians:
    """Return the Hessians of a mirror map at points ``(n, m)``.

    What `Hessians.multiply` gives is bounded: near a boundary at zero, where H has no bound, H
    is that of a point somewhat inside. It is there to make a kernel, for which any positive matrix
    may stand, and squares of its size must be numbers.
    """
    return Hessians(
        lambda gradients: mirror.inverse_hessian_product(points, gradients),
        _weighted_solve(mirror, points),
        lambda vectors: _multiply(mirror, points, vectors),
        mirror.along,
        _is_cheap(mirror),
    )


def matrix_hessians(matrices: jax.Array, inverses: jax.Array) -> Hessians:
    """Take positive definite matrices ``(n, d, d)`` for Hessians."""
    num, dim, _ = matrices.shape
    rows = inverses.reshape(num, dim * dim)
    highest = jax.lax.Precision.HIGHEST
    product = lambda a, b: jnp.einsum("nab,nb->na", a, b, precision=highest)
    return Hessians(
        lambda gradients: product(inverses, gradients),
        lambda weights, vector: dot(dot(weights, rows).reshape(dim, dim), vector),
        lambda vectors: product(matrices, vectors),
        lambda gradients: gradients,
        is_cheap=False,
    )


def _is_cheap(mirror: MirrorMap) -> bool:
    if isinstance(mirror, Product):
        return all(map(_is_cheap, mirror.maps))
    return isinstance(mirror, (*_DIAGONAL, Simplex))


def _weighted_solve(mirror: MirrorMap, points: jax.Array) -> Callable[..., jax.Array]:
    if isinstance(mirror, Product):
        return _each_part(mirror, points)
    if isinstance(mirror, _DIAGONAL):
        diagonal = mirror.inverse_hessian_product(points, jnp.ones_like(points))
        return lambda weights, vector: dot(weights, diagonal) * vector
    if isinstance(mirror, Simplex):
        inner = points[:, :-1]

        def solve(weights: jax.Array, vector: jax.Array) -> jax.Array:
            return dot(weights, inner) * vector[:-1] - dot(weights * dot(points, vector), inner)

        return solve
    return lambda weights, vector: dot(
        weights, mirror.inverse_hessian_product(points, jnp.broadcast_to(vector, points.shape))
    )


def _each_part(mirror: Product, points: jax.Array) -> Callable[..., jax.Array]:
    """Return the sums of a product: those of each point of each block."""

    def solve(weights: jax.Array, vector: jax.Array) -> jax.Array:
        blocks = zip(mirror.maps, _split(mirror, points), _split(mirror, vector), strict=True)
        found = []
        for part, thetas, vectors in blocks:
            of_one = lambda theta, v, part=part: _weighted_solve(part, theta)(weights, v)
            found.append(jax.vmap(of_one, in_axes=(1, 0))(thetas, vectors).ravel())
        return jnp.concatenate(found)

    return solve


def _multiply(mirror: MirrorMap, points: jax.Array, vectors: jax.Array) -> jax.Array:
    if isinstance(mirror, Product):
        parts = _split(mirror, points), _split(mirror, vectors, dual=True)
        found = [_multiply(*block) for block in zip(mirror.maps, *parts, strict=True)]
        return jnp.concatenate([part.reshape(len(points), -1) for part in found], -1)
    smallest = jnp.finfo(points.dtype).tiny ** 0.45
    if isinstance(mirror, _DIAGONAL):
        diagonal = mirror.hessian_product(points, jnp.ones_like(points))
        return jnp.minimum(diagonal, 1 / smallest) * vectors
    if isinstance(mirror, Simplex):
        points = jnp.maximum(points, smallest)
    return mirror.hessian_product(points, vectors)


def _split(mirror: Product, vectors: jax.Array, dual: bool = False) -> list[jax.Array]:
    """Return the points of each block of a product, ``(..., count, size)``."""
    found, start = [], 0
    for count, size, dual_size in mirror.blocks:
        shape = count, dual_size if dual else size
        end = start + shape[0] * shape[1]
        found.append(vectors[..., start:end].reshape(*vectors.shape[:-1], *shape))
        start = end
    return found
