"""Names imported when first used, so that ``import shoal`` and ``shoal --help`` are fast."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def attach(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return the ``__getattr__``, ``__dir__`` and ``__all__`` of a lazy package (PEP 562).

    Type checkers need the same names imported under ``if TYPE_CHECKING``, each as itself, and this
    call in the ``else`` branch, where they do not see it: they would take ``__getattr__`` as a
    promise that every name exists. ``tests/test_imports.py`` compares the two branches.

    Parameters
    ----------
    package
        The package's ``__name__``.
    names
        Public names by the module that holds them. Names listed under ``package`` itself are its
        own submodules.
    """
    home = {name: module for module, listed in names.items() for name in listed}

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = home[name]
        if module == package:
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(module), name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted(home), sorted(home)
