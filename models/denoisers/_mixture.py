"""The exact denoisers of a Gaussian and of a mixture of Gaussians with any covariances.

Of data from Σ_k w_k N(m_k, C_k), seen as x = x_0 + sigma z with z standard normal, component k
explains x with the responsibility

    r_k(x)  proportional to  w_k N(x; m_k, C_k + sigma²),

and the mean of the data given x is E[x_0 | x] = Σ_k r_k(x) (m_k + C_k (C_k + sigma²)⁻¹ (x - m_k)).
With eigenbases C_k = Q_k V_k Q_kᵀ, found once in float64, a call at any sigma is two matrix
products: into all bases at once, and back. Nothing is approximated.

Reference: Karras et al., "Elucidating the design space of diffusion-based generative models",
NeurIPS 2022, appendix B.3 (the ideal denoiser of points, here of Gaussians).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.models._density import as_parameter, check_draw, float_dtype, is_traced
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import edm

_LOG_2PI = math.log(2 * math.pi)


class MixtureMean(eqx.Module):
    """The mean of the data given x, for a mixture of Gaussians; ``fn`` of its `Denoiser`.

    Attributes
    ----------
    weights
        Shape ``(k,)``, positive, of sum one.
    means
        Shape ``(k, d)``.
    variances
        Variances along the principal axes, shape ``(k, d)``.
    axes
        Principal axis a of component k as ``axes[:, k, a]``, shape ``(d, k, d)``; None where all
        are the coordinates themselves.
    """

    weights: jax.Array
    means: jax.Array
    variances: jax.Array
    axes: jax.Array | None

    def __call__(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
        """Return the mean of the data given ``x`` of shape ``(n, ...)``, of its shape and dtype."""
        flat = rows("x", x, self.means.shape[1])
        # A cast to the dtype that the arrays have is free.
        own = jax.tree.map(lambda leaf: leaf.astype(x.dtype), self)
        along, noisy = own._along_axes(flat, sigma)
        share = jax.nn.softmax(own._log_parts(along, noisy), axis=1)
        shrunk = share[:, :, None] * (own.variances / noisy) * along
        return (_dot(share, own.means) + own._back(shrunk)).reshape(x.shape)

    def log_density(self, x: jax.Array, sigma: Any) -> jax.Array:
        """Return the log density of noisy data ``x = x_0 + sigma z``.

        Its gradient in x, the score, is ``(fn(x, sigma) - x) / sigma²``.

        Parameters
        ----------
        x
            Shape ``(n, ...)``, d numbers in each row.
        sigma
            Scalar; may be 0 where no variance is.

        Returns
        -------
        jax.Array
            Shape ``(n,)``, normalised.
        """
        dim = self.means.shape[1]
        parts = self._log_parts(*self._along_axes(rows("x", x, dim), sigma))
        return jax.nn.logsumexp(parts, axis=1) - 0.5 * _LOG_2PI * dim

    def sample(self, key: jax.Array, num: int) -> jax.Array:
        """Draw ``num`` exact and independent points of data, shape ``(num, d)``."""
        num = check_draw(key, num)
        key_component, key_noise = jax.random.split(key)
        component = jax.random.categorical(key_component, jnp.log(self.weights), shape=(num,))
        noise = jax.random.normal(key_noise, (num, self.means.shape[1]), self.means.dtype)
        axes = None if self.axes is None else jnp.moveaxis(self.axes, 1, 0)

        # One component after the other: all at once would take k times the memory.
        def place(draws: jax.Array, part: Any) -> tuple[jax.Array, None]:
            index, mean, variances, axes = part
            moved = noise * jnp.sqrt(variances)
            moved = mean + (moved if axes is None else _dot(moved, axes.T))
            return jnp.where((component == index)[:, None], moved, draws), None

        parts = (jnp.arange(len(self.weights)), self.means, self.variances, axes)
        return jax.lax.scan(place, noise, parts)[0]

    @property
    def mean(self) -> jax.Array:
        """Exact mean of the data, shape ``(d,)``."""
        return _dot(self.weights, self.means)

    @property
    def covariance(self) -> jax.Array:
        """Exact covariance of the data, ``(d, d)``: within components and between their means."""
        spread = self.means - self.mean
        between = _dot(self.weights * spread.T, spread)
        within = self.weights[:, None] * self.variances
        if self.axes is None:
            return between + jnp.diag(jnp.sum(within, axis=0))
        dim = self.means.shape[1]
        return between + _dot((within * self.axes).reshape(dim, -1), self.axes.reshape(dim, -1).T)

    def _along_axes(self, flat: jax.Array, sigma: Any) -> tuple[jax.Array, jax.Array]:
        """Return x from each mean along each axis, ``(n, k, d)``, and its variances ``(k, d)``."""
        if jnp.ndim(sigma):
            raise ValueError(f"sigma must be a scalar, got shape {jnp.shape(sigma)}")
        noisy = self.variances + jnp.asarray(sigma, flat.dtype) ** 2
        if self.axes is None:
            return flat[:, None] - self.means, noisy
        # Around the common mean, so that data far from the origin keep their digits.
        flat, means = flat - self.mean, self.means - self.mean
        turned = jnp.einsum("kd,dka->ka", means, self.axes, precision="highest")
        dim, num = self.axes.shape[:2]
        return _dot(flat, self.axes.reshape(dim, -1)).reshape(-1, num, dim) - turned, noisy

    def _back(self, along: jax.Array) -> jax.Array:
        """Return to coordinates what is given along the axes, summed over components."""
        if self.axes is None:
            return jnp.sum(along, axis=1)
        dim = along.shape[2]
        return _dot(along.reshape(len(along), -1), self.axes.reshape(dim, -1).T)

    def _log_parts(self, along: jax.Array, noisy: jax.Array) -> jax.Array:
        """Return the log of each component's part of the density, ``(n, k)``, without 2 pi."""
        limit = largest_ratio(along.dtype, along.shape[2])
        white = jnp.clip(along * jax.lax.rsqrt(noisy), -limit, limit)
        log_volume = 0.5 * jnp.sum(jnp.log(noisy), axis=1)
        return jnp.log(self.weights) - log_volume - 0.5 * jnp.sum(white**2, axis=2)


