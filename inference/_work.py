"""A run on its way: the loop on the host between chunks, what it counts and what it saves."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference import hosts
from shoal.inference._chunk import (
    LOST,
    Program,
    Shapes,
    as_arrays,
    empty,
    put_inputs,
    rows_from,
    run_chunk,
)
from shoal.inference._journal import Checkpoint, Journal, Part
from shoal.inference.checkpoint import ForeignCheckpoint
from shoal.inference.failures import Failures, combine, no_failures
from shoal.inference.fingerprint import check_same, fingerprint
from shoal.inference.hosts import Watchdog, agree, to_host
from shoal.inference.interruption import Interruption
from shoal.inference.progress import Reporter

CHUNK_SECONDS = 0.1
_LARGEST_GROWTH = 8
# Saving takes no more than a twentieth of the time; where every chunk is saved, chunks grow for
# that, but not so long that Ctrl-C is not answered.
_SAVING_PART = 20
_LONGEST_CHUNK = 2.0
_LONG_WAIT = 0.5


class Finished(NamedTuple):
    """What a run leaves.

    Attributes
    ----------
    state
        The algorithm's last state.
    kept
        What ``keep`` returned at every ``thin``-th step, stacked on a new leading axis, or None.
    tally
        What ``tally`` returned, summed over all steps in NumPy's int64 and float64, or None.
    failures
        How many steps went wrong, by `shoal.sampling.core.algorithm.Status`, and where first.
    num_steps
        Steps done.
    outcome
        ``"completed"``; ``"interrupted"`` by a signal; ``"stopped"`` by ``until``; or ``"failed"``
        because more than a tenth of the particles died.
    problems
        What deserves attention, in sentences.
    seconds, compile_seconds
        Wall time of the steps and of compiling.
    """

    state: Any
    kept: Any
    tally: Any
    failures: Failures
    num_steps: int
    outcome: str
    problems: tuple[str, ...]
    seconds: float
    compile_seconds: float


class Size(NamedTuple):
    """How much there is to do: ``rows`` times ``thin`` steps, from an absolute step on."""

    rows: int
    thin: int
    first_step: int


class Work:
    """A run on its way."""

    def __init__(
        self, program: Program, shapes: Shapes, size: Size, algorithm: Any, state: Any, key: Any
    ) -> None:
        self.program, self.shapes, self.size = program, shapes, size
        self.algorithm, self.state, self.key = algorithm, state, key
        self.kept: Any = None
        self.tally = jax.tree.map(lambda s: np.zeros(s.shape, _wide(s.dtype)), shapes.counts)
        self.failures = no_failures(np)
        self.done = self.saved = 0
        self.seconds = self.compile_seconds = 0.0
        self.outcome = "completed"
        self.journal: Journal | None = None
        self.every = 0.0
        self.identity: dict[str, str] = {}

    def continue_from(self, saving: Checkpoint) -> None:
        """Save to a folder from now on, and go on from what is there.

        Raises
        ------
        DamagedCheckpoint, ForeignCheckpoint
            If what is there is broken, or another run.
        """
        placement, directory = self.program.placement, Path(saving.directory)
        program = self.program

        def step(algorithm: Any, state: Any, key: jax.Array) -> Any:
            state, info = algorithm.step(key, state)
            return state, info, program.tally(state, info), program.keep(state, info)

        num_devices = placement.mesh.size if placement.mesh else 1
        self.identity = fingerprint(step, self.algorithm, self.state, self.key, num_devices)
        self.journal, self.every = Journal(directory), saving.every
        found = self.journal.find((self.state, self.tally, self.failures), self.shapes.record)
        if found is None:
            return
        if not saving.allow_changed_target:
            check_same(found.meta.get("identity", {}), self.identity, str(directory))
        there = Size(*(int(found.meta[name]) for name in Size._fields))
        if there[1:] != self.size[1:]:
            raise ForeignCheckpoint(f"{directory} holds {there}, wanted {self.size}")
        if there.rows > self.size.rows:
            raise ForeignCheckpoint(
                f"{directory} holds {there.rows} rows already; a run "
                f"can be made longer, but not cut to {self.size.rows}"
            )
        state, self.tally, self.failures = found.state
        self.state, self.kept = as_arrays(state), found.rows
        self.done = self.saved = there.rows
        self.seconds, self.compile_seconds = found.meta["seconds"], found.meta["compile_seconds"]

    def finish(self, interruption: Interruption, reporter: Reporter, describe: Any) -> Finished:
        """Do the steps that are left and bring everything back."""
        rows, thin, first_step = self.size
        placement = self.program.placement
        algorithm, state, key = put_inputs(self.program, self.algorithm, self.state, self.key)
        info, kept = empty(self.program, self.shapes, rows)
        if self.kept is not None:
            kept = jax.tree.map(lambda old: _lengthened(old, rows), self.kept)
            kept = placement.put(kept, self.program.record, 1)
        self.carry = state, info, kept
        self.inputs = algorithm, key, *(np.asarray(n, np.int32) for n in (first_step, thin))
        if self.done < rows and not interruption.requested:
            start = time.perf_counter()
            self._advance(self.done)  # no row: compiles, and changes nothing
            self.compile_seconds += time.perf_counter() - start
            self._loop(interruption, reporter, describe)
        elif self.done < rows:
            self.outcome = "interrupted"
        state, _, kept = self.carry
        state = placement.bring(state, placement.state)
        kept = placement.bring(kept, self.program.record, 1)
        if self.done < rows:
            kept = jax.tree.map(lambda leaf: leaf[: self.done], kept)
        return Finished(
            state, kept, self.tally, self.failures, self.done * thin, self.outcome,
            tuple(self._problems(state)), self.seconds, self.compile_seconds,
        )  # fmt: skip

    def _loop(self, interruption: Interruption, reporter: Reporter, describe: Any) -> None:
        size, per_row, saved_at, saving = 1, np.inf, time.perf_counter(), 0.0
        while self.outcome == "completed" and self.done < self.size.rows:
            start, before = time.perf_counter(), self.done
            stop = min(self.size.rows, before + size)
            self._advance(stop, per_row * (stop - before))
            elapsed = time.perf_counter() - start
            pause = max(self.every, _SAVING_PART * saving) if self.every else 0
            due = time.perf_counter() - saved_at >= pause
            # All that steers the loop has to be the same in all processes.
            news = np.array([elapsed, due, interruption.requested, saving], np.float32)
            news = agree(news, f"after step {self.done * self.size.thin}")
            slowest, due, asked, cost = news.max(axis=0)
            self.seconds += float(slowest)
            if asked and self.outcome == "completed" and self.done < self.size.rows:
                self.outcome = "interrupted"
            if due or self.outcome != "completed" or self.done == self.size.rows:
                start = time.perf_counter()
                self._save()
                saved_at = time.perf_counter()
                saving = saved_at - start
            self._report(reporter, describe)
            per_row = float(slowest) / max(1, self.done - before)
            wanted = CHUNK_SECONDS
            if self.every == 0:
                wanted = max(wanted, min(_SAVING_PART * cost, _LONGEST_CHUNK))
            size = max(1, min(_LARGEST_GROWTH * size, int(wanted / max(per_row, 1e-9))))

    def _advance(self, stop: int, seconds: float = np.inf) -> None:
        """Do the rows up to ``stop``, in about so many seconds, unless the run ends before."""
        before, placement = self.done, self.program.placement
        bounds = np.asarray(before, np.int32), np.asarray(stop, np.int32)
        with self._watch(seconds):
            outputs = run_chunk((*self.inputs, *bounds), self.carry, self.program)
            self.carry, told = _wait(outputs, seconds)
        counts, failures = jax.tree.map(to_host, (told.counts, told.failures))
        if placement.is_independent:
            merge = lambda leaf, flag: leaf[: placement.num] if flag else leaf.sum(axis=0)
            counts = jax.tree.map(merge, counts, self.program.counts)
        # On the host, in 64 bits: 32 would overflow or stop growing.
        self.tally = jax.tree.map(lambda a, b: a + b.astype(a.dtype), self.tally, counts)
        self.done = int(to_host(told.done))
        codes = self.shapes.info.status.size if hasattr(self.shapes.info, "status") else 0
        steps = (self.done - before) * self.size.thin
        self.failures = combine(self.failures, failures, steps * codes)
        if self.done < stop:
            self.outcome = "failed" if int(to_host(told.reason)) == LOST else "stopped"

    def _watch(self, seconds: float) -> Any:
        """Guard a chunk in which processes wait for each other; the first one's time is unknown."""
        if self.program.placement.is_independent or not np.isfinite(seconds):
            return nullcontext()
        limit = hosts.PATIENCE_SECONDS + 10 * seconds
        return Watchdog(limit, hosts.stuck("in a step", limit))

    def _save(self) -> None:
        if self.journal is None or (self.saved == self.done and self.journal.generation):
            return
        placement, ranges = self.program.placement, self.program.placement.ranges()
        state = placement.local(self.carry[0], placement.state)
        rows = None
        if jax.tree.leaves(self.shapes.record) and self.done > self.saved:
            rows = Part(self._new_rows(), self.program.record, ranges)
        meta = {
            **self.size._replace(rows=self.done)._asdict(),
            "identity": self.identity,
            "seconds": self.seconds,
            "compile_seconds": self.compile_seconds,
        }
        nowhere = jax.tree.map(lambda _: False, (self.tally, self.failures))
        part = Part((state, self.tally, self.failures), (placement.state, *nowhere), ranges)
        if self.journal.save(part, rows, meta):
            self.saved = self.done

    def _new_rows(self) -> Any:
        """Rows kept since the last save, cut in few sizes: each is a program of its own."""
        total, new = self.size.rows, self.done - self.saved
        size = min(total, 1 << (new - 1).bit_length())
        start = min(self.saved, total - size)
        block = rows_from(self.carry[2], np.asarray(start, np.int32), size)
        block = self.program.placement.local(block, self.program.record, 1)
        offset = self.saved - start
        return jax.tree.map(lambda leaf: leaf[offset : offset + new], block)

    def _report(self, reporter: Reporter, describe: Any) -> None:
        if reporter.is_silent:
            return
        steps = self.done * self.size.thin
        words = [describe(self.tally, steps)] if describe else []
        summary = ", ".join(filter(None, [*words, *self.failures.words()]))
        try:
            reporter.report(steps, self.seconds, self.compile_seconds, summary)
        except Exception:
            self._save()  # the callback is the caller's; its failure must not cost the run
            raise

    def _problems(self, state: Any) -> list[str]:
        problems = self.failures.problems()
        if self.outcome == "failed":
            problems.insert(
                0,
                f"stopped after {self.done * self.size.thin} steps, because more than a tenth of "
                "the particles had died",
            )
        if not hasattr(self.shapes.info, "status"):
            broken = [
                f"state{jax.tree_util.keystr(path)}"
                for path, leaf in jax.tree_util.tree_leaves_with_path(state)
                if jnp.issubdtype(leaf.dtype, jnp.inexact) and not np.isfinite(leaf).all()
            ]
            if broken:
                problems.append(f"{', '.join(broken)} not finite after the last step")
        return problems


def _wait(tree: Any, seconds: float) -> Any:
    """Wait for the devices; if that takes long, in Python, where a second Ctrl-C is heard."""
    last, pause = jax.tree.leaves(tree)[-1], 1e-4
    while seconds > _LONG_WAIT and not last.is_ready():
        time.sleep(pause)
        pause = min(2 * pause, 1e-2)
    return jax.block_until_ready(tree)


def _lengthened(rows: np.ndarray, total: int) -> np.ndarray:
    """Append rows of zeros up to ``total``."""
    return np.concatenate([rows, np.zeros((total - len(rows), *rows.shape[1:]), rows.dtype)])


def _wide(dtype: Any) -> Any:
    return np.float64 if jnp.issubdtype(dtype, jnp.floating) else np.int64
