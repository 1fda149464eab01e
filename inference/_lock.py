"""A folder for one run at a time."""

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from typing import IO

import jax
import numpy as np

from shoal.inference.hosts import agree


class Lock:
    """Context that keeps a second run out of a folder.

    Raises
    ------
    BlockingIOError
        If another run holds it, naming the process.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lock"
        self._file: IO[bytes] | None = None

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
        file = self._path.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read(200).decode(errors="replace").strip() or "another process"
            file.close()
            return f"{self._path.parent} is in use by {owner}: two runs cannot share a folder"
        # The name is a courtesy to others, which a full disk may do without.
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        self._file = file
        return ""
