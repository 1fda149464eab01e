"""The folder that a run is saved to: what is in it, and in what order it is written.

    lock                    held while a process works here, freed by the system when it ends
    draws-000001.ckpt ...   what was kept between two saves; written once, never touched again
    state-000007.ckpt       the state after a save; the two newest exist

Each file of draws names the digest of the one before it, and the state names the last: one digest
vouches for all. The state is written last, so that files of draws that no state names are simply
overwritten. A save thus costs the state and the new draws, never the history.

Where several processes run together, each writes the particles that lie with it
(``state-000007.2.ckpt`` is from process 2); process 0 writes its own state last, with the digests
of the others' in it. Whoever continues puts the parts together, in whatever number.
"""

import fcntl
import os
import re
import socket
import warnings
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import numpy as np

from shoal.inference import checkpoint
from shoal.inference.checkpoint import Contents, DamagedCheckpoint, ForeignCheckpoint
from shoal.inference.hosts import agree

_STATE = re.compile(r"state-(\d{6,})\.ckpt")


class Checkpoint(NamedTuple):
    """Where, and how often, a run saves what it has.

    Attributes
    ----------
    directory
        Folder of this run alone; made if there is none. A run that finds itself there continues.
    every
        Seconds between saves, at least; 0 saves after every chunk. Saves that take long are made
        more rarely (or chunks are longer), so that saving takes about a twentieth of the time.
    allow_changed_target
        Continue although the model, its data or the sampler are not those of the saved run.

    Examples
    --------
    >>> from shoal.inference import Checkpoint
    >>> Checkpoint("out/schools", every=60.0).every
    60.0
    """

    directory: str | Path
    every: float = 10.0
    allow_changed_target: bool = False


class Part(NamedTuple):
    """What this process saves of a pytree: arrays, and which particles they hold."""

    tree: Any
    ranges: list[list[int]]


class Saved(NamedTuple):
    """What was found: a state and rows of draws in full, and the JSON object kept with them."""

    state: Any
    rows: Any
    meta: dict[str, Any]


class CheckpointWarning(UserWarning):
    """Something about saving needs attention; the run goes on."""


def as_checkpoint(value: Any) -> Checkpoint | None:
    """Make a `Checkpoint` of a path; None stays None.

    Raises
    ------
    TypeError, ValueError
        If ``value`` is neither, or is no folder to be, or ``every`` is negative.
    """
    if value is None:
        return None
    if not isinstance(value, Checkpoint):
        if not isinstance(value, str | os.PathLike):
            raise TypeError(f"checkpoint must be a path, a Checkpoint or None, got {value!r}")
        value = Checkpoint(Path(value))
    if not value.every >= 0:
        raise ValueError(f"checkpoint: every must be >= 0 seconds, got {value.every!r}")
    directory = Path(value.directory)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"checkpoint={str(directory)!r} is a file; name a folder")
    return value._replace(directory=directory)


