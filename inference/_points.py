"""Sets of points as the discrepancies take them: ``(n, ...)``, flattened to ``(n, d)``."""

from typing import Any

import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import check_finite, real_array


def as_points(name: str, value: Any) -> jax.Array:
    """Return points ``(n, ...)`` as finite numbers ``(n, d)``; raise for anything else."""
    points = real_array(name, value, (..., "d"))
    if points.ndim < 2 or not points.size:
        raise ValueError(f"{name} must have shape (n, d) or (n, ...), got {points.shape}")
    check_finite(name, value)
    return points.reshape(len(points), -1)


def alike(**named: Any) -> tuple[jax.Array, ...]:
    """Return sets of points, given by name, each ``(n, d)`` with the same d and dtype."""
    sets = {name: as_points(name, value) for name, value in named.items()}
    (first, *others), dtype = sets, jnp.result_type(*sets.values())
    for name in others:
        if sets[name].shape[1] != sets[first].shape[1]:
            raise ValueError(
                f"{name} and {first} must hold points of one size, "
                f"got the shapes {named[name].shape} and {named[first].shape}"
            )
    return tuple(points.astype(dtype) for points in sets.values())
