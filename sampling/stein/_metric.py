"""Curvature of the target at the particles, and the coordinates in which its mean is one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from shoal.sampling.core._checks import check_callable
from shoal.sampling.core._kernel_sums import dot, fixed_mean
from shoal.sampling.core.kernels import Kernel
from shoal.sampling.stein._direction import Ensemble
from shoal.sampling.stein._options import check_kernel

Curvature = Callable[..., Any] | None


class Whitening(NamedTuple):
    """Coordinates y = Lᵀ(x - c) with L Lᵀ = Q, so that |y - y'|² = (x - x')ᵀQ(x - x').

    Attributes
    ----------
    factor
        L, lower triangular ``(d, d)``.
    """

    factor: jax.Array

    def points(self, points: jax.Array) -> jax.Array:
        """Return y around the mean, ``(n, d)``: far from the origin float32 keeps its digits."""
        return dot(points - fixed_mean(points), self.factor)

    def score(self, score: jax.Array) -> jax.Array:
        """Return gradients with respect to y: L⁻¹ s."""
        return solve_triangular(self.factor, score.T, lower=True).T

    def back(self, moves: jax.Array) -> jax.Array:
        """Return moves of x: L⁻ᵀ v."""
        return solve_triangular(self.factor, moves.T, lower=True, trans=1).T

    def curvature(self, matrices: jax.Array) -> jax.Array:
        """Return second derivatives with respect to y, L⁻¹ H L⁻ᵀ, for ``(n, d, d)``."""
        num, dim, _ = matrices.shape
        half = self.score(matrices.reshape(-1, dim)).reshape(num, dim, dim)
        return self.score(half.mT.reshape(-1, dim)).reshape(num, dim, dim)


def whiten(mean: jax.Array, damping: Any = 0.0) -> Whitening:
    """Return the coordinates in which ``Q = mean + damping I`` is the identity.

    Rounding may leave a singular mean with a negative eigenvalue; a few units in its last place
    are added. The factor of a matrix that is zero, or not finite, is NaN.
    """
    rounding = 4 * jnp.finfo(mean.dtype).eps * jnp.trace(mean)
    added = rounding + jnp.asarray(damping, mean.dtype)
    factor = jnp.linalg.cholesky(mean + added * jnp.eye(len(mean), dtype=mean.dtype))
    return Whitening(jnp.where(added > 0, factor, jnp.nan))


def curvatures(curvature: Curvature, ensemble: Ensemble) -> jax.Array:
    """Return H_i, ``(n, d, d)``; zero for the dead, and where it is not finite.

    Without a function, the Hessian of the negative log density, its negative eigenvalues set to
    zero.
    """
    dim = ensemble.points.shape[1]
    if curvature is None:
        evaluate = jax.hessian(lambda point: -ensemble.log_density(point))
    else:
        batch = () if ensemble.batch is None else (ensemble.batch,)
        evaluate = lambda point: _checked(curvature(ensemble.unravel(point), *batch), dim)
    found = jax.vmap(evaluate)(ensemble.points).astype(ensemble.points.dtype)
    usable = ensemble.alive & jnp.isfinite(found).all((1, 2))
    found = jnp.where(usable[:, None, None], (found + found.mT) / 2, 0)
    return positive_part(found) if curvature is None else found


def positive_part(matrices: jax.Array) -> jax.Array:
    """Return symmetric matrices ``(..., d, d)`` with negative eigenvalues set to zero."""
    values, vectors = jnp.linalg.eigh(matrices)
    scaled = vectors * jnp.maximum(values, 0)[..., None, :]
    return jnp.matmul(scaled, vectors.mT, precision=jax.lax.Precision.HIGHEST)


def check_curvature(curvature: Any) -> Curvature:
    """Pass on None or a function; else raise."""
    if curvature is not None:
        check_callable("curvature", curvature)
    return curvature


def check_radial(kernel: Any) -> Kernel:
    """Return a kernel that is a function of the distance, `check_kernel`'s for None; else raise."""
    kernel = check_kernel(kernel)
    if not (kernel.has_jet and kernel.is_radial):
        raise ValueError(
            "kernel must be a function of the distance in closed form (IMQ, RBF, Matern52, "
            f"RationalQuadratic, their sums and products), got {kernel}"
        )
    return kernel


def _checked(matrix: Any, dim: int) -> jax.Array:
    shape = getattr(matrix, "shape", None)
    if shape != (dim, dim):
        raise ValueError(
            f"curvature must return an array ({dim}, {dim}) for a position of {dim} numbers, got "
            + (type(matrix).__name__ if shape is None else f"shape {shape}")
        )
    return matrix
