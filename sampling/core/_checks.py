"""Early checks of arguments, shared by the modules of the core."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def real_parameter(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, include_low: bool = False
) -> Any:
    """Pass on a finite real number between ``low`` and ``high``, ends excluded.

    A traced value cannot be looked at and passes. A Python integer becomes a float. Raises
    ``TypeError`` or ``ValueError`` naming ``name`` and the value.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    concrete = np.asarray(value)
    if not (
        np.issubdtype(concrete.dtype, np.integer) or jnp.issubdtype(concrete.dtype, jnp.floating)
    ):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    above = concrete >= low if include_low else concrete > low
    if not np.all(above & (concrete < high) & np.isfinite(concrete)):
        bounds = [f"{'>=' if include_low else '>'} {low:g}"] * (low > -math.inf)
        bounds += [f"< {high:g}"] * (high < math.inf)
        raise ValueError(f"{name} must be {' and '.join(['finite', *bounds])}, got {value!r}")
    return float(value) if isinstance(value, int) else value


def real_array(name: str, value: Any, shape: tuple[int | str, ...]) -> jax.Array:
    """Pass on an array of float32 or float64 with the given shape.

    An integer in ``shape`` is required, a string stands for any positive size. Raises
    ``TypeError`` or ``ValueError`` naming ``name``, what came and what is accepted.
    """
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise TypeError(f"{name} must be an array, got {type(value).__name__}")
    if value.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must have dtype float32 or float64, got {value.dtype}")
    fits = len(value.shape) == len(shape) and all(
        size > 0 if isinstance(wanted, str) else size == wanted
        for size, wanted in zip(value.shape, shape, strict=True)
    )
    if not fits:
        wanted_shape = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
        raise ValueError(f"{name} must have shape {wanted_shape}, got {tuple(value.shape)}")
    return jnp.asarray(value)
