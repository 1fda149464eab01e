"""Chains side by side: one sampler's algorithm mapped over chains, with a guard and common names.

The samplers of this package and those of BlackJAX report different fields. Here they meet: each
step yields a `Step` with the same statistics, a `Status` and no state that is not finite.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.inference.devices import Layout
from shoal.sampling.core.algorithm import Sampler, Status
from shoal.sampling.core.random import particle_keys

# ArviZ's name of a statistic, and where it may stand in an algorithm's info.
_STATISTICS = {
    "acceptance_rate": "acceptance_rate",
    "energy": "energy",
    "energy_error": "energy_error",
    "n_steps": "num_integration_steps",
    "tree_depth": "num_trajectory_expansions",
}


class Step(NamedTuple):
    """What one step of one chain reports.

    Attributes
    ----------
    statistics
        Scalars by ArviZ's names; always ``lp`` (log density of the unconstrained position) and
        ``diverging``.
    status
        int8 `Status` code.
    moved
        Whether the position changed.
    """

    statistics: dict[str, jax.Array]
    status: jax.Array
    moved: jax.Array


class Chains(eqx.Module):
    """Independent chains of one sampler on one target, as one algorithm.

    Attributes
    ----------
    sampler
        A `Sampler` whose leaves have a leading chain axis: every chain has its own parameters.
    target
        Has ``log_density(position)``; a pytree, so that its data are arguments of what is compiled.
    ids
        Chain ids, int32 ``(num_chains,)``.
    """

    sampler: Sampler
    target: Any
    ids: jax.Array

    def layout(self, states: Any) -> Layout:
        """Tell the driver that all but the target has a leading chain axis."""
        return Layout(Chains(True, False, True), True)  # type: ignore[arg-type]

    def init(self, positions: Any, key: jax.Array) -> Any:
        """Return the states of all chains at ``positions`` (leading chain axis)."""

        def one(sampler: Sampler, position: Any, key: jax.Array) -> Any:
            return sampler(self.target.log_density).init(position, key)

        return jax.vmap(one)(self.sampler, positions, particle_keys(key, self.ids))

    def step(self, key: jax.Array, states: Any) -> tuple[Any, Step]:
        """Advance every chain by one step; chain i uses the key ``fold_in(key, ids[i])``."""

        def one(sampler: Sampler, key: jax.Array, state: Any) -> tuple[Any, Step]:
            return guarded_step(sampler, self.target, key, state)

        return jax.vmap(one)(self.sampler, particle_keys(key, self.ids), states)


def broadcast(sampler: Sampler, num_chains: int) -> Sampler:
    """Give every chain its own copy of a sampler's parameters."""
    copy = lambda leaf: jnp.broadcast_to(jnp.asarray(leaf), (num_chains, *jnp.shape(leaf)))
    return jax.tree.map(copy, sampler)


def log_density_of(state: Any) -> jax.Array:
    """Return the log density that a state carries, NaN where it carries none."""
    for name in ("log_density", "logdensity"):
        if hasattr(state, name):
            return getattr(state, name)
    return jnp.asarray(jnp.nan)


def guarded_step(sampler: Sampler, target: Any, key: jax.Array, state: Any) -> tuple[Any, Step]:
    """Advance one chain, or one ensemble, whose statuses are then those of its particles."""
    new, info = sampler(target.log_density).step(key, state)
    return _guard(state, new, info)


def _guard(old: Any, new: Any, info: Any) -> tuple[Any, Step]:
    """Read off what the step reports and keep the old state where the new one is not finite."""
    if hasattr(info, "status"):
        status = info.status
    else:
        new, status = _judge(old, new, info)
    statistics = {
        name: getattr(info, field) for name, field in _STATISTICS.items() if hasattr(info, field)
    }
    if "acceptance_rate" in statistics:  # NaN where a trajectory ended in NaN
        rate = statistics["acceptance_rate"]
        statistics["acceptance_rate"] = jnp.where(jnp.isnan(rate), 0, rate)
    if hasattr(info, "energy_change"):  # MCLMC's word for it
        statistics["energy_error"] = info.energy_change
    statistics["lp"] = log_density_of(new)
    statistics["diverging"] = status == Status.DIVERGENCE
    changed = [
        jnp.any(a != b)
        for a, b in zip(jax.tree.leaves(old.position), jax.tree.leaves(new.position), strict=True)
    ]
    return new, Step(statistics, status, jnp.any(jnp.stack(changed)))


def _judge(old: Any, new: Any, info: Any) -> tuple[Any, jax.Array]:
    """Status of a step by an algorithm that reports none, and the state that is safe to keep."""
    log_density = log_density_of(new)
    has_density = hasattr(new, "log_density") or hasattr(new, "logdensity")
    finite = jnp.asarray(True)
    for leaf in jax.tree.leaves(new.position):
        finite = finite & jnp.isfinite(leaf).all()
    if has_density:
        finite = finite & jnp.isfinite(log_density)
    if hasattr(info, "nonans"):
        finite = finite & info.nonans
    diverging = getattr(info, "is_divergent", False)
    status = jnp.where(diverging, Status.DIVERGENCE, Status.OK)
    status = jnp.where(finite, status, Status.NONFINITE_LOG_DENSITY).astype(jnp.int8)
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old), status
