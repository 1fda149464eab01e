"""The Dirichlet distribution, on the simplex and on the whole space."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln, polygamma

from shoal.models._density import Density, as_parameter, check_draw, float_dtype


def _as_concentration(concentration: Any, dtype: Any) -> jax.Array:
    dtype = float_dtype(dtype, concentration)
    checked = as_parameter(concentration, "concentration", (1,), positive=True)
    if checked.shape[0] < 2:
        raise ValueError(f"concentration must have at least 2 entries, got {concentration!r}")
    return jnp.asarray(checked, dtype)


def _log_beta(concentration: jax.Array) -> jax.Array:
    return jnp.sum(gammaln(concentration)) - gammaln(jnp.sum(concentration))


class Dirichlet(Density):
    """A Dirichlet density on the inside of the simplex, in its first d coordinates.

    A point is ``x = (x₁, ..., x_d)`` with every ``x_i > 0`` and ``Σ x_i < 1``; the last of the
    d + 1 proportions is ``x_{d+1} = 1 - Σ x_i``. The density is with respect to Lebesgue measure
    on these d coordinates (as ``scipy.stats.dirichlet`` has it):

        log_density(x) = Σ_{i ≤ d+1} (concentration_i - 1) log x_i,

    and -inf, with a gradient of zero, on the boundary and outside. Samplers on R^d want
    `UnconstrainedDirichlet`.

    Parameters
    ----------
    concentration
        Shape ``(d + 1,)``, positive.
    dtype
        float32 or float64; when None the concentration's one, or else JAX's default.

    Raises
    ------
    TypeError, ValueError
        If ``concentration`` is not a vector of at least two positive finite numbers.

    Notes
    -----
    A float cannot hold proportions near one finely: with concentrations far below one, draws of
    the first d proportions may round to zero or to a sum of one, where the log density is -inf.
    `UnconstrainedDirichlet` does not lose them.

    Examples
    --------
    >>> Dirichlet([1.0, 1.0, 2.0]).mean.tolist()
    [0.25, 0.25]
    """

    concentration: jax.Array

    def __init__(self, concentration: Any, *, dtype: Any = None):
        self.concentration = _as_concentration(concentration, dtype)

    @property
    def dim(self) -> int:
        """Number of free coordinates, d, one less than there are proportions."""
        return self.concentration.shape[0] - 1

    @property
    def mean(self) -> jax.Array:
        """Exact mean of the first d proportions, shape ``(d,)``."""
        return self.concentration[:-1] / jnp.sum(self.concentration)

    @property
    def covariance(self) -> jax.Array:
        """Exact covariance of the first d proportions, shape ``(d, d)``."""
        mean = self.mean
        return (jnp.diag(mean) - mean[:, None] * mean) / (1 + jnp.sum(self.concentration))

    @property
    def log_normalizer(self) -> jax.Array:
        """Exact log integral: the log of the multivariate beta function."""
        return _log_beta(self.concentration)

    def log_density(self, x: jax.Array) -> jax.Array:
        """Unnormalised log density of one point of shape ``(d,)``."""
        x = self._point(x)
        proportions = jnp.append(x, 1 - jnp.sum(x))
        inside = jnp.all(proportions > 0)
        safe = jnp.where(inside, proportions, 1)
        value = jnp.sum((self.concentration - 1) * jnp.log(safe))
        # A point that is not a number is not outside: NaN, as of every other density.
        return jnp.where(inside, value, jnp.where(jnp.isnan(jnp.sum(x)), jnp.nan, -jnp.inf))

    def sample(self, key: jax.Array, num: int) -> jax.Array:
        """Draw ``num`` exact and independent points, shape ``(num, d)``."""
        return jax.nn.softmax(_log_gamma_draws(key, self.concentration, num))[:, :-1]


class UnconstrainedDirichlet(Density):
    """The law of log proportions of a Dirichlet, on the whole of R^d.

    A point is ``x_i = log p_i - log p_{d+1}`` for i ≤ d, where p is Dirichlet with d + 1
    proportions; back, ``p = softmax(x₁, ..., x_d, 0)``. With the Jacobian ``Π_{i ≤ d+1} p_i``,

        log_density(x) = Σ_{i ≤ d+1} concentration_i log p_i,

    which is concave, smooth and finite everywhere.

    Parameters
    ----------
    concentration
        Shape ``(d + 1,)``, positive.
    dtype
        float32 or float64; when None the concentration's one, or else JAX's default.

    Raises
    ------
    TypeError, ValueError
        If ``concentration`` is not a vector of at least two positive finite numbers.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> density = UnconstrainedDirichlet([2.0, 1.0, 1.0])
    >>> density.mean.tolist()
    [1.0, 0.0]
    >>> density.to_simplex(jnp.array([0.0, 0.0])).round(3).tolist()
    [0.3330000042915344, 0.3330000042915344]
    """

    concentration: jax.Array

    def __init__(self, concentration: Any, *, dtype: Any = None):
        self.concentration = _as_concentration(concentration, dtype)

    @property
    def dim(self) -> int:
        """Number of coordinates, d, one less than there are proportions."""
        return self.concentration.shape[0] - 1

    @property
    def mean(self) -> jax.Array:
        """Exact mean, differences of the digamma function, shape ``(d,)``."""
        logs = digamma(self.concentration)
        return logs[:-1] - logs[-1]

    @property
    def covariance(self) -> jax.Array:
        """Exact covariance, by the trigamma function, shape ``(d, d)``."""
        variances = polygamma(1, self.concentration)
        return jnp.diag(variances[:-1]) + variances[-1]

    @property
    def log_normalizer(self) -> jax.Array:
        """Exact log integral: the log of the multivariate beta function."""
        return _log_beta(self.concentration)

    def log_density(self, x: jax.Array) -> jax.Array:
        """Unnormalised log density of one point of shape ``(d,)``."""
        logits = jnp.append(self._point(x), 0)
        return jnp.sum(self.concentration * jax.nn.log_softmax(logits))

    def sample(self, key: jax.Array, num: int) -> jax.Array:
        """Draw ``num`` exact and independent points, shape ``(num, d)``."""
        logs = _log_gamma_draws(key, self.concentration, num)
        return logs[:, :-1] - logs[:, -1:]

    def to_simplex(self, x: jax.Array) -> jax.Array:
        """Map points ``(..., d)`` to their first d proportions, `Dirichlet`'s coordinates."""
        zero = jnp.zeros_like(x[..., :1])
        return jax.nn.softmax(jnp.concatenate([x, zero], axis=-1))[..., :-1]


def _log_gamma_draws(key: jax.Array, concentration: jax.Array, num: int) -> jax.Array:
    """Draw log gammas ``(num, d + 1)``: in logs, so that small concentrations do not underflow."""
    shape = (check_draw(key, num), concentration.shape[0])
    return jax.random.loggamma(key, concentration, shape, concentration.dtype)
