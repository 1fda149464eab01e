"""From what the user gives to a target and a checked start for every chain."""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference.target import Target
from shoal.sampling.core._checks import check_position
from shoal.sampling.core.random import particle_keys


def as_target(
    model: Any, model_args: tuple[Any, ...], model_kwargs: dict[str, Any], init: Any
) -> Target:
    """Make a target of a NumPyro model, a log density (with ``init``) or a target.

    Raises
    ------
    TypeError
        If ``model`` is none of these, or arguments are given to what takes none.
    """
    if isinstance(model, Target):
        if model_args or model_kwargs:
            raise TypeError("model is a Target, which holds its data: leave out model_args/kwargs")
        return model
    if not callable(model):
        raise TypeError(
            "model must be a NumPyro model, a log density or a Target, "
            f"got {type(model).__name__}: {model!r}"
        )
    takes_a_position = _accepts(model, object()) and not model_args and not model_kwargs
    if init is None and takes_a_position and not _accepts(model):
        raise TypeError(
            "init and model_args are missing: model takes one argument, so it is a log density, "
            "which needs init, or a NumPyro model, which needs its data"
        )
    if init is None or not takes_a_position or _is_numpyro_model(model, init):
        return Target.from_numpyro(model, model_args, model_kwargs)
    return Target.from_log_density(model)


def initial_positions(target: Target, init: Any, num_chains: int, key: jax.Array) -> Any:
    """Return unconstrained starts of all chains, leaves of shape ``(num_chains, ...)``.

    Raises
    ------
    TypeError, ValueError
        If ``init`` does not fit the target or the number of chains.
    """
    keys = particle_keys(key, jnp.arange(num_chains))
    if target.is_numpyro:
        return _numpyro_starts(target, init, num_chains, keys)
    if init is None:
        positions = _random_starts(target, keys)
    elif callable(init):
        positions = jax.vmap(init)(keys)
    else:
        check_position("init", init)
        positions = _as_chains(target, jax.tree.map(jnp.asarray, init), num_chains)
    check_position("init", positions)
    return positions


def ensemble_positions(
    target: Target, init: Any, num_chains: int, num_particles: int, key: jax.Array
) -> Any:
    """Return unconstrained starts of all particles, chain after chain, ``(num_chains * n, ...)``.

    Given positions may have leading axes ``(num_chains, num_particles)``, or one for both.

    Raises
    ------
    TypeError, ValueError
        If ``init`` does not fit, or all particles of a chain would start in one place.
    """
    leaves = [] if init is None or callable(init) else jax.tree.leaves(init)
    if leaves and all(np.shape(leaf)[:2] == (num_chains, num_particles) for leaf in leaves):
        merge = lambda leaf: jnp.reshape(jnp.asarray(leaf), (-1, *np.shape(leaf)[2:]))
        init = jax.tree.map(merge, init)
    positions = initial_positions(target, init, num_chains * num_particles, key)
    rows = [
        np.reshape(leaf, (num_chains, num_particles, -1)) for leaf in jax.tree.leaves(positions)
    ]
    together = np.all([(row == row[:, :1]).all(axis=(1, 2)) for row in rows], axis=0)
    if num_particles > 1 and together.any():
        raise ValueError(
            f"init puts all {num_particles} particles of chain {np.argmax(together)} in one place, "
            "where they would stay together: give every particle a start, such as a function "
            "init(key) that draws one"
        )
    return positions


def usable_starts(
    target: Target, positions: Any, bad_starts: str, key: jax.Array
) -> tuple[Any, list[str]]:
    """Return starts at which density and gradient are finite, and what was done for that.

    Parameters
    ----------
    target
        What is sampled.
    positions
        Unconstrained starts, leading chain axis.
    bad_starts
        What to do with the others: ``"raise"``, ``"drop"`` or ``"resample"`` (each becomes a copy
        of a good one, drawn with ``key``).
    key
        Typed key.

    Raises
    ------
    ValueError
        If there are others and they are to raise, or all starts are bad.
    """
    values, gradients = _value_and_gradients(target, positions)
    finite = np.isfinite(np.asarray(values))
    for leaf in jax.tree.leaves(gradients):
        finite &= np.isfinite(np.asarray(leaf)).reshape(len(finite), -1).all(axis=1)
    bad = np.flatnonzero(~finite)
    if not bad.size:
        return positions, []
    if bad_starts == "raise" or not finite.any():
        position = jax.tree.map(lambda leaf: leaf[bad[0]], positions)
        raise ValueError(target.explain_bad_start(position, int(bad[0])))
    rows = np.flatnonzero(finite)
    done = "were dropped"
    if bad_starts == "resample":
        drawn = np.asarray(jax.random.choice(key, rows, (bad.size,)))
        rows, done = np.arange(finite.size), f"became copies of those of chains {drawn.tolist()}"
        rows[bad] = drawn
    return jax.tree.map(lambda leaf: leaf[rows], positions), [
        f"the starts of chains {bad.tolist()}, where density or gradient are not finite, {done}"
    ]


@eqx.filter_jit
def _value_and_gradients(target: Target, positions: Any) -> Any:
    return jax.vmap(jax.value_and_grad(target.log_density))(positions)


def _accepts(model: Callable, *arguments: Any) -> bool:
    try:
        inspect.signature(model).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


def _is_numpyro_model(model: Callable, init: Any) -> bool:
    """Whether a function of one argument draws NumPyro sites instead of returning a density."""
    import numpyro

    argument = jax.eval_shape(init, jax.random.key(0)) if callable(init) else init
    sites: list[str] = []

    def call(argument: Any) -> None:
        with numpyro.handlers.trace() as trace, numpyro.handlers.seed(rng_seed=0):
            model(argument)
        sites.extend(trace)

    # Whatever is wrong shows again, with its own message, where the target is built.
    with contextlib.suppress(Exception):
        eqx.filter_eval_shape(call, argument)
    return bool(sites)


def _as_chains(target: Target, init: Any, num_chains: int) -> Any:
    """Tell a start for each chain from one start for all, by what the log density accepts."""
    leaves = jax.tree.leaves(init)
    stacked = all(leaf.ndim and leaf.shape[0] == num_chains for leaf in leaves)
    one_works, why = _gives_a_scalar(target, init)
    row_works = stacked and _gives_a_scalar(target, jax.tree.map(lambda leaf: leaf[0], init))[0]
    # A lone vector that happens to be as long as there are chains is a point, not a row of scalars.
    lone_vector = len(leaves) == 1 and leaves[0].ndim == 1
    if row_works and not (one_works and lone_vector):
        return init
    if one_works:
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_chains, *leaf.shape)), init)
    shapes = jax.tree.map(jnp.shape, init)
    raise ValueError(
        f"the log density gives no scalar at init, neither as one position nor as "
        f"{num_chains} positions (num_chains) along the leading axis; init has shapes {shapes}: "
        f"{why}"
    )


def _gives_a_scalar(target: Target, position: Any) -> tuple[bool, str]:
    try:
        value = eqx.filter_eval_shape(target.log_density, position)
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"
    if value.shape != ():
        return False, f"it returned shape {value.shape}"
    return True, ""


def _numpyro_starts(target: Any, init: Any, num_chains: int, keys: jax.Array) -> Any:
    random = _random_starts(target, keys)
    if init is None:
        return random
    values = jax.vmap(init)(keys) if callable(init) else init
    return target.place(random, values, num_chains, stacked=callable(init))


@eqx.filter_jit
def _random_starts(target: Target, keys: jax.Array) -> Any:
    return jax.vmap(target.init)(keys)
