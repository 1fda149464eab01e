"""The constant metric of a Langevin sampler, held by its factor so that no step ever solves."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import real_parameter, real_values


class Metric(eqx.Module):
    """An inverse mass matrix M = L Lᵀ, held by L.

    Attributes
    ----------
    factor
        L: shape ``()`` or ``(d,)`` (the square root of a diagonal) or ``(d, d)`` (lower Cholesky).
    """

    factor: jax.Array

    def color(self, white: jax.Array) -> jax.Array:
        """L ``white``, for a vector of shape ``(d,)``."""
        return self.factor @ white if self.factor.ndim == 2 else self.factor * white

    def whiten(self, covector: jax.Array) -> jax.Array:
        """Lᵀ ``covector``: a gradient, shape ``(d,)``, in coordinates where M is the identity."""
        return covector @ self.factor if self.factor.ndim == 2 else self.factor * covector

    def check(self, dim: int) -> None:
        """Raise ``ValueError`` unless the metric fits positions of ``dim`` coordinates."""
        if self.factor.ndim and self.factor.shape[-1] != dim:
            raise ValueError(
                f"metric has shape {self.factor.shape}, but the position has {dim} "
                f"coordinates; give a scalar, ({dim},) or ({dim}, {dim})"
            )


class LowRankMetric(eqx.Module):
    """An inverse mass matrix that is diagonal but for k directions; made by `low_rank`.

    With a diagonal S, orthonormal columns V and eigenvalues λ,

        M = L Lᵀ,    L = S (I + V (diag √λ - I) Vᵀ),

    so that L and Lᵀ cost O(d k).

    Attributes
    ----------
    scale
        The diagonal of S, ``()`` or ``(d,)``.
    vectors
        V, ``(d, k)``.
    stretch
        √λ - 1, ``(k,)``.
    """

    scale: jax.Array
    vectors: jax.Array
    stretch: jax.Array

    @property
    def factor(self) -> jax.Array:
        """L as a matrix ``(d, d)``, which the samplers never form."""
        dim = self.vectors.shape[0]
        inner = jnp.eye(dim, dtype=self.vectors.dtype)
        inner = inner + (self.vectors * self.stretch) @ self.vectors.T
        return jnp.broadcast_to(self.scale, (dim,))[:, None] * inner

    def color(self, white: jax.Array) -> jax.Array:
        """L ``white``, for a vector of shape ``(d,)``."""
        return self.scale * self._stretched(white)

    def whiten(self, covector: jax.Array) -> jax.Array:
        """Lᵀ ``covector``: a gradient, shape ``(d,)``, in coordinates where M is the identity."""
        return self._stretched(self.scale * covector)

    def check(self, dim: int) -> None:
        """Raise ``ValueError`` unless the metric fits positions of ``dim`` coordinates."""
        if self.vectors.shape[0] != dim:
            raise ValueError(
                f"metric has vectors of shape {self.vectors.shape}, but the position has {dim} "
                "coordinates"
            )

    def _stretched(self, vector: jax.Array) -> jax.Array:
        return vector + self.vectors @ (self.stretch * (vector @ self.vectors))


def low_rank(diagonal: Any, vectors: Any, eigenvalues: Any) -> LowRankMetric:
    """Return the inverse mass matrix M = D^½ (I + V (diag λ - I) Vᵀ) D^½.

    The form that low-rank adaptations estimate: D holds the variances of the coordinates, V the
    directions in which the target, so scaled, is most unlike a standard normal law, and λ its
    variances along them.

    Parameters
    ----------
    diagonal
        D, positive: a scalar or ``(d,)``; variances (BlackJAX's ``sigma`` is their root).
    vectors
        V, ``(d, k)``, orthonormal columns.
    eigenvalues
        λ, ``(k,)``, positive.

    Returns
    -------
    LowRankMetric
        To be given as ``metric=`` to any sampler that takes one.

    Raises
    ------
    TypeError, ValueError
        If an argument is not real or has the wrong shape, ``diagonal`` or ``eigenvalues`` are not
        positive, or the columns of ``vectors`` not orthonormal (to 1e-3).

    Notes
    -----
    Seyboldt, Carlson and Carpenter, "Preconditioning Hamiltonian Monte Carlo by minimizing Fisher
    divergence" (2026), is the adaptation that BlackJAX and nutpie use it with.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> from shoal.sampling.langevin.metric import low_rank
    >>> metric = low_rank(jnp.ones(3), jnp.eye(3)[:, :1], jnp.array([4.0]))
    >>> metric.color(jnp.ones(3)).tolist()
    [2.0, 1.0, 1.0]
    >>> sampler = langevin.mala(0.1, metric)
    """
    scale = jnp.sqrt(_floating("diagonal", diagonal))
    basis, values = _floating("vectors", vectors), _floating("eigenvalues", eigenvalues)
    if basis.ndim != 2 or basis.shape[1] > basis.shape[0] or not basis.size:
        raise ValueError(f"vectors must have shape (d, k) with 1 <= k <= d, got {basis.shape}")
    if values.shape != basis.shape[1:]:
        raise ValueError(f"eigenvalues must have shape {basis.shape[1:]}, got {values.shape}")
    if scale.shape not in ((), basis.shape[:1]):
        raise ValueError(f"diagonal must be a scalar or {basis.shape[:1]}, got shape {scale.shape}")
    for name, value in (("diagonal", diagonal), ("eigenvalues", eigenvalues)):
        real_parameter(name, value, 0.0, wanted="positive and finite")
    real_parameter("vectors", vectors)
    gram = basis.T @ basis
    if not isinstance(gram, jax.core.Tracer):
        off = float(jnp.abs(gram - jnp.eye(len(gram))).max())
        if off > 1e-3:
            raise ValueError(f"vectors must have orthonormal columns, but VᵀV is off by {off:.2g}")
    return LowRankMetric(scale, basis, jnp.sqrt(values) - 1)


def as_metric(metric: Any) -> Any:
    """Factor an inverse mass matrix; return a `Metric`, or a `LowRankMetric` as it is.

    Parameters
    ----------
    metric
        A positive scalar, a positive vector ``(d,)`` (a diagonal), a symmetric positive definite
        ``(d, d)`` matrix, what `low_rank` returned, or None for the identity. Coordinates are those
        of ``jax.flatten_util.ravel_pytree`` of the position.

    Raises
    ------
    TypeError, ValueError
        If it is not real, the shape is impossible or, for concrete values, the matrix is not
        positive definite.
    """
    if isinstance(metric, Metric | LowRankMetric):
        return metric
    value = _floating("metric", 1.0 if metric is None else metric)
    if value.ndim > 2 or (value.ndim == 2 and value.shape[0] != value.shape[1]):
        raise ValueError(f"metric must be a scalar, (d,) or (d, d), got shape {value.shape}")
    if value.ndim < 2:
        real_parameter("metric", value, 0.0, wanted="positive and finite")
        return Metric(jnp.sqrt(value))
    real_parameter("metric", value)
    factor = jnp.linalg.cholesky(value)
    if not isinstance(factor, jax.core.Tracer) and not _is_factor(factor, value):
        raise ValueError(
            "metric must be symmetric positive definite (positive, for a scalar or a "
            f"diagonal), got {metric}"
        )
    return Metric(factor)


def _floating(name: str, value: Any) -> jax.Array:
    real_values(name, value)
    # Not of the NumPy array that this returns: a number of Python takes on the position's dtype.
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def _is_factor(factor: jax.Array, value: jax.Array) -> bool:
    symmetric = bool(jnp.allclose(value, value.T, rtol=1e-4))
    return symmetric and bool(jnp.isfinite(factor).all() & (jnp.diagonal(factor) > 0).all())
