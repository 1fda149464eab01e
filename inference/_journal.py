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

import contextlib
import os
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from shoal.inference import checkpoint
from shoal.inference.checkpoint import Contents, DamagedCheckpoint, ForeignCheckpoint
from shoal.inference.hosts import agree

_STATE = re.compile(r"state-(\d{6,})\.ckpt")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _are_ranges(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(map(_is_count, pair))
        and pair[0] <= pair[1]
        for pair in value
    )


def _is_run(value: Any) -> bool:
    """Whether this is what the driver notes with a state."""
    if not isinstance(value, dict):
        return False
    identity = value.get("identity")
    return (
        all(_is_count(value.get(name)) for name in ("rows", "thin"))
        and type(value.get("first_step")) is int
        and all(type(value.get(name)) in (int, float) for name in ("seconds", "compile_seconds"))
        and isinstance(identity, dict)
        and all(isinstance(entry, str) for entry in identity.values())
    )


# What the files' JSON objects have to be.
_OF_PART = {"ranges": _are_ranges, "split": _are_words}
_OF_DRAWS = {**_OF_PART, "previous": _are_words}
_OF_STATE = {
    **_OF_PART, "parts": _are_words, "segments": _is_count, "last": _are_words, "run": _is_run,
}  # fmt: skip


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
    """What this process saves of a pytree.

    Attributes
    ----------
    tree
        Arrays.
    where
        Pytree of bools: which of them hold particles.
    ranges
        Which particles those are.
    """

    tree: Any
    where: Any
    ranges: list[list[int]]

    @property
    def description(self) -> dict[str, Any]:
        """What is noted with the arrays."""
        flags = jax.tree_util.tree_leaves_with_path(self.where)
        split = [jax.tree_util.keystr(path) for path, flag in flags if flag]
        return {"ranges": self.ranges, "split": split}


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
                description = {**rows.description, "previous": self._last}
                segment = checkpoint.save(self._draws(segments, rank), rows.tree, description)
            if rank > 0:
                path = self._state(generation, rank)
                part = checkpoint.save(path, state.tree, state.description)
        except OSError as error:
            warn_unsaved(error)
        where = "to save a checkpoint"
        digests = agree(_encode(segment, part), where)
        ok = bool(rows is None or digests[:, 0].any(axis=1).all())
        ok = ok and bool(digests[1:, 1].any(axis=1).all())
        last = [_decode(d) for d in digests[:, 0]] if rows is not None else self._last
        if ok and rank == 0:
            parts = [_decode(d) for d in digests[1:, 1]]
            header = {**state.description, "parts": parts, "segments": segments, "last": last}
            try:
                checkpoint.save(self._state(generation, 0), state.tree, {**header, "run": meta})
            except OSError as error:
                warn_unsaved(error)
                ok = False
        if not agree(np.array([ok]), where)[0, 0]:
            return False
        self.generation, self.segments, self._last = generation, segments, last
        with contextlib.suppress(OSError):  # one more than needed does no harm
            self._state(generation - 2, rank).unlink()
        return True

    def find(self, state: Any, rows: Any) -> Saved | None:
        """Find the newest state that is whole.

        Parameters
        ----------
        state
            Pytree of arrays or ``jax.ShapeDtypeStruct`` like the saved one.
        rows
            The same for one row of what was kept.

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
        if not numbers and any(self.directory.glob(self._draws(2, 0).name)):
            # The second draws are written only where there is a state.
            raise DamagedCheckpoint(
                f"{self.directory}: has draws, but no state: delete the folder to start anew"
            )
        damage: DamagedCheckpoint | None = None
        for number in reversed(numbers):
            try:
                saved = self._read(number, state, rows)
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

    def _read(self, number: int, state: Any, rows: Any) -> Saved:
        path = self._state(number, 0)
        first = checkpoint.read(path)
        _check_meta(first, _OF_STATE, path)
        meta, segments, last = (first.meta[name] for name in ("run", "segments", "last"))
        parts = [first]
        for rank, digest in enumerate(first.meta["parts"], start=1):
            parts.append(self._expect(self._state(number, rank), digest, _OF_PART))
        whole = _join(parts, state, 0, path)
        history, previous = [], last
        for index in range(segments, 0, -1):
            pieces = [
                self._expect(self._draws(index, rank), digest, _OF_DRAWS)
                for rank, digest in enumerate(previous)
            ]
            if not pieces:
                raise DamagedCheckpoint(f"{path}: names no draws of save {index} of {segments}")
            history.append(_join_rows(pieces, rows, self._draws(index, 0)))
            previous = pieces[0].meta["previous"]
        joined = lambda *blocks: np.concatenate(blocks)
        stacked = jax.tree.map(joined, *reversed(history)) if history else None
        kept = next((len(leaf) for leaf in jax.tree.leaves(stacked)), 0)
        if jax.tree.leaves(rows) and kept != meta["rows"]:
            raise ForeignCheckpoint(
                f"{path}: is of a run that kept {kept} of {meta['rows']} rows: give the same keep, "
                "or choose another folder"
            )
        self.segments, self._last = segments, last
        return Saved(whole, stacked, meta)

    def _expect(self, path: Path, digest: str, of: dict[str, Any]) -> Contents:
        """Read a file that must be the one with this digest."""
        try:
            contents = checkpoint.read(path)
        except FileNotFoundError:
            raise DamagedCheckpoint(f"{path}: is missing") from None
        if contents.digest != digest:
            raise DamagedCheckpoint(f"{path}: is whole, but not the file that belongs here")
        _check_meta(contents, of, path)
        return contents

    def _state(self, number: int, rank: int) -> Path:
        return self.directory / f"state-{number:06d}{f'.{rank}' if rank else ''}.ckpt"

    def _draws(self, number: int, rank: int) -> Path:
        return self.directory / f"draws-{number:06d}{f'.{rank}' if rank else ''}.ckpt"


def _join_rows(pieces: list[Contents], rows: Any, path: Path) -> Any:
    """Put one segment together: like a row, with a leading axis of its own length."""
    length = next((len(a) for a in pieces[0].arrays.values() if a.ndim), 0)
    like = jax.tree.map(lambda s: jax.ShapeDtypeStruct((length, *s.shape), s.dtype), rows)
    return _join(pieces, like, 1, path)


def _join(parts: list[Contents], like: Any, axis: int, path: Path) -> Any:
    """Put the processes' parts together along the particle axis, in the structure of ``like``."""
    joined = dict(parts[0].arrays)
    for name in parts[0].meta["split"] if len(parts) > 1 else ():
        joined[name] = _joined([part.arrays.get(name) for part in parts], parts, axis, path)
    return checkpoint.restore(parts[0]._replace(arrays=joined), like, str(path))


