"""The canary for jaxlib 0.10.2's wrong sums passes here, and speaks where the answer is wrong."""

import importlib.metadata
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import pytest
from packaging.requirements import Requirement

from shoal import _canary


@pytest.fixture(autouse=True)
def _fresh_cache() -> Iterator[None]:
    _canary.warn_if_wrong.cache_clear()
    yield
    _canary.warn_if_wrong.cache_clear()


def wrong_sum(a, axis, keepdims):
    """Leave the last slice out, as jaxlib 0.10.2 does."""
    return jnp.add.reduce(a.at[-1].set(0.0), axis=axis, keepdims=keepdims)


def test_the_running_version_is_right() -> None:
    assert _canary.reductions_are_right()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _canary.warn_if_wrong()


def test_a_wrong_sum_is_seen_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jnp, "sum", wrong_sum)
    assert not _canary.reductions_are_right()
    with pytest.warns(RuntimeWarning, match=r"jax-ml/jax#39103.*XLA_FLAGS="):
        _canary.warn_if_wrong()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _canary.warn_if_wrong()


@pytest.mark.parametrize(("version", "known"), [("0.10.1", False), ("0.10.2", True)])
def test_known_wrong_versions(monkeypatch: pytest.MonkeyPatch, version: str, known: bool) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    assert _canary.version_is_known_wrong() is known


def test_import_looks_at_once_on_a_known_wrong_version() -> None:
    program = """
import importlib.metadata, sys
importlib.metadata.version = lambda name: "0.10.2"
import shoal
assert shoal._canary.warn_if_wrong.cache_info().currsize == 1
assert "jax" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", ["jax", "jaxlib"])
def test_pyproject_excludes_every_known_wrong_version(root: Path, name: str) -> None:
    pyproject = tomllib.loads((root / "pyproject.toml").read_text())
    requirements = map(Requirement, pyproject["project"]["dependencies"])
    (specifier,) = [r.specifier for r in requirements if r.name == name]
    assert not any(version in specifier for version in _canary.KNOWN_WRONG)
    assert "0.10.1" in specifier
