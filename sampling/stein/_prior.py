"""Coordinates in which a Gaussian prior is the standard normal law."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import check_entries, real_values
from shoal.sampling.core._kernel_sums import dot
from shoal.sampling.core._mirror_map import MirrorMap


class Quadratic(MirrorMap):
    """All of R^d, ψ = (x - c)ᵀR(x - c)/2 with R = P^½: η = R(x - c), standard normal for N(c, P⁻¹).

    Attributes
    ----------
    center
        c, scalar or ``(d,)``.
    root, inverse_root
        R and R⁻¹: numbers, diagonals ``(d,)`` or matrices ``(d, d)``.
    """

    center: jax.Array
    root: jax.Array
    inverse_root: jax.Array

    def to_dual(self, primal: jax.Array) -> jax.Array:
        """Return R(x - c)."""
        return _times(self.root, primal - jnp.asarray(self.center, primal.dtype))

    def to_primal(self, dual: jax.Array) -> jax.Array:
        """Return c + R⁻¹ η."""
        return jnp.asarray(self.center, dual.dtype) + _times(self.inverse_root, dual)

    def hessian_product(self, primal: jax.Array, vector: jax.Array) -> jax.Array:
        """Return R v."""
        return _times(self.root, vector)

    def inverse_hessian_product(self, primal: jax.Array, covector: jax.Array) -> jax.Array:
        """Return R⁻¹ g."""
        return _times(self.inverse_root, covector)

    def log_det_dual_hessian(self, dual: jax.Array) -> jax.Array:
        """Return -log det R."""
        if self.root.ndim < 2:
            log_det = jnp.sum(jnp.broadcast_to(jnp.log(self.root), dual.shape[-1:]))
        else:
            log_det = jnp.linalg.slogdet(self.root)[1]
        return jnp.broadcast_to(-log_det.astype(dual.dtype), dual.shape[:-1])

    def divergence(self, primal: jax.Array) -> jax.Array:
        """Return 0."""
        return jnp.zeros_like(primal)

    def hessian_noise(self, key: jax.Array, primal: jax.Array) -> jax.Array:
        """Draw R^½ ξ."""
        white = jax.random.normal(key, primal.shape, primal.dtype)
        if self.root.ndim < 2:
            return jnp.sqrt(self.root.astype(white.dtype)) * white
        return _times(jnp.linalg.cholesky(self.root).mT, white)

    def check(self, primal: jax.Array) -> None:
        """Refuse points of another size than the prior's."""
        for name, value in (("prior_mean", self.center), ("prior_precision", self.root)):
            if value.ndim and value.shape[-1] != primal.shape[-1]:
                raise ValueError(
                    f"{name} must have a number for each of the {primal.shape[-1]} coordinates of "
                    f"a particle, got shape {value.shape}"
                )


def quadratic(center: jax.Array, precision: jax.Array) -> Quadratic:
    """Return the map of N(c, P⁻¹)."""
    if precision.ndim < 2:
        root = jnp.sqrt(precision)
        return Quadratic(center, root, 1 / root)
    values, vectors = jnp.linalg.eigh(precision)
    make = lambda powers: dot(vectors * powers, vectors.T)
    return Quadratic(center, make(jnp.sqrt(values)), make(jax.lax.rsqrt(values)))


def check_mean(mean: Any) -> jax.Array:
    """Return finite numbers, a scalar or ``(d,)``; else raise."""
    mean = real_values("prior_mean", mean)
    if jnp.ndim(mean) > 1:
        raise ValueError(f"prior_mean must be a number or (d,), got shape {jnp.shape(mean)}")
    check_entries("prior_mean", mean, np.isfinite, "finite numbers")
    return mean


def check_precision(precision: Any) -> jax.Array:
    """Return positive numbers, a scalar or ``(d,)``, or a positive definite matrix; else raise."""
    precision = real_values("prior_precision", precision)
    shape = jnp.shape(precision)
    if len(shape) > 2 or (len(shape) == 2 and shape[0] != shape[1]):
        raise ValueError(f"prior_precision must be a number, (d,) or (d, d), got shape {shape}")
    if len(shape) < 2:
        is_good = lambda array: np.isfinite(array) & (array > 0)
        check_entries("prior_precision", precision, is_good, "positive and finite")
    elif not isinstance(precision, jax.core.Tracer):
        matrix = np.asarray(precision, np.float64)
        is_symmetric = np.isfinite(matrix).all() and np.allclose(matrix, matrix.T, rtol=1e-5)
        if not is_symmetric or np.linalg.eigvalsh(matrix).min() <= 0:
            raise ValueError(
                f"prior_precision must be symmetric and positive definite, got {matrix}"
            )
    return precision


def _times(matrix: jax.Array, vectors: jax.Array) -> jax.Array:
    """Multiply rows by a number, a diagonal or, from the right, a matrix."""
    matrix = matrix.astype(vectors.dtype)
    return matrix * vectors if matrix.ndim < 2 else dot(vectors, matrix)
