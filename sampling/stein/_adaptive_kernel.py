"""The kernel of mirrored descent, K(θ, θ') = E[k^½(θ, θ_t) H(θ_t) k^½(θ_t, θ')], on n particles.

With the Gram matrix K = V diag(n λ) Vᵀ, R = V diag(√λ) Vᵀ, Q = V diag(1/√λ) Vᵀ, the leading
eigenvalues alone, and the dual score σ,

    u = R σ + (1/n) Q T,    T_p = Σ_l H_l⁻¹ ∇_{θ_l} k(θ_l, θ_p),    Δ = R [H_m u_m]_m.

T is the repulsion of SVGD with the kernel k in the mirrored space: the root of the kernel enters by
the matrix Q alone, as Nyström's extension of an eigenvector is linear in the kernel's columns. So
beside the eigenvalues, n³, no more than n² d multiplications are made and nothing n² d is held.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from shoal.sampling.core import pairwise
from shoal.sampling.core._kernel_sums import distance_factors, dot, squared_distances
from shoal.sampling.core.kernels import Kernel
from shoal.sampling.stein._direction import Direction, Ensemble
from shoal.sampling.stein._kernel_rows import as_dtype, gradient_weights, kernel_rows
from shoal.sampling.stein._mirror_sums import Hessians


class Root(NamedTuple):
    """R = V diag(scale) Vᵀ and Q = V diag(inverse) Vᵀ; entries of what is cut off are zero.

    Attributes
    ----------
    vectors
        V, ``(n, n)``.
    scale, inverse
        √λ and 1/√λ, ``(n,)``.
    """

    vectors: jax.Array
    scale: jax.Array
    inverse: jax.Array

    def apply(self, scale: jax.Array, values: jax.Array) -> jax.Array:
        """Return V diag(scale) Vᵀ values, for ``(n, p)``."""
        return dot(self.vectors, scale[:, None] * dot(self.vectors.T, values))


def kernel_root(gram: jax.Array, alive: jax.Array, truncation: Any, jitter: Any) -> Root:
    """Return the root of a Gram matrix, of its largest eigenvalues that sum to a share of all.

    Rows and columns of the dead must be zero. The share ``truncation`` is reached by the last
    eigenvalue that is kept; 1 keeps all that are positive.
    """
    # The dead get an eigenvalue that no living one can have, and are known by it.
    mark = jnp.max(jnp.diagonal(gram))
    values, vectors = jnp.linalg.eigh(gram - jnp.diag(jnp.where(alive, 0, mark)))
    # What rounding has made negative is zero.
    values = jnp.where(values < -mark / 2, 0, jnp.maximum(values, 0) + jitter)
    values, vectors = values[::-1], vectors[:, ::-1]
    share = values / jnp.sum(values)
    is_kept = (jnp.cumsum(share) - share < truncation) | (truncation >= 1)
    is_kept &= values > 0
    num_alive = jnp.maximum(jnp.sum(alive), 1).astype(gram.dtype)
    scale = jnp.sqrt(jnp.where(is_kept, values / num_alive, 1))
    return Root(vectors, jnp.where(is_kept, scale, 0), jnp.where(is_kept, 1 / scale, 0))


def adaptive_direction(
    kernel: Kernel,
    ensemble: Ensemble,
    hessians: Hessians,
    truncation: Any,
    jitter: Any,
    self_term: jax.Array | None = None,
) -> Direction:
    """Return Δ; with H_l D_l for ``self_term``, ``(n, k)``, the derivative of H in the kernel too.

    The scores of the ensemble are the dual ones.
    """
    dtype = ensemble.points.dtype
    truncation, jitter = jnp.asarray(truncation, dtype), jnp.asarray(jitter, dtype)
    rows = kernel_rows(kernel, ensemble, hessians, lambda row: row)
    gram = rows.used * ensemble.weights[:, None]
    root = kernel_root(gram, ensemble.alive, truncation, jitter)
    inner = root.apply(root.scale, ensemble.score)
    inner += root.apply(root.inverse, rows.repulsion) / ensemble.num_alive
    phi = root.apply(root.scale, hessians.multiply(inner))
    if self_term is not None:
        phi += _self_derivative(kernel, ensemble, hessians, root, self_term)
    return Direction(phi, rows.near)


def _self_derivative(
    kernel: Kernel, ensemble: Ensemble, hessians: Hessians, root: Root, self_term: jax.Array
) -> jax.Array:
    """Return what the derivative of H(θ_t) adds where t is the particle l itself.

    With r(θ, θ') = k^½ and d_l = r(θ_l, θ_l), that is for each i

        (1/n²) Σ_l d_l ∇_{θ_l} r(θ_l, θ_i) + r(θ_i, θ_l) [∇_1 r(θ_l, θ_l) - d_l H_l D_l].
    """
    kernel = as_dtype(kernel, ensemble.points.dtype)
    num, weights = ensemble.num_alive, ensemble.weights
    points, rescale = ensemble.scaled(kernel), jax.lax.rsqrt(ensemble.bandwidth)
    own = num * dot(root.vectors**2, root.scale) * weights
    outer = root.apply(root.inverse, pairwise.kernel_grad_sum(kernel, points, points, own))
    rows, columns = distance_factors(points, points)
    inner = 0.0 if kernel.is_radial else dot(points, points.T)
    _, slope, along = gradient_weights(kernel, squared_distances(rows, columns), inner)
    inverse = dot(root.vectors * root.inverse, root.vectors.T) * weights * weights[:, None]
    change = jnp.sum(slope * inverse, 1, keepdims=True) * points
    change += dot((along - slope) * inverse, points)
    inside = num * hessians.restrict(change * rescale) - num * own[:, None] * self_term
    inside = jnp.where(ensemble.alive[:, None], inside, 0)
    total = hessians.restrict(outer * rescale) + root.apply(root.scale, inside)
    return total / num**2
