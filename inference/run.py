"""The driver: one loop on the host that every long computation of the package goes through.

The loop hands the device chunks of about a tenth of a second. Between chunks it is in Python, so it
can show progress, and stop; inside a chunk it is one compiled loop. The number of steps in a chunk
is an argument of the compiled program: one compilation serves every length, and since randomness
depends on the absolute step alone, the result is bitwise the same whatever the lengths were.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from shoal.sampling.core.random import step_key

CHUNK_SECONDS = 0.1
_LARGEST_GROWTH = 8


class Progress(NamedTuple):
    """What a progress callback receives after every chunk.

    Attributes
    ----------
    phase
        Name of the computation, such as ``"warm-up"``.
    done, total
        Steps finished and steps asked for.
    seconds
        Time spent in steps so far, compilation apart.
    compile_seconds
        Time spent compiling.
    summary
        Live statistics in words, such as ``"acceptance 0.57"``.
    """

    phase: str
    done: int
    total: int
    seconds: float
    compile_seconds: float
    summary: str


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
    seconds, compile_seconds
        Wall time of the steps and of compiling.
    """

    state: Any
    kept: Any
    tally: Any
    seconds: float
    compile_seconds: float


def nothing(state: Any, info: Any) -> None:
    """Keep or count nothing: the default of `run`."""
    return


def run(
    key: jax.Array,
    algorithm: Any,
    state: Any,
    num_steps: int,
    *,
    first_step: int = 0,
    keep: Callable[[Any, Any], Any] = nothing,
    tally: Callable[[Any, Any], Any] = nothing,
    thin: int = 1,
    phase: str = "running",
    describe: Callable[[Any, int], str] | None = None,
    progress: bool | Callable[[Progress], Any] = False,
) -> Finished:
    """Run an algorithm for a number of steps, in chunks.

    Step t uses the key ``step_key(key, first_step + t)``.

    Parameters
    ----------
    key
        Run key, a typed key of shape ``()``.
    algorithm
        Has ``step(key, state) -> (state, info)``. Its arrays and floats, if it is a pytree, are
        arguments of the compiled program: other values compile nothing.
    state
        The state to start from, a pytree of arrays. It is copied.
    num_steps
        Number of steps; a multiple of ``thin``.
    first_step
        Absolute index of the first step.
    keep
        ``keep(state, info) -> pytree`` of what to store. Compiled programs are reused only for the
        same function, so pass one defined at module level.
    tally
        ``tally(state, info) -> pytree`` of numbers to sum over all steps; likewise.
    thin
        Store every ``thin``-th step.
    phase, describe, progress
        ``progress`` is False, True for a line with the name ``phase`` and the words
        ``describe(tally, steps_done)``, or a function that receives a `Progress` after every chunk.

    Returns
    -------
    Finished

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference.run import run
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.ula(step_size=0.1)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.zeros(2))
    >>> def position(state, info):
    ...     return state.position
    >>> run(jax.random.key(0), algorithm, state, 100, keep=position).kept.shape
    (100, 2)
    """
    algorithm, state = jax.tree.map(_as_array, (algorithm, state))
    state = jax.tree.map(jnp.copy, state)
    one_step = functools.partial(_one_step, tally)
    info, _ = eqx.filter_eval_shape(one_step, algorithm, state, key)
    info = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), info)
    rows = num_steps // thin
    record = eqx.filter_eval_shape(keep, state, info)
    kept = jax.tree.map(lambda s: jnp.zeros((rows, *s.shape), s.dtype), record)

    carry = (state, info, kept)
    fixed = (algorithm, key, jnp.asarray(first_step), jnp.asarray(thin))
    with _Reporter(phase, num_steps, describe, progress) as reporter:
        start = time.perf_counter()
        # A chunk of no rows compiles the program and changes nothing.
        none = jnp.asarray(0)
        carry, counts = jax.block_until_ready(_run_chunk((*fixed, none, none), carry, tally, keep))
        totals = _widen(counts)
        compile_seconds = time.perf_counter() - start
        done, size, seconds = 0, 1, 0.0
        while done < rows:
            stop = min(rows, done + size)
            start = time.perf_counter()
            bounds = jnp.asarray(done), jnp.asarray(stop)
            carry, counts = jax.block_until_ready(_run_chunk((*fixed, *bounds), carry, tally, keep))
            totals = jax.tree.map(np.add, totals, _widen(counts))
            elapsed = time.perf_counter() - start
            per_row = elapsed / (stop - done)
            done, seconds = stop, seconds + elapsed
            size = max(1, min(_LARGEST_GROWTH * size, int(CHUNK_SECONDS / max(per_row, 1e-9))))
            reporter.report(done * thin, seconds, compile_seconds, totals)
    state, _, kept = carry
    return Finished(state, kept, totals, seconds, compile_seconds)


