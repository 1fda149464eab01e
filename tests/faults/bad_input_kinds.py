"""Kinds of bad arguments: for each kind of slot, bad values and what a message must say of them.

The tables of entry points are the files beside this one.

A slot of an entry point is made by one of the functions at the end, from a good value. A bad
value that depends on the good one (a NaN in an array of its shape) is a function of it.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(0)


class Bad(NamedTuple):
    """A bad value: the value, or a function of the good one, and what the message must say."""

    make: Callable[[Any], Any]
    says: str
    propagates: bool = False  # the call returns, and NaN shows in what it returns
    is_reported: bool = False  # the call returns, and what it returns says so in words
    is_own: bool = False  # the user's own function raises: its exception passes through


class Slot(NamedTuple):
    """An argument: a good value, bad ones by row, and other names that a message may call it."""

    good: Any
    bad: dict[str, Bad]
    names: tuple[str, ...] = ()

    def without(self, *rows: str) -> "Slot":
        """Return the slot without rows that are no fault there."""
        assert set(rows) <= set(self.bad), rows
        return self._replace(bad={k: v for k, v in self.bad.items() if k not in rows})

    def plus(self, **rows: tuple[Any, str]) -> "Slot":
        """Return the slot with further rows ``name=(value, pattern)``."""
        more = {name.replace("_", " "): bad(*row) for name, row in rows.items()}
        return self._replace(bad={**self.bad, **more})

    def propagating(self, row: str) -> "Slot":
        """Return the slot where one row shows as NaN in what is returned."""
        rows = {**self.bad, row: self.bad[row]._replace(propagates=True)}
        return self._replace(bad=rows).without("inf in one entry")

    def reporting(self, **rows: str) -> "Slot":
        """Return the slot where rows are no error: the result says so, in words that match."""
        reported = {
            row.replace("_", " "): self.bad[row.replace("_", " ")]._replace(
                says=says, is_reported=True
            )
            for row, says in rows.items()
        }
        return self._replace(bad={**self.bad, **reported})

    def called(self, *names: str) -> "Slot":
        """Return the slot with other names for messages, in place of the argument's."""
        return self._replace(names=names)


def bad(value: Any, says: str | None = None) -> Bad:
    """Return a bad value that the message must show (or say ``says`` of)."""
    return Bad(lambda _: value, re.escape(repr(value)) if says is None else says)


_KEYS = {
    "old-style key": bad(jax.random.PRNGKey(0), "typed key.*uint32"),
    "integer": bad(0, "typed key.*int"),
    "text": bad("seed", "typed key.*str"),
    "None": bad(None, "typed key.*NoneType|key is None"),
    "several keys": bad(jax.random.split(KEY, 4), r"shape \(4,\)"),
}
_COUNTS = {
    "zero": bad(0),
    "negative": bad(-5),
    "fraction": bad(2.5),
    "bool": bad(True),
    "text": bad("ten"),
    "NaN": bad(math.nan),
    "array": bad(np.array([3, 4]), r"array\(\[3, 4\]\)|\(2,\)"),
}
_NUMBERS = {
    "zero": bad(0.0),
    "negative": bad(-0.5),
    "NaN": bad(math.nan),
    "inf": bad(math.inf),
    "text": bad("small"),
    "complex": bad(1 + 2j),
    "bool": bad(True),
    "None": bad(None),
    "object": bad(object(), "object"),
    "ragged": bad([[1.0], [1.0, 2.0]], r"\[\[1.0\], \[1.0, 2.0\]\]"),
}
_ONE_NUMBER = {"vector": bad(np.array([0.5, 0.25, 0.125]), r"\(3,\)|0\.125")}


def _with(value: float) -> Callable[[Any], Any]:
    """Put a value in the last place of an array."""

    def make(good: Any) -> Any:
        array = np.array(good)
        array[(-1,) * array.ndim] = value
        return jnp.asarray(array) if isinstance(good, jax.Array) else array

    return make


def _last(good: Any) -> str:
    """Return a pattern for the index of the last entry."""
    return r"\[" + ", ".join(str(size - 1) for size in np.shape(good)) + r"\]"


def _values(good: Any) -> dict[str, Bad]:
    where = _last(good)
    return {
        "NaN in one entry": Bad(_with(math.nan), rf"{where}.*nan|nan.*{where}"),
        "inf in one entry": Bad(_with(math.inf), rf"{where}.*inf|inf.*{where}"),
    }


def _dtypes(strict: bool) -> dict[str, Bad]:
    of_dtype = lambda dtype: lambda good: np.ones(np.shape(good), dtype)
    rows = {
        "complex array": Bad(of_dtype(np.complex64), "complex64"),
        "array of text": Bad(lambda good: np.full(np.shape(good), "a"), "<U1|text|str"),
        "array of objects": Bad(of_dtype(object), "object"),
        "text": bad("points", "points|str|<U6"),
        "None": bad(None, "None|object"),
        "empty array": Bad(lambda good: jnp.zeros((0, *np.shape(good)[1:])), r"\(0|empty|got 0"),
        "further axis": Bad(lambda good: np.ones((2, *np.shape(good))).astype("f4"), "shape|axes"),
    }
    if strict:
        rows["integer array"] = Bad(of_dtype(np.int32), "int32")
    else:
        rows["ragged"] = bad([[1.0], [1.0, 2.0]], "rows of one length")
    return rows


def _shorter(good: Any) -> Any:
    return good[:-1]


# Log densities, as functions of a vector of two floats that stands for a start at zero.
def _raising(x: Any) -> Any:
    raise RuntimeError("no such table")


