"""The wheel holds all of the package and nothing else, and works beside folders of like name."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT_MODULES = ("__init__.py", "__main__.py", "_canary.py", "_lazy.py", "_version.py")
# A user's own project may well have these three.
NEIGHBOURS = ("models/__init__.py", "inference.py", "sampling.py")

SAMPLE = """
import jax
import jax.numpy as jnp
import inference, models, sampling
import shoal
from shoal.inference import sample
from shoal.sampling import langevin

result = sample(
    jax.random.key(0),
    lambda x: -0.5 * jnp.sum((x - 3.0) ** 2),
    langevin.mala(step_size=0.5),
    init=jnp.full(2, 3.0),
    num_chains=8,
    num_warmup=100,
    num_samples=250,
    progress=False,
)
draws = result.posterior["position"]
assert draws.shape == (8, 250, 2), draws.shape
print(shoal.__file__)
print(inference.__file__, models.__file__, sampling.__file__)
print(abs(draws.mean((0, 1)) - 3.0).max(), draws.var((0, 1)).min(), draws.var((0, 1)).max())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """Build the wheel from a copy of the tree without what git ignores."""
    folder = tmp_path_factory.mktemp("wheel")
    junk = [".git", ".venv*", ".links", "build", "dist", "out", "*.egg-info", "__pycache__"]
    shutil.copytree(root, folder / "tree", ignore=shutil.ignore_patterns(*junk, ".*_cache"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(folder / "tree")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def project(wheel: Path) -> Path:
    """Unpack the wheel next to a user's project that has modules of the same bare names."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(wheel.parent / "site")
    project = wheel.parent / "project"
    for name in NEIGHBOURS:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text('"""Somebody\'s own."""\n')
    return project


def run_in(project: Path, program: str) -> list[str]:
    """Run a program in the project's folder with the unpacked wheel first on the path."""
    environment = os.environ | {"PYTHONPATH": str(project.parent / "site")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    tree = wheel.parent / "tree"
    folders = [tree / name for name in ("inference", "models", "sampling")]
    in_tree = {path.relative_to(tree) for folder in folders for path in folder.rglob("*.py")}
    in_tree |= {Path(name) for name in ROOT_MODULES}
    data = {"shoal/py.typed", "shoal/models/denoisers/digits.npz"}
    assert packed == {f"shoal/{path.as_posix()}" for path in in_tree} | data


def test_the_wheel_declares_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (info,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(info).decode()
        scripts = archive.read(info.replace("METADATA", "entry_points.txt")).decode()
        names = archive.namelist()
    assert "Requires-Python: >=3.11\n" in metadata
    assert "License-Expression: Apache-2.0\n" in metadata
    assert info.replace("METADATA", "licenses/LICENSE") in names
    assert "shoal = shoal.inference.cli:main" in scripts


def test_every_module_imports_beside_folders_of_like_name(project: Path) -> None:
    program = """
import pkgutil, importlib, shoal
for found in pkgutil.walk_packages(shoal.__path__, "shoal."):
    importlib.import_module(found.name)
print(shoal.__file__)
"""
    (file,) = run_in(project, program)
    assert Path(file) == project.parent / "site" / "shoal" / "__init__.py"


def test_sampling_beside_folders_of_like_name(project: Path) -> None:
    package, neighbours, figures = run_in(project, SAMPLE)
    assert Path(package) == project.parent / "site" / "shoal" / "__init__.py"
    assert {Path(name) for name in neighbours.split()} == {project / name for name in NEIGHBOURS}
    # 2000 draws, of which at least 500 count: each bound is 4.5 standard errors away or more, so
    # that one key in 20000 would fail; the key is fixed.
    error, smallest, largest = map(float, figures.split())
    assert error < 0.2
    assert 0.7 < smallest <= largest < 1.3
