"""What a run is: digests by which a saved run knows whether it is still the same.

The program is known by its jaxpr (with the values of the constants in it), the data and parameters
by their bytes. Both are exact: a prior's scale changed in the seventh digit, or one observation, is
another run. A jaxpr, and a computed start, are comparable only between equal versions and devices;
where they differ, the data and the shapes are what is compared.
"""

import hashlib
import platform
import re
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from shoal._version import __version__
from shoal.inference.checkpoint import ForeignCheckpoint, is_key

_ADDRESS = re.compile(r"0x[0-9a-f]+")


# Only where these are equal does the same model give the same jaxpr.
_VERSIONS = ("python", "jax", "shoal", "platform", "devices")


def fingerprint(
    step: Any, algorithm: Any, state: Any, key: jax.Array, num_devices: int
) -> dict[str, str]:
    """Return digests of program and data, and the versions, as JSON strings.

    Parameters
    ----------
    step
        ``step(algorithm, state, key)``; all that it computes is the program.
    algorithm
        Pytree whose arrays are the data and parameters.
    state
        State that the run starts from.
    key
        The run key; counts as data.
    num_devices
        Devices that share the run; sums over them are part of an ensemble's program.
    """
    dynamic, static = eqx.partition((algorithm, state, key), eqx.is_array)
    program = jax.make_jaxpr(lambda dynamic: step(*eqx.combine(dynamic, static)))(dynamic)
    text = hashlib.sha256()
    _hash_program(text, program)
    return {
        "program": text.hexdigest(),
        "data": digest_of((algorithm, key)),
        "start": digest_of(state),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "shoal": __version__,
        "platform": jax.default_backend(),
        "devices": str(num_devices),
    }


def digest_of(tree: Any) -> str:
    """SHA-256 of a pytree's arrays: paths, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array)):
        _hash_array(digest, jax.tree_util.keystr(path), leaf)
    return digest.hexdigest()


def check_same(found: dict[str, str], now: dict[str, str], place: str) -> None:
    """Raise `ForeignCheckpoint` unless a saved run is the one at hand."""
    changed = []
    if found.get("data") != now["data"]:
        changed.append("the data, the parameters or the key")
    same_versions = all(found.get(name) == now[name] for name in _VERSIONS)
    if same_versions and found.get("program") != now["program"]:
        changed.append("the model, the sampler or what is kept of it")
    if same_versions and found.get("start") != now["start"]:
        changed.append("the state it starts from")
    if changed:
        raise ForeignCheckpoint(
            f"{place} holds a run that differs from this one in {' and in '.join(changed)}; "
            "choose another folder, or Checkpoint(..., allow_changed_target=True) to go on from "
            "there all the same"
        )


def _hash_program(digest: Any, program: Any) -> None:
    """Hash a jaxpr's text and the constants of all jaxprs within it."""
    digest.update(_ADDRESS.sub("", str(program)).encode())
    _hash_constants(digest, program)


def _hash_constants(digest: Any, program: Any) -> None:
    if isinstance(program, ClosedJaxpr):
        for constant in program.consts:
            _hash_array(digest, "", constant)
        program = program.jaxpr
    for equation in program.eqns:
        for inner in jax.tree.leaves(list(equation.params.values())):
            if isinstance(inner, Jaxpr | ClosedJaxpr):
                _hash_constants(digest, inner)


def _hash_array(digest: Any, name: str, leaf: Any) -> None:
    array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    digest.update(f"{name} {array.dtype} {array.shape};".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
