"""What samplers with an estimated score share: starts, batches, step sizes, how one is made."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core._checks import check_finite, check_position, real_parameter
from shoal.sampling.core.algorithm import Position, Sampler, proposal_status
from shoal.sampling.core.random import check_key
from shoal.sampling.langevin.gradient_estimators import StochasticDensity
from shoal.sampling.langevin.metric import Metric, as_metric
from shoal.sampling.langevin.options import check_positive, make_sampler

_CHECKS: dict[str, Callable[[Any], Any]] = {
    "step_size": check_positive("step_size"),
    "metric": as_metric,
    "temperature": check_positive("temperature"),
    "thermostat_mass": check_positive("thermostat_mass"),
    "gradient_noise": functools.partial(
        real_parameter, "gradient_noise", low=0.0, include_low=True, wanted="non-negative"
    ),
}


class Start(NamedTuple):
    """The fields that the states of all these samplers begin with."""

    position: Position
    log_density: jax.Array
    score: jax.Array
    memory: Any
    num_steps: jax.Array


def stochastic_sampler(
    build: Any, step_size: Any, metric: Any, temperature: Any, **others: Any
) -> Sampler:
    """Return a `Sampler` whose step size is a number, a parameter, or a schedule, an option."""
    parameters = {"metric": metric, "temperature": temperature, **others}
    options: tuple[tuple[str, Any], ...] = ()
    if callable(step_size):
        real_parameter("step_size(0)", step_size(0), 0.0, include_low=True, scalar=True)
        options = (("schedule", step_size),)
    else:
        parameters["step_size"] = step_size
    has_thermostat = "thermostat_mass" in others
    checks = {**_CHECKS, "friction": check_positive("friction", allow_zero=not has_thermostat)}
    prepare = {name: checks[name] for name in parameters}
    return make_sampler(build, parameters, prepare, options=options, is_adjusted=False)


def start(
    density: StochasticDensity, position: Position, metric: Metric, key: Any, batch: Any
) -> Start:
    """Return a start, checked, with the estimates there."""
    check_position("position", position)
    metric.check(ravel_pytree(position)[0].size)
    if key is not None:
        check_key(key)
    batch = next_batch(density, key, batch)
    memory = density.init(position)
    (value, gradient), memory = density.estimate(position, batch, memory)
    check_finite("log_density at the start", value)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        where = f"position{jax.tree_util.keystr(path)}"
        check_finite(f"the gradient of log_density in {where} at the start", leaf)
    score = ravel_pytree(gradient)[0]
    return Start(position, value, score, memory, jnp.zeros((), jnp.int32))


def next_batch(density: StochasticDensity, key: Any, batch: Any) -> Any:
    """Return the batch that was given, else draw one."""
    return density.draw(key) if batch is None else batch


def estimate_at(
    density: StochasticDensity, position: Position, batch: Any, memory: Any
) -> tuple[tuple[jax.Array, jax.Array, Any], jax.Array]:
    """Return estimates of value and score, the new memory and the status of a new point."""
    (value, gradient), memory = density.estimate(position, batch, memory)
    score = ravel_pytree(gradient)[0]
    # One sum: a number that is not finite in either makes it so.
    is_finite = jnp.isfinite(jnp.sum(score) + jnp.sum(ravel_pytree(position)[0]))
    return (value, score, memory), proposal_status(value, is_finite)


def step_size_at(step_size: Any, schedule: Any, num_steps: jax.Array, dtype: Any) -> jax.Array:
    """Return h of the step that comes after ``num_steps``."""
    return jnp.asarray(step_size if schedule is None else schedule(num_steps), dtype)
