"""A process whose disk is full for a while, and that holds a lock until it is killed.

``python full_disk.py FOLDER`` prints a JSON line for each thing it has tried; the last one is
printed with the lock of ``FOLDER/locked`` in its hands.
"""

import json
import os
import resource
import sys
import warnings
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).parent))

from saved_walk import assert_equal, save_every_row, walk

from shoal.inference import checkpoint
from shoal.inference._lock import Lock


class Patch:
    """The part of pytest's ``monkeypatch`` that is needed here."""

    setattr = staticmethod(setattr)


def leave(num_bytes):
    """Let no file grow beyond so many bytes; the error is that of a disk quota."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if num_bytes is None else num_bytes, hard))


def walk_on_a_full_disk(name, rows, num_bytes):
    """Do a run whose disk is full after some rows; compare it, and what is continued, to one."""
    told = lambda progress: leave(num_bytes) if progress.done >= 2 * rows else None
    if rows == 0:
        leave(num_bytes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            finished = walk(folder / name, progress=told)
        finally:
            leave(None)
    assert_equal(finished, expected)
    states = sorted((folder / name).glob("state-*"))
    left = [path.name for path in (folder / name).iterdir() if path.suffix == ".tmp"]
    whole = [checkpoint.read(path).meta["run"]["rows"] for path in states]
    assert_equal(walk(folder / name), expected)
    said = sorted({str(warning.message) for warning in caught})
    return {"said": said, "rows": whole, "left": left}


def walk_without_permission():
    """Say what a run in a folder that may not be written to ends in."""
    (folder / "mine").mkdir(mode=0o555)
    if os.getuid() == 0:
        os.seteuid(65534)
    try:
        walk(folder / "mine" / "run")
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        os.seteuid(os.getuid())
    return "nothing"


folder = Path(sys.argv[1])
save_every_row(Patch)
expected = walk()
print(json.dumps(walk_on_a_full_disk("at first", 0, 0)))
print(json.dumps(walk_on_a_full_disk("later", 3, 100)))
print(json.dumps(walk_without_permission()))
with Lock(folder / "locked"):
    print(json.dumps(os.getpid()), flush=True)
    sys.stdin.read()
