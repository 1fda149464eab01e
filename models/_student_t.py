"""The multivariate Student-t distribution: tails that fall off as a power."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from shoal.models._density import Density, as_parameter, check_draw, float_dtype, is_traced
from shoal.models._gaussian import Gaussian, location_and_scale


class StudentT(Density):
    """A multivariate Student-t: a Gaussian whose precision is multiplied by chi²(df) / df.

    ``log_density(x) = -(df + d) / 2 · log(1 + (x - loc)ᵀ scale_matrix⁻¹ (x - loc) / df)``.

    Parameters
    ----------
    df
        Degrees of freedom, positive. The mean exists when df > 1, the covariance when df > 2.
    loc
        Centre of symmetry, shape ``(d,)``.
    scale_matrix
        Shape ``()``, ``(d,)`` or ``(d, d)``, positive definite, read as `Gaussian` reads its
        covariance. It is *not* the covariance, which is ``df / (df - 2)`` times as large.
    dtype
        float32 or float64; when None the arrays' common one, or else JAX's default.

    Attributes
    ----------
    df
        Shape ``()``.
    gaussian
        The Gaussian with mean ``loc`` and covariance ``scale_matrix``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    References
    ----------
    Kotz and Nadarajah, "Multivariate t distributions and their applications", Cambridge
    University Press (2004), section 1.1.

    Examples
    --------
    >>> StudentT(4.0, [0.0, 0.0], 3.0).covariance.tolist()
    [[6.0, 0.0], [0.0, 6.0]]
    """

    df: jax.Array
    gaussian: Gaussian

    def __init__(self, df: Any, loc: Any, scale_matrix: Any = 1.0, *, dtype: Any = None):
        dtype = float_dtype(dtype, df, loc, scale_matrix)
        self.df = jnp.asarray(as_parameter(df, "df", (0,), positive=True), dtype)
        # Raises under this class's names what the Gaussian would raise under its own.
        location_and_scale(loc, scale_matrix, "loc", "scale_matrix")
        self.gaussian = Gaussian(loc, scale_matrix, dtype=dtype)

    @property
    def dim(self) -> int:
        """Number of coordinates, d."""
        return self.gaussian.dim

    @property
    def mean(self) -> jax.Array:
        """Exact mean, shape ``(d,)``; ValueError when df ≤ 1, NaN if that shows under ``jit``."""
        return jnp.where(self._require(1, "mean"), self.gaussian.mean, jnp.nan)

    @property
    def covariance(self) -> jax.Array:
        """Exact covariance, shape ``(d, d)``; ValueError when df ≤ 2, NaN under ``jit``."""
        exists = self._require(2, "covariance")
        factor = self.df / jnp.where(exists, self.df - 2, jnp.nan)
        return factor * self.gaussian.covariance

    def _require(self, bound: int, name: str) -> jax.Array:
        if not is_traced(self.df) and self.df <= bound:
            raise ValueError(f"the {name} exists only for df > {bound}, got df = {self.df}")
        return self.df > bound

    @property
    def log_normalizer(self) -> jax.Array:
        """Exact log integral."""
        gammas = gammaln(self.df / 2) - gammaln((self.df + self.dim) / 2)
        return gammas + self.dim / 2 * jnp.log(self.df / 2) + self.gaussian.log_normalizer

    def log_density(self, x: jax.Array) -> jax.Array:
        """Unnormalised log density of one point of shape ``(d,)``."""
        squared_distance = -2 * self.gaussian.log_density(self._point(x))
        return -(self.df + self.dim) / 2 * jnp.log1p(squared_distance / self.df)

    def sample(self, key: jax.Array, num: int) -> jax.Array:
        """Draw ``num`` exact and independent points, shape ``(num, d)``."""
        num = check_draw(key, num)
        key_noise, key_scale = jax.random.split(key)
        centred = self.gaussian.sample(key_noise, num) - self.gaussian.mean
        # In logs, so that a tiny df, whose chi² underflows, gives far points and not infinite ones.
        log_chi2 = jax.random.loggamma(key_scale, self.df / 2, (num, 1), self.df.dtype)
        return self.gaussian.mean + centred * jnp.sqrt(self.df / 2) * jnp.exp(-log_chi2 / 2)
