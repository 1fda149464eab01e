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
TABLES = [runpy.run_path(str(file)) for file in FILES if file.stem != "bad_input_kinds"]
ENTRIES = {name: entry for table in TABLES for name, entry in table["ENTRIES"].items()}
CELLS = dict(cell for table in TABLES for cell in table["kind"].cells(table["ENTRIES"]))
# Compiled and run with good arguments by other tests.
SLOW = ("sample(", "diagnostics.", "shoal", "NumPyroTarget.", "run", "resume", "checkpoint.")


@pytest.mark.parametrize("name", CELLS)
def test_bad_input_is_not_silent(name):
    cell = CELLS[name]
    call = cell.entry.call
    if cell.bad.propagates:
        returned = jax.tree.leaves(call(**cell.arguments))
        assert any(np.isnan(leaf).any() for leaf in returned)
    elif cell.bad.is_reported:
        assert re.search(cell.bad.says, cell.entry.report(call(**cell.arguments)))
    elif cell.bad.is_own:
        with pytest.raises(Exception, match=cell.bad.says):
            call(**cell.arguments)
    else:
        with pytest.raises((TypeError, ValueError, OSError)) as caught:
            call(**cell.arguments)
        message = str(caught.value)
        assert any(re.search(rf"(?<!\w){re.escape(n)}(?!\w)", message) for n in cell.names), message
        assert re.search(cell.bad.says, message, re.DOTALL), message


@pytest.mark.parametrize("name", [name for name in ENTRIES if not name.startswith(SLOW)])
def test_good_input_is_accepted(name):
    """Otherwise a cell could raise for another reason than its bad value."""
    ENTRIES[name].call(**ENTRIES[name].good())


def test_the_table_is_as_large_as_promised():
    rows = {(argument, row) for e in ENTRIES.values() for argument in e.slots for row in
            e.slots[argument].bad}  # fmt: skip
    assert len(rows) >= 30
    assert len(ENTRIES) >= 100
    assert len(CELLS) >= 2000
