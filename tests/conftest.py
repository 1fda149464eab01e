"""What every test file may use. Warnings are errors (pyproject.toml); nothing here is global."""

import gc
import os
import signal
import sys
import tempfile
from pathlib import Path

# Before jax: tests state CPU figures, and pictures are drawn to files.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MPLBACKEND"] = "agg"
# What several test files share is imported from here.
sys.path.append(str(Path(__file__).resolve().parent))

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import jax
import pytest
from compilation import QUICK, USUAL_OPTIONS, quick_options
from jax._src import compiler
from mutants.seeding import seeded

GLOBAL_SETTINGS = (
    "jax_debug_nans",
    "jax_disable_jit",
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
)
# These run first, so that no worker is left alone with one of them, and the many short ones last.
LONG = ("test_sample", "test_devices", "test_demo", "test_hosts", "test_readme", "test_examples")
SHORT = ("test_mutants", "test_bad_input")


def pytest_configure(config: pytest.Config) -> None:
    """Keep what this process compiles until it ends, in an empty folder of its own.

    The same program is wanted many times: by every file, as their programs are forgotten, and by
    every row of a table of seeded bugs. Programs of changed code are other programs.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As a shell does to what it starts in the background; the tests of interruption need it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = tempfile.TemporaryDirectory(prefix="shoal-programs-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    jax.config.update("jax_compilation_cache_dir", folder.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first and the tables of short tests last; each file stays together."""
    items.sort(key=lambda item: (item.path.stem not in LONG) + (item.path.stem in SHORT))


def pytest_collection_finish() -> None:
    """Look for garbage less often, and not in what was imported: it took a twentieth of all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture
def x64() -> Iterator[None]:
    """Run the test in float64, and leave the process as it was."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """Fail a test that leaves a global setting of jax changed behind."""
    before = {name: getattr(jax.config, name) for name in GLOBAL_SETTINGS}
    yield
    leaked = {name: getattr(jax.config, name) for name in GLOBAL_SETTINGS}
    for name, value in before.items():
        jax.config.update(name, value)
    assert leaked == before


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory() -> Iterator[None]:
    """Forget a file's compiled programs after it: a worker would gather gigabytes of them."""
    yield
    jax.clear_caches()


def compiler_of(node: pytest.Item | pytest.Module) -> Callable[..., Any]:
    """Return what makes the compiler's options for a file or a test, by its nearest marks.

    Quick options are for numbers that hold with any rounding: laws, and identities to many digits.
    All others get the compiler that users have.
    """
    quickly = node.get_closest_marker("quick_compiler")
    if quickly is None or node.get_closest_marker("usual_compiler"):
        return USUAL_OPTIONS
    return quick_options(**quickly.kwargs)


@pytest.fixture(scope="module", autouse=True)
def _compiler(request: pytest.FixtureRequest) -> Iterator[dict[str, bool]]:
    """Compile what a file's fixtures share as the file is marked; keep what was compiled how."""
    options = compiler_of(request.node)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", options)
        yield {"is_usual": options is USUAL_OPTIONS}


@pytest.fixture(autouse=True)
def _compiler_of_test(request: pytest.FixtureRequest, _compiler: dict[str, bool]) -> Iterator[None]:
    """Compile a test as it is marked, or its file.

    A test that is about rounding shares no program with those compiled quickly: two programs of
    which one was compiled for another test would differ in their last bits.
    """
    options = compiler_of(request.node)
    if _compiler["is_usual"] != (options is USUAL_OPTIONS):
        jax.clear_caches()
        _compiler["is_usual"] = options is USUAL_OPTIONS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", options)
        yield


@pytest.fixture(scope="session")
def quick_environment() -> dict[str, str]:
    """Return the environment of a process that compiles as quickly as can be."""
    flags = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())
    return os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}


@pytest.fixture(scope="session")
def root() -> Path:
    """Top folder of the source tree."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def mutant() -> Callable[..., AbstractContextManager]:
    """Return ``mutant((module, old text, new text), ...)``, a context with seeded bugs.

    In it, what is imported of the package has the bugs; see ``tests/mutants``.
    """
    return seeded
