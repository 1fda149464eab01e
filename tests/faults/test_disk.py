"""A disk that is full or fails costs a warning; a second run in the same folder is kept out."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from faults.saved_walk import ROWS, assert_equal, save_every_row, walk

from shoal.inference import checkpoint
from shoal.inference._journal import CheckpointWarning
from shoal.inference._lock import Lock

pytestmark = pytest.mark.quick_compiler


@pytest.fixture(scope="module")
def expected():
    return walk()


@pytest.fixture
def every_row(monkeypatch):
    save_every_row(monkeypatch)


class Disk:
    """Stands in for calls of the operating system, and lets chosen ones fail."""

    def __init__(self, monkeypatch, call):
        self.count, self.fails = 0, lambda number: False
        if call != "write":
            monkeypatch.setattr(os, call, self.around(getattr(os, call)))
            return
        # Files are written through what `Path.open` returns.
        opened = Path.open

        def open_writing(path, mode="r", *rest, **named):
            file = opened(path, mode, *rest, **named)
            return Writing(file, self) if mode == "wb" else file

        monkeypatch.setattr(Path, "open", open_writing)

    def around(self, original):
        def call(*arguments):
            self.count += 1
            if self.fails(self.count):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments)

        return call


class Writing:
    """A file whose writes may fail."""

    def __init__(self, file, disk):
        self.file, self.write = file, disk.around(file.write)
        self.flush, self.fileno = file.flush, file.fileno

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def walked(folder):
    """Do a run, or continue it; return it with what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finished = walk(folder)
    assert {warning.category for warning in caught} <= {CheckpointWarning}
    return finished, [str(warning.message) for warning in caught]


@pytest.mark.parametrize(("call", "each"), [("fsync", 3), ("replace", 1), ("write", 11)])
def test_a_call_that_fails_once_costs_a_warning(
    tmp_path, monkeypatch, every_row, expected, call, each
):
    disk = Disk(monkeypatch, call)
    walked(tmp_path / "count")
    # Two files a save, and the folder is synchronised too.
    assert disk.count >= ROWS * {"fsync": 4, "replace": 2, "write": 10}[call]
    for bad in range(1, disk.count + 1, each):
        disk.count, disk.fails = 0, lambda number, bad=bad: number == bad
        folder = tmp_path / str(bad)
        finished, said = walked(folder)
        assert_equal(finished, expected)
        assert len(said) == 1
        assert str(folder) in said[0]
        assert os.strerror(errno.ENOSPC) in said[0]
        disk.fails = lambda number: False
        assert not list(folder.glob(".*"))
        again, said = walked(folder)
        assert_equal(again, expected)
        # The last save, if it failed, is made up for.
        assert said == []


@pytest.mark.parametrize(("call", "each"), [("fsync", 5), ("replace", 3), ("write", 19)])
def test_a_disk_that_stays_full_leaves_what_was_saved_before(
    tmp_path, monkeypatch, every_row, expected, call, each
):
    disk = Disk(monkeypatch, call)
    walked(tmp_path / "count")
    calls = disk.count
    for first in range(1, calls + 1, each):
        saves = (first - 1) // (calls // ROWS)
        disk.count, disk.fails = 0, lambda number, first=first: number >= first
        folder = tmp_path / str(first)
        finished, said = walked(folder)
        assert_equal(finished, expected)
        assert len(said) == ROWS - saves
        disk.fails = lambda number: False
        whole = [checkpoint.read(path).meta["run"]["rows"] for path in folder.glob("state-*")]
        # Renamed, and only then the folder could not be synchronised: it may be there all the same.
        assert max(whole, default=0) - saves in ((0, 1) if call == "fsync" else (0,))
        again, said = walked(folder)
        assert_equal(again, expected)
        assert not list(folder.glob(".*"))


def test_an_old_state_that_cannot_be_deleted_is_let_be(tmp_path, monkeypatch, every_row, expected):
    def unlink(path, **_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", unlink)
    finished, said = walked(tmp_path)
    assert_equal(finished, expected)
    assert said == []
    assert len(list(tmp_path.glob("state-*"))) == ROWS


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """A process that has met a full disk, and holds a lock; what it told, and its folder."""
    folder = tmp_path_factory.mktemp("disk")
    folder.chmod(0o755)
    command = [sys.executable, str(Path(__file__).with_name("full_disk.py")), str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        told = [json.loads(line) for line in itertools.islice(process.stdout, 4)]
        yield process, told, folder
        process.kill()


def test_a_disk_that_is_really_full_costs_a_warning(process):
    _, (at_first, later, _, _), folder = process
    for told, name in ((at_first, "at first"), (later, "later")):
        assert told["left"] == []
        assert all(str(folder / name) in said for said in told["said"])
        assert all(os.strerror(errno.EFBIG) in said for said in told["said"])
        assert len(told["said"]) > 0
    assert at_first["rows"] == []
    assert later["rows"] == [2, 3]


def test_a_folder_without_permission_is_an_error_that_names_it(process):
    _, (_, _, denied, _), folder = process
    assert denied.startswith("PermissionError")
    assert str(folder) in denied


def test_the_folder_of_another_process_is_refused_until_that_is_killed(process, expected):
    owner, (*_, pid), folder = process
    assert owner.poll() is None
    with pytest.raises(BlockingIOError, match=f"locked is in use by process {pid} on "):
        walk(folder / "locked")
    os.kill(pid, signal.SIGKILL)
    owner.wait()
    assert f"process {pid}" in (folder / "locked" / "lock").read_text()
    assert_equal(walk(folder / "locked"), expected)


def test_two_runs_of_one_process_cannot_share_a_folder(tmp_path, expected):
    with Lock(tmp_path):
        with pytest.raises(BlockingIOError, match=f"{tmp_path} is in use by process {os.getpid()}"):
            walk(tmp_path)
        (tmp_path / "lock").write_bytes(b"\xff\x00" * 1000)
        with pytest.raises(BlockingIOError, match="is in use by"):
            walk(tmp_path)
    assert_equal(walk(tmp_path), expected)


def test_an_exception_frees_the_folder(tmp_path, every_row, expected):
    def fail(progress):
        if progress.done >= 6:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        walk(tmp_path, progress=fail)
    # The traceback is kept, as a notebook does.
    assert caught.tb is not None
    assert checkpoint.read(tmp_path / "state-000003.ckpt").meta["run"]["rows"] == 3
    assert_equal(walk(tmp_path), expected)


def test_a_file_in_the_folders_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file' is a file; name a folder"):
        walk(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match=str(tmp_path / "file")):
        walk(tmp_path / "file" / "run")
