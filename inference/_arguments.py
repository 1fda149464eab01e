"""Arguments of a model or a log density, split so that new data compile nothing.

Arrays become leaves of a pytree: they are arguments of a compiled program. All else (numbers,
strings, None, functions, the structure) is static: it is part of the program, compared by value.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


class Static:
    """A value as part of a compiled program; equal if type and value are.

    Arrays are compared by their content, numbers with their type and sign of zero (``1``, ``1.0``
    and ``True`` are equal in Python, but not the same program), objects that cannot be hashed by
    identity.
    """

    __slots__ = ("_key", "value")

    def __init__(self, value: Any) -> None:
        if isinstance(value, np.ndarray):
            # The caller may write into the array later; the compiled program must not change.
            value = value.copy()
            value.flags.writeable = False
        self.value = value
        self._key = (type(value), _identity(value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Static({self.value!r})"


def _identity(value: Any) -> Any:
    if isinstance(value, np.ndarray | jax.Array):
        array = np.asarray(value)
        return array.shape, array.dtype.str, hashlib.sha256(array.tobytes()).digest()
    if isinstance(value, float | complex | np.inexact):
        return repr(value)
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value


class _Structure(NamedTuple):
    treedef: Any
    leaves: tuple[Static | None, ...]


class Arguments(eqx.Module):
    """A pytree of anything whose arrays are leaves and whose other parts are static."""

    arrays: tuple[Any, ...]
    structure: _Structure = eqx.field(static=True)

    @property
    def tree(self) -> Any:
        """The pytree that was split."""
        arrays = iter(self.arrays)
        leaves = [next(arrays) if leaf is None else leaf.value for leaf in self.structure.leaves]
        return jax.tree.unflatten(self.structure.treedef, leaves)


def split(tree: Any) -> Arguments:
    """Make arrays leaves and all else static; NumPy scalars count as numbers, not as arrays."""
    leaves, treedef = jax.tree.flatten(tree)
    arrays = tuple(jnp.array(leaf) for leaf in leaves if _is_array(leaf))
    static = tuple(None if _is_array(leaf) else Static(leaf) for leaf in leaves)
    return Arguments(arrays, _Structure(treedef, static))


def freeze(tree: Any, as_numpy: bool = False) -> Arguments:
    """Make everything static, arrays too; ``as_numpy`` turns JAX arrays into NumPy's."""
    leaves, treedef = jax.tree.flatten(tree)
    if as_numpy:
        leaves = [np.asarray(leaf) if _is_plain(leaf) else leaf for leaf in leaves]
    return Arguments((), _Structure(treedef, tuple(map(Static, leaves))))


def check_arrays(arguments: dict[str, Any]) -> None:
    """Check that every array can be an argument of a compiled program, unchanged.

    Parameters
    ----------
    arguments
        Pytrees by the name to complain with.

    Raises
    ------
    TypeError
        If an array holds objects or strings, or is masked.
    ValueError
        If numbers are too large for the dtype that JAX holds them in.
    """
    for name, leaf in _named_leaves(arguments):
        if not isinstance(leaf, np.ndarray):
            continue
        if isinstance(leaf, np.ma.MaskedArray):
            raise TypeError(
                f"{name} is a masked array, whose mask JAX would ignore; pass the data and the "
                "mask apart (numpyro.handlers.mask)"
            )
        try:
            with np.errstate(over="ignore"):
                converted = np.asarray(jnp.array(leaf))
        except TypeError as error:
            raise TypeError(
                f"{name} has dtype {leaf.dtype}, which is not numeric; encode it as numbers, for "
                "example with np.unique(..., return_inverse=True)"
            ) from error
        if leaf.dtype.kind in "iu":
            lost = np.count_nonzero(converted != leaf)
        else:
            lost = np.count_nonzero(np.isfinite(leaf) & ~np.isfinite(converted))
        if lost:
            raise ValueError(
                f"{name} holds {lost} values of dtype {leaf.dtype} that do not fit "
                f"{converted.dtype}; rescale them or enable 64 bits (jax_enable_x64)"
            )


def as_arguments(model_args: Any, model_kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a model's arguments as a tuple and a dict; raise ``TypeError`` for what is neither."""
    if not isinstance(model_args, Sequence) or isinstance(model_args, str):
        raise TypeError(f"model_args must be a tuple of arguments, got {model_args!r}")
    if not isinstance(model_kwargs, Mapping | None):
        raise TypeError(f"model_kwargs must be a dict by name, got {model_kwargs!r}")
    return tuple(model_args), dict(model_kwargs or {})


def check_names(argument: str, values: Any, names: Sequence[str]) -> None:
    """Check that ``values`` is a dict by known names; raise naming the unknown ones."""
    if not isinstance(values, Mapping):
        raise TypeError(
            f"{argument} must be a dict by name ({', '.join(names)}), got {type(values).__name__}"
        )
    unknown = [name for name in values if name not in names]
    if unknown:
        raise ValueError(f"{argument} names {unknown}, but there are only {list(names)}")


def non_finite_counts(arguments: dict[str, Any]) -> dict[str, int]:
    """Count NaN and infinite entries of each floating array that has any, by name."""
    counts = {
        name: int(np.count_nonzero(~np.isfinite(np.asarray(leaf))))
        for name, leaf in _named_leaves(arguments)
        if _is_plain(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    return {name: count for name, count in counts.items() if count}


def _named_leaves(arguments: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (name + jax.tree_util.keystr(path), leaf)
        for name, tree in arguments.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray | jax.Array)


def _is_plain(leaf: Any) -> bool:
    return _is_array(leaf) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
