"""Models and data from files, for the command line; every complaint names the file."""

import csv
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# What a run's folder tells the command about the files around it.
ORDER = "command.json"


class FileError(ValueError):
    """A file does not hold what was asked for."""


class Order(NamedTuple):
    """Files of a run of the command: ``FILE:MODEL``, the data, and where the draws go."""

    model: str
    data: Path | None
    out: Path


def write_order(folder: Path, order: Order) -> None:
    """Note a run's files in its folder, atomically.

    Each is noted by its path from the folder, which survives that all are moved together, and by
    its absolute path, which survives that the folder alone is.
    """
    file, _, name = order.model.rpartition(":")
    paths = {"model": Path(file), "data": order.data, "out": order.out}
    content = {"format": 1, "name": name, **{k: _two_ways(folder, p) for k, p in paths.items()}}
    temporary = folder / f".{ORDER}.{os.getpid()}.tmp"
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, folder / ORDER)
    finally:
        temporary.unlink(missing_ok=True)


def read_order(folder: Path) -> Order:
    """Read what `write_order` wrote.

    Raises
    ------
    FileError
        If the file is missing or not one of ours.
    """
    path = folder / ORDER
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != 1:
            raise ValueError(f"format {content['format']}")
        model = _found(folder, content["model"], Path.is_file)
        data = content["data"] and _found(folder, content["data"], Path.is_file)
        out = _found(folder, content["out"], lambda out: out.parent.is_dir())
        return Order(f"{model}:{content['name']}", data or None, out)
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileError(f"{path}: is missing or damaged ({error!r})") from error


def _two_ways(folder: Path, path: Path | None) -> dict[str, str] | None:
    if path is None:
        return None
    absolute = os.path.abspath(path)
    return {"relative": os.path.relpath(absolute, folder), "absolute": absolute}


def _found(folder: Path, place: dict[str, str], exists: Callable[[Path], bool]) -> Path:
    relative = Path(os.path.normpath(folder / place["relative"]))
    return relative if exists(relative) else Path(place["absolute"])


def load_model(place: str) -> Callable[..., Any]:
    """Return the function that ``FILE:NAME`` names; the file is run as Python would import it.

    Raises
    ------
    FileError
        If there is no such file or function, or if running the file fails.
    """
    file, colon, name = place.rpartition(":")
    if not colon or not name.isidentifier():
        raise FileError(f"{place!r} is not of the form FILE:MODEL, such as model.py:model")
    path = Path(file)
    if not path.is_file():
        raise FileError(f"{file}: there is no such file")
    specification = importlib.util.spec_from_file_location("shoal_user_model", path)
    if specification is None or specification.loader is None:
        raise FileError(f"{file}: not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(specification)
    # The file may import its neighbours, as a script may.
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise FileError(f"{file}: {where(error, path)}{type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    functions = [
        key
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    model = getattr(module, name, None)
    if model is None:
        raise FileError(f"{file}: defines no {name}; its functions are {_listed(functions)}")
    if not callable(model):
        raise FileError(f"{file}: {name} is no function but {type(model).__name__}")
    return model


def where(error: BaseException, path: Path) -> str:
    """Say in which line of a file an error arose, as ``"line 3: "``; empty if not in that file."""
    path, lines = path.resolve(), []
    cause: BaseException | None = error
    while cause is not None:
        frames = traceback.extract_tb(cause.__traceback__)
        lines += [frame.lineno for frame in frames if Path(frame.filename).resolve() == path]
        cause = cause.__cause__ or cause.__context__
    return f"line {lines[-1]}: " if lines else ""


def load_data(path: Path) -> dict[str, Any]:
    """Read arrays by name from ``.npz`` (arrays), ``.csv`` (columns) or ``.json`` (keys).

    Single numbers stay Python numbers, so that they can serve as sizes.

    Raises
    ------
    FileError
        If the file is missing, of another kind, or holds what is no array of numbers.
    """
    readers = {".npz": _read_npz, ".csv": _read_csv, ".json": _read_json}
    if path.suffix not in readers:
        raise FileError(f"{path}: data must be one of {_listed(list(readers))}")
    if not path.is_file():
        raise FileError(f"{path}: there is no such file")
    return readers[path.suffix](path)


def check_arguments(
    model: Callable[..., Any], place: str, data: dict[str, Any], path: Path | None
) -> None:
    """Check that the data are the model's arguments.

    Raises
    ------
    FileError
        If one is missing or one is unknown: it lists what the model takes and what the data give.
    """
    try:
        parameters = inspect.signature(model).parameters.values()
    except ValueError:  # a callable without a signature: the call itself will tell
        return
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters)
    missing = [p.name for p in named if p.default is p.empty and p.name not in data]
    unused = [] if takes_any else sorted(set(data) - {p.name for p in named})
    if not missing and not unused:
        return
    source = f"{path} gives {_listed(list(data))}" if path else "without --data there is nothing"
    problems = [f"missing: {_listed(missing)}"] * bool(missing)
    problems += [f"not an argument: {_listed(unused)}"] * bool(unused)
    signature = _listed([p.name for p in named])
    raise FileError(f"{place} takes {signature}, but {source} ({'; '.join(problems)})")


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _numbers(path, name, arrays[name]) for name in arrays.files}
    except FileError:
        raise
    except Exception as error:
        raise FileError(f"{path}: cannot be read as .npz ({error})") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise FileError(f"{path}: holds a {type(content).__name__}, not an object with names")
    data = {}
    for name, value in content.items():
        try:
            data[name] = _numbers(path, name, np.asarray(value))
        except ValueError as error:
            if isinstance(error, FileError):
                raise
            raise FileError(f"{path}: {name} is a list of uneven lists") from error
    return data


def _read_csv(path: Path) -> dict[str, Any]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if len(rows) < 2:
        raise FileError(f"{path}: wants a line of names and at least one line of numbers")
    header = [name.strip() for name in rows[0]]
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise FileError(f"{path}: row {line} has {len(row)} fields, the header {len(header)}")
    return {
        name: _column(path, name, [row[i] for row in rows[1:]]) for i, name in enumerate(header)
    }


def _column(path: Path, name: str, cells: list[str]) -> np.ndarray:
    try:
        return np.array([int(cell) for cell in cells])
    except ValueError:
        pass
    values = []
    for line, cell in enumerate(cells, start=2):
        try:
            values.append(float(cell))
        except ValueError:
            raise FileError(f"{path}: row {line}, column {name}: {cell!r} is no number") from None
    return np.array(values)


def _numbers(path: Path, name: str, value: np.ndarray) -> Any:
    if value.dtype.kind not in "biuf":
        raise FileError(f"{path}: {name} holds no numbers (dtype {value.dtype})")
    return value.item() if value.ndim == 0 else value


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "nothing"
