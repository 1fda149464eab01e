"""NumPyro models as targets.

The model is run under handlers that replace each latent site by ``t(z)``, with ``t`` NumPyro's
bijection onto the site's support. The log density at ``z`` is the log joint density of the model
plus ``log |det dt/dz|``. Supports may depend on other sites and sites may sit in plates and in
``numpyro.contrib.control_flow.scan``: the bijection is always the one at the site as it is met.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer.util import compute_log_probs, find_valid_initial_params

from shoal.inference._arguments import (
    Arguments,
    Static,
    check_arrays,
    check_names,
    freeze,
    non_finite_counts,
    split,
)
from shoal.inference._inspection import (
    Found,
    Site,
    as_values,
    check_inside,
    check_signature,
    check_site_shapes,
    check_sites,
    inspect_model,
    named,
    parameter_values,
    why_it_fails,
)
from shoal.inference._predictions import (
    draw_log_likelihood,
    draw_predictive,
    draw_prior_predictive,
)
from shoal.inference._sites import (
    constrained,
    constrained_with_log_det,
    inverted,
    outside_support,
    recorded,
)
from shoal.inference.target import Target, explain
from shoal.sampling.core._checks import integer, real_values
from shoal.sampling.core.random import check_key


class NumPyroTarget(Target):
    """A NumPyro model with its data; made by `Target.from_numpyro`.

    Attributes
    ----------
    dynamic_data
        Whether the arrays among the arguments are leaves of the target. False for a model that
        looks at its data while it is traced: its data are constants of the compiled program.
    """

    arguments: Arguments
    fixed: Arguments  # values of ``param`` and ``mutable`` sites
    model: Static = eqx.field(static=True)
    sites: tuple[Site, ...] = eqx.field(static=True)
    deterministic: tuple[str, ...] = eqx.field(static=True)
    observed: tuple[str, ...] = eqx.field(static=True)
    dynamic_data: bool = eqx.field(static=True)

    @property
    def is_numpyro(self) -> bool:
        """True."""
        return True

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the latent sites, in the model's order."""
        return tuple(site.name for site in self.sites)

    @property
    def position_shape(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Unconstrained shapes by site, in JAX's default float dtype."""
        dtype = jnp.result_type(float)
        return {
            site.name: jax.ShapeDtypeStruct(site.unconstrained_shape, dtype) for site in self.sites
        }

    def log_density(self, position: dict[str, jax.Array]) -> jax.Array:
        """Log joint density of the model at ``constrain(position)`` plus log |det Jacobian|."""
        check_site_shapes(self.sites, position)
        return _log_density(self, position)

    def constrain(self, position: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Values of latent sites on their supports, and of deterministic sites."""
        check_site_shapes(self.sites, position)
        return _constrain(self, position)

    def unconstrain(self, values: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Unconstrained position of values given for all latent sites.

        Deterministic sites may be among the values, as in a draw; they are ignored.

        Raises
        ------
        TypeError, ValueError
            If a site is missing or unknown, has another shape, or (unless traced) a value lies
            outside or on the edge of the site's support.
        """
        check_names("values", values, (*self.names, *self.deterministic))
        missing = [name for name in self.names if name not in values]
        if missing:
            raise ValueError(f"values lack the latent sites {missing}")
        given = {
            site.name: as_values("values", site, values[site.name], [site.shape])
            for site in self.sites
        }
        position, inside = _invert(self, {}, given)
        check_inside("values", given, position, inside, chains=False)
        return position

    def place(
        self, random: dict[str, jax.Array], values: Any, num_chains: int, stacked: bool = False
    ) -> dict[str, jax.Array]:
        """Put values of some or all latent sites, given on their supports, into random starts.

        Parameters
        ----------
        random
            Unconstrained positions with a leading chain axis.
        values
            Dict by site, of the site's shape (for all chains) or with a leading chain axis.
            Deterministic sites may be among them, as in a draw; they are ignored.
        num_chains
            Number of chains.
        stacked
            Whether all values have the chain axis.

        Raises
        ------
        TypeError, ValueError
            Naming the site, chain and value that are impossible.
        """
        check_names("init", values, (*self.names, *self.deterministic))
        given = {}
        for site in self.sites:
            if site.name not in values:
                continue
            each = (num_chains, *site.shape)
            accepted = [each] if stacked else [site.shape, each]
            value = as_values("init", site, values[site.name], accepted)
            given[site.name] = jnp.broadcast_to(value, each)
        if not given:
            raise ValueError(f"init gives no latent site; they are {list(self.names)}")
        position, inside = _invert_each(self, random, given)
        check_inside("init", given, position, inside, chains=True)
        return position

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """Draw a start uniformly on (-2, 2) in every unconstrained coordinate.

        Drawn again, up to 100 times, until log density and gradient are finite; maps over keys.
        If they never are, the last draw is returned: `explain_bad_start` says what is wrong.
        """
        check_key(key)
        return _valid_start(self, key)

    def explain_bad_start(self, position: dict[str, jax.Array], index: int) -> str:
        """Say what is not finite at a start; see `Target.explain_bad_start`."""
        value, gradient = jax.value_and_grad(self.log_density)(position)
        reasons = [
            f"site {name!r} has log probability {float(log_prob):g}"
            for name, log_prob in _log_probs(self, position).items()
            if not np.isfinite(log_prob)
        ]
        reasons += self._bad_data()
        return explain(index, self.constrain(position), value, gradient, reasons)

    def observed_data(self) -> dict[str, jax.Array]:
        """Values of the observed sites by name."""
        return _observations(self)[0]

    def log_likelihood(
        self, posterior: Mapping[str, Any], batch_ndims: int = 2
    ) -> dict[str, jax.Array]:
        """Log likelihood of every observation under each draw; see `Target.log_likelihood`."""
        return draw_log_likelihood(self, self._latent(posterior, batch_ndims), batch_ndims)

    def predictive(
        self, key: jax.Array, posterior: Mapping[str, Any], batch_ndims: int = 2
    ) -> dict[str, jax.Array]:
        """Draw every observed site anew for each draw; see `Target.predictive`.

        Observed sites become unobserved, so the model need not accept ``y=None``. Inside
        ``scan`` the state still follows the data: each step is predicted from what was observed
        before it.
        """
        check_key(key)
        return draw_predictive(self, key, self._latent(posterior, batch_ndims), batch_ndims)

    def prior_predictive(self, key: jax.Array, num_samples: int) -> dict[str, jax.Array]:
        """Draw all sites from the model; see `Target.prior_predictive`."""
        check_key(key)
        num_samples = integer("num_samples", num_samples)
        try:
            return draw_prior_predictive(self, key, num_samples)
        except NotImplementedError:  # a prior without a sampler, such as ImproperUniform
            return {}

    def runnable(self) -> Callable[..., Any]:
        """Return the model with parameters fixed and a key for ``numpyro.prng_key`` alone."""
        others = ["sample", "plate", "control_flow"]
        return handlers.seed(self.unseeded(), rng_seed=0, hide_types=others)

    def unseeded(self) -> Callable[..., Any]:
        """Return the model with parameters fixed.

        Predictions need this one: ``uncondition`` asks for its key by ``numpyro.prng_key``, and
        a fixed seed inside would give all draws the same noise.
        """
        return handlers.substitute(self.model.value, data=self.fixed.tree)

    def _trace(self, fill: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Run the model with values from ``fill(site)``."""
        return self.run(handlers.substitute(self.runnable(), substitute_fn=fill))

    def run(self, model: Callable[..., Any]) -> dict[str, Any]:
        """Return the NumPyro trace of the model, under handlers, on the target's arguments."""
        args, kwargs = self.arguments.tree
        return handlers.trace(model).get_trace(*args, **kwargs)

    def _latent(self, posterior: Mapping[str, Any], batch_ndims: int) -> dict[str, jax.Array]:
        if not isinstance(posterior, Mapping):
            raise TypeError(f"posterior must be a dict by name, got {posterior!r}")
        draws = {}
        leading = None
        for site in self.sites:
            if site.name not in posterior:
                raise ValueError(f"posterior lacks the latent site {site.name!r}")
            given = real_values(f"posterior[{site.name!r}]", posterior[site.name])
            value = draws[site.name] = jnp.asarray(given)
            leading = value.shape[:batch_ndims] if leading is None else leading
            if len(leading) != batch_ndims or value.shape != (*leading, *site.shape):
                raise ValueError(
                    f"posterior[{site.name!r}] has shape {value.shape}; it must be {site.shape} "
                    f"after {batch_ndims} axes of draws (batch_ndims), the same for all sites"
                )
        return draws

    def _bad_data(self) -> list[str]:
        counts = non_finite_counts(named(*self.arguments.tree))
        return [f"{name} holds {count} non-finite values" for name, count in counts.items()]


def make(
    model: Callable[..., Any], model_args: tuple[Any, ...], model_kwargs: dict[str, Any]
) -> NumPyroTarget:
    """Make a target of a NumPyro model; see `Target.from_numpyro`."""
    if not callable(model):
        raise TypeError(f"model must be callable, got {type(model).__name__}: {model!r}")
    while isinstance(model, functools.partial):
        model_args = (*model.args, *model_args)
        model_kwargs = {**model.keywords, **model_kwargs}
        model = model.func
    data = (model_args, model_kwargs)
    check_arrays(named(*data))
    check_signature(model, *data)
    # A model may need the values of its data, and then perhaps those of NumPy.
    failure: Exception | None = None
    for attempt in (split, freeze, functools.partial(freeze, as_numpy=True)):
        try:
            target, found = _attempt(model, data, attempt)
            break
        except Exception as error:
            failure = failure or error
    else:
        assert failure is not None
        raise ValueError(why_it_fails(model, failure)) from failure
    check_sites(model, found)
    _check_observations(target)
    return target


def _attempt(
    model: Callable[..., Any], data: tuple[Any, Any], attempt: Callable[[Any], Arguments]
) -> tuple[NumPyroTarget, Found]:
    """Make a target whose data are held in one way; raise what the model raises when traced."""
    arguments = attempt(data)
    found = inspect_model(model, arguments)
    target = NumPyroTarget(
        arguments=arguments,
        fixed=split(parameter_values(model, data) if found.has_params else {}),
        model=Static(model),
        sites=found.sites,
        deterministic=found.deterministic,
        observed=found.observed,
        dynamic_data=attempt is split,
    )
    if not found.problems:
        jax.eval_shape(_log_density, target, target.position_shape)
    return target, found


def _check_observations(target: NumPyroTarget) -> None:
    """Raise if observations lie outside a support that no parameter moves."""
    values, outside = _observations(target)
    for name, flags in outside.items():
        count = np.count_nonzero(flags)
        if not count:
            continue
        where = np.argwhere(np.asarray(flags))[0].tolist()
        first = np.broadcast_to(np.asarray(values[name]), flags.shape)[tuple(where)]
        sentences = [
            f"observed site {name!r}: {count} of {flags.size} values lie outside the support of "
            f"its distribution, the first is {first} at {where}",
            *target._bad_data(),
        ]
        raise ValueError("; ".join(sentences))


# Compiled even when called by themselves: NumPyro raises for NaN in what it runs uncompiled, and a
# density there must be NaN.
@functools.partial(jax.jit, inline=True)
def _log_probs(target: NumPyroTarget, position: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Log probability of each site; the log Jacobian is added to its own site."""
    args, kwargs = target.arguments.tree
    fill = functools.partial(constrained_with_log_det, position)
    model = handlers.substitute(target.runnable(), substitute_fn=fill)
    log_probs, trace = compute_log_probs(model, args, kwargs, {})
    for name in target.names:
        log_probs[name] = log_probs[name] + jnp.sum(recorded(trace, "log_det", name))
    return log_probs


@functools.partial(jax.jit, inline=True)
def _log_density(target: NumPyroTarget, position: dict[str, jax.Array]) -> jax.Array:
    return jnp.asarray(sum(_log_probs(target, position).values(), start=0.0))


@functools.partial(jax.jit, inline=True)
def _constrain(target: NumPyroTarget, position: dict[str, jax.Array]) -> dict[str, jax.Array]:
    trace = target._trace(functools.partial(constrained, position))
    names = (*target.names, *target.deterministic)
    return {name: jnp.asarray(trace[name]["value"]) for name in names}


@jax.jit
def _invert(
    target: NumPyroTarget, position: dict[str, jax.Array], given: dict[str, jax.Array]
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Return a position with given values put in, and whether each lies on its support."""
    trace = target._trace(functools.partial(inverted, position, given))
    new = {name: recorded(trace, "position", name) for name in given}
    inside = {name: jnp.all(recorded(trace, "inside", name)) for name in given}
    return {**position, **new}, inside


@jax.jit
def _invert_each(
    target: NumPyroTarget, position: dict[str, jax.Array], given: dict[str, jax.Array]
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    return jax.vmap(_invert, (None, 0, 0))(target, position, given)


@jax.jit
def _valid_start(target: NumPyroTarget, key: jax.Array) -> dict[str, jax.Array]:
    args, kwargs = target.arguments.tree
    (position, _, _), _ = find_valid_initial_params(
        key,
        target.runnable(),
        model_args=args,
        model_kwargs=kwargs,
        prototype_params=_zeros(target),
    )
    return position


@jax.jit
def _observations(target: NumPyroTarget) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Observed values, and where they lie outside a scalar support that nothing moves."""
    trace = target._trace(functools.partial(constrained, _zeros(target)))
    values = {name: jnp.asarray(trace[name]["value"]) for name in target.observed}
    flags = {name: outside_support(trace[name]["fn"], value) for name, value in values.items()}
    return values, {name: flag for name, flag in flags.items() if flag is not None}


def _zeros(target: NumPyroTarget) -> dict[str, jax.Array]:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), target.position_shape)
