"""The half-space: entropic across its plane and Euclidean along it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import check_entries, real_parameter
from shoal.sampling.core._mirror_map import (
    MirrorMap,
    above_zero,
    check_size,
    positive_exp,
    rounding,
)


class HalfSpace(MirrorMap):
    """c·θ > e; with n = c/|c| and the height t = n·θ - e/|c|, ψ = t log t - t + |θ - (n·θ) n|²/2.

    η = θ + (log t - n·θ) n and H = I + (1/t - 1) n nᵀ: a turn of the axes that puts n on the first
    of them would leave every formula as it is, so none is made.

    Attributes
    ----------
    normal
        c, ``(d,)``.
    offset
        e, a scalar.
    """

    normal: jax.Array
    offset: jax.Array

    def to_dual(self, primal: jax.Array) -> jax.Array:
        """Return θ + (log t - n·θ) n."""
        return self._with_component(primal, jnp.log(self._height(primal)))

    def to_primal(self, dual: jax.Array) -> jax.Array:
        """Return η + (t + e/|c| - n·η) n with t = exp(n·η)."""
        normal, offset = self._plane(dual.dtype)
        height = positive_exp(_dot(normal, dual))
        height = jnp.maximum(height, 2 * self._smallest(self._with_component(dual, offset)))
        return self._with_component(dual, height + offset)

    def hessian_product(self, primal: jax.Array, vector: jax.Array) -> jax.Array:
        """Return v + (1/t - 1) (n·v) n."""
        return self._scaled(vector, 1 / self._height(primal))

    def inverse_hessian_product(self, primal: jax.Array, covector: jax.Array) -> jax.Array:
        """Return g + (t - 1) (n·g) n."""
        return self._scaled(covector, self._height(primal))

    def log_det_dual_hessian(self, dual: jax.Array) -> jax.Array:
        """Return log t = n·η."""
        return _dot(self._plane(dual.dtype)[0], dual)[..., 0]

    def divergence(self, primal: jax.Array) -> jax.Array:
        """Return n."""
        return jnp.broadcast_to(self._plane(primal.dtype)[0], primal.shape)

    def hessian_noise(self, key: jax.Array, primal: jax.Array) -> jax.Array:
        """Draw ξ + (1/√t - 1) (n·ξ) n."""
        white = jax.random.normal(key, primal.shape, primal.dtype)
        return self._scaled(white, jax.lax.rsqrt(self._height(primal)))

    def check(self, primal: jax.Array) -> None:
        """Refuse points that are not above the plane, and shapes that do not fit."""
        check_size(primal, self.normal.size, "the half-space")
        normal, offset = self._plane(primal.dtype)
        height = (_dot(normal, primal) - offset)[..., 0]
        name = "the distance of position from the plane"
        check_entries(name, height, lambda array: array > 0, "positive (inside of the half-space)")

    def _plane(self, dtype: Any) -> tuple[jax.Array, jax.Array]:
        normal, offset = jnp.asarray(self.normal, dtype), jnp.asarray(self.offset, dtype)
        # In two steps, as squares of the largest and smallest numbers are none.
        size = jnp.max(jnp.abs(normal))
        length = size * jnp.linalg.norm(normal / size)
        return normal / length, offset / length

    def _height(self, primal: jax.Array) -> jax.Array:
        normal, offset = self._plane(primal.dtype)
        return jnp.maximum(_dot(normal, primal) - offset, self._smallest(primal))

    def _smallest(self, primal: jax.Array) -> jax.Array:
        """Return the height that rounding leaves in doubt; none where t is a coordinate itself."""
        normal, offset = self._plane(primal.dtype)
        scale = _dot(jnp.abs(normal), jnp.abs(primal)) + jnp.abs(offset)
        doubt = rounding(primal.dtype, normal.size) * scale
        terms = jnp.count_nonzero(normal) + jnp.count_nonzero(offset)
        return jax.lax.stop_gradient(above_zero(jnp.where(terms > 1, doubt, 0)))

    def _with_component(self, vectors: jax.Array, value: jax.Array) -> jax.Array:
        """Replace n·v.

        The old one is taken off first, so that a small new one is not rounded away, and twice: once
        leaves an error that is large where v is almost along n.
        """
        normal, _ = self._plane(vectors.dtype)
        for _ in range(2):
            vectors = vectors - _dot(normal, vectors) * normal
        return vectors + value * normal

    def _scaled(self, vectors: jax.Array, factor: jax.Array) -> jax.Array:
        normal, _ = self._plane(vectors.dtype)
        return self._with_component(vectors, factor * _dot(normal, vectors))


def half_space(normal: Any, offset: Any = 0.0) -> HalfSpace:
    """Return the map of a half-space: the logarithm of the height above its plane.

    Parameters
    ----------
    normal
        c, ``(d,)``, not zero, of any length.
    offset
        e, a scalar: the set is c·θ > e.

    Raises
    ------
    TypeError, ValueError
        If an argument is not real and finite or has the wrong axes, or ``normal`` is zero.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.sampling.core import mirror
    >>> mirror.half_space(jnp.array([0.0, 2.0]), 1.0).to_primal(jnp.zeros(2)).tolist()
    [0.0, 1.5]
    """
    dtype = jnp.result_type(float)
    direction = jnp.asarray(real_parameter("normal", normal), dtype)
    level = jnp.asarray(real_parameter("offset", offset, scalar=True), dtype)
    if direction.ndim != 1 or not direction.size:
        raise ValueError(f"normal must have shape (d,), got {direction.shape}")
    if not isinstance(direction, jax.core.Tracer) and not np.any(direction):
        raise ValueError(f"normal must not be zero, got {normal}")
    return HalfSpace(direction, level)


def _dot(normal: jax.Array, vectors: jax.Array) -> jax.Array:
    return jnp.sum(normal * vectors, -1, keepdims=True)