def gaussian(mean: Any, cov: Any = 1.0) -> Denoiser[MixtureMean]:
    """Return the exact denoiser of Gaussian data.

    ``E[x_0 | x] = mean + cov (cov + sigma²)⁻¹ (x - mean)``, linear in x.

    Parameters
    ----------
    mean
        Shape ``(d,)``, or the shape of one event, with d numbers.
    cov
        Covariance: a scalar, the variance of each number; variances of the shape of ``mean``; or
        a symmetric positive semidefinite matrix ``(d, d)``. Zero variance is data that is known.

    Returns
    -------
    Denoiser
        Of the prediction "data" with t = sigma and x = x_0 + sigma z, convertible to any schedule;
        x has shape ``(n, ...)`` with d numbers in each row. Its ``fn`` is a `MixtureMean` of one
        component, with ``sample(key, num)``, ``mean``, ``covariance`` and
        ``log_density(x, sigma)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not real, finite and of these shapes, a variance is negative or a matrix
        not symmetric positive semidefinite, or a value is known only inside a compiled program.

    Examples
    --------
    >>> denoiser = gaussian([1.0, 0.0], [[3.0, 0.0], [0.0, 1.0]])
    >>> denoiser.fn(jnp.array([[3.0, 2.0]]), jnp.float32(1.0)).round(4)
    Array([[2.5, 1. ]], dtype=float32)
    """
    point = _concrete("mean", mean, tuple(range(1, 9)))
    matrix = _concrete("cov", cov, tuple(range(9)))
    dim = point.size
    if matrix.shape not in ((), point.shape, (dim, dim)):
        raise ValueError(
            f"cov must have shape (), {point.shape} or ({dim}, {dim}) beside a mean of shape "
            f"{point.shape}, got {matrix.shape}"
        )
    if matrix.shape == point.shape:
        matrix = matrix.reshape(dim)
    dtype = float_dtype(None, mean, cov)
    return _denoiser(np.ones(1), point.reshape(1, dim), matrix[None], "cov", dtype)


