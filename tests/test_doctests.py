"""Every example in a docstring is run, in the module as users import it."""

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import shoal


def modules() -> Iterator[str]:
    """Yield the names of all modules of the package, leaving out other folders at the root."""
    yield "shoal"
    for found in pkgutil.iter_modules(shoal.__path__, "shoal."):
        yield found.name
    for part in ("inference", "models", "sampling"):
        package = importlib.import_module(f"shoal.{part}")
        yield from (m.name for m in pkgutil.walk_packages(package.__path__, f"shoal.{part}."))


@pytest.mark.parametrize("name", sorted(set(modules())))
def test_examples_in(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0


def test_some_module_has_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in modules() for test in finder.find(importlib.import_module(name))]
    assert sum(len(test.examples) for test in found) > 10