_DENSITIES = {
    "no function": bad(3, "int|3"),
    "NaN": bad(lambda x: jnp.nan * jnp.sum(x**2), "nan"),
    "-inf": bad(lambda x: jnp.where(x[0] > 5, -jnp.sum(x**2), -jnp.inf), "-inf"),
    "+inf": bad(lambda x: 1 / jnp.sum(x**2), "inf"),
    "gradient NaN": bad(lambda x: -jnp.linalg.norm(x), "gradient"),
    "vector": bad(lambda x: -(x**2), r"scalar.*\(2,\)"),
    "integer": bad(lambda x: jnp.int32(1), "int32"),
    "complex": bad(lambda x: jnp.sum(x) * (1 + 1j), "complex64"),
    "text": bad(lambda x: "high", "str|'high'"),
    "None returned": bad(lambda x: None, "None"),
    "raises": bad(_raising, "no such table")._replace(is_own=True),
    "Python float of the point": bad(lambda x: float(x[0]), "`float`")._replace(is_own=True),
}
_STARTS = {
    "integer": bad(jnp.zeros(2, int), "float.*int32"),
    "complex": bad(jnp.zeros(2, complex), "complex64"),
    "bool": bad(np.zeros(2, bool), "bool"),
    "text": bad("origin", "origin|str"),
    "objects": bad(np.array([0.0, None]), "object"),
    "no leaf": bad({}, r"\{\}|no array"),
    "empty leaf": bad(jnp.zeros(0), r"\(0,\)|empty"),
    "NaN": bad(jnp.array([0.0, jnp.nan]), r"\[1\].*nan"),
    "inf": bad(jnp.array([0.0, jnp.inf]), r"\[1\].*inf"),
    "-inf in the second leaf": bad(
        {"a": jnp.zeros(2), "b": jnp.array([[0.0, 0.0], [-jnp.inf, 0.0]])}, r"b.*\[1, 0\].*-inf"
    ),
    "two dtypes": bad({"a": jnp.zeros(2), "b": jnp.zeros(2, jnp.float16)}, "float16"),
    "function as a leaf": bad({"a": jnp.zeros(2), "b": _shorter}, "b.*function"),
}


def normal(position: Any) -> jax.Array:
    """Log density of a standard normal law over any pytree."""
    return sum(-0.5 * jnp.sum(leaf**2) for leaf in jax.tree.leaves(position))


def key() -> Slot:
    """Return the slot of a typed key."""
    return Slot(KEY, _KEYS)


def count(good: int = 3, lowest: int = 1) -> Slot:
    """Return the slot of an integer, at least ``lowest`` (0 or 1)."""
    slot = Slot(good, _COUNTS)
    return slot if lowest else slot.without("zero")


def positive(good: float = 0.5, one: bool = True) -> Slot:
    """Return the slot of a positive number; ``one`` if a vector of them is wrong."""
    return Slot(good, {**_NUMBERS, **(_ONE_NUMBER if one else {})})


def nonnegative(good: float = 0.5, one: bool = True) -> Slot:
    """Return the slot of a number that may be zero."""
    return positive(good, one).without("zero")


def fraction(good: float = 0.5) -> Slot:
    """Return the slot of a number strictly between 0 and 1."""
    return positive(good).plus(one=(1.0, "1.0"), above_one=(1.5, "1.5"))


def choice(good: Any, wrong: Any = "of course") -> Slot:
    """Return the slot of one of several names."""
    return Slot(good, {"unknown": bad(wrong), "number": bad(3.5), "list": bad(["a"])})


def points(good: Any, propagates: bool = False) -> Slot:
    """Return the slot of a floating array; a ``propagates`` one turns NaN into NaN."""
    slot = Slot(good, {**_values(good), **_dtypes(strict=True)})
    return slot.propagating("NaN in one entry") if propagates else slot


def numbers(good: Any) -> Slot:
    """Return the slot of an array of numbers of any real dtype, or a list of them."""
    return Slot(good, {**_values(good), **_dtypes(strict=False)})


def shorter(slot: Slot) -> Slot:
    """Return the slot with a row whose first axis is too short for its neighbours."""
    return slot._replace(bad={**slot.bad, "too short": Bad(_shorter, "shape|axis|entries|row")})


def log_density() -> Slot:
    """Return the slot of a log density over a start at two zeros."""
    return Slot(normal, _DENSITIES)


def start() -> Slot:
    """Return the slot of a position."""
    return Slot(jnp.zeros(2), _STARTS)


class Entry(NamedTuple):
    """An entry point as a function of keywords, and the slot of each of them."""

    call: Callable[..., Any]
    slots: dict[str, Any]
    report: Callable[[Any], str]  # what the entry point says of its result

    def good(self) -> dict[str, Any]:
        """Return the arguments that are fine."""
        return {name: slot.good for name, slot in self.slots.items()}


class Cell(NamedTuple):
    """One bad value in one argument of one entry point."""

    entry: Entry
    arguments: dict[str, Any]
    names: tuple[str, ...]
    bad: Any


def entry(call: Callable[..., Any], report: Callable[[Any], str] = str, **slots: Any) -> Entry:
    """Describe an entry point: a slot for each keyword; ``report`` reads a result's warnings."""
    return Entry(call, slots, report)


def cells(entries: dict[str, Entry]) -> Iterator[tuple[str, Cell]]:
    """Give every bad value of every argument of every entry, by name."""
    for name, one in entries.items():
        for argument, slot in one.slots.items():
            for row, value in slot.bad.items():
                arguments = {**one.good(), argument: value.make(slot.good)}
                label = f"{name} | {argument} | {row}"
                yield label, Cell(one, arguments, slot.names or (argument,), value)
