"""The package with bugs seeded into its source, and tests of the tree run against it."""

import ast
import contextlib
import functools
import importlib
import importlib.util
import pkgutil
import sys
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any

import shoal

TESTS = Path(__file__).resolve().parent.parent
Edit = tuple[str, str, str]


@contextlib.contextmanager
def seeded(*edits: Edit) -> Iterator[None]:
    """Import bugs: in this context the package's modules are fresh copies with edited source.

    An edit is ``(module, old text, new text)``; the old text must occur once. Every module that
    imports a mutated one, at whatever distance, is executed anew too, so that old and new never
    meet; the other modules keep what they have compiled. Afterwards the package is as it was.

    Raises
    ------
    ValueError
        If an old text does not occur exactly once in its module.
    """
    sources = edited_sources(edits)
    fresh = _dependents(frozenset(sources))
    saved = {name: sys.modules.pop(name) for name in fresh if name in sys.modules}
    finder = _Finder(sources)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in fresh:
            sys.modules.pop(name, None)
        sys.modules.update(saved)


def execute(file: str) -> types.ModuleType:
    """Execute a file of ``tests/`` anew, with the package as it is at this moment."""
    path = TESTS / file
    name = f"fresh_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Loader(SourceFileLoader):
    """Compile a file once for all rows, or the source given instead."""

    def __init__(self, name: str, path: str, source: str | None = None) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> types.CodeType:
        if self.source is None:
            return _code(self.path)
        return compile(self.source, f"<mutant of {fullname}>", "exec")


@functools.cache
def _code(path: str) -> types.CodeType:
    return compile(Path(path).read_text(encoding="utf-8"), path, "exec")


class _Finder:
    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = sources

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "shoal" and not name.startswith("shoal."):
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.origin or "", self.sources.get(name))
        return spec


def edited_sources(edits: tuple[Edit, ...]) -> dict[str, str]:
    """Return the source of each edited module; raise ``ValueError`` as `seeded`."""
    sources: dict[str, str] = {}
    for name, old, new in edits:
        source = sources.get(name) or _paths()[name].read_text(encoding="utf-8")
        if source.count(old) != 1:
            raise ValueError(f"{old!r} occurs {source.count(old)} times in {name}, not once")
        sources[name] = source.replace(old, new)
    return sources


@functools.cache
def _paths() -> dict[str, Path]:
    """Return the source file of every module of the package."""
    names = [module.name for module in pkgutil.walk_packages(shoal.__path__, "shoal.")]
    return {name: Path(importlib.util.find_spec(name).origin) for name in names}


@functools.cache
def _imports() -> dict[str, set[str]]:
    """Return what every module of the package imports, wherever in its file."""
    return {name: set(_imported(path)) for name, path in _paths().items()}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in _paths() else node.module


@functools.cache
def _dependents(names: frozenset[str]) -> frozenset[str]:
    """Return the modules that import any of these, directly or not, and the packages of all.

    Packages hold their submodules as attributes: a fresh submodule needs a fresh package.
    """
    found = set(names)
    while True:
        new = {name for name, imported in _imports().items() if imported & found}
        new |= {name.rpartition(".")[0] for name in found} - {""}
        if new <= found:
            return frozenset(found)
        found |= new
