"""Reads forged files while the interpreter tells all it does: ``python watched.py FOLDER``.

Files in ``FOLDER/files`` are loaded as `crafted.LIKE`; folders in ``FOLDER/runs`` are resumed. What
lies in ``FOLDER/warm-up`` is read first, so that what Python imports only once is imported. Prints
a JSON line for each: its name, what reading it ended in, the audit events on the way other than
opening the file for reading, the largest memory that Python and NumPy held, and the file's size;
and at the end by how much the whole process grew.
"""

import json
import os
import resource
import sys
import tracemalloc
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

from shoal.inference import checkpoint, resume

sys.path.insert(0, str(Path(__file__).parent))
import crafted

events = []
watched = None


def watch(event, arguments):
    if watched is None or event == "builtins.id":
        return
    if event != "open" or (str(arguments[0]), arguments[1]) != (watched, "r"):
        events.append(f"{event}{arguments!r}"[:200])


def attempt(path):
    """Say what reading a file or a run ends in."""
    global watched
    is_run = path.is_dir()
    read = (lambda: resume(path)) if is_run else (lambda: checkpoint.load(path, crafted.LIKE))
    watched = str(path / "run.ckpt" if is_run else path)
    try:
        read()
        return "loaded"
    except BaseException as error:
        text = str(error)
        return type(error).__name__ + ("" if str(path) in text else f" that names no file: {text}")
    finally:
        watched = None


def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


sys.addaudithook(watch)
folder = Path(sys.argv[1])
for path in sorted((folder / "warm-up").iterdir()):
    attempt(path)
tracemalloc.start()
before = resident()
for path in sorted([*(folder / "files").iterdir(), *(folder / "runs").iterdir()]):
    events.clear()
    tracemalloc.reset_peak()
    held = tracemalloc.get_traced_memory()[0]
    outcome = attempt(path)
    peak = tracemalloc.get_traced_memory()[1] - held
    size = (path / "run.ckpt" if path.is_dir() else path).stat().st_size
    print(json.dumps([path.name, outcome, list(events), peak, size]))
print(json.dumps(resident() - before))
