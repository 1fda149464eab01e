"""Every example in a docstring is run, in the module as users import it.

Examples print few digits, which must not hang on the rounding: they are compiled with few
optimisations, and by `make soak` as users compile them.
"""

import doctest
import importlib
import itertools
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import shoal

pytestmark = pytest.mark.quick_compiler


def modules() -> Iterator[str]:
    """Yield the names of all modules of the package, leaving out other folders at the root."""
    yield "shoal"
    for found in pkgutil.iter_modules(shoal.__path__, "shoal."):
        yield found.name
    for part in ("inference", "models", "sampling"):
        package = importlib.import_module(f"shoal.{part}")
        yield from (m.name for m in pkgutil.walk_packages(package.__path__, f"shoal.{part}."))


MODULES = sorted(set(modules()))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.soak
@pytest.mark.usual_compiler
@pytest.mark.parametrize("name", MODULES)
def test_examples_as_users_compile_them_in(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    test_examples_in(name, monkeypatch, tmp_path)


def test_some_module_has_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = (test for name in MODULES for test in finder.find(importlib.import_module(name)))
    examples = (example for test in tests for example in test.examples)
    assert len(list(itertools.islice(examples, 11))) == 11
