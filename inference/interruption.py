"""Ctrl-C and SIGTERM as a wish to stop soon, so that what is done is not lost.

Within `Interruption` the first signal only sets a flag, which the driver reads between chunks. A
second signal raises ``KeyboardInterrupt`` at once. Handlers belong to the process's main thread; in
another thread nothing is installed and the flag stays down. A signal that the process was told to
ignore, as SIGINT is in the background of a script, stays ignored.
"""

import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Context in which the first signal is a wish.

    One within another is the same one: the wish reaches all of them.

    Examples
    --------
    >>> import signal
    >>> with Interruption() as interruption:
    ...     signal.raise_signal(signal.SIGINT)
    ...     print(interruption.requested)
    True
    """

    def __init__(self) -> None:
        self._requested = False
        self._outer: Interruption | None = None
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self._requested if self._outer is None else self._outer.requested

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is not threading.main_thread():
            return self
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        owners = [getattr(handler, "__self__", None) for handler in handlers.values()]
        self._outer = next((owner for owner in owners if isinstance(owner, Interruption)), None)
        if self._outer is None:
            for number, handler in handlers.items():
                if handler is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()
        self._outer = None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
