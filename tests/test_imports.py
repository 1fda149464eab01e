"""The house rules about imports, read from the source tree or seen in a fresh interpreter."""

import ast
import importlib
import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import shoal

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("inference", "models", "sampling")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
LAZY = (
    "shoal",
    "shoal.inference",
    "shoal.models",
    "shoal.models.denoisers",
    "shoal.models.posteriors",
    "shoal.sampling",
    "shoal.sampling.core",
)
HEAVY = (
    "arviz",
    "blackjax",
    "diffrax",
    "equinox",
    "gpjax",
    "jax",
    "matplotlib",
    "numpyro",
    "optax",
)


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the dotted names that a module of ``package`` imports, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def home(name: str) -> str:
    """Return the part of the house a dotted name lies in: a top folder or a sampling family."""
    parts = name.split(".")
    deep = 3 if parts[:2] == ["shoal", "sampling"] else 2
    return ".".join(parts[:deep])


def may_import(importer: str, name: str) -> bool:
    """Say whether a module may import a name of shoal."""
    here, there = home(importer), home(name)
    if there.startswith("shoal._") or here == there or importer == "shoal.sampling":
        return True
    if here == "shoal.inference":
        return True
    return there == "shoal.sampling.core" and here != "shoal.sampling.core"


def test_the_rule_itself() -> None:
    family, other = "shoal.sampling.langevin.overdamped", "shoal.sampling.stein.svgd"
    assert may_import("shoal.inference._sample", family)
    assert may_import("shoal.models.densities", "shoal.sampling.core.kernels")
    assert may_import(family, "shoal.sampling.core.random")
    assert may_import(family, "shoal.sampling.langevin.metric")
    assert may_import(family, "shoal._version.__version__")
    assert not may_import("shoal.models.densities", family)
    assert not may_import("shoal.models.densities", "shoal.inference._sample")
    assert not may_import(family, other)
    assert not may_import(family, "shoal.models.densities")
    assert not may_import(family, "shoal.inference._sample")
    assert not may_import("shoal.sampling.core.pairwise", family)
    assert not may_import("shoal.sampling.core.pairwise", "shoal.models")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    parts = ["shoal", *path.relative_to(ROOT).with_suffix("").parts]
    module = ".".join(parts).removesuffix(".__init__")
    package = ".".join(parts[:-1])
    names = [name for name in imported(ast.parse(path.read_text()), package)]
    ours = [name for name in names if name.split(".")[0] == "shoal"]
    assert not [name for name in ours if not may_import(module, name)]
    # By its bare name a folder at the root is a second copy of each class.
    assert not [name for name in names if name.split(".")[0] in FOLDERS]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_wrong_name_is_refused(folder: str) -> None:
    program = f"import {folder}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"import this package as 'shoal.{folder}', not as '{folder}'" in done.stderr


def test_every_package_is_listed_for_the_wheel() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    inits = [path.parent for path in SOURCES if path.name == "__init__.py"]
    in_tree = {"shoal." + ".".join(folder.relative_to(ROOT).parts) for folder in inits} | {"shoal"}
    assert set(setuptools["packages"]) == in_tree
    assert setuptools["package-dir"] == {
        name: "/".join(name.split(".")[1:]) or "." for name in in_tree
    }
    # A folder of modules without __init__.py would work here and be missing from the wheel.
    assert {path.parent for path in SOURCES} == set(inits)


def test_the_facade_is_small_and_every_name_resolves() -> None:
    assert len(shoal.__all__) <= 40
    assert shoal.sample is shoal.inference.sample
    assert shoal.langevin is shoal.sampling.langevin
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        shoal.smaple  # noqa: B018


@pytest.mark.parametrize("name", LAZY)
def test_lazy_names(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    (branch,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    seen_by_checkers = [
        alias.name
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    ]
    assert sorted(seen_by_checkers) == sorted(set(module.__all__) - {"__version__"})
    assert set(dir(module)) >= set(module.__all__) - {"__version__"}
    for public in module.__all__:
        value = getattr(module, public)
        submodule = importlib.util.find_spec(f"{name}.{public}")
        # Importing a submodule binds its name in the package, over a function of that name.
        assert submodule is None or value is sys.modules[f"{name}.{public}"]


@pytest.mark.parametrize(
    "name", ["shoal", "shoal.inference", "shoal.inference.cli", "shoal.models"]
)
def test_import_loads_nothing_heavy(name: str) -> None:
    program = f"import sys, {name}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
