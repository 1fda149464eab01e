"""Runs that are killed, again and again, end with the bits of a run that nobody disturbed.

Each row is an algorithm and the moments at which SIGKILL strikes: after a random time (it falls
into compiling, a chunk or a write) or at a chosen call of the operating system while saving. What
the run has told of through its progress callback must never be done again. Bits of one program do
not hang on the compiler: only the many kills of `make soak` are those of programs that users have.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

VICTIM = Path(__file__).with_name("victim.py")
PATIENCE = 300.0


class Row(NamedTuple):
    """A case of `victim.py`, how often to kill it, and within which seconds of its start."""

    case: str
    kills: int
    window: tuple[float, float]


FAST = [
    Row("tuned", 2, (0.5, 4.0)),
    Row("interacting", 2, (0.5, 4.0)),
    Row("generate", 2, (0.5, 4.0)),
]
# In all more than a hundred.
SOAK = [
    Row("adjusted", 30, (0.3, 4.0)),
    Row("unadjusted", 25, (0.3, 4.0)),
    Row("tuned", 20, (0.3, 4.0)),
    Row("nuts", 20, (0.5, 8.0)),
    Row("interacting", 25, (0.3, 4.0)),
    Row("large", 20, (0.5, 5.0)),
    Row("generate", 15, (0.3, 4.0)),
]


class Victims:
    """Children that do a case, one after another, forked from one process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, str(VICTIM), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.child: int | None = None

    def start(self, case: str, name: str, **options: object) -> int:
        """Start a child; return its pid."""
        options.setdefault("cache", str(self.folder / "cache"))
        self.server.stdin.write(json.dumps([case, name, options]) + "\n")
        self.server.stdin.flush()
        self.child = int(self.server.stdout.readline())
        return self.child

    def wait(self) -> int:
        """Wait for the child to end; return its exit status, -9 if it was killed.

        A child that does not end is killed, so that a test of it fails.
        """
        limit = threading.Timer(PATIENCE, kill, (self.child,))
        limit.start()
        status = int(self.server.stdout.readline())
        limit.cancel()
        self.child = None
        return status

    def stop(self) -> None:
        """End the server, and the child of a test that failed before it waited."""
        if self.child is not None:
            kill(self.child)
        self.server.communicate()

    def log(self) -> str:
        return (self.folder / "log").read_text()[-3000:]


@pytest.fixture(scope="module")
def victims(tmp_path_factory):
    victims = Victims(tmp_path_factory.mktemp("kills"))
    yield victims
    victims.stop()


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(pid, signal.SIGKILL)


def read(path: Path):
    return json.loads(path.read_text()) if path.exists() else None


def undisturbed(victims: Victims, case: str, quick: bool) -> dict[str, np.ndarray]:
    name = f"{case}-undisturbed"
    if not (victims.folder / name / "result.npz").exists():
        victims.start(case, name, quick=quick)
        assert victims.wait() == 0, victims.log()
    with np.load(victims.folder / name / "result.npz") as arrays:
        return dict(arrays)


def check_nothing_told_is_redone(folder: Path, reached) -> None:
    """What was reported before the kill was on the disk when the run was continued."""
    began = read(folder / "began")
    if reached is None or began is None or reached[0] not in began:
        return  # killed again before it came to that
    phase, done = reached
    assert began[phase] >= done


def kill_until_done(victims: Victims, row: Row, name: str, seed: int, quick: bool) -> int:
    """Run a case, killing it at random, until it ends; return the number of kills."""
    rng, kills = random.Random(seed), 0
    folder = victims.folder / name
    while True:
        reached = read(folder / "reached")
        (folder / "began").unlink(missing_ok=True)
        options = {"quick": quick}
        if kills < row.kills and rng.random() < 0.5:
            # Four calls make a save: sync and rename of the draws, sync and rename of the state.
            options["die_at"] = [rng.choice(["fsync", "replace"]), rng.randint(1, 12)]
        elif kills < row.kills and rng.random() < 0.2:
            options["cache"] = ""  # compiles, and is killed there
        child = victims.start(row.case, name, **options)
        timer = threading.Timer(rng.uniform(*row.window), kill, (child,))
        if kills < row.kills:
            timer.start()
        status = victims.wait()
        timer.cancel()
        check_nothing_told_is_redone(folder, reached)
        if status == 0:
            return kills
        assert status == -signal.SIGKILL, victims.log()
        kills += 1


def check(victims: Victims, row: Row, quick: bool) -> None:
    expected = undisturbed(victims, row.case, quick)
    kills, attempt = 0, 0
    # A run that ends before it was killed often enough is followed by another one.
    while kills < row.kills:
        name = f"{row.case}-{attempt}"
        left = row._replace(kills=row.kills - kills)
        kills += kill_until_done(victims, left, name, attempt, quick)
        with np.load(victims.folder / name / "result.npz") as arrays:
            assert set(arrays) == set(expected)
            for key, value in arrays.items():
                np.testing.assert_array_equal(value, expected[key], err_msg=f"{name} {key}")
        attempt += 1


@pytest.mark.parametrize("row", FAST, ids=lambda row: row.case)
def test_killed_runs_end_as_if_undisturbed(victims, row):
    check(victims, row, quick=True)


def test_generated_samples_are_the_same_on_two_devices(victims):
    victims.start("generate", "generate-devices", mesh=True, quick=True)
    assert victims.wait() == 0, victims.log()
    with np.load(victims.folder / "generate-devices" / "result.npz") as arrays:
        for key, value in undisturbed(victims, "generate", quick=True).items():
            np.testing.assert_array_equal(arrays[key], value)


@pytest.mark.soak
@pytest.mark.parametrize("row", SOAK, ids=lambda row: row.case)
def test_runs_killed_a_hundred_times_end_as_if_undisturbed(victims, row):
    check(victims, row, quick=False)
