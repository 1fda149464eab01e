"""Seeded bugs: real modules of the package with a fragment of their source text replaced."""

import importlib
import types
from collections.abc import Callable
from pathlib import Path

import pytest

Edit = tuple[str, str, str]


def _execute(name: str, edits: list[tuple[str, str]]) -> types.ModuleType:
    """Run the source of a module anew, each edit made at the one place that it matches."""
    original = importlib.import_module(name)
    source = Path(original.__file__).read_text(encoding="utf-8")
    for old, new in edits:
        if source.count(old) != 1:
            raise ValueError(f"{old!r} occurs {source.count(old)} times in {name}, not once")
        source = source.replace(old, new)
    module = types.ModuleType(name)
    exec(compile(source, f"<mutant of {name}>", "exec"), module.__dict__)
    return module


@pytest.fixture(scope="session")
def mutant() -> Callable[..., types.ModuleType]:
    """Return ``mutant(name, *edits)``: a fresh copy of a module with bugs.

    An edit is ``(name of a module, old text, new text)``. It may be of another module whose names
    the first one imports; they are then bound to its mutant's. The package itself stays as it is.
    """

    def make(name: str, *edits: Edit) -> types.ModuleType:
        of = lambda module: [(old, new) for owner, old, new in edits if owner == module]
        target = _execute(name, of(name))
        for other in {owner for owner, _, _ in edits} - {name}:
            original, changed = importlib.import_module(other), _execute(other, of(other))
            for key, value in vars(original).items():
                if not key.startswith("__") and vars(target).get(key) is value:
                    setattr(target, key, getattr(changed, key))
        return target

    return make
