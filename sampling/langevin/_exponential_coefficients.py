"""Coefficients of the exponential Langevin integrators: functions of α = γh, exact down to α = 0.

Each is an entire function of α whose textbook form divides a vanishing difference by a power of α.
Below α = 1 the Taylor series is summed instead, to full float64 precision; above, at most three
digits cancel. (Series of five terms below 0.1 or 0.01, as in other code, leave no correct digit of
the coefficient of K in float32.) All work is scalar.

Reference: Foster, Lyons and Oberhauser, "The shifted ODE method for underdamped Langevin MCMC",
arXiv:2101.03446, section 4 and appendix.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# The first term left out is below 1e-17 for every series at α = 1.
_NUM_TERMS = 18


def glide(t: Any, friction: Any) -> jax.Array:
    """a(t) = (1 - e^(-γt)) / γ: the way that a unit of momentum goes in a time t."""
    return t * _series_or(_GLIDE, lambda z: -jnp.expm1(-z) / z, friction * t)


def push(t: Any, friction: Any, h: Any) -> jax.Array:
    """b(t) = (e^(-γt) + γt - 1) / (γ²h): the way that a force 1 / h goes in a time t."""
    return t**2 / h * _series_or(_PUSH, lambda z: (jnp.expm1(-z) + z) / z**2, friction * t)


def area(h: Any, friction: Any) -> jax.Array:
    """P = 6 (e^(-α)(α + 2) + α - 2) / (α²γ): the weight of H in the position after a step."""
    closed = lambda z: 6 * (jnp.exp(-z) * (z + 2) + z - 2) / z**3
    return h * _series_or(_AREA, closed, friction * h)


def area_at_half(h: Any, friction: Any) -> jax.Array:
    """Q = 6 (e^(-α/2)(α + 2) + α²/4 - 2) / (α²γ): the weight of H at half a step."""
    closed = lambda z: 6 * (jnp.exp(-z / 2) * (z + 2) + z**2 / 4 - 2) / z**3
    return h * _series_or(_AREA_AT_HALF, closed, friction * h)


def second_area(h: Any, friction: Any) -> jax.Array:
    """S = 60 (e^(-α)(α(α + 6) + 12) - α(α - 6) - 12) / (α³γ): the weight of K after a step."""
    closed = lambda z: 60 * (jnp.exp(-z) * (z * (z + 6) + 12) - z * (z - 6) - 12) / z**4
    return h * _series_or(_SECOND_AREA, closed, friction * h)


def _series_or(
    series: tuple[float, ...], closed: Callable[[jax.Array], jax.Array], z: jax.Array
) -> jax.Array:
    """Sum the series where z < 1, else take the closed form; safe under differentiation."""
    is_small = z < 1
    near = jnp.polyval(jnp.asarray(series, z.dtype), jnp.where(is_small, z, 0), unroll=_NUM_TERMS)
    return jnp.where(is_small, near, closed(jnp.where(is_small, 1, z)))


def _table(coefficient: Callable[[int], float]) -> tuple[float, ...]:
    """Taylor coefficients, the highest power first."""
    return tuple(coefficient(k) for k in reversed(range(_NUM_TERMS)))


_GLIDE = _table(lambda k: (-1) ** k / math.factorial(k + 1))
_PUSH = _table(lambda k: (-1) ** k / math.factorial(k + 2))
_AREA = _table(lambda k: 6 * (-1) ** k * (k + 1) / math.factorial(k + 3))
_AREA_AT_HALF = _table(lambda k: 1.5 * (-0.5) ** k * (k + 2) / math.factorial(k + 3))
_SECOND_AREA = _table(lambda k: 60 * (-1) ** k * k * (k + 1) / math.factorial(k + 4))
