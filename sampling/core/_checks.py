"""Early checks of arguments, shared by all of the package.

Each names the argument, what came and what is accepted, and for an array the first entry that is
wrong. A traced value cannot be looked at: its shape and dtype are checked, its numbers pass.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def real_parameter(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    include_low: bool = False,
    scalar: bool = False,
    wanted: str = "",
) -> Any:
    """Pass on finite real numbers between ``low`` and ``high``, ends excluded.

    ``scalar`` refuses arrays with axes; ``wanted`` says in words what the bounds are. A Python
    integer becomes a float: it would be baked into compiled programs, to which a float is an
    argument. Raises ``TypeError`` or ``ValueError``.
    """
    array = real_values(name, value)
    if scalar and array.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {array.shape}")
    bounds = [f"{'>=' if include_low else '>'} {low:g}"] * (low > -math.inf)
    bounds += [f"< {high:g}"] * (high < math.inf)
    above = operator.ge if include_low else operator.gt
    is_good = lambda array: above(array, low) & (array < high) & np.isfinite(array)
    check_entries(name, array, is_good, wanted or " and ".join(["finite", *bounds]))
    return float(value) if isinstance(value, int) else value


def real_array(name: str, value: Any, shape: tuple[Any, ...]) -> jax.Array:
    """Pass on an array of float32 or float64 with the given shape.

    An integer in ``shape`` is required, a string stands for any positive size and a leading
    ``...`` for any axes. Raises ``TypeError`` or ``ValueError``.
    """
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise TypeError(f"{name} must be an array, got {type(value).__name__}")
    if value.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must have dtype float32 or float64, got {value.dtype}")
    given, wanted = tuple(value.shape), shape
    if shape[:1] == (...,):
        wanted = shape[1:]
        given = given[-len(wanted) :]
    fits = len(given) == len(wanted) and all(
        size > 0 if isinstance(want, str) else size == want
        for size, want in zip(given, wanted, strict=True)
    )
    if not fits:
        words = ["..." if size is ... else str(size) for size in shape]
        wanted_shape = f"({', '.join(words)}{',' if len(shape) == 1 else ''})"
        raise ValueError(f"{name} must have shape {wanted_shape}, got {tuple(value.shape)}")
    return jnp.asarray(value)


def real_scalar(name: str, value: Any) -> jax.Array:
    """Pass on what a function returned, if it is a floating scalar; else raise."""
    if not hasattr(value, "dtype") and not isinstance(value, float):
        raise TypeError(f"{name} must return a scalar array, got {type(value).__name__}: {value!r}")
    if jnp.shape(value) != ():
        raise ValueError(
            f"{name} must return a scalar of shape (), got shape {jnp.shape(value)}; "
            "reduce it, for example with jnp.sum"
        )
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise TypeError(f"{name} must return a float, got dtype {jnp.result_type(value).name}")
    return jnp.asarray(value)


def integer(name: str, value: Any, lowest: int = 1) -> int:
    """Return an integer of at least ``lowest`` as an int; ``True`` is none. Else raise."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < lowest:
        raise ValueError(f"{name} must be at least {lowest}, got {number}")
    return number


def floating_dtype(name: str, dtype: Any) -> np.dtype:
    """Return a floating dtype, JAX's default float for None; else raise."""
    try:
        found = np.dtype(jnp.result_type(float) if dtype is None else dtype)
    except TypeError:
        raise TypeError(f"{name} must be a floating dtype, got {dtype!r}") from None
    if not jnp.issubdtype(found, jnp.floating):
        raise TypeError(f"{name} must be a floating dtype, got {found}")
    return found


def check_callable(name: str, value: Any) -> None:
    """Raise ``TypeError`` for what cannot be called."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, got {type(value).__name__}: {value!r}")


def check_flag(name: str, value: Any) -> None:
    """Raise ``TypeError`` for what is neither True nor False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def choice(name: str, value: Any, accepted: tuple[Any, ...]) -> Any:
    """Return ``value`` if it is one of ``accepted``, of the same type; else raise."""
    for one in accepted:
        if type(value) is type(one) and value == one:
            return value
    kind = ValueError if type(value) in map(type, accepted) else TypeError
    raise kind(f"{name} must be one of {', '.join(map(repr, accepted))}; got {value!r}")


def check_entries(name: str, value: Any, is_good: Callable[[np.ndarray], Any], wanted: str) -> None:
    """Raise ``ValueError`` for the first entry of a concrete array that is not good."""
    if isinstance(value, jax.core.Tracer):
        return
    array = np.asarray(value)
    bad = ~np.asarray(is_good(array))
    if bad.any():
        where = np.argwhere(bad)[0].tolist()
        shown = f"but entry {where} is {array[tuple(where)]}" if where else f"got {array.item()!r}"
        raise ValueError(f"{name} must be {wanted}, {shown}")


def check_finite(name: str, value: Any) -> None:
    """Raise ``ValueError`` for the first entry of a concrete array that is NaN or infinite."""
    check_entries(name, value, np.isfinite, "finite")


def check_position(name: str, position: Any) -> None:
    """Check that a pytree holds numbers, floating ones of one dtype that are finite.

    Leaves may be ``jax.ShapeDtypeStruct``. Raises ``TypeError`` or ``ValueError`` that names the
    leaf and, for a number that is not finite, its index.
    """
    leaves = {
        name + jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(position)
    }
    if not leaves:
        raise ValueError(f"{name} holds no array: {position!r}")
    if not sum(math.prod(getattr(leaf, "shape", ())) for leaf in leaves.values()):
        shapes = {label: np.shape(leaf) for label, leaf in leaves.items()}
        raise ValueError(f"{name} holds no number: its leaves have the shapes {shapes}")
    for label, leaf in leaves.items():
        dtype = getattr(leaf, "dtype", type(leaf))
        if not (jnp.issubdtype(dtype, jnp.floating) or isinstance(leaf, float)):
            raise TypeError(
                f"{label} must hold floats, got "
                + (f"dtype {dtype}" if hasattr(leaf, "dtype") else f"{dtype.__name__}: {leaf!r}")
                + "; convert it with .astype(float)" * hasattr(leaf, "dtype")
            )
    found = {label: jnp.result_type(leaf).name for label, leaf in leaves.items()}
    if len(set(found.values())) > 1:
        raise TypeError(f"the leaves of {name} must share one dtype, got {found}")
    for label, leaf in leaves.items():
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            check_finite(label, leaf)


def real_values(name: str, value: Any) -> Any:
    """Return real numbers as an array, or as they are where they are one; else raise."""
    if hasattr(value, "dtype"):
        array = value
    else:
        try:
            array = np.asarray(value)
        except ValueError:
            raise TypeError(f"{name} must hold rows of one length, got {value!r}") from None
    if jnp.issubdtype(array.dtype, np.integer) or jnp.issubdtype(array.dtype, jnp.floating):
        return array
    if array.ndim:
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    raise TypeError(f"{name} must be a real number, got {value!r}")
