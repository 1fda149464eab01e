"""The driver: one loop on the host that every long computation of the package goes through.

The loop hands the devices chunks of about a tenth of a second. Between chunks it is in Python, so
that it can show progress, save, and stop when asked to; inside a chunk it is one compiled loop. The
number of steps in a chunk is an argument of the compiled program: one compilation serves every
length, and since randomness depends on the absolute step alone, the result is bitwise the same
whatever the lengths were, and wherever the run was interrupted and continued.
"""

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from shoal.inference._chunk import as_arrays, as_state, make_program
from shoal.inference._journal import Checkpoint, as_checkpoint
from shoal.inference._lock import Lock
from shoal.inference._work import Finished, Size, Work
from shoal.inference.interruption import Interruption
from shoal.inference.progress import Progress, Reporter
from shoal.sampling.core.random import check_key

__all__ = ["Checkpoint", "Finished", "Progress", "RunError", "RunWarning", "nothing", "run"]


class RunWarning(UserWarning):
    """The run ended, but something in it deserves attention."""


class RunError(RuntimeError):
    """The run went wrong and ``on_failure="raise"``; ``finished`` holds what was done."""

    def __init__(self, message: str, finished: Finished) -> None:
        super().__init__(message)
        self.finished = finished


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
    until: Callable[[Any], jax.Array] | None = None,
    phase: str = "running",
    describe: Callable[[Any, int], str] | None = None,
    progress: bool | Callable[[Progress], Any] = False,
    checkpoint: str | Path | Checkpoint | None = None,
    mesh: Mesh | None = None,
    on_failure: str = "warn",
) -> Finished:
    """Run an algorithm for a number of steps, in chunks.

    Step t uses the key ``step_key(key, first_step + t)``. The first SIGINT (Ctrl-C) or SIGTERM ends
    the run after the chunk, saved, with what is done; the second at once.

    Parameters
    ----------
    key
        Run key, a typed key of shape ``()``.
    algorithm
        Has ``step(key, state) -> (state, info)``. Its arrays and floats, if it is a pytree, are
        arguments of the compiled program: other values compile nothing. ``info.status``, if there
        is one, holds a `Status` code for each particle; they are counted. ``state.alive``, if there
        is one, tells which particles of an ensemble count; when more than a tenth are dead, the run
        stops at that step.
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
    until
        ``until(state) -> bool scalar``; looked at before every ``thin``-th step, it ends the run
        when true. Not for independent particles on a mesh, which know nothing of each other.
    phase, describe, progress
        ``progress`` is False, True for a line with the name ``phase``, the words
        ``describe(tally, steps_done)`` and the failures, or a function that receives a
        `shoal.inference.progress.Progress` after every chunk.
    checkpoint
        Folder of this run alone, or a `Checkpoint` that says more. If a run was saved there, it is
        continued and must be this one: same algorithm, data, key and thinning. It may have become
        longer.
    mesh
        Mesh of one axis over whose devices to split the particles. With it, arrays come back as
        NumPy's; all processes of a mesh get all of them. An algorithm of independent particles
        tells by ``layout(state) -> shoal.inference.devices.Layout`` which of its arrays hold
        particles, and what it returns, keeps and tallies has a leading particle axis (a tally
        without one is summed over devices); any other is an ensemble, whose ``position`` has one.
    on_failure
        When steps went wrong: ``"warn"`` (`RunWarning`), ``"raise"`` (`RunError`, which holds what
        was done) or ``"ignore"``. They are counted anyhow.

    Returns
    -------
    Finished

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible, or ``checkpoint`` holds another run.
    BlockingIOError
        If another process works in ``checkpoint``.

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
    check_key(key)
    _check(algorithm, num_steps, thin, first_step, on_failure)
    saving = as_checkpoint(checkpoint)
    algorithm, state = as_arrays(algorithm), as_state(state)
    program, shapes = make_program(mesh, algorithm, state, key, keep, tally, until)
    size = Size(num_steps // thin, thin, first_step)
    with ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        work = Work(program, shapes, size, algorithm, state, key)
        if saving is not None:
            stack.enter_context(Lock(Path(saving.directory)))
            work.continue_from(saving)
        reporter = stack.enter_context(Reporter(phase, num_steps, progress, work.done * thin))
        finished = work.finish(interruption, reporter, describe)
    _complain(finished, on_failure)
    return finished


def _check(algorithm: Any, num_steps: Any, thin: Any, first_step: Any, on_failure: Any) -> None:
    if not callable(getattr(algorithm, "step", None)):
        raise TypeError(f"algorithm must have step(key, state), got {algorithm!r}")
    for name, value in (("num_steps", num_steps), ("thin", thin), ("first_step", first_step)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} must be an integer, got {value!r}")
    if first_step < 0:
        raise ValueError(f"first_step must be at least 0, got {first_step}")
    if thin < 1 or num_steps < 0 or num_steps % thin:
        raise ValueError(
            f"num_steps must be a multiple of thin and thin at least 1, got num_steps={num_steps} "
            f"and thin={thin}"
        )
    if on_failure not in ("warn", "raise", "ignore"):
        raise ValueError(f"on_failure must be 'warn', 'raise' or 'ignore', got {on_failure!r}")


def _complain(finished: Finished, on_failure: str) -> None:
    if not finished.problems or on_failure == "ignore":
        return
    if on_failure == "raise":
        raise RunError("; ".join(finished.problems), finished)
    warnings.warn("; ".join(finished.problems), RunWarning, stacklevel=3)
