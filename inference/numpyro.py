"""NumPyro models as targets: unconstrained density, constrained values, predictions.

Nothing here closes over data. NumPyro's functions of (model, arguments, position) are called
anew under each trace, so that one compiled program serves every data set of the same shape.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import Unit
from numpyro.distributions.transforms import biject_to
from numpyro.infer import Predictive, init_to_uniform, log_likelihood
from numpyro.infer.util import (
    constrain_fn,
    find_valid_initial_params,
    potential_energy,
    unconstrain_fn,
)

from shoal.inference.target import Target

_LOOKS_AT_DATA = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
)


class _Constant:
    """Arguments that are part of the program: equal only to themselves."""

    def __init__(self, value: Any) -> None:
        self.value = value


class NumPyroTarget(Target):
    """A NumPyro model with its arguments.

    Attributes
    ----------
    model
        The model. Static.
    data
        Its arguments' arrays, the other leaves None.
    rest
        What is static of ``(model_args, model_kwargs)``.
    shapes
        Name, unconstrained shape and dtype of each latent site. Static.
    """

    model: Callable = eqx.field(static=True)
    data: Any
    rest: Any = eqx.field(static=True)
    shapes: tuple[tuple[str, tuple[int, ...], str], ...] = eqx.field(static=True)

    is_numpyro = True

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The model's positional and keyword arguments."""
        if isinstance(self.rest, _Constant):
            return self.rest.value
        treedef, static = self.rest
        return jax.tree.unflatten(
            treedef, [s if a is None else a for a, s in zip(self.data, static, strict=True)]
        )

    @property
    def dynamic_data(self) -> bool:
        """Whether arrays are arguments of compiled programs: False if the model looks at them."""
        return not isinstance(self.rest, _Constant)

    def log_density(self, position: Any) -> jax.Array:
        """Return the log joint density at an unconstrained position, with the Jacobian."""
        return -potential_energy(self.model, *self.arguments, position)

    def constrain(self, position: Any) -> dict[str, jax.Array]:
        """Return latent sites on their own support, and deterministic sites."""
        return constrain_fn(self.model, *self.arguments, position, return_deterministic=True)

    def unconstrain(self, values: dict[str, Any]) -> dict[str, jax.Array]:
        """Return the position at which `constrain` gives ``values`` of all latent sites."""
        return unconstrain_fn(self.model, *self.arguments, values)

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """Return a start: uniform on (-2, 2), drawn up to 100 times until all is finite."""
        args, kwargs = self.arguments
        zeros = {name: jnp.zeros(shape, dtype) for name, shape, dtype in self.shapes}
        (position, _, _), _ = find_valid_initial_params(
            key,
            self.model,
            init_strategy=init_to_uniform,
            model_args=args,
            model_kwargs=kwargs,
            prototype_params=zeros,
        )
        return position

    def place(self, random: Any, values: dict[str, Any], num_chains: int, stacked: bool) -> Any:
        """Put given values of sites into random starts.

        Parameters
        ----------
        random
            Unconstrained starts of all chains, leading chain axis.
        values
            Constrained values by site, of one point or with a leading chain axis.
        num_chains
            Number of chains.
        stacked
            Whether the values certainly have a chain axis.

        Raises
        ------
        TypeError, ValueError
            If ``values`` is no dict, names an unknown site, or has a value of another shape or
            outside the support; the message names site, chain and value.
        """
        if not isinstance(values, dict):
            raise TypeError(f"init of a NumPyro model must be a dict of sites, got {values!r}")
        full = jax.vmap(self.constrain)(random)
        names = [name for name, _, _ in self.shapes]
        full = {name: full[name] for name in names}
        for name, value in values.items():
            if name not in full:
                raise ValueError(f"init names {name!r}, which is no latent site; they are {names}")
            like = full[name]
            value = jnp.asarray(value, like.dtype)
            if value.shape == like.shape[1:] and not stacked:
                value = jnp.broadcast_to(value, like.shape)
            if value.shape != like.shape:
                raise ValueError(
                    f"init[{name!r}] has shape {value.shape}; give {like.shape[1:]} for all "
                    f"chains, or {like.shape} for {num_chains} chains"
                )
            full[name] = value
        for chain in range(num_chains):
            self._check_support({k: v[chain] for k, v in full.items()}, chain)
        return jax.vmap(self.unconstrain)(full)

    def log_likelihood(self, posterior: dict[str, Any]) -> dict[str, jax.Array]:
        """Return log likelihoods by observed site, ``(chain, draw, ...)``."""
        args, kwargs = self.arguments
        sites = log_likelihood(self.model, posterior, *args, batch_ndims=2, **kwargs)
        return {name: sites[name] for name in self.observed_data() if name in sites}

    def predictive(self, key: jax.Array, posterior: dict[str, Any]) -> dict[str, jax.Array]:
        """Return draws of the observed sites given the posterior, ``(chain, draw, ...)``."""
        args, kwargs = self.arguments
        latent = {name: posterior[name] for name, _, _ in self.shapes}
        free = handlers.uncondition(self.model)
        names = list(self.observed_data())
        return Predictive(free, latent, return_sites=names, batch_ndims=2)(key, *args, **kwargs)

    def prior_predictive(self, key: jax.Array, num_draws: int) -> dict[str, jax.Array]:
        """Return draws of all sites from the prior, ``(draw, ...)``."""
        args, kwargs = self.arguments
        free = handlers.uncondition(self.model)
        return Predictive(free, num_samples=num_draws)(key, *args, **kwargs)

    def observed_data(self) -> dict[str, np.ndarray]:
        """Return the observed values by site."""
        return {
            name: np.asarray(site["value"])
            for name, site in _trace(self.model, self.arguments).items()
            if site["type"] == "sample" and site["is_observed"] and not _is_factor(site)
        }

    def _check_support(self, values: dict[str, Any], chain: int) -> None:
        trace = _trace(handlers.substitute(self.model, data=values), self.arguments)
        for name, value in values.items():
            if not bool(jnp.all(trace[name]["fn"].support(value))):
                raise ValueError(
                    f"init[{name!r}] = {np.asarray(value)} (chain {chain}) lies outside the "
                    f"support {trace[name]['fn'].support}"
                )

    def _hint(self, position: Any) -> str:
        values = self.constrain(position)
        trace = _trace(handlers.substitute(self.model, data=values), self.arguments)
        words = []
        for name, site in trace.items():
            if site["type"] == "sample":
                term = np.asarray(site["fn"].log_prob(site["value"]))
                if not np.isfinite(term).all():
                    bad = np.argwhere(~np.isfinite(term))[0].tolist()
                    words.append(f"site {name!r} has log probability {term[tuple(bad)]} at {bad}")
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.arguments):
            if eqx.is_array_like(leaf) and not np.isfinite(np.asarray(leaf, float)).all():
                count = int((~np.isfinite(np.asarray(leaf, float))).sum())
                kind = ("model_args", "model_kwargs")[path[0].idx]
                rest = jax.tree_util.keystr(path[1:])
                words.append(f"{kind}{rest} holds {count} values that are not finite")
        return ("; " + "; ".join(words)) if words else ""


