"""What a folder has to know to continue a run of `sample`: its arguments, as data.

Nothing is pickled. Arrays are stored as they are, numbers and containers as JSON. A model or a log
density is stored by name alone, and found again only among the functions of modules that are
already imported and no installed library; what has no such name is to be given again. No text that
the folder holds is ever an argument of a function.
"""

import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference import checkpoint
from shoal.inference._draw import Options, Plan
from shoal.inference.checkpoint import Contents, DamagedCheckpoint, ForeignCheckpoint
from shoal.inference.samplers import NAMES, factory_of
from shoal.inference.target import Target
from shoal.sampling import langevin
from shoal.sampling.core.algorithm import Sampler
from shoal.sampling.core.random import check_key, normal

NAME = "run.ckpt"
_NUM_PROBES = 8


class Model(NamedTuple):
    """What was to be sampled, as it was given.

    Attributes
    ----------
    function
        NumPyro model, log density or `Target`.
    args, kwargs
        Arguments of a NumPyro model.
    """

    function: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = types.MappingProxyType({})


class _Stored(NamedTuple):
    """What a folder tells: a plan without its target, and how to find that."""

    key: jax.Array
    options: Options
    positions: Any
    model: list[str] | None
    arguments: Any
    sampler: Any
    is_numpyro: bool
    probe: np.ndarray


def write(directory: Path, plan: Plan, model: Model, allow_changed_target: bool) -> None:
    """Store a run's arguments in its folder, or check that they are those stored there.

    A changed target is let pass if that is allowed, but no other option, key or shape.

    Raises
    ------
    ForeignCheckpoint
        If the folder holds another run; the message says in what they differ.
    """
    arrays: list[Any] = []
    meta = {
        "options": {name: _plain(value) for name, value in plan.options._asdict().items()},
        "positions": _to_json(plan.positions, arrays),
        "model": _name_of(model.function),
        "arguments": _to_json([list(model.args), dict(model.kwargs)], arrays),
        "sampler": _sampler_to_json(plan.sampler, arrays),
        "is_numpyro": plan.target.is_numpyro,
    }
    tree = {"key": plan.key, "probe": _probe(plan), "arrays": arrays}
    path = directory / NAME
    if not path.exists():
        if jax.process_index() == 0:
            checkpoint.save(path, tree, meta)
        return
    found = checkpoint.read(path)
    there = _stored(found, path)
    # A run may become longer.
    options = there.options._replace(num_samples=plan.options.num_samples)
    for name, value in plan.options._asdict().items():
        if getattr(options, name) != value:
            raise ForeignCheckpoint(
                f"{directory} holds a run with {name}={getattr(options, name)!r}, not {value!r}; "
                "resume it as it was, or choose another folder"
            )
    same_generator = jax.random.key_impl(there.key) == jax.random.key_impl(plan.key)
    data_there, data_here = map(jax.random.key_data, (there.key, plan.key))
    if not same_generator or not np.array_equal(data_there, data_here):
        raise ForeignCheckpoint(f"{directory} holds a run with another key")
    if not allow_changed_target:
        _check_target(directory, there.probe, np.asarray(tree["probe"]))
        _check_starts(directory, there.positions, plan.positions)
    if plan.options.num_samples > there.options.num_samples:
        _lengthen(path, found, plan)


def _lengthen(path: Path, found: Contents, plan: Plan) -> None:
    """Note that the run became longer; whoever continues it next need not know."""
    if jax.process_index() > 0:
        return
    tree = {"key": plan.key, "probe": found.arrays["['probe']"], "arrays": _arrays_of(found)}
    options = {**found.meta["options"], "num_samples": _plain(plan.options.num_samples)}
    checkpoint.save(path, tree, {**found.meta, "options": options})


def _plain(value: Any) -> Any:
    """Make numbers of NumPy Python's, which JSON can hold."""
    return value.item() if isinstance(value, np.generic) else value


def _arrays_of(found: Contents) -> list[np.ndarray]:
    return [array for name, array in found.arrays.items() if name.startswith("['arrays']")]


def _check_starts(directory: Path, there: Any, here: Any) -> None:
    """Raise unless a run started where this one would, to rounding."""
    if there is None:
        return
    same = len({jax.tree.structure(there), jax.tree.structure(here)}) == 1
    is_close = lambda a, b: a.shape == b.shape and np.allclose(a, b, 1e-4, 1e-4, True)
    if not same or not all(map(is_close, jax.tree.leaves(there), jax.tree.leaves(here))):
        raise ForeignCheckpoint(
            f"{directory} holds a run that started elsewhere: give the same init, or choose "
            "another folder"
        )


def _check_target(directory: Path, there: np.ndarray, here: np.ndarray) -> None:
    """Raise unless the log densities at eight points are those that were noted, to rounding."""
    tolerance = 1e-10 if here.dtype == np.float64 else 1e-4
    if here.shape != there.shape or not np.allclose(here, there, tolerance, tolerance, True):
        raise ForeignCheckpoint(
            f"{directory} holds a run of another target: its log densities at {_NUM_PROBES} points "
            f"were {there}, now they are {here}; choose another folder, or "
            "Checkpoint(..., allow_changed_target=True) to go on all the same"
        )