def _joined(blocks: list[Any], parts: list[Contents], axis: int, path: Path) -> np.ndarray:
    """Put one array together, each part's particles where its ranges say."""
    foreign = ForeignCheckpoint(f"{path}: the processes' parts do not make up a whole")
    for block, part in zip(blocks, parts, strict=True):
        held = sum(hi - lo for lo, hi in part.meta["ranges"])
        if block is None or block.ndim <= axis or block.shape[axis] != held:
            raise foreign
        if (block.ndim, block.dtype) != (blocks[0].ndim, blocks[0].dtype):
            raise foreign
    ranges = [np.arange(lo, hi) for part in parts for lo, hi in part.meta["ranges"]]
    rows = np.concatenate([np.empty(0, int), *ranges])
    if not np.array_equal(np.sort(rows), np.arange(len(rows))):
        raise foreign
    shapes = {block.shape[:axis] + block.shape[axis + 1 :] for block in blocks}
    if len(shapes) > 1:
        raise foreign
    return np.take(np.concatenate(blocks, axis), np.argsort(rows), axis)


def _check_meta(contents: Contents, wanted: dict[str, Any], path: Path) -> None:
    for name, is_right in wanted.items():
        if not is_right(contents.meta.get(name)):
            raise DamagedCheckpoint(f"{path}: is no file of a run: its {name} is missing or wrong")


def _encode(*digests: str) -> np.ndarray:
    """Digests as bytes, zeros for none: what processes can exchange."""
    rows = [np.frombuffer(bytes.fromhex(d or "00" * 32), np.uint8) for d in digests]
    return np.stack(rows)


def _decode(digest: np.ndarray) -> str:
    return digest.astype(np.uint8).tobytes().hex()


def warn_unsaved(error: OSError) -> None:
    """Say that something could not be saved."""
    warnings.warn(
        f"could not save {error.filename}: {error.strerror}; what was saved before is whole, and "
        "the run goes on and tries again",
        CheckpointWarning,
        stacklevel=5,
    )
