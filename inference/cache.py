"""Compiled programs kept on disk, so that the next process need not compile them again."""

import os
import tempfile
from pathlib import Path

import jax

# What JAX must be told for small programs to be kept too, and what it assumes otherwise.
_KEEP_ALL = {
    "jax_persistent_cache_min_compile_time_secs": (0.0, 1.0),
    "jax_persistent_cache_min_entry_size_bytes": (-1, 0),
}


def enable_compilation_cache(directory: str | os.PathLike[str] | None = None) -> Path:
    """Keep compiled programs in a folder, for this process and all later ones.

    Programs compiled from here on are kept, however small or quick to compile. JAX finds them
    again by their code, options, device and its own version, so the folder never holds a wrong one.
    It grows without bound unless ``jax_compilation_cache_max_size`` is set; it may be deleted at
    any time.

    Settings of yours win: whatever of ``jax_compilation_cache_dir``,
    ``jax_persistent_cache_min_compile_time_secs`` and
    ``jax_persistent_cache_min_entry_size_bytes`` has a value of its own, from ``jax.config.update``
    or a variable such as ``JAX_COMPILATION_CACHE_DIR``, stays as it is.

    Parameters
    ----------
    directory
        Folder to use, made if need be; None for ``shoal/xla`` in the user's cache folder
        (``$XDG_CACHE_HOME``, or ``~/.cache``). Not used where JAX has a folder already.

    Returns
    -------
    pathlib.Path
        The folder in use.

    Raises
    ------
    OSError
        If the folder cannot be made or written.

    Examples
    --------
    >>> import shoal
    >>> shoal.enable_compilation_cache()  # doctest: +SKIP
    PosixPath('/home/ada/.cache/shoal/xla')
    """
    if directory is not None and not isinstance(directory, str | os.PathLike):
        raise TypeError(f"directory must be a path or None, got {directory!r}")
    for name, (value, default) in _KEEP_ALL.items():
        if name.upper() not in os.environ and jax.config.values[name] == default:
            jax.config.update(name, value)
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen:
        return Path(chosen)
    folder = _user_cache() if directory is None else Path(directory).expanduser().absolute()
    _check_writable(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _user_cache() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The specification of that variable says to ignore a relative path.
    return (base if base.is_absolute() else Path.home() / ".cache") / "shoal" / "xla"


def _check_writable(folder: Path) -> None:
    """Make the folder and a file in it: JAX itself would only warn, at every program."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            error.errno,
            f"directory must be a folder that can be made and written: {error.strerror}",
            str(folder),
        ) from error
