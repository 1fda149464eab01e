"""Several processes as one run: what they have to agree on, and what happens if one is stuck.

The processes belong together through ``jax.distributed``; all run the same program. Alone, a
process agrees with itself at no cost.
"""

import os
import sys
import threading
from types import TracebackType
from typing import Any

import jax
import numpy as np

# A stuck peer ends the run within half a minute.
PATIENCE_SECONDS = 25.0
_SLOWEST_BYTES_PER_SECOND = 1e7


class Watchdog:
    """Context that ends the process, with a message, if its body takes too long.

    A process that waits for another one does so inside compiled code, where no exception reaches
    it. All that helps there is to end it; the last checkpoint is whole.

    Parameters
    ----------
    seconds
        How long the body may take.
    message
        What to print to stderr at the end.
    """

    def __init__(self, seconds: float, message: str) -> None:
        self._timer = threading.Timer(seconds, _end, [message])
        self._timer.daemon = True

    def __enter__(self) -> "Watchdog":
        if jax.process_count() > 1:
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()


def _end(message: str) -> None:
    print(f"shoal: {message}", file=sys.stderr, flush=True)
    os._exit(1)


def agree(values: np.ndarray, where: str) -> np.ndarray:
    """Collect every process's values, shape ``(num_processes, *values.shape)``, in all of them.

    Every process must come here. One that waits for longer than `PATIENCE_SECONDS` ends, saying
    that it waited ``where``.

    Raises
    ------
    RuntimeError
        If a peer is gone.
    """
    if jax.process_count() == 1:
        return values[None]
    from jax.experimental import multihost_utils

    with Watchdog(PATIENCE_SECONDS, stuck(where, PATIENCE_SECONDS)):
        try:
            return np.asarray(multihost_utils.process_allgather(values)).reshape(-1, *values.shape)
        except Exception as error:
            raise RuntimeError(
                f"process {jax.process_index()} of {jax.process_count()} lost a peer {where}"
            ) from error


def stuck(where: str, seconds: float) -> str:
    """Say that this process has waited in vain."""
    return (
        f"process {jax.process_index()} of {jax.process_count()} waited "
        f"{seconds:.0f} s for its peers {where}: one of them is stuck. Ending this "
        "process; what was saved last is whole"
    )


def to_host(leaf: Any) -> np.ndarray:
    """Bring the whole of an array, wherever its parts lie, to this process."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        from jax.experimental import multihost_utils

        # Large arrays may take their time on the way; counts after a chunk are small.
        seconds = PATIENCE_SECONDS + leaf.nbytes / _SLOWEST_BYTES_PER_SECOND
        with Watchdog(seconds, stuck("to collect an array", seconds)):
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)
