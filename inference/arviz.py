"""Results for ArviZ, before and after its version 1.0, and as NetCDF files that both read."""

import json
import os
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core.particles import effective_sample_size, systematic_resampling

if TYPE_CHECKING:
    from shoal.inference.result import Result

_RECORD = "shoal_record"
_PARAMETERS = "sampler_parameters"
_BIAS = "estimated_bias"
# Groups without chains and draws.
_OBSERVED = ("observed_data", _PARAMETERS, _BIAS)


def import_arviz() -> ModuleType:
    """Import ArviZ without the announcement that versions before 1.0 print."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def to_arviz(result: "Result", *, resample: bool | None = None) -> Any:
    """Return ``arviz.InferenceData`` (before 1.0) or ``xarray.DataTree``; see `Result.to_arviz`."""
    groups = {
        "posterior": result.posterior,
        "sample_stats": dict(result.sample_stats),
        **model_groups(result),
    }
    attributes = dict(result.attributes)
    if result.bias is not None:
        attributes[_BIAS] = str(result.bias)
    if result.log_weights is not None:
        log_weights = np.asarray(result.log_weights)
        groups["sample_stats"]["log_weight"] = log_weights
        ess = np.asarray(effective_sample_size(jnp.asarray(log_weights)))
        attributes["weights_effective_sample_size"] = ess.tolist()
        if resample or (resample is None and np.ptp(log_weights) > 0):
            groups = _resampled(groups, log_weights)
    return _from_groups(groups, attributes)


def model_groups(result: "Result") -> dict[str, dict[str, np.ndarray]]:
    """Likelihood, predictive and data groups of the model, computed once and kept in the result."""
    if not result.groups and getattr(result.target, "is_numpyro", False):
        result.groups.update(_compute_groups(result.target, result.posterior))
    return result.groups


def save(result: "Result", path: str | Path) -> Path:
    """Write a result as NetCDF; see `Result.save`."""
    import xarray

    path = _as_path(path)
    if path.is_dir():
        raise IsADirectoryError(f"path={str(path)!r} is a directory")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: there is no directory {str(path.parent)!r}")
    groups = {
        "posterior": result.posterior,
        "sample_stats": dict(result.sample_stats),
        **model_groups(result),
        _PARAMETERS: _flat(result.parameters),
    }
    if result.bias is not None:
        groups[_BIAS] = result.bias._asdict()
    if result.log_weights is not None:
        groups["sample_stats"]["log_weight"] = np.asarray(result.log_weights)
    record = {
        name: getattr(result, name)
        for name in ("outcome", "num_gradients", "num_gradients_warmup", "status", "status_warmup")
    }
    record["attributes"] = result.attributes
    # Written beside the target and renamed, so that a failure leaves an older file whole.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        mode: Literal["w", "a"] = "w"
        for group, variables in groups.items():
            dataset = xarray.Dataset(
                {name: (_dims(group, name, value), value) for name, value in variables.items()}
            )
            if group not in _OBSERVED:
                for axis, size in list(dataset.sizes.items())[:2]:
                    dataset = dataset.assign_coords({axis: np.arange(size)})
            dataset.attrs[_RECORD] = json.dumps(record)
            dataset.to_netcdf(temporary, mode=mode, group=group, engine="h5netcdf")
            mode = "a"
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load(path: str | Path) -> "Result":
    """Read a file written by `save`; see `Result.load`."""
    import h5netcdf
    import xarray

    from shoal.inference.bias import Bias
    from shoal.inference.result import Result

    path = _as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r}: there is no such file")
    try:
        with h5netcdf.File(path, "r") as file:
            names = list(file.groups)
    except OSError as error:
        raise ValueError(f"path={str(path)!r} is not a NetCDF file: {error}") from error
    if not {"posterior", "sample_stats"} <= set(names):
        raise ValueError(f"path={str(path)!r} holds no Shoal result: its groups are {names}")
    groups, record = {}, None
    for name in names:
        with xarray.open_dataset(path, group=name, engine="h5netcdf") as dataset:
            groups[name] = {str(k): np.asarray(v.values) for k, v in dataset.data_vars.items()}
            record = dataset.attrs.get(_RECORD, record)
    if record is None:
        raise ValueError(f"path={str(path)!r} was not written by Result.save")
    log_weights = groups["sample_stats"].pop("log_weight", None)
    bias = Bias(**groups.pop(_BIAS)) if _BIAS in groups else None
    return Result(
        posterior=groups.pop("posterior"),
        sample_stats=groups.pop("sample_stats"),
        parameters=groups.pop(_PARAMETERS, {}),
        log_weights=log_weights,
        groups=groups,
        bias=bias,
        **json.loads(record),
    )


def _as_path(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a string or a path, got {path!r}")
    return Path(path)


def _compute_groups(target: Any, posterior: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    observed = target.observed_data()
    if not observed:
        return {}
    num_draws = next(iter(posterior.values())).shape[1]
    if num_draws == 0:  # interrupted in the warm-up
        return {"observed_data": {name: np.asarray(value) for name, value in observed.items()}}
    key_posterior, key_prior = jax.random.split(jax.random.key(0))
    prior = target.prior_predictive(key_prior, num_draws)
    one_chain = {name: np.asarray(value)[None] for name, value in prior.items()}
    groups = {
        "log_likelihood": target.log_likelihood(posterior),
        "posterior_predictive": target.predictive(key_posterior, posterior),
        "prior": {k: v for k, v in one_chain.items() if k not in observed},
        "prior_predictive": {k: v for k, v in one_chain.items() if k in observed},
        "observed_data": observed,
    }
    return {g: {k: np.asarray(v) for k, v in variables.items()} for g, variables in groups.items()}


def _resampled(groups: dict[str, Any], log_weights: np.ndarray) -> dict[str, Any]:
    """Replace each chain's draws by equally weighted ones."""
    keys = jax.random.split(jax.random.key(0), len(log_weights))
    rows = np.asarray(jax.vmap(systematic_resampling)(keys, jnp.asarray(log_weights)))
    take = lambda value: np.stack([chain[row] for chain, row in zip(value, rows, strict=True)])
    drawn = ("posterior", "sample_stats", "log_likelihood", "posterior_predictive")
    return {
        group: {k: take(v) for k, v in variables.items()} if group in drawn else variables
        for group, variables in groups.items()
    }


def _from_groups(groups: dict[str, Any], attributes: dict[str, Any]) -> Any:
    arviz = import_arviz()
    if int(arviz.__version__.split(".")[0]) >= 1:
        tree = arviz.from_dict(groups)
        tree.attrs.update(attributes)
        tree["posterior"].attrs.update(attributes)
        return tree
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on more chains than draws, and the like
        return arviz.from_dict(**groups, attrs=attributes)


def _dims(group: str, name: str, value: Any) -> list[str]:
    leading = [] if group in _OBSERVED else ["chain", "draw"]
    return leading + [f"{name}_dim_{i}" for i in range(np.ndim(value) - len(leading))]


def _flat(parameters: dict[str, Any]) -> dict[str, np.ndarray]:
    """Name the leaves of the sampler's parameters."""
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in leaves
    }
