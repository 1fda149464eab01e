"""One abstract run of a NumPyro model: its sites, and what makes it no target, said early."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions.transforms import biject_to

from shoal.inference._arguments import Arguments, check_names
from shoal.inference._sites import innermost
from shoal.sampling.core._checks import real_values


class Site(NamedTuple):
    """A latent site: its name, its shape in the model and its shape in unconstrained space."""

    name: str
    shape: tuple[int, ...]
    unconstrained_shape: tuple[int, ...]


class Found(NamedTuple):
    """What one abstract run of a model shows."""

    sites: tuple[Site, ...]
    deterministic: tuple[str, ...]
    observed: tuple[str, ...]
    has_params: bool
    problems: list[str]


def inspect_model(model: Callable[..., Any], arguments: Arguments) -> Found:
    """Run the model on shapes alone, as it will be run when it is compiled."""
    problems: list[str] = []
    found: list[Any] = []

    def run(arguments: Arguments) -> None:
        fill = functools.partial(_any_value, problems)
        args, kwargs = arguments.tree
        seeded = handlers.substitute(handlers.seed(model, rng_seed=0), substitute_fn=fill)
        trace = handlers.trace(seeded).get_trace(*args, **kwargs)
        latent, observed = [], []
        for name, site in trace.items():
            if site["type"] == "plate":
                size, subsample_size = site["args"]
                if subsample_size not in (None, size):
                    problems.append(
                        f"plate {name!r} takes {subsample_size} of {size} at random, so its log "
                        "density changes from call to call; leave out subsample_size"
                    )
            elif site["type"] == "sample" and site["is_observed"]:
                if not isinstance(innermost(site["fn"]), dist.Unit):
                    observed.append(name)
                    problems.extend(_shape_problem(name, site))
            elif site["type"] == "sample" and not problems:
                shape = jnp.shape(site["value"])
                free = biject_to(site["fn"].support).inverse_shape(shape)
                latent.append(Site(name, tuple(shape), tuple(free)))
        kinds = {name: site["type"] for name, site in trace.items()}
        deterministic = tuple(name for name, kind in kinds.items() if kind == "deterministic")
        has_params = not {"param", "mutable"}.isdisjoint(kinds.values())
        found[:] = [tuple(latent), deterministic, tuple(observed), has_params, problems]

    jax.eval_shape(run, arguments)
    return Found(*found)


def _shape_problem(name: str, site: dict[str, Any]) -> list[str]:
    """Find values and a distribution that broadcast each other: a table where rows were meant."""
    value, fn = jnp.shape(site["value"]), tuple(site["fn"].shape())
    try:
        together = jnp.broadcast_shapes(value, fn)
    except ValueError:
        together = None
    if together in (value, fn):
        return []
    result = "do not broadcast" if together is None else f"broadcast to {together}"
    return [
        f"observed site {name!r}: values of shape {value} and a distribution of shape {fn} {result}"
    ]


def _any_value(problems: list[str], site: dict[str, Any]) -> Any:
    """Return a value on a latent site's support; note why a site cannot be sampled."""
    if site["type"] != "sample" or site["value"] is not None:
        return None
    name, fn = site["name"], site["fn"]
    kind = type(innermost(fn)).__name__
    if isinstance(innermost(fn), dist.Delta):
        problems.append(f"site {name!r} is a point mass (Delta); use numpyro.deterministic")
        return None
    if fn.support.is_discrete:
        problems.append(
            f"latent site {name!r} is discrete ({kind}), and these samplers move real numbers; sum "
            "it out in the model (for a mixture: numpyro.distributions.MixtureSameFamily), or "
            "observe it"
        )
        return None
    try:
        transform = biject_to(fn.support)
    except NotImplementedError:
        problems.append(
            f"latent site {name!r} ({kind}) lives on {fn.support}, onto which NumPyro has no "
            "bijection from real numbers; reparametrise it (numpyro.infer.reparam)"
        )
        return None
    shape = (*site["kwargs"]["sample_shape"], *fn.shape())
    value = transform(jnp.zeros(transform.inverse_shape(shape)))
    if jnp.iscomplexobj(value):
        problems.append(f"latent site {name!r} ({kind}) is complex; sample its two parts")
    return value