def read(
    directory: Path, function: Any, args: Any, kwargs: Any, sampler: Any, num_samples: int | None
) -> tuple[Plan, Model]:
    """Make the plan of a stored run; what is given replaces what is stored.

    Raises
    ------
    FileNotFoundError
        If the folder holds no run.
    DamagedCheckpoint, ForeignCheckpoint
        If what is stored is no run, or one of another model.
    ValueError
        If something was stored by no name and is not given.
    """
    path = directory / NAME
    if not path.exists():
        raise FileNotFoundError(f"{directory} holds no run: there is no {NAME} in it")
    there = _stored(checkpoint.read(path), path)
    options = there.options
    if num_samples is not None:
        options = options._replace(num_samples=num_samples)
    model = _find_model(there, function, args, kwargs, directory)
    if isinstance(model.function, Target):
        target = model.function
    elif there.is_numpyro:
        target = Target.from_numpyro(*model)
    else:
        target = Target.from_log_density(model.function)
    if there.positions is None:
        raise ValueError(
            f"the positions of the run in {directory} are no dicts, lists or tuples of arrays: "
            "continue it with the same call of sample instead"
        )
    if sampler is None:
        sampler = there.sampler
    if sampler is None:
        raise ValueError(
            f"the sampler of the run in {directory} is none of this package: give it, "
            "resume(folder, sampler=...)"
        )
    plan = Plan(there.key, target, sampler, there.positions, options)
    if plan.is_ensemble and options != there.options:
        raise ValueError(
            f"num_samples={num_samples}: the run in {directory} is of ensembles of "
            f"{there.options.num_samples} particles each, which cannot change; leave it out"
        )
    _check_accepted(plan, path)
    return plan, model


def _check_accepted(plan: Plan, path: Path) -> None:
    """Raise unless the target takes one of the positions, without computing anything."""
    try:
        eqx.filter_eval_shape(plan.target.log_density, plan.first)
    except Exception as error:
        raise ForeignCheckpoint(
            f"{path}: the model does not take the positions stored there "
            f"({type(error).__name__}: {error})"
        ) from error


def _stored(found: Contents, path: Path) -> _Stored:
    """Make sense of a file; what `write` could not have written is `DamagedCheckpoint`."""
    try:
        return _parse(found)
    except (
        AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError
    ) as error:  # fmt: skip
        why = f"{type(error).__name__}: {error}"
        raise DamagedCheckpoint(f"{path}: holds no arguments of sample ({why})") from error


def _parse(found: Contents) -> _Stored:
    meta = found.meta
    arrays = _arrays_of(found)
    data, generator = found.arrays["['key']"], found.generators["['key']"]
    key = jax.random.wrap_key_data(jnp.asarray(data), impl=generator)
    check_key(key)
    options = Options(**meta["options"])
    _check_options(options)
    positions = meta["positions"]
    if positions is not None:
        positions = jax.tree.map(jnp.asarray, _from_json(positions, arrays))
        for leaf in jax.tree.leaves(positions):
            is_real = jnp.issubdtype(leaf.dtype, jnp.floating)
            _require(is_real and leaf.shape[:1] == (options.num_chains,), "positions")
        _require(jax.tree.leaves(positions), "positions")
    model, arguments = meta["model"], meta["arguments"]
    if model is not None:
        _require(isinstance(model, list) and len(model) == 2, "model")
        _require(all(isinstance(word, str) for word in model), "model")
    if arguments is not None:
        arguments = _from_json(arguments, arrays)
        args, kwargs = arguments
        _require(isinstance(args, list) and isinstance(kwargs, dict), "arguments")
    _require(isinstance(meta["is_numpyro"], bool), "is_numpyro")
    return _Stored(
        key, options, positions, model, arguments, _sampler_from_json(meta["sampler"], arrays),
        meta["is_numpyro"], found.arrays["['probe']"],
    )  # fmt: skip


def _check_options(options: Options) -> None:
    """Raise ``ValueError`` unless `sample` could have been given these."""
    for name in ("num_chains", "num_warmup", "num_samples", "thin"):
        value = getattr(options, name)
        _require(type(value) is int and int(name != "num_warmup") <= value < 2**31, name)
    _require(options.tune_metric in ("diagonal", "dense", None), "tune_metric")
    rate = options.target_acceptance
    _require(rate is None or (type(rate) is float and 0 < rate < 1), "target_acceptance")


def _require(condition: Any, what: str) -> None:
    if not condition:
        raise ValueError(f"wrong {what}")


