"""Checkpoint files: arrays that come back bit for bit, or not at all.

A file is

    magic "SHOAL1" | header length (8 bytes, little endian) | JSON header | raw arrays | SHA-256

with the arrays in C order, little endian, one after the other as the header lists them (path,
dtype, shape, bytes; for typed PRNG keys the raw key data and the name of the generator). The digest
covers all before it and is checked before anything is read, so that a flipped bit, a cut or a
splice is an error, not a wrong number. Sizes are checked against the file before memory is asked
for. Nothing is ever unpickled, evaluated or imported.

`save` is atomic: it writes beside the target, waits for the disk, and renames. A process killed at
any moment, or a full disk, leaves the earlier file as it was.
"""

import contextlib
import hashlib
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MAGIC = b"SHOAL1"
_FORMAT = 1
_DIGEST_BYTES = hashlib.sha256().digest_size
# Parsing JSON can take twenty times its size in memory.
_LARGEST_HEADER = 2**20
_BLOCK = 2**20
_LARGEST_RANK = 32
_KEY_DATA = "uint32"
_DTYPES = frozenset(
    ("bool", "float16", "bfloat16", "float32", "float64", "complex64", "complex128")
    + tuple(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))
)


class DamagedCheckpoint(ValueError):
    """The file is not a whole checkpoint: cut, altered, or something else altogether."""


class ForeignCheckpoint(ValueError):
    """The file is whole, but belongs to something else than what is to be continued."""


