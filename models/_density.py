"""What every analytic density offers, and the early checks of their parameters."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from shoal.sampling.core._checks import (
    floating_dtype,
    integer,
    real_parameter,
    real_values,
)
from shoal.sampling.core.random import check_key


class Density(eqx.Module):
    """A probability density on R^d with known moments, normaliser and exact draws.

    A density is an immutable pytree whose leaves are its parameters, so it passes through
    ``jax.jit``, ``jax.vmap`` and ``jax.grad`` like an array, and changing a parameter compiles
    nothing.
    """

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Number of coordinates, d."""

    @property
    @abc.abstractmethod
    def mean(self) -> jax.Array:
        """Exact mean, shape ``(d,)``."""

    @property
    @abc.abstractmethod
    def covariance(self) -> jax.Array:
        """Exact covariance, shape ``(d, d)``."""

    @property
    @abc.abstractmethod
    def log_normalizer(self) -> jax.Array:
        """Exact log of the integral of ``exp(log_density(x))``, a scalar."""

    @abc.abstractmethod
    def log_density(self, x: jax.Array) -> jax.Array:
        """Unnormalised log density of one point of shape ``(d,)``, a scalar."""

    @abc.abstractmethod
    def sample(self, key: jax.Array, num: int) -> jax.Array:
        """Draw ``num`` exact and independent points, shape ``(num, d)``."""

    def _point(self, x: jax.Array) -> jax.Array:
        """Return ``x`` as an array, checked to be one point."""
        point = real_values("x", x)
        if point.shape != (self.dim,):
            raise ValueError(
                f"x must be one point of shape ({self.dim},), got shape {point.shape}; "
                "map over many points with jax.vmap"
            )
        return jnp.asarray(point)


def float_dtype(dtype: Any, *values: Any) -> Any:
    """Return ``dtype``, or when it is None the common floating dtype of the arrays in ``values``.

    Python numbers and lists, and integer arrays, have no say; where nothing has, the answer is
    JAX's default float.
    """
    default = np.dtype(jnp.result_type(float))
    if dtype is None:
        given = [value.dtype for value in values if hasattr(value, "dtype")]
        floating = [one for one in given if jnp.issubdtype(one, jnp.floating)]
        dtype = np.result_type(*floating) if floating else default
        if dtype == np.float64:
            dtype = default
    dtype = floating_dtype("dtype", dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {dtype}")
    if dtype == np.float64 and default != np.float64:
        raise ValueError("dtype float64 needs jax_enable_x64; see jax.enable_x64")
    return dtype


def is_traced(value: Any) -> bool:
    """Tell whether ``value`` is known only when a compiled program runs."""
    return isinstance(value, jax.core.Tracer)


def as_parameter(value: Any, name: str, ndims: tuple[int, ...], positive: bool = False) -> Any:
    """Return a parameter in float64 on the host, checked, or as it is where it is traced.

    Factorising on the host in float64 keeps an ill-conditioned covariance accurate even where
    its factor is then stored in float32.

    Raises
    ------
    TypeError
        If it is not real.
    ValueError
        If its number of axes is not in ``ndims``, an axis is empty, or an entry is not finite or,
        with ``positive``, not above zero.
    """
    array = real_values(name, value)
    if array.ndim not in ndims or 0 in array.shape:
        wanted = " or ".join(map(str, ndims))
        raise ValueError(f"{name} must be a non-empty array with {wanted} axes, got {array.shape}")
    if is_traced(value):
        return array
    array = np.asarray(array, np.float64)
    if positive:
        return real_parameter(name, array, 0.0, wanted="positive and finite")
    return real_parameter(name, array)


def check_draw(key: Any, num: Any) -> int:
    """Return the number of draws asked for, at least 0; raise for that or a key that is none."""
    check_key(key)
    return integer("num", num, 0)


def cholesky_factor(matrices: Any, name: str) -> Any:
    """Return the lower Cholesky factor of matrices ``(..., d, d)``, checked where concrete."""
    if is_traced(matrices):
        return jnp.linalg.cholesky(matrices)
    largest = np.abs(matrices).max()
    if not np.allclose(matrices, np.swapaxes(matrices, -1, -2), rtol=0, atol=1e-5 * largest):
        raise ValueError(f"{name} must be symmetric, got {matrices!r}")
    try:
        return np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        smallest = np.linalg.eigvalsh(matrices).min()
        raise ValueError(
            f"{name} must be positive definite; its smallest eigenvalue is {smallest:.3g}"
        ) from None


def inverse_factor(factors: Any) -> Any:
    """Invert lower triangular factors ``(..., d, d)``, on the host where they are concrete.

    A density multiplies by the inverse: a triangular solve in each evaluation costs a batch of
    points on a CPU some forty times as much.
    """
    if not is_traced(factors):
        return np.tril(np.linalg.inv(factors))
    eye = jnp.broadcast_to(jnp.eye(factors.shape[-1], dtype=factors.dtype), factors.shape)
    return solve_triangular(factors, eye, lower=True)
