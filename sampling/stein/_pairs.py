"""Kernels at the pairs of an ensemble: the whole matrix, and each particle with itself."""

import jax
import jax.numpy as jnp

from shoal.sampling.core._kernel_sums import distance_factors, dot, squared_distances
from shoal.sampling.core.kernels import Kernel


def kernel_matrix(kernel: Kernel, points: jax.Array) -> jax.Array:
    """Return ``k(x_i, x_j)``, ``(n, n)``, for points ``(n, d)`` in units of the kernel."""
    if not kernel.has_jet:
        over_y = jax.vmap(kernel, (None, 0))
        return jax.vmap(over_y, (0, None))(points, points).astype(points.dtype)
    q = squared_distances(*distance_factors(points, points))
    # A distance to itself would be rounding noise.
    q = jnp.where(jnp.eye(len(points), dtype=bool), 0, q)
    return jnp.asarray(kernel.jet(q, dot(points, points.T)).value, points.dtype)


def own_pairs(kernel: Kernel, points: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return ``k(x_i, x_i)``, ``(n,)``, and the gradient in its first argument, ``(n, d)``."""
    values, gradients = jax.vmap(jax.value_and_grad(kernel))(points, points)
    return values.astype(points.dtype), gradients.astype(points.dtype)
