"""Bad input to every public entry point: none is silent.

A cell of the table is one bad value of one argument of one entry point. It raises, naming the
argument and the value (of an array the leaf and the index); or, for functions of arrays that run
inside compiled programs, turns NaN into NaN; or the result says in words what is wrong. The rows
are in the files ``bad_input_*.py`` beside this one.
"""

import re
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

pytestmark = pytest.mark.quick_compiler
FILES = sorted(Path(__file__).parent.glob("bad_input_*.py"))
KIND = runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py")))
TABLES = [runpy.run_path(str(file)) for file in FILES if file.stem != "bad_input_kinds"]
ENTRIES = {name: entry for table in TABLES for name, entry in table["ENTRIES"].items()}
CELLS = {name: dict(KIND["cells"]({name: entry})) for name, entry in ENTRIES.items()}
# Compiled and run with good arguments by other tests.
SLOW = re.compile(
    r"(sample\(|diagnostics\.|shoal|NumPyroTarget\.|run|resume|checkpoint\.).*|.*\.step"
)


def flaw(cell) -> str | None:
    """Call an entry point with a bad value; return what is wrong with its answer, if anything."""
    try:
        returned = cell.entry.call(**cell.arguments)
    except Exception as error:
        if cell.bad.propagates or cell.bad.is_reported:
            return f"raised {error!r}"
        message = str(error)
        if cell.bad.is_own:
            return None if re.search(cell.bad.says, message) else f"raised {error!r}"
        if not isinstance(error, (TypeError, ValueError, OSError)):
            return f"raised {error!r}"
        if not any(re.search(rf"(?<!\w){re.escape(n)}(?!\w)", message) for n in cell.names):
            return f"did not name {cell.names}: {message}"
        is_said = re.search(cell.bad.says, message, re.DOTALL)
        return None if is_said else f"did not say {cell.bad.says}: {message}"
    if cell.bad.propagates:
        is_told = any(np.isnan(leaf).any() for leaf in jax.tree.leaves(returned))
    else:
        is_told = cell.bad.is_reported and re.search(cell.bad.says, cell.entry.report(returned))
    return None if is_told else "was silent"


@pytest.mark.parametrize("name", ENTRIES)
def test_bad_input_is_not_silent(name):
    flaws = {label: said for label, cell in CELLS[name].items() if (said := flaw(cell))}
    assert not flaws


@pytest.mark.parametrize("name", [name for name in ENTRIES if not SLOW.fullmatch(name)])
def test_good_input_is_accepted(name):
    """Otherwise a cell could raise for another reason than its bad value."""
    ENTRIES[name].call(**ENTRIES[name].good())


def test_the_table_is_as_large_as_promised():
    rows = {(argument, row) for e in ENTRIES.values() for argument in e.slots for row in
            e.slots[argument].bad}  # fmt: skip
    assert len(rows) >= 30
    assert len(ENTRIES) >= 100
    assert sum(map(len, CELLS.values())) >= 2000
