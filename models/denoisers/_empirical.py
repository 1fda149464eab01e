"""The exact denoiser of a whole data set: what a network trained on it without end would learn.

Seen through x = x_0 + sigma z, data that is one of n points, each smoothed by a Gaussian of
standard deviation h (the bandwidth), has the mean

    E[x_0 | x] = (h² x + sigma² Σ_j p_j(x) y_j) / (h² + sigma²),

    p_j(x)  proportional to  exp(-|x - y_j|² / (2 (h² + sigma²))).

Reference: Karras et al., "Elucidating the design space of diffusion-based generative models",
NeurIPS 2022, appendix B.3, equation 57 (h = 0).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.models._density import check_draw, float_dtype
from shoal.models.denoisers._mixture import largest_ratio, rows
from shoal.sampling.core import pairwise
from shoal.sampling.core._checks import check_finite, real_parameter, real_values
from shoal.sampling.core._tiles import check_block_size
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import edm


class EmpiricalMean(eqx.Module):
    """The mean of the data given x, for the points of a data set; ``fn`` of its `Denoiser`.

    Attributes
    ----------
    points
        Shape ``(n, d)``.
    bandwidth
        Standard deviation of the Gaussian around each point, scalar.
    block_size
        Side of a tile of the matrix of all pairs; None chooses.
    """

    points: jax.Array
    bandwidth: jax.Array
    block_size: int | None = eqx.field(static=True, default=None)

    def __call__(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
        """Return the mean of the data given ``x`` of shape ``(n, ...)``, of its shape and dtype."""
        flat, noise, smooth = self._noisy(x, sigma)
        points = self.points.astype(x.dtype)
        total = noise + smooth
        mean = pairwise.softmax_mean(
            _near(flat, total),
            points,
            jnp.zeros_like(points[:, 0]),
            points,
            total,
            block_size=self.block_size,
        )
        return ((smooth / total) * flat + (noise / total) * mean).reshape(x.shape)

    def log_density(self, x: jax.Array, sigma: Any) -> jax.Array:
        """Return the log density of noisy data ``x = x_0 + sigma z``.

        Its gradient in x, the score, is ``(fn(x, sigma) - x) / sigma²``.

        Parameters
        ----------
        x
            Shape ``(n, ...)``, d numbers in each row.
        sigma
            Scalar; may be 0 where the bandwidth is not.

        Returns
        -------
        jax.Array
            Shape ``(n,)``, normalised.
        """
        flat, noise, smooth = self._noisy(x, sigma)
        points = self.points.astype(x.dtype)
        total = noise + smooth
        log_sum = pairwise.logsumexp(
            _near(flat, total),
            points,
            jnp.zeros_like(points[:, 0]),
            total,
            block_size=self.block_size,
        )
        num, dim = points.shape
        return log_sum - math.log(num) - 0.5 * dim * jnp.log(2 * math.pi * total)

    def sample(self, key: jax.Array, num: int) -> jax.Array:
        """Draw ``num`` exact and independent points of data, shape ``(num, d)``."""
        num = check_draw(key, num)
        key_point, key_noise = jax.random.split(key)
        index = jax.random.randint(key_point, (num,), 0, len(self.points))
        noise = jax.random.normal(key_noise, (num, self.points.shape[1]), self.points.dtype)
        return self.points[index] + self.bandwidth * noise

    @property
    def mean(self) -> jax.Array:
        """Exact mean of the data, shape ``(d,)``."""
        return jnp.mean(self.points, axis=0)

    @property
    def covariance(self) -> jax.Array:
        """Exact covariance of the data, shape ``(d, d)``."""
        num, dim = self.points.shape
        spread = self.points - self.mean
        between = jnp.matmul(spread.T, spread, precision="highest") / num
        return between + self.bandwidth**2 * jnp.eye(dim, dtype=spread.dtype)

    def _noisy(self, x: jax.Array, sigma: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return x as rows, the variance of the noise and the one around each point."""
        flat = rows("x", x, self.points.shape[1])
        if jnp.ndim(sigma):
            raise ValueError(f"sigma must be a scalar, got shape {jnp.shape(sigma)}")
        return flat, jnp.asarray(sigma, x.dtype) ** 2, self.bandwidth.astype(x.dtype) ** 2


def empirical(
    data: Any, bandwidth: float = 0.0, *, block_size: int | None = None
) -> Denoiser[EmpiricalMean]:
    """Return the exact denoiser of a data set, a softmax-weighted mean over all its points.

    A call visits the matrix of all pairs a tile at a time, so that its memory is that of the data
    and of x; it costs O(n m d) for m points x.

    Parameters
    ----------
    data
        Shape ``(n, ...)``. Of one class, for its points alone.
    bandwidth
        Standard deviation >= 0 of a Gaussian around each point. At 0 sampling returns points of
        the data set.
    block_size
        Side of a tile, a positive integer; None chooses.

    Returns
    -------
    Denoiser
        Of the prediction "data" with t = sigma and x = x_0 + sigma z, convertible to any schedule.
        Its ``fn`` is an `EmpiricalMean`, with ``sample(key, num)``, ``mean``, ``covariance`` and
        ``log_density(x, sigma)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not real, finite and of these shapes, or the bandwidth is negative.

    Examples
    --------
    >>> denoiser = empirical([[-1.0], [1.0]])
    >>> denoiser.fn(jnp.array([[0.0], [0.9]]), jnp.float32(0.1))
    Array([[0.],
           [1.]], dtype=float32)
    """
    points = real_values("data", data)
    if points.ndim < 2 or 0 in points.shape:
        raise ValueError(f"data must have shape (n, ...) and hold points, got {points.shape}")
    check_finite("data", points)
    bandwidth = real_parameter("bandwidth", bandwidth, 0.0, include_low=True, scalar=True)
    dtype = float_dtype(None, points)
    flat = jnp.asarray(points.reshape(len(points), -1), dtype)
    mean = EmpiricalMean(flat, jnp.asarray(bandwidth, dtype), check_block_size(block_size))
    return Denoiser(mean, "data", edm())


def _near(x: jax.Array, total: jax.Array) -> jax.Array:
    """Return x, brought to where squared distances over ``total`` are finite numbers."""
    limit = largest_ratio(x.dtype, 4 * x.shape[1]) * jnp.sqrt(jax.lax.stop_gradient(total))
    return jnp.clip(x, -limit, limit)
