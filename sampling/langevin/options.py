"""What Langevin samplers share: checks of hyperparameters and starts, and how one is made."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.flatten_util import ravel_pytree

from shoal.sampling.core._checks import (
    check_callable,
    check_finite,
    check_position,
    real_parameter,
    real_scalar,
)
from shoal.sampling.core.algorithm import LogDensity, Position, Sampler
from shoal.sampling.langevin.metric import Metric


@functools.cache
def check_positive(name: str, allow_zero: bool = False) -> Callable[[Any], Any]:
    """Return a function that passes a positive (or non-negative) finite number on.

    It raises ``TypeError`` for what is no real number and ``ValueError`` for one out of range,
    naming ``name`` and the value. Cached, so that equal checks are identical objects.
    """
    wanted = "non-negative and finite" if allow_zero else "positive and finite"
    return functools.partial(
        real_parameter, name, low=0.0, include_low=allow_zero, scalar=True, wanted=wanted
    )


def make_sampler(
    build: Callable[..., Any],
    parameters: Mapping[str, Any],
    prepare: Mapping[str, Callable[[Any], Any]],
    **settings: Any,
) -> Sampler:
    """Return a `Sampler` whose parameters have gone through their checks, now and in ``replace``.

    Parameters
    ----------
    build
        As in `Sampler`.
    parameters
        Dynamic hyperparameters by name, as the user gave them.
    prepare
        Check or conversion of each, by name.
    settings
        Further fields of `Sampler`: ``options``, ``target_acceptance``, ``is_adjusted``.
    """
    prepared = {name: prepare[name](value) for name, value in parameters.items()}
    return Sampler(build, prepared, prepare=tuple(prepare.items()), **settings)


def evaluate_start(
    log_density: LogDensity, position: Position, metric: Metric
) -> tuple[jax.Array, jax.Array]:
    """Return log density and score, flat, of a start.

    Raises
    ------
    TypeError, ValueError
        If ``log_density`` is no function to a floating scalar, ``position`` holds no floats or
        does not fit the metric, or (unless traced) a number of either is not finite: a chain
        would never leave from there.
    """
    check_callable("log_density", log_density)
    check_position("position", position)
    x, unravel = ravel_pytree(position)
    metric.check(x.size)
    evaluate = lambda flat: real_scalar("log_density", log_density(unravel(flat)))
    value, score = jax.value_and_grad(evaluate)(x)
    check_finite("log_density at the start", value)
    for path, leaf in jax.tree_util.tree_leaves_with_path(unravel(score)):
        where = f"position{jax.tree_util.keystr(path)}"
        check_finite(f"the gradient of log_density in {where} at the start", leaf)
    return value, score
