"""States of the integrators that evaluate the density inside a step, not where it ends."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from shoal.sampling.core.algorithm import Position
from shoal.sampling.langevin.metric import Metric


class Evaluation(NamedTuple):
    """A point at which the log density and its gradient were evaluated.

    Attributes
    ----------
    position
        The point, flat, ``(d,)``.
    log_density
        Log density there, a scalar.
    score
        Its gradient there, flat, ``(d,)``.
    """

    position: jax.Array
    log_density: jax.Array
    score: jax.Array


class MidpointState(NamedTuple):
    """Where a chain of `aboba`, `ubu` or `quicsort` is, a point that none of them evaluates.

    Attributes
    ----------
    position
        The point, a pytree of floating arrays.
    momentum
        Whitened momentum w, flat, ``(d,)``; the velocity is L w.
    evaluated
        `Evaluation` of the point inside the last step at which the gradient was taken last (at
        first, of the start). There is no ``log_density`` of the position itself.
    """

    position: Position
    momentum: jax.Array
    evaluated: Evaluation


def leapfrog_work(metric: Metric, t: Any, start: Evaluation, end: Evaluation) -> jax.Array:
    """Return the kinetic energy that a leapfrog step of size t from start to end gains.

    It is (z - y)·(s(y) + s(z)) / 2 + (t²/8) (|Lᵀs(z)|² - |Lᵀs(y)|²), whatever the momentum. Added
    to the change of -log π it is the step's energy error.
    """
    norms = metric.whiten(end.score) ** 2 - metric.whiten(start.score) ** 2
    way = end.position - start.position
    return jnp.sum(way * (start.score + end.score) / 2 + t**2 / 8 * norms)