def gaussian_mixture(weights: Any, means: Any, covs: Any) -> Denoiser[MixtureMean]:
    """Return the exact denoiser of data from a mixture of Gaussians.

    Parameters
    ----------
    weights
        Shape ``(k,)``, not negative, of any positive sum; what has weight zero is left out.
    means
        Shape ``(k, d)``.
    covs
        Covariances: a scalar, or shape ``(k,)``, the variance of each number; ``(k, d)``,
        variances; or ``(k, d, d)``, symmetric positive semidefinite matrices.

    Returns
    -------
    Denoiser
        As of `gaussian`.

    Raises
    ------
    TypeError, ValueError
        As `gaussian`, and if a weight is negative or all are zero.

    Examples
    --------
    Between two equal modes the mean is in the middle, and near a mode it is that mode.

    >>> denoiser = gaussian_mixture([0.5, 0.5], [[-1.0], [1.0]], 0.01)
    >>> denoiser.fn(jnp.array([[0.0], [0.9]]), jnp.float32(0.1)).round(4)
    Array([[0.  ],
           [0.95]], dtype=float32)
    >>> denoiser.fn.covariance.round(4)
    Array([[1.01]], dtype=float32)
    """
    dtype = float_dtype(None, weights, means, covs)
    weights = _concrete("weights", weights, (1,))
    if np.any(weights < 0) or not np.any(weights > 0):
        raise ValueError(f"weights must not be negative nor all zero, got {weights}")
    means = _concrete("means", means, (2,))
    num, dim = weights.size, means.shape[1]
    if means.shape[0] != num:
        raise ValueError(
            f"means must have a row for each of the {num} weights, got shape {means.shape}"
        )
    covs = _concrete("covs", covs, (0, 1, 2, 3))
    if covs.shape not in ((), (num,), (num, dim), (num, dim, dim)):
        raise ValueError(
            f"covs must have shape (), ({num},), ({num}, {dim}) or ({num}, {dim}, {dim}) beside "
            f"means of shape {means.shape}, got {covs.shape}"
        )
    covs = np.broadcast_to(covs, (num,)) if covs.ndim == 0 else covs
    counts = weights > 0
    return _denoiser(weights[counts], means[counts], covs[counts], "covs", dtype)


def rows(name: str, x: Any, dim: int) -> jax.Array:
    """Return ``x`` of shape ``(n, ...)`` as ``(n, dim)``, checked."""
    if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, jnp.floating):
        kind = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"{name} must be an array of floats, got {kind}")
    if x.ndim < 2 or math.prod(x.shape[1:]) != dim:
        raise ValueError(
            f"{name} must have shape (n, ...) with {dim} numbers in each row, got {x.shape}"
        )
    return x.reshape(-1, dim)


def largest_ratio(dtype: Any, dim: int) -> float:
    """Return how many standard deviations from a mean are told from more, in each coordinate.

    The sum of the squares over all coordinates, and its derivatives, stay finite.
    """
    return math.sqrt(float(jnp.finfo(dtype).max) ** 0.75 / dim)


def _denoiser(weights: Any, means: Any, covs: Any, name: str, dtype: Any) -> Denoiser[MixtureMean]:
    """Build the denoiser from values on the host; ``covs`` is ``(k,)``, ``(k, d)`` or more."""
    axes = None
    if covs.ndim == 3:
        variances, bases = _principal(name, covs)
        axes = jnp.asarray(np.moveaxis(bases, 1, 0), dtype)
    else:
        variances = np.broadcast_to(covs[:, None] if covs.ndim == 1 else covs, means.shape)
        if np.any(variances < 0):
            raise ValueError(f"{name} must not be negative, got {covs.min():g}")
    stored = lambda array: jnp.asarray(array, dtype)
    mean = MixtureMean(stored(weights / weights.sum()), stored(means), stored(variances), axes)
    return Denoiser(mean, "data", edm())


def _principal(name: str, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return variances ``(k, d)`` and axes ``(k, d, d)`` of matrices, checked."""
    largest = np.abs(matrices).max()
    if not np.allclose(matrices, np.swapaxes(matrices, 1, 2), rtol=0, atol=1e-5 * largest):
        raise ValueError(f"{name} must be symmetric, got {matrices!r}")
    variances, axes = np.linalg.eigh(matrices)
    if variances.min() < -1e-5 * largest:
        raise ValueError(
            f"{name} must be positive semidefinite; the smallest eigenvalue is "
            f"{variances.min():.3g}"
        )
    return np.maximum(variances, 0), axes


def _concrete(name: str, value: Any, ndims: tuple[int, ...]) -> np.ndarray:
    if is_traced(value):
        raise TypeError(
            f"{name} must be known when the denoiser is built, outside of compiled programs; "
            "pass the denoiser into them instead"
        )
    return as_parameter(value, name, ndims)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
