"""From a plan to draws with an ensemble method: one chain is one ensemble, its particles the draws.

All steps of a run come before its draws: they are the particles at its end. Replicate ensembles are
run side by side and know nothing of each other, so that comparing them (R-hat) makes sense.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference.chains import Chains, Step, broadcast, guarded_step
from shoal.inference.gradients import gradient_cost
from shoal.inference.run import run
from shoal.sampling.core.algorithm import Sampler
from shoal.sampling.core.mirror import Euclidean
from shoal.sampling.core.random import particle_keys


class Ensemble(eqx.Module):
    """A single ensemble, whose particles the driver may split over devices."""

    sampler: Sampler
    target: Any

    def init(self, positions: Any, key: jax.Array) -> Any:
        """Return the state at ``positions`` of shape ``(1, n, ...)``."""
        position = jax.tree.map(lambda leaf: leaf[0], positions)
        return self.sampler(self.target.log_density).init(position, _key_of_first(key))

    def step(self, key: jax.Array, state: Any) -> tuple[Any, Step]:
        """Advance with the key that `Chains` would give its first chain."""
        return guarded_step(self.sampler, self.target, _key_of_first(key), state)


def _key_of_first(key: jax.Array) -> jax.Array:
    return particle_keys(key, jnp.zeros(1, jnp.int32))[0]


def move_ensembles(
    sampler: Sampler, target: Any, positions: Any, keys: tuple[jax.Array, jax.Array],
    num_steps: int, phase: dict[str, Any],
) -> tuple[Any, Any, int | None]:  # fmt: skip
    """Run ensembles; return the last state (leaves ``(c, n, ...)``), the record and gradients.

    Parameters
    ----------
    sampler, target
        Method and what it moves towards.
    positions
        Starts, leaves ``(c, n, ...)``.
    keys
        For the states and for the steps.
    num_steps
        Steps.
    phase
        Options of the driver.
    """
    num_chains = len(jax.tree.leaves(positions)[0])
    is_split = phase["mesh"] is not None and num_chains == 1
    algorithm: Any
    if is_split:
        algorithm = Ensemble(sampler, target)
    else:
        algorithm = Chains(broadcast(sampler, num_chains), target, jnp.arange(num_chains))
    state = _init(algorithm, positions, keys[0])
    cost = _gradients_per_step(sampler, target, state if is_split else _first(state))
    finished = run(keys[1], algorithm, state, num_steps, **phase)
    state = finished.state
    if is_split:
        state = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], state)
    if cost is None:
        return state, finished, None
    return state, finished, cost * num_chains * finished.num_steps


class Space(NamedTuple):
    """Where an ensemble moves, and the ways there and back; leaves ``(c, n, ...)``.

    Attributes
    ----------
    sampler, target
        With the mirror map, and the density, of that space.
    enter
        From unconstrained positions.
    leave
        Back to unconstrained positions.
    """

    sampler: Sampler
    target: Any
    enter: Callable[[Any], Any]
    leave: Callable[[Any], Any]


def space_of(sampler: Sampler, target: Any) -> Space:
    """Give a mirrored sampler without a map of its own that of a NumPyro model's constrained sites.

    All other samplers move in the model's unconstrained space, where its Jacobian counts.
    """
    mirror = sampler.parameters.get("mirror")
    if not (target.is_numpyro and isinstance(mirror, Euclidean)):
        return Space(sampler, target, lambda positions: positions, lambda positions: positions)
    from shoal.inference._mirrored_target import mirrored_target

    seen = mirrored_target(target)
    return Space(
        sampler.replace(mirror=seen.mirror),
        seen,
        functools.partial(_map_twice, "to_primal", seen),
        functools.partial(_map_twice, "to_unconstrained", seen),
    )


@eqx.filter_jit
def _map_twice(name: str, target: Any, positions: Any) -> Any:
    return jax.vmap(jax.vmap(getattr(target, name)))(positions)


def statistics(target: Any, state: Any, positions: Any) -> tuple[dict[str, np.ndarray], Any]:
    """Return what is told of each particle, ``(c, n)``, and log-weights if some are dead.

    ``positions`` are unconstrained, as the target takes them.
    """
    log_density = np.asarray(_log_densities(target, positions))
    shown = {"lp": log_density, "diverging": np.zeros(log_density.shape, bool)}
    if not hasattr(state, "alive"):
        return shown, None
    alive = np.asarray(state.alive)
    shown["alive"] = alive
    if alive.all() or not alive.any(axis=1).all():
        return shown, None
    count = alive.sum(axis=1, keepdims=True)
    weights = np.where(alive, -np.log(count), -np.inf)
    return shown, weights.astype(log_density.dtype)


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], tree)


@eqx.filter_jit
def _init(algorithm: Any, positions: Any, key: jax.Array) -> Any:
    return algorithm.init(positions, key)


@eqx.filter_jit
def _log_densities(target: Any, positions: Any) -> jax.Array:
    return jax.vmap(jax.vmap(target.log_density))(positions)


def _gradients_per_step(sampler: Sampler, target: Any, state: Any) -> int | None:
    """Gradient evaluations of a step of one ensemble; None where they cannot be counted."""
    try:
        return gradient_cost(sampler, target.log_density, state).per_step
    except TypeError:
        return None