def check_sites(model: Callable[..., Any], found: Found) -> None:
    if found.problems:
        raise ValueError(f"model {model_name(model)}: {'; '.join(dict.fromkeys(found.problems))}")
    if not sum(math.prod(site.unconstrained_shape) for site in found.sites):
        raise ValueError(
            f"model {model_name(model)} has no latent site to sample; its sites are: observed "
            f"{list(found.observed)}, deterministic {list(found.deterministic)}"
        )


def check_signature(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    try:
        signature = inspect.signature(model)
    except ValueError:  # a builtin without a signature: the call itself will tell
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(
            f"model_args ({len(args)} given) and model_kwargs ({list(kwargs)}) do not fit "
            f"{model_name(model)}{signature}: {error}"
        ) from None


def why_it_fails(model: Callable[..., Any], error: Exception) -> str:
    first = str(error).partition("\n")[0]
    reason = f"model {model_name(model)} fails when it is traced ({type(error).__name__}: {first})"
    if isinstance(error, jax.errors.JAXTypeError | jax.errors.JAXIndexError):
        reason += (
            "; it seems to use the value of a latent site in Python (if, int(), float(), NumPy): "
            "use jnp.where and jax.numpy instead"
        )
    return reason


def parameter_values(model: Callable[..., Any], data: tuple[Any, Any]) -> dict[str, Any]:
    """Return the initial values of ``numpyro.param`` sites and modules, which stay as they are."""
    args, kwargs = data
    trace = handlers.trace(handlers.seed(model, rng_seed=0)).get_trace(*args, **kwargs)
    return {
        name: site["value"] for name, site in trace.items() if site["type"] in ("param", "mutable")
    }


def named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"model_args": args, "model_kwargs": kwargs}


def model_name(model: Callable[..., Any]) -> str:
    return getattr(model, "__name__", type(model).__name__)


def as_values(argument: str, site: Site, value: Any, accepted: list[tuple[int, ...]]) -> jax.Array:
    """Return values of a site as an array; raise unless it has one of the accepted shapes."""
    label = f"{argument}[{site.name!r}]"
    try:
        array = jnp.asarray(value, jnp.result_type(float))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{label} must be an array of numbers: {error}") from error
    if array.shape not in accepted:
        shapes = " or ".join(map(str, accepted))
        raise ValueError(f"{label} has shape {array.shape}; it must have shape {shapes}")
    return array


def check_site_shapes(sites: tuple[Site, ...], position: Any) -> None:
    """Raise unless an unconstrained position has all sites and nothing else, in their shapes."""
    check_names("position", position, [site.name for site in sites])
    for site in sites:
        if site.name not in position:
            raise ValueError(f"position lacks the latent site {site.name!r}")
        label = f"position[{site.name!r}]"
        shape = real_values(label, position[site.name]).shape
        if shape != site.unconstrained_shape:
            raise ValueError(
                f"{label} has shape {shape}; it must have shape {site.unconstrained_shape}"
            )


def check_inside(
    argument: str,
    given: dict[str, jax.Array],
    position: dict[str, jax.Array],
    inside: dict[str, jax.Array],
    chains: bool,
) -> None:
    """Raise for the first value that is not in the interior of its support."""
    for name, value in given.items():
        if isinstance(inside[name], jax.core.Tracer):
            continue
        rows = len(value) if chains else 1
        finite = np.isfinite(np.asarray(position[name])).reshape(rows, -1).all(1)
        bad = np.flatnonzero(~(np.asarray(inside[name]) & finite))
        if bad.size:
            where = f" of chain {bad[0]}" if chains else ""
            shown = np.asarray(value).reshape(rows, *value.shape[1 if chains else 0 :])[bad[0]]
            raise ValueError(
                f"{argument}[{name!r}]{where} is {shown}, which is not inside the support of site "
                f"{name!r}"
            )