class Contents(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    arrays
        NumPy arrays by path, in the order of the file; key data for PRNG keys.
    generators
        Name of the generator by path, for the arrays that are PRNG keys.
    meta
        The JSON object given to `save`.
    digest
        SHA-256 of the file, in hexadecimal.
    """

    arrays: dict[str, np.ndarray]
    generators: dict[str, str]
    meta: dict[str, Any]
    digest: str


def save(path: str | Path, tree: Any, meta: dict[str, Any] | None = None) -> str:
    """Write a pytree of arrays and a JSON object to a file, atomically.

    Parameters
    ----------
    path
        File to write or to replace.
    tree
        Pytree of JAX or NumPy arrays, typed PRNG keys and numbers.
    meta
        JSON object to keep beside them.

    Returns
    -------
    str
        SHA-256 of the file, in hexadecimal.

    Raises
    ------
    OSError
        If the file cannot be written, naming it; what was there before is whole.
    TypeError
        If a leaf is no array of numbers, or ``meta`` is no JSON.
    ValueError
        If two leaves have the same path, or paths and ``meta`` take more than 1 MiB.

    Examples
    --------
    >>> import tempfile, jax, jax.numpy as jnp
    >>> from shoal.inference import checkpoint
    >>> state = {"position": jnp.arange(3.0), "key": jax.random.key(1)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     digest = checkpoint.save(f"{folder}/state.ckpt", state, {"step": 7})
    ...     again, meta = checkpoint.load(f"{folder}/state.ckpt", like=state)
    >>> again["position"].tolist(), meta
    ([0.0, 1.0, 2.0], {'step': 7})
    """
    path = Path(path)
    leaves, records = [], []
    for name, leaf in _named_leaves(tree):
        array, generator = _raw(name, leaf)
        record = {
            "path": name,
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "nbytes": array.nbytes,
        }
        if generator is not None:
            record["generator"] = generator
        leaves.append(array)
        records.append(record)
    content = {"format": _FORMAT, "meta": meta or {}, "leaves": records}
    header = json.dumps(content, separators=(",", ":")).encode()
    if len({record["path"] for record in records}) < len(records):
        raise ValueError(f"two leaves of the pytree for {path} have the same path")
    if len(header) > _LARGEST_HEADER:
        raise ValueError(
            f"paths and meta for {path} take {len(header)} bytes, more than {_LARGEST_HEADER}: "
            "put numbers into arrays, and many arrays into few"
        )
    digest = hashlib.sha256()

    def write(file: IO[bytes]) -> None:
        parts: list[Any] = [MAGIC, len(header).to_bytes(8, "little"), header]
        parts += [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in leaves]
        # Digest and disk go side by side: each takes as long as the other.
        with ThreadPoolExecutor(1) as hashing:
            for part in parts:
                hashing.submit(digest.update, part)
                file.write(part)
        file.write(digest.digest())

    _write_atomically(path, write)
    return digest.hexdigest()


def load(path: str | Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """Read a pytree of the structure, shapes and dtypes of ``like``.

    Parameters
    ----------
    path
        File written by `save`.
    like
        Pytree of arrays or ``jax.ShapeDtypeStruct``.

    Returns
    -------
    tree
        NumPy arrays and typed PRNG keys in the structure of ``like``.
    meta
        The JSON object.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    DamagedCheckpoint
        If the file is not whole.
    ForeignCheckpoint
        If the file holds other leaves than ``like``; the message names the first.
    """
    contents = read(path)
    return restore(contents, like, str(path)), contents.meta


def read(path: str | Path) -> Contents:
    """Read whatever arrays a file holds, by path; raises as `load` does."""
    path = Path(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = _verify(file, size, path)
        file.seek(len(MAGIC))
        length = int.from_bytes(file.read(8), "little")
        room = size - len(MAGIC) - 8 - _DIGEST_BYTES
        if length > min(room, _LARGEST_HEADER):
            raise DamagedCheckpoint(f"{path}: the header claims {length} bytes of {size}")
        meta, leaves = _parse_header(file.read(length), room - length, path)
        arrays, generators = {}, {}
        for leaf in leaves:
            array = np.empty(leaf["shape"], jnp.dtype(leaf["dtype"]))
            if file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
                raise DamagedCheckpoint(f"{path}: ended while it was read")
            arrays[leaf["path"]] = array
            if "generator" in leaf:
                generators[leaf["path"]] = leaf["generator"]
    return Contents(arrays, generators, meta, digest)


def restore(contents: Contents, like: Any, source: str) -> Any:
    """Put arrays into the structure of ``like``; raise `ForeignCheckpoint` where they differ."""
    wanted = _named_leaves(like)
    names = [name for name, _ in wanted]
    missing = [name for name in names if name not in contents.arrays]
    extra = list(contents.arrays.keys() - set(names))
    if missing or extra:
        raise ForeignCheckpoint(
            f"{source}: missing leaves {_few(missing)}, unknown leaves {_few(sorted(extra))}"
        )
    leaves = []
    for name, leaf in wanted:
        found = _wrapped(contents, name, source)
        wanted_shape, wanted_dtype = _description(leaf)
        if (found.shape, found.dtype) != (wanted_shape, wanted_dtype):
            raise ForeignCheckpoint(
                f"{source}: leaf {name} is {found.dtype}{list(found.shape)}, "
                f"wanted {wanted_dtype}{list(wanted_shape)}"
            )
        leaves.append(found)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def sweep(directory: Path) -> None:
    """Delete what writers that were killed left behind."""
    for path in directory.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed PRNG keys, or the shape of one."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more if names else "none"


def _raw(name: str, leaf: Any) -> tuple[np.ndarray, str | None]:
    """Array of plain numbers, and the generator's name for a PRNG key."""
    if is_key(leaf):
        return np.asarray(jax.random.key_data(leaf)), str(jax.random.key_impl(leaf))
    array = np.asarray(leaf)
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"leaf {name} has dtype {array.dtype}, which a checkpoint cannot hold")
    return array.astype(_native(array.dtype), copy=False), None


def _wrapped(contents: Contents, name: str, source: str) -> Any:
    """Return an array, or the typed keys whose data it is."""
    array, generator = contents.arrays[name], contents.generators.get(name)
    if generator is None:
        return array
    try:
        return jax.random.wrap_key_data(jnp.asarray(array), impl=generator)
    except (TypeError, ValueError) as error:
        raise ForeignCheckpoint(
            f"{source}: leaf {name} holds no key of {generator!r} ({error})"
        ) from error


def _description(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of a leaf; Python numbers are stored in NumPy's dtype for them."""
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return tuple(leaf.shape), _native(leaf.dtype)


def _native(dtype: Any) -> Any:
    """Give a dtype this machine's byte order, which its name does not tell."""
    return dtype.newbyteorder("=") if not getattr(dtype, "isnative", True) else dtype


def _write_atomically(path: Path, write: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync_directory(directory: Path) -> None:
    """Wait until a rename within a directory is on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _verify(file: IO[bytes], size: int, path: Path) -> str:
    """Check magic and digest of a whole file in bounded memory; return the digest."""
    if size < len(MAGIC) + 8 + _DIGEST_BYTES or file.read(len(MAGIC)) != MAGIC:
        raise DamagedCheckpoint(f"{path}: is no checkpoint, or is cut short ({size} bytes)")
    file.seek(0)
    digest = hashlib.sha256()
    left = size - _DIGEST_BYTES
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            raise DamagedCheckpoint(f"{path}: ended while it was read")
        digest.update(block)
        left -= len(block)
    if file.read(_DIGEST_BYTES) != digest.digest():
        raise DamagedCheckpoint(f"{path}: its SHA-256 does not match: the file was cut or altered")
    return digest.hexdigest()


def _parse_header(text: bytes, room: int, path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Return meta and leaf records of a header whose every claim fits the file."""
    try:
        # `json.loads` of bytes would guess an encoding, and import it.
        header = json.loads(text.decode("ascii"))
        _require(header["format"] == _FORMAT, "format")
        meta, leaves = header["meta"], header["leaves"]
        _require(isinstance(meta, dict) and isinstance(leaves, list), "types")
        for leaf in leaves:
            _check_leaf(leaf)
        _require(len({leaf["path"] for leaf in leaves}) == len(leaves), "paths")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        # Not its repr, which may hold the whole header.
        why = f"{type(error).__name__}: {error}"
        raise DamagedCheckpoint(f"{path}: the header is not one of ours ({why})") from error
    claimed = sum(leaf["nbytes"] for leaf in leaves)
    if claimed != room:
        raise DamagedCheckpoint(f"{path}: the arrays claim {claimed} bytes, the file has {room}")
    return meta, leaves


def _check_leaf(leaf: dict[str, Any]) -> None:
    """Raise ``ValueError`` unless a leaf record is one that `save` could have written."""
    _require(isinstance(leaf["path"], str), "path")
    _require(isinstance(leaf["dtype"], str) and leaf["dtype"] in _DTYPES, "dtype")
    if "generator" in leaf:
        _require(isinstance(leaf["generator"], str) and leaf["dtype"] == _KEY_DATA, "generator")
    shape, size = leaf["shape"], jnp.dtype(leaf["dtype"]).itemsize
    _require(isinstance(shape, list) and len(shape) <= _LARGEST_RANK, "rank")
    _require(all(type(n) is int and n >= 0 for n in shape), "shape")
    _require(math.prod(n or 1 for n in shape) * size < 2**62, "size")
    _require(type(leaf["nbytes"]) is int, "bytes")
    _require(leaf["nbytes"] == math.prod(shape) * size, "bytes")


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)
