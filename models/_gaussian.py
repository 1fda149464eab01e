"""Gaussians of every shape, and mixtures of them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.models._density import (
    Density,
    as_parameter,
    check_draw,
    cholesky_factor,
    float_dtype,
    inverse_factor,
    is_traced,
)
from shoal.sampling.core._checks import integer
from shoal.sampling.core.random import check_key

_LOG_2PI = math.log(2 * math.pi)


def location_and_scale(loc: Any, matrix: Any, loc_name: str, matrix_name: str) -> tuple[Any, Any]:
    """Return a location ``(d,)`` and the root of a covariance-like matrix, both checked.

    The root has the matrix's own shape, ``()``, ``(d,)`` or ``(d, d)`` (lower triangular). Both
    are float64 on the host where they are concrete.
    """
    loc = as_parameter(loc, loc_name, (1,))
    matrix = as_parameter(matrix, matrix_name, (0, 1, 2))
    dim = loc.shape[0]
    if matrix.shape != (dim,) * matrix.ndim:
        raise ValueError(
            f"{matrix_name} must have shape (), ({dim},) or ({dim}, {dim}) "
            f"beside {loc_name} of shape {loc.shape}, got {matrix.shape}"
        )
    if matrix.ndim == 2:
        return loc, cholesky_factor(matrix, matrix_name)
    if is_traced(matrix):
        return loc, jnp.sqrt(matrix)
    return loc, np.sqrt(as_parameter(matrix, matrix_name, (0, 1), positive=True))


class Gaussian(Density):
    """A Gaussian: isotropic, diagonal or dense by the shape of its covariance.

    ``log_density(x) = -(x - mean)ᵀ covariance⁻¹ (x - mean) / 2``, evaluated through the factor of
    the covariance: O(d) when it is isotropic or diagonal and O(d²) when it is dense.

    Parameters
    ----------
    mean
        Shape ``(d,)``.
    covariance
        Shape ``()``: the variance of every coordinate; ``(d,)``: the variances of independent
        coordinates; ``(d, d)``: a symmetric positive definite matrix.
    dtype
        float32 or float64; when None the arrays' common one, or else JAX's default.

    Attributes
    ----------
    loc
        The mean, shape ``(d,)``.
    scale
        Standard deviation ``()`` or deviations ``(d,)``, or the lower Cholesky factor ``(d, d)``.
    whitener
        The inverse of ``scale``, of its shape. To differentiate in the covariance, do so through
        the constructor.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not real, finite and of these shapes, a variance is not positive, or
        the matrix is not symmetric positive definite. Under ``jit`` only shapes are checked, and
        an impossible covariance makes the log density NaN.

    Examples
    --------
    >>> import jax
    >>> density = Gaussian([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]])
    >>> density.sample(jax.random.key(0), 3).shape
    (3, 2)
    >>> float(density.log_density(density.mean))
    -0.0
    """

    loc: jax.Array
    scale: jax.Array
    whitener: jax.Array

    def __init__(self, mean: Any, covariance: Any = 1.0, *, dtype: Any = None):
        dtype = float_dtype(dtype, mean, covariance)
        loc, scale = location_and_scale(mean, covariance, "mean", "covariance")
        self.loc = jnp.asarray(loc, dtype)
        self.scale = jnp.asarray(scale, dtype)
        self.whitener = jnp.asarray(inverse_factor(scale) if scale.ndim == 2 else 1 / scale, dtype)

    @property
    def dim(self) -> int:
        """Number of coordinates, d."""
        return self.loc.shape[0]

    @property
    def mean(self) -> jax.Array:
        """Exact mean, shape ``(d,)``."""
        return self.loc

    @property
    def covariance(self) -> jax.Array:
        """Exact covariance, shape ``(d, d)``."""
        if self.scale.ndim == 2:
            return jnp.matmul(self.scale, self.scale.T, precision="highest")
        return jnp.diag(jnp.broadcast_to(self.scale**2, (self.dim,)))

    @property
    def log_normalizer(self) -> jax.Array:
        """Exact log integral: ``(d log(2π) + log det covariance) / 2``."""
        diagonal = jnp.diagonal(self.scale) if self.scale.ndim == 2 else self.scale
        return self.dim * _LOG_2PI / 2 + jnp.sum(jnp.log(jnp.broadcast_to(diagonal, (self.dim,))))

    def log_density(self, x: jax.Array) -> jax.Array:
        """Unnormalised log density of one point of shape ``(d,)``."""
        centred = self._point(x) - self.loc
        if self.scale.ndim == 2:
            white = jnp.matmul(self.whitener, centred, precision="highest")
        else:
            white = self.whitener * centred
        return -jnp.sum(white**2) / 2

    def sample(self, key: jax.Array, num: int) -> jax.Array:
        """Draw ``num`` exact and independent points, shape ``(num, d)``."""
        num = check_draw(key, num)
        noise = jax.random.normal(key, (num, self.dim), self.loc.dtype)
        if self.scale.ndim == 2:
            return self.loc + jnp.matmul(noise, self.scale.T, precision="highest")
        return self.loc + self.scale * noise


def ill_conditioned_gaussian(
    dim: int, condition_number: float, key: jax.Array, *, dtype: Any = None
) -> Gaussian:
    """Return a centred Gaussian with a spread spectrum and uniformly random axes.

    The eigenvalues of its covariance are in geometric progression from ``condition_number**-0.5``
    to ``condition_number**0.5``, so its determinant is one. The axes depend on ``key`` and
    ``dim`` alone, not on the dtype.

    Parameters
    ----------
    dim
        Number of coordinates, at least 2.
    condition_number
        Ratio of the largest to the smallest eigenvalue, at least 1. The score of a point in
        float32 is good to about ``6e-8 * condition_number``, relatively.
    key
        Typed key of shape ``()``.
    dtype
        float32 or float64; JAX's default float when None.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    check_key(key)
    dim = integer("dim", dim, 2)
    condition = as_parameter(condition_number, "condition_number", (0,))
    if not is_traced(condition) and condition < 1:
        raise ValueError(f"condition_number must be at least 1, got {condition_number!r}")
    with jax.ensure_compile_time_eval():
        noise = jax.random.normal(key, (dim, dim), jnp.float32)
    xp: Any = jnp if is_traced(noise) else np
    axes, _ = xp.linalg.qr(xp.asarray(noise, float_dtype(dtype) if xp is jnp else np.float64))
    eigenvalues = condition ** np.linspace(-0.5, 0.5, dim)
    covariance = (axes * eigenvalues) @ axes.T
    return Gaussian(np.zeros(dim), covariance, dtype=float_dtype(dtype))