def _probe(plan: Plan) -> jax.Array:
    """Log densities at eight points around the first start, fixed by the key."""
    ids = jnp.arange(_NUM_PROBES)
    leaves, structure = jax.tree.flatten(plan.first)
    moves = [normal(plan.key, ids, i, leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]
    points = [leaf + 0.1 * move for leaf, move in zip(leaves, moves, strict=True)]
    return _log_densities(plan.target, jax.tree.unflatten(structure, points))


@eqx.filter_jit
def _log_densities(target: Any, points: Any) -> jax.Array:
    return jax.vmap(target.log_density)(points)


def _find_model(there: _Stored, function: Any, args: Any, kwargs: Any, directory: Path) -> Model:
    if function is None:
        function = _by_name(there.model, directory)
    if isinstance(function, Target) or not there.is_numpyro:
        return Model(function)
    if there.arguments is None and args is None and kwargs is None:
        raise ValueError(
            f"the model's arguments in {directory} could not be stored as numbers: give resume "
            "model_args and model_kwargs"
        )
    stored: Any = there.arguments or ([], {})
    return Model(
        function,
        tuple(stored[0] if args is None else args),
        dict(stored[1] if kwargs is None else kwargs),
    )


def _name_of(function: Any) -> list[str] | None:
    """Return module and name of a plain function that can be found by them, else None."""
    if not isinstance(function, types.FunctionType):
        return None
    place = [function.__module__, function.__qualname__]
    return place if _look_up(*place) is function else None


def _by_name(place: Any, directory: Path) -> Callable:
    function = _look_up(*place) if place else None
    if function is None:
        what = "{1!r} of module {0!r}".format(*place) if place else "a function without a name"
        raise ValueError(
            f"the run in {directory} sampled {what}, which is not to be found here: give it, "
            "resume(folder, model)"
        )
    return function


def _look_up(module: str, name: str) -> Callable | None:
    """Find a plain function of the user's, or of our models, in a module that is imported."""
    place = sys.modules.get(module)
    if not isinstance(place, types.ModuleType) or _is_library(module, place):
        return None
    # Its own dict, since a module's __getattr__ may import.
    found = vars(place).get(name)
    is_theirs = isinstance(found, types.FunctionType) and found.__module__ == module
    return found if is_theirs else None


def _is_library(module: str, place: types.ModuleType) -> bool:
    """Whether a module is installed: among so many functions are some that do harm."""
    top, _, below = module.partition(".")
    if top == "shoal":
        return not below.startswith("models")
    folders = Path(getattr(place, "__file__", None) or "").parts
    is_installed = {"site-packages", "dist-packages"} & set(folders)
    return bool(is_installed) or (top in sys.stdlib_module_names and module != "__main__")


def _sampler_to_json(sampler: Any, arrays: list[Any]) -> Any:
    if isinstance(sampler, str):
        return {"name": sampler}
    factory = factory_of(sampler) if isinstance(sampler, Sampler) else None
    if factory is None:
        return None
    leaves = [_to_json(jnp.asarray(x), arrays) for x in jax.tree.leaves(sampler.parameters)]
    return {"factory": factory, "leaves": leaves}


def _sampler_from_json(stored: Any, arrays: list[Any]) -> Any:
    if stored is None:
        return None
    if "name" in stored:
        _require(stored["name"] in NAMES, f"sampler {stored['name']!r}")
        return stored["name"]
    _require(stored["factory"] in langevin.__all__, f"sampler {stored['factory']!r}")
    default = getattr(langevin, stored["factory"])()
    leaves = [jnp.asarray(_from_json(leaf, arrays)) for leaf in stored["leaves"]]
    _require(all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves), "parameters")
    parameters = jax.tree.unflatten(jax.tree.structure(default.parameters), leaves)
    scalars = {name: parameters[name] for name in ("step_size", "friction") if name in parameters}
    default.replace(**scalars)  # raises if one is impossible
    return eqx.tree_at(lambda s: s.parameters, default, parameters)


def _to_json(tree: Any, arrays: list[Any]) -> Any:
    """Describe a pytree of plain containers, moving its arrays to a list; None if it is not one."""
    if getattr(tree, "weak_type", False) and jnp.ndim(tree) == 0:
        tree = tree.item()  # a number of Python, which takes on the dtype of what it meets
    if isinstance(tree, np.ndarray | jax.Array | np.generic):
        arrays.append(tree)
        return {"array": len(arrays) - 1}
    if tree is None or isinstance(tree, bool | int | float):
        return {"value": tree}
    if type(tree) in (list, tuple):
        items = [_to_json(item, arrays) for item in tree]
        return None if None in items else {type(tree).__name__: items}
    if type(tree) is dict and all(isinstance(name, str) for name in tree):
        values = {name: _to_json(value, arrays) for name, value in tree.items()}
        return None if None in values.values() else {"dict": values}
    return None


def _from_json(stored: Any, arrays: Sequence[Any]) -> Any:
    ((kind, content),) = stored.items()
    if kind == "array":
        _require(type(content) is int and content >= 0, "number of an array")
        return arrays[content]
    if kind == "dict":
        return {name: _from_json(value, arrays) for name, value in content.items()}
    if kind in ("list", "tuple"):
        _require(isinstance(content, list), kind)
        items = [_from_json(item, arrays) for item in content]
        return tuple(items) if kind == "tuple" else items
    _require(kind == "value" and not isinstance(content, str | list | dict), f"kind {kind!r}")
    return content
