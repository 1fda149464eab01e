"""The ball, seen from R^d through a hemisphere."""

from typing import Any

import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import check_entries, real_parameter
from shoal.sampling.core._mirror_map import MirrorMap, check_size, rounding


class Ball(MirrorMap):
    """|θ - c| < r, ψ = -√(r² - |θ - c|²).

    With w = (θ - c)/r: η = w/√(1 - |w|²), H = √(1 + |η|²) (I + η ηᵀ)/r.

    Attributes
    ----------
    radius
        r, a scalar.
    centre
        c, a scalar or ``(d,)``.
    """

    radius: jax.Array
    centre: jax.Array

    def to_dual(self, primal: jax.Array) -> jax.Array:
        """Return w / √(1 - |w|²)."""
        unit = self._unit(primal)
        return unit / _depth(unit)

    def to_primal(self, dual: jax.Array) -> jax.Array:
        """Return c + r η / √(1 + |η|²)."""
        scaled, inverse = _rescaled(dual)
        unit = scaled * jax.lax.rsqrt(inverse**2 + _square(scaled))
        radius, centre = self._sphere(dual.dtype)
        return centre + radius * self._inside(unit)

    def hessian_product(self, primal: jax.Array, vector: jax.Array) -> jax.Array:
        """Return √(1 + |η|²) (v + η (η·v)) / r."""
        unit = self._unit(primal)
        depth = _depth(unit)
        along = unit * jnp.sum(unit * vector, -1, keepdims=True) / depth**2
        return (vector + along) / (depth * self._sphere(primal.dtype)[0])

    def inverse_hessian_product(self, primal: jax.Array, covector: jax.Array) -> jax.Array:
        """Return r √(1 - |w|²) (g - w (w·g))."""
        unit = self._unit(primal)
        across = covector - unit * jnp.sum(unit * covector, -1, keepdims=True)
        return self._sphere(primal.dtype)[0] * _depth(unit) * across

    def log_det_dual_hessian(self, dual: jax.Array) -> jax.Array:
        """Return d log r - (d + 2)/2 log (1 + |η|²)."""
        scaled, inverse = _rescaled(dual)
        log_square = jnp.log(inverse**2 + _square(scaled)) - 2 * jnp.log(inverse)
        num_dims = dual.shape[-1]
        log_radius = jnp.log(self._sphere(dual.dtype)[0])
        return num_dims * log_radius - (0.5 * num_dims + 1) * log_square[..., 0]

    def divergence(self, primal: jax.Array) -> jax.Array:
        """Return -(d + 2) √(1 - |w|²) w."""
        unit = self._unit(primal)
        return -(primal.shape[-1] + 2) * _depth(unit) * unit

    def hessian_noise(self, key: jax.Array, primal: jax.Array) -> jax.Array:
        """Draw (1 + |η|²)^¼ (ξ + η (η·ξ) / (1 + √(1 + |η|²))) / √r."""
        white = jax.random.normal(key, primal.shape, primal.dtype)
        unit = self._unit(primal)
        depth = _depth(unit)
        along = unit * jnp.sum(unit * white, -1, keepdims=True) / (depth * (1 + depth))
        return (white + along) * jax.lax.rsqrt(depth * self._sphere(primal.dtype)[0])

    def check(self, primal: jax.Array) -> None:
        """Refuse points that are not inside of the ball, and shapes that do not fit."""
        if self.centre.ndim:
            check_size(primal, self.centre.size, "the ball")
        radius, centre = self._sphere(primal.dtype)
        length = jnp.sqrt(_square((primal - centre) / radius))[..., 0]
        name = "the distance of position from the centre, in radii,"
        check_entries(name, length, lambda array: array < 1, "below 1 (inside of the ball)")

    def _sphere(self, dtype: Any) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(self.radius, dtype), jnp.asarray(self.centre, dtype)

    def _unit(self, primal: jax.Array) -> jax.Array:
        """Return w, moved inside."""
        radius, centre = self._sphere(primal.dtype)
        return self._inside((primal - centre) / radius)

    def _inside(self, unit: jax.Array) -> jax.Array:
        """Shorten w where rounding leaves in doubt whether θ is inside."""
        radius, centre = self._sphere(unit.dtype)
        scale = 1 + jnp.max(jnp.abs(centre)) / radius
        doubt = rounding(unit.dtype, unit.shape[-1]) * scale
        largest = jax.lax.stop_gradient(1 - jnp.minimum(doubt, 0.5))
        square = _square(unit)
        is_outside = square > largest**2
        return jnp.where(
            is_outside, unit * largest * jax.lax.rsqrt(jnp.where(is_outside, square, 1)), unit
        )


def ball(radius: Any = 1.0, centre: Any = 0.0) -> Ball:
    """Return the map of a ball: η = w / √(1 - |w|²) for w = (θ - centre) / radius.

    Parameters
    ----------
    radius
        r > 0, a scalar.
    centre
        c, a scalar or ``(d,)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not real and finite or has the wrong axes, or ``radius`` is not positive.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.sampling.core import mirror
    >>> mirror.ball(5.0).to_dual(jnp.array([3.0, 0.0])).tolist()
    [0.75, 0.0]
    """
    dtype = jnp.result_type(float)
    size = jnp.asarray(real_parameter("radius", radius, low=0.0, scalar=True), dtype)
    middle = jnp.asarray(real_parameter("centre", centre), dtype)
    if middle.ndim > 1 or not middle.size:
        raise ValueError(f"centre must be a scalar or (d,), got shape {middle.shape}")
    return Ball(size, middle)


def _depth(unit: jax.Array) -> jax.Array:
    """Return √(1 - |w|²)."""
    return jnp.sqrt(1 - _square(unit))


def _rescaled(dual: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return η/a and 1/a with an a for which |η/a|² is a number: 1 + |η|² may be none."""
    largest = jnp.maximum(jnp.max(jnp.abs(dual), -1, keepdims=True), 1)
    inverse = jax.lax.stop_gradient(1 / largest)
    return dual * inverse, inverse


def _square(vectors: jax.Array) -> jax.Array:
    return jnp.sum(vectors**2, -1, keepdims=True)