def numpyro_target(model: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Target:
    """Examine a model and make a target of it; see `Target.from_numpyro`."""
    name = getattr(model, "__name__", repr(model))
    try:
        trace = _trace(model, (args, kwargs))
    except TypeError as error:
        raise TypeError(
            f"the model {name} cannot be called with {len(args)} model_args and model_kwargs "
            f"{sorted(kwargs)}: {error}"
        ) from error
    shapes = tuple(_examine(name, trace))
    leaves, treedef = jax.tree.flatten((args, kwargs), is_leaf=lambda leaf: leaf is None)
    data = [jnp.asarray(leaf) if _is_array(leaf) else None for leaf in leaves]
    static = tuple(None if _is_array(leaf) else leaf for leaf in leaves)
    target = NumPyroTarget(model, data, (treedef, static), shapes)
    position = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape, dtype in shapes}
    try:
        hash(static)
        eqx.filter_eval_shape(lambda t, p: (t.log_density(p), t.constrain(p)), target, position)
    except (TypeError, *_LOOKS_AT_DATA):
        # The model needs the values of its data in Python: they become part of the program.
        return NumPyroTarget(model, [], _Constant((args, kwargs)), shapes)
    return target


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "biufc":
        raise TypeError(
            f"an array of dtype {leaf.dtype} among the model's arguments cannot go to a device; "
            "encode it as integers"
        )
    return eqx.is_array(leaf) or isinstance(leaf, np.ndarray)


def _trace(model: Callable, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> dict[str, Any]:
    args, kwargs = arguments
    return handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(*args, **kwargs)


def _is_factor(site: dict[str, Any]) -> bool:
    return isinstance(getattr(site["fn"], "base_dist", site["fn"]), Unit)


def _examine(name: str, trace: dict[str, Any]) -> list[tuple[str, tuple[int, ...], str]]:
    """Return latent sites with unconstrained shapes; raise for what cannot be sampled."""
    found = []
    for site_name, site in trace.items():
        if site["type"] == "param":
            raise ValueError(
                f"the model {name} has the param site {site_name!r}; sampling needs a prior: use "
                "numpyro.sample"
            )
        if site["type"] == "plate":
            size, subsample_size = site["args"][:2]
            if subsample_size is not None and size != subsample_size:
                raise ValueError(
                    f"the plate {site_name!r} of the model {name} subsamples {subsample_size} of "
                    f"{size}; use the whole plate"
                )
        if site["type"] != "sample" or site["is_observed"]:
            continue
        if site["fn"].support.is_discrete:
            raise ValueError(
                f"the site {site_name!r} of the model {name} is discrete; sum it out (a mixture "
                "distribution does that), since gradients do not exist there"
            )
        value = jax.eval_shape(biject_to(site["fn"].support).inv, site["value"])
        found.append((site_name, tuple(value.shape), value.dtype.name))
    if not found:
        raise ValueError(
            f"the model {name} has no latent site to sample; its sites are {list(trace)}. For a "
            "log density give init"
        )
    return found
