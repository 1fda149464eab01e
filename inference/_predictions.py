"""What a NumPyro model says about data, for many draws at once and in bounded memory."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from numpyro import handlers
from numpyro.infer import log_likelihood

# Draws are mapped in batches of about so many numbers.
_BATCH_NUMBERS = 2**22


@functools.partial(jax.jit, static_argnums=2)
def draw_log_likelihood(
    target: Any, draws: dict[str, jax.Array], batch_ndims: int
) -> dict[str, jax.Array]:
    """Log likelihood of each observed site of a `NumPyroTarget` under each draw."""
    args, kwargs = target.arguments.tree
    model = target.runnable()

    def one(draw: dict[str, jax.Array]) -> dict[str, jax.Array]:
        found = log_likelihood(model, draw, *args, batch_ndims=0, **kwargs)
        return {name: found[name] for name in target.observed}

    return _map_draws(one, draws, batch_ndims)


@functools.partial(jax.jit, static_argnums=3)
def draw_predictive(
    target: Any, key: jax.Array, draws: dict[str, jax.Array], batch_ndims: int
) -> dict[str, jax.Array]:
    """Draw the observed sites of a `NumPyroTarget` anew for each draw."""

    def one(draw_and_key: tuple[dict[str, jax.Array], jax.Array]) -> dict[str, jax.Array]:
        draw, key = draw_and_key
        model = handlers.substitute(handlers.uncondition(target.unseeded()), data=draw)
        trace = target.run(handlers.seed(model, rng_seed=key))
        return {name: trace[name]["value"] for name in target.observed}

    shape = next(iter(draws.values())).shape[:batch_ndims]
    return _map_draws(one, (draws, jax.random.split(key, shape)), batch_ndims)


@functools.partial(jax.jit, static_argnums=2)
def draw_prior_predictive(target: Any, key: jax.Array, num_samples: int) -> dict[str, jax.Array]:
    """Draw all sites of a `NumPyroTarget` from its model."""
    names = (*target.names, *target.deterministic, *target.observed)

    def one(key: jax.Array) -> dict[str, jax.Array]:
        model = handlers.seed(handlers.uncondition(target.unseeded()), rng_seed=key)
        trace = target.run(model)
        return {name: trace[name]["value"] for name in names}

    return _map_draws(one, jax.random.split(key, num_samples), 1)


def _map_draws(one: Callable[[Any], Any], draws: Any, batch_ndims: int) -> Any:
    """Map a function over the leading axes of draws, in batches that bound the memory in use."""
    leading = jax.tree.leaves(draws)[0].shape[:batch_ndims]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[batch_ndims:]), draws)
    first = jax.tree.map(lambda leaf: leaf[0], flat)
    out = jax.eval_shape(one, first)
    numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves((first, out)))
    batch = max(1, min(math.prod(leading), _BATCH_NUMBERS // max(1, numbers)))
    mapped = jax.lax.map(one, flat, batch_size=batch)
    return jax.tree.map(lambda leaf: leaf.reshape(*leading, *leaf.shape[1:]), mapped)
