"""The interacting Langevin dynamics of `shoal.sampling.langevin.ensemble`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import check_finite, real_scalar
from shoal.sampling.core.algorithm import (
    Algorithm,
    LogDensity,
    Position,
    Status,
    proposal_status,
)
from shoal.sampling.core.particles import to_matrix
from shoal.sampling.core.random import check_key, particle_keys
from shoal.sampling.langevin._stretch_move import check_ensemble


class AldiState(NamedTuple):
    """An ensemble with its scores.

    Attributes
    ----------
    position
        Pytree of floating arrays ``(J, ...)``.
    log_density
        ``(J,)``.
    score
        ``(J, d)``: gradients of the log density; of `kalman_aldi` the log prior's.
    image
        ``(J, m)``: the forward map of the particles; no column for `aldi`.
    alive
        bool ``(J,)``: the particles that count. One whose new point, log density or gradient is not
        finite stays where it was and counts no more.
    """

    position: Position
    log_density: jax.Array
    score: jax.Array
    image: jax.Array
    alive: jax.Array


class AldiInfo(NamedTuple):
    """What happened in a step.

    Attributes
    ----------
    step_size
        The step that was made, a scalar: the time that the new points stand for.
    status
        int8 `Status` codes ``(J,)``, ``FROZEN`` for the dead.
    """

    step_size: jax.Array
    status: jax.Array


def build_aldi(log_density: LogDensity, step_size: Any, **flags: bool) -> Algorithm:
    def evaluate(point: Position) -> tuple[jax.Array, Any, jax.Array]:
        value, gradient = jax.value_and_grad(_scalar(log_density))(point)
        return value, gradient, jnp.zeros(0, value.dtype)

    def misfit(image: jax.Array) -> jax.Array:
        return image

    return _langevin(log_density, evaluate, misfit, step_size, **flags)


def build_kalman_aldi(
    log_density: LogDensity,
    step_size: Any,
    observation: jax.Array,
    whitener: jax.Array,
    forward: Callable[[Position], jax.Array],
    **flags: bool,
) -> Algorithm:
    """Images are whitened: what is kept of G(x) is R G(x) with RᵀR = Γ⁻¹."""
    white_observation = whitener @ observation

    def evaluate(point: Position) -> tuple[jax.Array, Any, jax.Array]:
        prior, gradient = jax.value_and_grad(_scalar(log_density))(point)
        output = forward(point)
        if jnp.shape(output) != observation.shape:
            raise ValueError(
                f"forward must return shape {observation.shape}, that of observation, got shape "
                f"{jnp.shape(output)}"
            )
        image = whitener @ output
        return prior - 0.5 * jnp.sum((image - white_observation) ** 2), gradient, image

    def misfit(image: jax.Array) -> jax.Array:
        return image - white_observation

    return _langevin(log_density, evaluate, misfit, step_size, **flags)


def _langevin(
    log_density: LogDensity,
    evaluate: Any,
    misfit: Callable[[jax.Array], jax.Array],
    step_size: Any,
    has_correction: bool,
    is_adaptive: bool,
) -> Algorithm:
    """ALDI, with ``evaluate(point) -> (log density, gradient, image)``."""

    def evaluate_all(position: Position) -> tuple[jax.Array, jax.Array, jax.Array]:
        values, gradients, images = jax.vmap(evaluate)(position)
        return values, to_matrix(gradients)[0], images

    def init(position: Position, key: jax.Array | None = None) -> AldiState:
        num, dim = check_ensemble(log_density, position)
        if num <= dim + 1:
            raise ValueError(
                f"position holds {num} particles of {dim} coordinates; ALDI needs more than "
                f"{dim + 1}, lest the particles stay in a subspace"
            )
        values, scores, images = evaluate_all(position)
        check_finite("log_density at the start", values)
        check_finite("the gradient of log_density at the start", scores)
        check_finite("forward at the start", images)
        return AldiState(position, values, scores, images, jnp.ones(num, bool))

    def step(key: jax.Array, state: AldiState) -> tuple[AldiState, AldiInfo]:
        check_key(key)
        x, from_matrix = to_matrix(state.position)
        num, dim = x.shape
        alive = state.alive
        count = jnp.maximum(jnp.sum(alive), 1).astype(x.dtype)
        spread = _centred(x, alive, count)
        # D_jk: by how much of x_k - m particle j is driven.
        push = (state.score @ spread.T) / count
        push = push - misfit(state.image) @ _centred(state.image, alive, count).T / count
        h = jnp.asarray(step_size, x.dtype)
        if is_adaptive:
            h = h / (1 + jnp.sqrt(jnp.sum(jnp.where(alive[:, None], push, 0) ** 2)))
        draw = lambda k: jax.random.normal(k, (num,), x.dtype)
        noise = jax.vmap(draw)(particle_keys(key, jnp.arange(num)))
        move = (h * push + jnp.sqrt(2 * h / count) * noise) @ spread
        if has_correction:
            move = move + h * (dim + 1) / count * spread
        new = from_matrix(x + move)
        values, scores, images = evaluate_all(new)
        finite = jnp.isfinite(scores).all(1) & jnp.isfinite(images).all(1)
        status = proposal_status(values, finite & jnp.isfinite(x + move).all(1))
        status = jnp.where(alive, status, jnp.int8(Status.FROZEN))
        moves = status == Status.OK
        proposed = AldiState(new, values, scores, images, moves)
        keep = state._replace(alive=moves)
        where = lambda a, b: jnp.where(moves.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        return jax.tree.map(where, proposed, keep), AldiInfo(h, status)

    return Algorithm(init, step)


def _centred(rows: jax.Array, alive: jax.Array, count: jax.Array) -> jax.Array:
    """Rows minus the mean of the living ones; zero for the dead."""
    living = alive[:, None]
    mean = jnp.sum(jnp.where(living, rows, 0), 0) / count
    return jnp.where(living, rows - mean, 0)


def _scalar(log_density: LogDensity) -> LogDensity:
    return lambda point: real_scalar("log_density", log_density(point))