class Lock:
    """Context that keeps a second run out of a folder.

    Raises
    ------
    BlockingIOError
        If another run holds it, naming the process.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> "Lock":
        problem = self._take() if jax.process_index() == 0 else ""
        if agree(np.array([bool(problem)]), "to lock the run's folder").any():
            raise BlockingIOError(problem or f"{self._path.parent} is in use by another run")
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def _take(self) -> str:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            return f"{self._path.parent} is in use by {owner}: two runs cannot share a folder"
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._file = file
        return ""


class Journal:
    """Saves and finds what a run has done; one process's hand on the run's folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.generation = 0
        self.segments = 0
        self._last: list[str] = []

    def save(self, state: Part, rows: Part | None, meta: dict[str, Any]) -> bool:
        """Save a state and the rows kept since the last save.

        Parameters
        ----------
        state, rows
            This process's parts. None for no new rows.
        meta
            JSON object to keep with them.

        Returns
        -------
        bool
            Whether it worked; if not, a warning has named the file, and what was saved before is
            whole.
        """
        rank, segment, part = jax.process_index(), "", ""
        generation, segments = self.generation + 1, self.segments + (rows is not None)
        try:
            if rows is not None:
                description = {"ranges": rows.ranges, "previous": self._last}
                segment = checkpoint.save(self._draws(segments, rank), rows.tree, description)
            if rank > 0:
                description = {"ranges": state.ranges}
                part = checkpoint.save(self._state(generation, rank), state.tree, description)
        except OSError as error:
            _warn_of(error)
        where = "to save a checkpoint"
        digests = agree(_encode(segment, part), where)
        ok = bool(rows is None or digests[:, 0].any(axis=1).all())
        ok = ok and bool(digests[1:, 1].any(axis=1).all())
        last = [_decode(d) for d in digests[:, 0]] if rows is not None else self._last
        if ok and rank == 0:
            parts = [_decode(d) for d in digests[1:, 1]]
            header = {"ranges": state.ranges, "parts": parts, "segments": segments, "last": last}
            try:
                checkpoint.save(self._state(generation, 0), state.tree, {**header, "run": meta})
            except OSError as error:
                _warn_of(error)
                ok = False
        if not agree(np.array([ok]), where)[0, 0]:
            return False
        self.generation, self.segments, self._last = generation, segments, last
        self._state(generation - 2, rank).unlink(missing_ok=True)
        return True

    def find(self, state: Any, rows: Any, where_state: Any, where_rows: Any) -> Saved | None:
        """Find the newest state that is whole.

        Parameters
        ----------
        state
            Pytree of arrays or ``jax.ShapeDtypeStruct`` like the saved one.
        rows
            The same for one row of what was kept.
        where_state, where_rows
            Pytrees of bools: which leaves are split by particles.

        Returns
        -------
        Saved or None
            None if nothing was saved here.

        Raises
        ------
        DamagedCheckpoint
            If nothing that was saved is whole.
        ForeignCheckpoint
            If what was saved is of other shapes.
        """
        if jax.process_index() == 0:
            checkpoint.sweep(self.directory)
        names = sorted(self.directory.glob("state-*.ckpt"))
        numbers = sorted({int(m[1]) for path in names if (m := _STATE.fullmatch(path.name))})
        damage: DamagedCheckpoint | None = None
        for number in reversed(numbers):
            try:
                saved = self._read(number, state, rows, where_state, where_rows)
            except DamagedCheckpoint as error:
                damage = damage or error
                warnings.warn(f"{error}; looking for an older one", CheckpointWarning, stacklevel=4)
                continue
            self.generation = number
            return saved
        if damage is not None:
            raise DamagedCheckpoint(
                f"{damage}; no older state in {self.directory} is whole: delete the folder to "
                "start anew"
            )
        return None

    def _read(self, number: int, state: Any, rows: Any, where_state: Any, where_rows: Any) -> Saved:
        first = checkpoint.read(self._state(number, 0))
        try:
            meta, segments, last = (first.meta[name] for name in ("run", "segments", "last"))
            digests = first.meta["parts"]
        except KeyError as error:
            raise DamagedCheckpoint(f"{self._state(number, 0)}: is no state of a run") from error
        parts = [first]
        for rank, digest in enumerate(digests, start=1):
            parts.append(self._expect(self._state(number, rank), digest))
        found, previous = [], last
        for index in range(segments, 0, -1):
            pieces = [
                self._expect(self._draws(index, rank), digest)
                for rank, digest in enumerate(previous)
            ]
            found.append(pieces)
            previous = pieces[0].meta.get("previous", [])
        source = str(self._state(number, 0))
        whole = _join(parts, state, where_state, 0, source)
        history = [self._join_rows(pieces, rows, where_rows) for pieces in reversed(found)]
        joined = lambda *blocks: np.concatenate(blocks)
        stacked = jax.tree.map(joined, *history) if history else None
        self.segments, self._last = segments, last
        return Saved(whole, stacked, meta)

    def _join_rows(self, pieces: list[Contents], rows: Any, where: Any) -> Any:
        """Put one segment together: like a row, with a leading axis of its own length."""
        length = next((len(a) for a in pieces[0].arrays.values()), 0)
        like = jax.tree.map(lambda s: jax.ShapeDtypeStruct((length, *s.shape), s.dtype), rows)
        return _join(pieces, like, where, 1, str(self.directory))

    def _expect(self, path: Path, digest: str) -> Contents:
        """Read a file that must be the one with this digest."""
        try:
            contents = checkpoint.read(path)
        except FileNotFoundError:
            raise DamagedCheckpoint(f"{path}: is missing") from None
        if contents.digest != digest:
            raise DamagedCheckpoint(f"{path}: is whole, but not the file that belongs here")
        return contents

    def _state(self, number: int, rank: int) -> Path:
        return self.directory / f"state-{number:06d}{f'.{rank}' if rank else ''}.ckpt"

    def _draws(self, number: int, rank: int) -> Path:
        return self.directory / f"draws-{number:06d}{f'.{rank}' if rank else ''}.ckpt"


def _join(parts: list[Contents], like: Any, where: Any, axis: int, source: str) -> Any:
    """Put the processes' parts together along the particle axis, in the structure of ``like``."""
    joined = dict(parts[0].arrays)
    flags = [
        (jax.tree_util.keystr(path), flag)
        for path, flag in jax.tree_util.tree_leaves_with_path(where)
    ]
    for name, flag in flags if len(parts) > 1 else ():
        if not flag or name not in joined:
            continue
        blocks = [part.arrays[name] for part in parts]
        rows = np.concatenate([_indices(part) for part in parts])
        stacked = np.concatenate(blocks, axis)
        if not np.array_equal(np.sort(rows), np.arange(stacked.shape[axis])):
            raise ForeignCheckpoint(f"{source}: the parts do not make up a whole")
        joined[name] = np.take(stacked, np.argsort(rows), axis)
    return checkpoint.restore(parts[0]._replace(arrays=joined), like, source)


def _indices(part: Contents) -> np.ndarray:
    ranges = [np.arange(lo, hi) for lo, hi in part.meta["ranges"]]
    return np.concatenate([np.empty(0, int), *ranges])


def _encode(*digests: str) -> np.ndarray:
    """Digests as bytes, zeros for none: what processes can exchange."""
    rows = [np.frombuffer(bytes.fromhex(d or "00" * 32), np.uint8) for d in digests]
    return np.stack(rows)


def _decode(digest: np.ndarray) -> str:
    return digest.astype(np.uint8).tobytes().hex()


def _warn_of(error: OSError) -> None:
    warnings.warn(
        f"could not save {error.filename}: {error.strerror}; what was saved before is whole, and "
        "the run goes on and tries again",
        CheckpointWarning,
        stacklevel=5,
    )
