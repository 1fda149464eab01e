"""Every seeded bug is found, by a check that the suite runs on the correct package too.

``make test`` seeds up to six bugs of each family, ``make soak`` all. Run with ``-rP`` to see what
each check says about its bugs. False alarms of the statistical checks over many keys:
``benchmarks/false_alarms.py``. Bugs and checks are compiled with few optimisations; ``make soak``
sees that so compiled the checks still find nothing on the correct package.
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutants.seeding import TESTS, edited_sources
from mutants.table import Bug, Check, alarm, families, load, marks

pytestmark = pytest.mark.quick_compiler
ROWS = [(family, bug) for family, bugs in families().items() for bug in bugs]
CHECKS = sorted({bug.check for _, bug in ROWS}, key=str)
MOST = 6


def rows() -> Iterator[Any]:
    """Yield the table's rows; those beyond `MOST` of a family, evenly taken, are for the soak."""
    for family, bugs in families().items():
        quick = {round(i) for i in np.linspace(0, len(bugs) - 1, min(MOST, len(bugs)))}
        for i, bug in enumerate(bugs):
            late = () if i in quick else pytest.mark.soak
            yield pytest.param(family, bug, marks=late, id=f"{family}: {bug.name}")


def test_every_edit_matches_once_in_its_module() -> None:
    for _, bug in ROWS:
        edited_sources((bug.edit,))


@pytest.mark.parametrize(("family", "bug"), list(rows()))
def test_a_seeded_bug_is_found(family: str, bug: Bug, mutant: Callable) -> None:
    with mutant(bug.edit):
        found = alarm(bug.check)
    print(f"{family:15} {bug.name:45} {found}")
    assert found, f"{bug.check} does not notice {bug.edit}"


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_the_suite_runs_the_check_on_the_correct_package(check: Check) -> None:
    function = load(check)
    if check.is_statistical:
        assert check.name in used_by_tests(TESTS / check.file)
        return
    assert check.name.rpartition(".")[2].startswith("test_")
    given = inspect.signature(function).bind(*check.arguments).arguments
    for mark in marks(function, "parametrize"):
        names, rows = mark.args
        if isinstance(names, str):
            assert given.pop(names) in rows
        else:
            assert tuple(given.pop(name) for name in names) in map(tuple, rows)
    assert not given


@pytest.mark.soak
@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_the_check_finds_nothing_on_the_correct_package(check: Check) -> None:
    assert alarm(check) is None


def used_by_tests(path: Path) -> set[str]:
    """Return the names that test functions of a file refer to."""
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    return {
        node.id
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Name)
    }


def test_every_family_has_five_bugs_with_names_of_their_own() -> None:
    for family, bugs in families().items():
        assert len(bugs) >= 5, family
        assert len({bug.name for bug in bugs}) == len(bugs), family


def test_an_edit_must_match_once(mutant: Callable) -> None:
    module = "shoal.sampling.langevin.kinetic"
    for text, times in (("no such text", "0 times"), ("return", "times")):
        with pytest.raises(ValueError, match=f"occurs .*{times}"), mutant((module, text, "")):
            pass


def test_the_package_is_as_it_was_after_a_bug(mutant: Callable) -> None:
    from shoal.sampling.core import pairwise

    before = pairwise.kernel_sum
    with mutant(("shoal.sampling.core._tiles", "_TILE_SIDE.get", "{}.get")):
        from shoal.sampling.core import kernels, pairwise as fresh

        assert fresh.kernel_sum is not before
    from shoal.sampling.core import kernels as same, pairwise

    assert pairwise.kernel_sum is before
    assert same is kernels
