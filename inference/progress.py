"""Progress of a run: a line in the terminal or a callback."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from tqdm import tqdm


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


class Reporter:
    """Shows progress as asked: a tqdm line, a callback, or nothing.

    Of several processes the first one speaks.

    Parameters
    ----------
    phase, total
        Name of the computation and its number of steps.
    progress
        True for a line, False for nothing, or a function of a `Progress`.
    done
        Steps that an earlier run has done.
    """

    def __init__(
        self, phase: str, total: int, progress: bool | Callable[[Progress], Any], done: int = 0
    ) -> None:
        self.phase, self.total = phase, total
        speaks = jax.process_index() == 0
        self.callback = progress if callable(progress) and speaks else None
        wants_line = progress is True and speaks
        self.bar = tqdm(total=total, initial=done, desc=phase, unit="step") if wants_line else None
        self.is_first = True
        if self.bar is not None:
            self.bar.set_postfix_str("compiling")

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    @property
    def is_silent(self) -> bool:
        """Whether nobody looks."""
        return self.bar is None and self.callback is None

    def report(self, done: int, seconds: float, compile_seconds: float, summary: str) -> None:
        """Show how far the run is."""
        if self.bar is not None:
            if self.is_first:
                # Rate and time left are those of the steps: their clock starts after compiling.
                self.bar.start_t = self.bar.last_print_t = self.bar.start_t + compile_seconds
            compiled = f"compiled in {compile_seconds:.1f} s"
            self.bar.set_postfix_str(", ".join(filter(None, [summary, compiled])), refresh=False)
            self.bar.update(done - self.bar.n)
        if self.callback is not None:
            self.callback(Progress(self.phase, done, self.total, seconds, compile_seconds, summary))
        self.is_first = False