def _as_array(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, float) else leaf


def _widen(counts: Any) -> Any:
    """Bring a chunk's counts to the host, in 64 bits: 32 would overflow or stop growing."""
    wide = lambda leaf: leaf.astype(np.float64 if leaf.dtype.kind == "f" else np.int64)
    return jax.tree.map(lambda leaf: wide(np.asarray(leaf)), counts)


def _one_step(tally: Any, algorithm: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
    """Return the info and the counts of one step: their shapes are what `run` wants."""
    state, info = algorithm.step(key, state)
    return info, tally(state, info)


@eqx.filter_jit(donate="all-except-first")
def _run_chunk(fixed: Any, carry: Any, tally: Any, keep: Any) -> Any:
    algorithm, key, first_step, thin, lo, hi = fixed
    state, info, kept = carry
    _, counts = jax.eval_shape(functools.partial(_one_step, tally, algorithm), state, key)
    counts = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), counts)

    def step(t: jax.Array, carry: Any) -> Any:
        state, _, counts = carry
        new, info = algorithm.step(step_key(key, first_step + t), state)
        # An algorithm may return weaker or wider types than it was given; a loop may not.
        new, info = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), (new, info), carry[:2])
        counts = jax.tree.map(lambda a, b: a + jnp.asarray(b, a.dtype), counts, tally(new, info))
        return new, info, counts

    def row(i: jax.Array, carry: Any) -> Any:
        *inner, kept = carry
        inner = jax.lax.fori_loop(i * thin, (i + 1) * thin, step, tuple(inner))
        record = keep(inner[0], inner[1])
        put = lambda buffer, value: jax.lax.dynamic_update_index_in_dim(buffer, value, i, 0)
        return (*inner, jax.tree.map(put, kept, record))

    state, info, counts, kept = jax.lax.fori_loop(lo, hi, row, (state, info, counts, kept))
    return (state, info, kept), counts


class _Reporter:
    """Shows progress as asked: a tqdm line, a callback, or nothing."""

    def __init__(self, phase: str, total: int, describe: Any, progress: Any) -> None:
        self.phase, self.total, self.describe = phase, total, describe
        self.callback = progress if callable(progress) else None
        self.bar = tqdm(total=total, desc=phase, unit="step") if progress is True else None
        if self.bar is not None:
            self.bar.set_postfix_str("compiling")

    def __enter__(self) -> "_Reporter":
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def report(self, done: int, seconds: float, compile_seconds: float, tally: Any) -> None:
        if self.bar is None and self.callback is None:
            return
        summary = self.describe(tally, done) if self.describe else ""
        if self.bar is not None:
            if self.bar.n == 0:
                # Rate and time left are those of the steps: their clock starts after compiling.
                self.bar.start_t = self.bar.last_print_t = self.bar.start_t + compile_seconds
            compiled = f"compiled in {compile_seconds:.1f} s"
            self.bar.set_postfix_str(", ".join(filter(None, [summary, compiled])), refresh=False)
            self.bar.update(done - self.bar.n)
        if self.callback is not None:
            self.callback(Progress(self.phase, done, self.total, seconds, compile_seconds, summary))
