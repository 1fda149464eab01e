"""What Langevin samplers share: checks of starts; `make_sampler` and `check_positive` of core."""

import jax
from jax.flatten_util import ravel_pytree

from shoal.sampling.core._checks import (
    check_callable,
    check_finite,
    check_position,
    real_scalar,
)
from shoal.sampling.core._hyperparameters import check_positive, make_sampler
from shoal.sampling.core.algorithm import LogDensity, Position
from shoal.sampling.langevin.metric import Metric

__all__ = ["check_positive", "evaluate_start", "make_sampler"]


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
