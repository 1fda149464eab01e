"""A NumPyro model on the spaces of its own constrained sites, with their mirror map.

A site with support positive, above a bound, in an interval or on a simplex keeps its value θ, and
the density is the model's own, without a Jacobian: `shoal.sampling.core.mirror` has a map for it.
All other sites (real ones, correlation matrices, ordered vectors, supports that depend on other
latent sites) keep the unconstrained coordinates z of NumPyro's bijection t, with its Jacobian:

    log p(θ, z) = log joint(θ, t(z)) + log |det dt/dz|.

With η = ∇ψ(θ) the dual density is log p(θ(η), z) + log det ∇²ψ*(η), the push-forward of the same
law. For positive sites and intervals η is NumPyro's own unconstrained value.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.extend.core import Literal
from numpyro import handlers
from numpyro.infer.util import compute_log_probs

from shoal.inference._inspection import Site, check_site_shapes
from shoal.inference._sites import constrained, constrained_with_log_det, inverted, recorded
from shoal.inference.numpyro import NumPyroTarget
from shoal.sampling.core import mirror


class MirroredTarget(eqx.Module):
    """A model's log density over primal positions; made by `mirrored_target`.

    A primal position is a dict by site: the value itself of a site that is mirrored, the
    unconstrained one of any other. Raveled (``jax.flatten_util.ravel_pytree``) it is a point of
    ``mirror``.

    Attributes
    ----------
    target
        The model.
    mirror
        The product of the sites' maps, in the order of their sorted names.
    mirrored
        Names of the sites that are mirrored.
    sites
        Every latent site; its second shape is that in a primal position.
    """

    target: NumPyroTarget
    mirror: mirror.Product
    mirrored: tuple[str, ...] = eqx.field(static=True)
    sites: tuple[Site, ...] = eqx.field(static=True)

    @property
    def dim(self) -> int:
        """Number of dual coordinates, that of unconstrained ones too."""
        return self.target.dim

    def log_density(self, primal: dict[str, jax.Array]) -> jax.Array:
        """Log density at a primal position, a scalar.

        For simplexes it is one with respect to all coordinates but the last.
        """
        check_site_shapes(self.sites, primal)
        return _log_density(self, primal)

    def constrain(self, primal: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Values of latent sites on their supports, and of deterministic sites."""
        check_site_shapes(self.sites, primal)
        return _constrain(self, primal)

    def to_primal(self, position: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Primal position of an unconstrained one of the target."""
        values = self.target.constrain(position)
        return {**position, **{name: values[name] for name in self.mirrored}}

    def to_unconstrained(self, primal: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Unconstrained position of the target: `to_primal`'s inverse.

        Raises
        ------
        ValueError
            If (unless traced) a value lies outside or on the edge of its support.
        """
        values = self.constrain(primal)
        position = self.target.unconstrain({name: values[name] for name in self.target.names})
        free = {name: value for name, value in primal.items() if name not in self.mirrored}
        return {**position, **free}


def mirrored_target(target: NumPyroTarget) -> MirroredTarget:
    """See a NumPyro model on the spaces of its constrained sites.

    The supports' bounds are looked at once: call it outside of compiled functions.

    Parameters
    ----------
    target
        From `Target.from_numpyro`.

    Returns
    -------
    MirroredTarget

    Raises
    ------
    TypeError
        If ``target`` is no NumPyro target.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from shoal.inference import Target
    >>> from shoal.inference._mirrored_target import mirrored_target
    >>> def model():
    ...     numpyro.sample("rate", dist.Gamma(3.0, 1.0))
    >>> seen = mirrored_target(Target.from_numpyro(model))
    >>> print(seen.mirrored, seen.log_density({"rate": jnp.float32(2.0)}).round(3))
    ('rate',) -1.307
    """
    if not isinstance(target, NumPyroTarget):
        raise TypeError(f"target must be a NumPyro model's, got {type(target).__name__}")
    spaces = _spaces(target)
    parts, sites = [], []
    for site in target.sites:
        shape = site.shape if site.name in spaces else site.unconstrained_shape
        sites.append(site._replace(unconstrained_shape=shape))
    for site in sorted(sites):
        space = spaces.get(site.name, _Space())
        parts += [space.part(site)] * (math.prod(site.unconstrained_shape) > 0)
    names = tuple(name for name in target.names if name in spaces)
    return MirroredTarget(target, mirror.product(parts), names, tuple(sites))


class _Space(NamedTuple):
    """Where a site lives: bounds, None if there is none, or a simplex."""

    low: Any = None
    high: Any = None
    is_simplex: bool = False

    def part(self, site: Site) -> tuple[mirror.MirrorMap, int, int]:
        """Return the map, the size and the count of a site, for `mirror.product`."""
        shape = site.unconstrained_shape
        if self.is_simplex:
            return mirror.simplex(), shape[-1], math.prod(shape[:-1])
        low, high = (_spread(bound, shape) for bound in (self.low, self.high))
        if low is None:
            return mirror.euclidean(), math.prod(shape), 1
        chosen = mirror.orthant(low) if high is None else mirror.box(low, high)
        return chosen, math.prod(shape), 1


def _spread(bound: Any, shape: tuple[int, ...]) -> Any:
    """Return a bound for each entry of a site, or one for all."""
    if bound is None or np.ndim(bound) == 0:
        return bound
    return np.broadcast_to(bound, shape).ravel()


def _spaces(target: NumPyroTarget) -> dict[str, _Space]:
    """Return the spaces of the sites that have a map and bounds that no latent site moves."""
    found: dict[str, _Space] = {}

    def bounds(position: dict[str, jax.Array]) -> dict[str, tuple[Any, Any]]:
        trace = _run(target, functools.partial(constrained, position))
        found.update({name: space for name in target.names if (space := _space(trace[name]))})
        return {name: (space.low, space.high) for name, space in found.items()}

    start = {name: jnp.zeros(one.shape, one.dtype) for name, one in target.position_shape.items()}
    jaxpr, shape = jax.make_jaxpr(bounds, return_shape=True)(start)
    moved = jax.tree.unflatten(jax.tree.structure(shape), _depends(jaxpr.jaxpr))
    return {
        name: found[name]._replace(low=low, high=high)
        for name, (low, high) in jax.jit(bounds)(start).items()
        if not any(jax.tree.leaves(moved[name]))
    }


def _depends(jaxpr: Any) -> list[bool]:
    """Say of each output whether any input reaches it."""
    reached = set(jaxpr.invars)
    is_reached = lambda value: not isinstance(value, Literal) and value in reached
    for equation in jaxpr.eqns:
        if any(map(is_reached, equation.invars)):
            reached.update(equation.outvars)
    return list(map(is_reached, jaxpr.outvars))


def _space(site: dict[str, Any]) -> _Space | None:
    support = site["fn"].support
    while isinstance(support, dist.constraints.independent):
        support = support.base_constraint
    # Inside of a scan bounds are those of one step.
    if "_scan_current_index" in site["infer"] and jax.tree.leaves(support):
        return None
    if isinstance(support, type(dist.constraints.simplex)):
        return _Space(is_simplex=True)
    if isinstance(support, dist.constraints.greater_than):
        return _Space(support.lower_bound)
    if isinstance(support, dist.constraints.interval):
        return _Space(support.lower_bound, support.upper_bound)
    return None


def _run(target: NumPyroTarget, fill: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    return target.run(handlers.substitute(target.runnable(), substitute_fn=fill))


def _filled(mirrored: MirroredTarget, primal: dict[str, jax.Array]) -> Callable[..., Any]:
    """Return what puts a primal position into the model, with the log Jacobians on record."""
    given = {name: primal[name] for name in mirrored.mirrored}
    free = {name: value for name, value in primal.items() if name not in given}

    def fill(site: dict[str, Any]) -> Any:
        if site["name"] in given:
            return inverted({}, given, site)
        return constrained_with_log_det(free, site)

    return fill


# Compiled, as NumPyro raises for NaN in what it runs uncompiled.
@functools.partial(jax.jit, inline=True)
def _log_density(mirrored: MirroredTarget, primal: dict[str, jax.Array]) -> jax.Array:
    target = mirrored.target
    args, kwargs = target.arguments.tree
    model = handlers.substitute(target.runnable(), substitute_fn=_filled(mirrored, primal))
    log_probs, trace = compute_log_probs(model, args, kwargs, {})
    free = [name for name in target.names if name not in mirrored.mirrored]
    log_dets = [jnp.sum(recorded(trace, "log_det", name)) for name in free]
    return jnp.asarray(sum((*log_probs.values(), *log_dets), start=0.0))


@functools.partial(jax.jit, inline=True)
def _constrain(mirrored: MirroredTarget, primal: dict[str, jax.Array]) -> dict[str, jax.Array]:
    trace = _run(mirrored.target, _filled(mirrored, primal))
    names = (*mirrored.target.names, *mirrored.target.deterministic)
    return {name: jnp.asarray(trace[name]["value"]) for name in names}
