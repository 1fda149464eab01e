"""Two densities whose scale or direction changes from place to place: banana and funnel."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.models._density import Density, as_parameter, check_draw, float_dtype
from shoal.sampling.core._checks import integer

_LOG_2PI = math.log(2 * math.pi)


class Banana(Density):
    """A Gaussian bent along a parabola.

    With s = ``scale`` and b = ``curvature``, ``x₁ = s z₁``, ``x₂ = z₂ - b (x₁² - s²)`` and
    ``x_i = z_i`` for i > 2, where z is standard normal. The map keeps volumes, so

        log_density(x) = -x₁² / (2 s²) - (x₂ + b (x₁² - s²))² / 2 - Σ_{i>2} x_i² / 2.

    Parameters
    ----------
    dim
        Number of coordinates, at least 2.
    scale
        Standard deviation of the first coordinate, positive.
    curvature
        How much the second coordinate bends; 0 gives a Gaussian. The defaults are the moderately
        twisted density of the source, 0.1 its strongly twisted one.
    dtype
        float32 or float64; when None the arrays' common one, or else JAX's default.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number in its range.

    References
    ----------
    Haario, Saksman and Tamminen, "Adaptive proposal distribution for random walk Metropolis
    algorithm", Computational Statistics 14 (1999).

    Examples
    --------
    >>> Banana(scale=2.0, curvature=0.5).covariance.tolist()
    [[4.0, 0.0], [0.0, 9.0]]
    """

    scale: jax.Array
    curvature: jax.Array
    _dim: int = eqx.field(static=True)

    def __init__(
        self, dim: int = 2, scale: Any = 10.0, curvature: Any = 0.03, *, dtype: Any = None
    ):
        dtype = float_dtype(dtype, scale, curvature)
        self._dim = integer("dim", dim, 2)
        self.scale = jnp.asarray(as_parameter(scale, "scale", (0,), positive=True), dtype)
        self.curvature = jnp.asarray(as_parameter(curvature, "curvature", (0,)), dtype)

    @property
    def dim(self) -> int:
        """Number of coordinates, d."""
        return self._dim

    @property
    def mean(self) -> jax.Array:
        """Exact mean, zero, shape ``(d,)``."""
        return jnp.zeros(self.dim, self.scale.dtype)

    @property
    def covariance(self) -> jax.Array:
        """Exact covariance, diagonal: ``(s², 1 + 2 b² s⁴, 1, ...)``, shape ``(d, d)``."""
        variances = jnp.ones(self.dim, self.scale.dtype)
        bent = 1 + 2 * (self.curvature * self.scale**2) ** 2
        return jnp.diag(variances.at[0].set(self.scale**2).at[1].set(bent))

    @property
    def log_normalizer(self) -> jax.Array:
        """Exact log integral: ``d log(2π) / 2 + log s``."""
        return self.dim * _LOG_2PI / 2 + jnp.log(self.scale)

    def log_density(self, x: jax.Array) -> jax.Array:
        """Unnormalised log density of one point of shape ``(d,)``."""
        x = self._point(x)
        straight = x[1] + self.curvature * (x[0] ** 2 - self.scale**2)
        return -((x[0] / self.scale) ** 2 + straight**2 + jnp.sum(x[2:] ** 2)) / 2

    def sample(self, key: jax.Array, num: int) -> jax.Array:
        """Draw ``num`` exact and independent points, shape ``(num, d)``."""
        num = check_draw(key, num)
        x = jax.random.normal(key, (num, self.dim), self.scale.dtype)
        x = x.at[:, 0].multiply(self.scale)
        return x.at[:, 1].add(-self.curvature * (x[:, 0] ** 2 - self.scale**2))


class Funnel(Density):
    """Neal's funnel: a log variance v, and coordinates that have it.

    ``x₀ = v ~ N(0, scale²)`` and ``x_i ~ N(0, exp(v))`` for i > 0, so

        log_density(x) = -v² / (2 scale²) - (d - 1) v / 2 - exp(-v) Σ_{i>0} x_i² / 2.

    Parameters
    ----------
    dim
        Number of coordinates with v among them, at least 2; the source has 10.
    scale
        Standard deviation of v, positive; the source has 3.
    dtype
        float32 or float64; when None the scale's one, or else JAX's default.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number in its range.

    Notes
    -----
    The variance of x_i is ``exp(scale² / 2)``, 90 at scale 3, but nearly all of it comes from
    v near ``scale²``, three standard deviations out: the average of x_i² over a sample is far
    below 90 until the sample has many thousands of draws. Judge a sampler by the draws of v.

    References
    ----------
    Neal, "Slice sampling", Annals of Statistics 31 (2003), section 8.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(Funnel(dim=3).log_density(jnp.array([0.0, 1.0, 1.0])))
    -1.0
    """

    scale: jax.Array
    _dim: int = eqx.field(static=True)

    def __init__(self, dim: int = 10, scale: Any = 3.0, *, dtype: Any = None):
        dtype = float_dtype(dtype, scale)
        self._dim = integer("dim", dim, 2)
        self.scale = jnp.asarray(as_parameter(scale, "scale", (0,), positive=True), dtype)

    @property
    def dim(self) -> int:
        """Number of coordinates, d."""
        return self._dim

    @property
    def mean(self) -> jax.Array:
        """Exact mean, zero, shape ``(d,)``."""
        return jnp.zeros(self.dim, self.scale.dtype)

    @property
    def covariance(self) -> jax.Array:
        """Exact covariance, diagonal: ``(scale², exp(scale² / 2), ...)``, shape ``(d, d)``."""
        variances = jnp.full(self.dim, jnp.exp(self.scale**2 / 2))
        return jnp.diag(variances.at[0].set(self.scale**2))

    @property
    def log_normalizer(self) -> jax.Array:
        """Exact log integral: ``d log(2π) / 2 + log scale``."""
        return self.dim * _LOG_2PI / 2 + jnp.log(self.scale)

    def log_density(self, x: jax.Array) -> jax.Array:
        """Unnormalised log density of one point of shape ``(d,)``."""
        x = self._point(x)
        # Scaling before squaring doubles the range of v that float32 bears.
        white = x[1:] * jnp.exp(-x[0] / 2)
        spread = (x[0] / self.scale) ** 2 + (self.dim - 1) * x[0]
        return -(spread + jnp.sum(white**2)) / 2

    def sample(self, key: jax.Array, num: int) -> jax.Array:
        """Draw ``num`` exact and independent points, shape ``(num, d)``."""
        num = check_draw(key, num)
        x = jax.random.normal(key, (num, self.dim), self.scale.dtype)
        x = x.at[:, 0].multiply(self.scale)
        return x.at[:, 1:].multiply(jnp.exp(x[:, :1] / 2))