class GaussianMixture(Density):
    """A mixture of Gaussians with full covariances.

    ``log_density(x) = log Σ_k weights_k N(x; means_k, covariances_k)`` with normalised Gaussians,
    so that the integral is the sum of the weights.

    Parameters
    ----------
    weights
        Shape ``(k,)``, not negative, of any positive sum; a weight may be zero.
    means
        Shape ``(k, d)``.
    covariances
        Shape ``(k, d, d)``; or ``(d, d)``, shared by the components; or ``()``, the variance of
        every coordinate in every component.
    dtype
        float32 or float64; when None the arrays' common one, or else JAX's default.

    Attributes
    ----------
    weights
        Shape ``(k,)``, as given.
    locs
        The components' means, shape ``(k, d)``.
    scales
        Lower Cholesky factors of the covariances, shape ``(k, d, d)``.
    whiteners
        Their inverses. To differentiate in the covariances, do so through the constructor.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not real, finite and of these shapes, a weight is negative or all are
        zero, or a covariance is not symmetric positive definite. Under ``jit`` only shapes are
        checked.

    Examples
    --------
    >>> mixture = GaussianMixture([0.25, 0.75], [[-2.0], [2.0]], 1.0)
    >>> mixture.mean.tolist(), mixture.covariance.tolist()
    ([1.0], [[4.0]])
    """

    weights: jax.Array
    locs: jax.Array
    scales: jax.Array
    whiteners: jax.Array

    def __init__(self, weights: Any, means: Any, covariances: Any = 1.0, *, dtype: Any = None):
        dtype = float_dtype(dtype, weights, means, covariances)
        weights = as_parameter(weights, "weights", (1,))
        locs = as_parameter(means, "means", (2,))
        if locs.shape[0] != weights.shape[0]:
            raise ValueError(
                f"means must have a row for each of the {weights.shape[0]} weights, "
                f"got shape {locs.shape}"
            )
        if not is_traced(weights) and (np.any(weights < 0) or not np.any(weights > 0)):
            raise ValueError(f"weights must not be negative nor all zero, got {weights}")
        num, dim = locs.shape
        matrices = as_parameter(covariances, "covariances", (0, 2, 3))
        if matrices.ndim == 0:
            matrices = matrices * np.eye(dim)
        if matrices.shape not in ((dim, dim), (num, dim, dim)):
            raise ValueError(
                f"covariances must have shape (), ({dim}, {dim}) or ({num}, {dim}, {dim}), "
                f"got {matrices.shape}"
            )
        scales = cholesky_factor(matrices, "covariances")
        self.weights = jnp.asarray(weights, dtype)
        self.locs = jnp.asarray(locs, dtype)
        whiteners = inverse_factor(scales)
        self.scales = jnp.broadcast_to(jnp.asarray(scales, dtype), (num, dim, dim))
        self.whiteners = jnp.broadcast_to(jnp.asarray(whiteners, dtype), (num, dim, dim))

    @property
    def dim(self) -> int:
        """Number of coordinates, d."""
        return self.locs.shape[1]

    @property
    def mean(self) -> jax.Array:
        """Exact mean, shape ``(d,)``."""
        return jnp.matmul(self._shares, self.locs, precision="highest")

    @property
    def covariance(self) -> jax.Array:
        """Exact covariance, shape ``(d, d)``: within the components and between their means."""
        spread = jnp.concatenate([self.scales, (self.locs - self.mean)[:, :, None]], axis=2)
        return jnp.einsum("k,kip,kjp->ij", self._shares, spread, spread, precision="highest")

    @property
    def _shares(self) -> jax.Array:
        return self.weights / jnp.sum(self.weights)

    @property
    def log_normalizer(self) -> jax.Array:
        """Exact log integral: the log of the sum of the weights."""
        return jnp.log(jnp.sum(self.weights))

    def log_density(self, x: jax.Array) -> jax.Array:
        """Unnormalised log density of one point of shape ``(d,)``."""
        centred = self._point(x) - self.locs
        white = jnp.einsum("kij,kj->ki", self.whiteners, centred, precision="highest")
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.scales, axis1=1, axis2=2)), axis=1)
        logs = -jnp.sum(white**2, axis=1) / 2 - log_det - self.dim * _LOG_2PI / 2
        return jax.nn.logsumexp(logs, b=self.weights)

    def sample(self, key: jax.Array, num: int) -> jax.Array:
        """Draw ``num`` exact and independent points, shape ``(num, d)``."""
        num = check_draw(key, num)
        key_component, key_noise = jax.random.split(key)
        component = jax.random.categorical(key_component, jnp.log(self.weights), shape=(num,))
        noise = jax.random.normal(key_noise, (num, self.dim), self.locs.dtype)

        # One component after the other: gathering a factor for each draw would take O(num d²).
        def place(draws: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
            moved = self.locs[k] + jnp.matmul(noise, self.scales[k].T, precision="highest")
            return jnp.where((component == k)[:, None], moved, draws), None

        return jax.lax.scan(place, noise, jnp.arange(self.locs.shape[0]))[0]


def skewed_mixture(*, dtype: Any = None) -> GaussianMixture:
    """Return a skewed, bimodal and correlated density on R², for statistical tests of samplers.

    ``0.7 N((1.5, 0), C) + 0.3 N((-1.5, 0), C)`` where C has the Cholesky factor
    ``[[1, 0], [0.8, 0.6]]``. It has no symmetry behind which the wrong sign of a term could hide.
    """
    means = np.array([[1.5, 0.0], [-1.5, 0.0]])
    factor = np.array([[1.0, 0.0], [0.8, 0.6]])
    weights = np.array([0.7, 0.3])
    return GaussianMixture(weights, means, factor @ factor.T, dtype=float_dtype(dtype))
