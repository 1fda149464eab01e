"""Early checks of the hyperparameters that Langevin samplers share."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def _check_positive(value: Any, name: str, allow_zero: bool) -> Any:
    if isinstance(value, jax.core.Tracer):
        return value
    concrete = np.asarray(value)
    if not np.issubdtype(concrete.dtype, np.number) or np.issubdtype(
        concrete.dtype, np.complexfloating
    ):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    lowest = "non-negative" if allow_zero else "positive"
    if not np.all(np.isfinite(concrete)) or np.any(concrete < 0 if allow_zero else concrete <= 0):
        raise ValueError(f"{name} must be {lowest} and finite, got {value!r}")
    # A Python int would be baked into compiled programs; a float is an argument to them.
    return float(value) if isinstance(value, int) else value


@functools.cache
def check_positive(name: str, allow_zero: bool = False) -> Callable[[Any], Any]:
    """Return a function that passes a positive (or non-negative) finite number on.

    It raises ``TypeError`` for what is no real number and ``ValueError`` for one out of range,
    naming ``name`` and the value. Cached, so that equal checks are identical objects.
    """
    return functools.partial(_check_positive, name=name, allow_zero=allow_zero)
