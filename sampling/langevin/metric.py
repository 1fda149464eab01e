"""The constant metric of a Langevin sampler, held by its factor so that no step ever solves."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import real_parameter


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


def as_metric(metric: Any) -> Metric:
    """Factor an inverse mass matrix.

    Parameters
    ----------
    metric
        A positive scalar, a positive vector ``(d,)`` (a diagonal), a symmetric positive definite
        ``(d, d)`` matrix, or None for the identity. Coordinates are those of
        ``jax.flatten_util.ravel_pytree`` of the position.

    Raises
    ------
    TypeError, ValueError
        If it is not real, the shape is impossible or, for concrete values, the matrix is not
        positive definite.
    """
    if isinstance(metric, Metric):
        return metric
    given = 1.0 if metric is None else metric
    value = jnp.asarray(real_parameter("metric", given))
    if not jnp.issubdtype(value.dtype, jnp.floating):
        value = value.astype(jnp.result_type(float))
    if value.ndim > 2 or (value.ndim == 2 and value.shape[0] != value.shape[1]):
        raise ValueError(f"metric must be a scalar, (d,) or (d, d), got shape {value.shape}")
    if value.ndim < 2:
        real_parameter("metric", value, 0.0, wanted="positive and finite")
        return Metric(jnp.sqrt(value))
    factor = jnp.linalg.cholesky(value)
    if not isinstance(factor, jax.core.Tracer) and not _is_factor(factor, value):
        raise ValueError(
            "metric must be symmetric positive definite (positive, for a scalar or a "
            f"diagonal), got {metric}"
        )
    return Metric(factor)


def _is_factor(factor: jax.Array, value: jax.Array) -> bool:
    symmetric = bool(jnp.allclose(value, value.T, rtol=1e-4))
    return symmetric and bool(jnp.isfinite(factor).all() & (jnp.diagonal(factor) > 0).all())
