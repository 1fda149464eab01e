"""From data to noise along the probability-flow equation, and between two points of data.

The equation can be solved either way. From the data upwards it ends at the noise that would give
these data back (DDIM inversion; Song, Meng and Ermon 2021, section 4.3), in one to one
correspondence but for the solver's error. Between two such encodings, each about a standard normal
in many dimensions, the path of typical points is an arc of a great circle,

    z(w) = (sin((1 - w) θ) z_0 + sin(w θ) z_1) / sin θ,   θ the angle of z_0 and z_1

(section 5.3 there), and decoded it runs from one point of data to the other.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import Schedule
from shoal.sampling.diffusion import grids
from shoal.sampling.diffusion.solver import Record, Solver, solve

# So near to one direction the arc is a line to rounding; of opposite points there is no one arc.
_SMALLEST_SINE = 1e-3


def encode(
    denoiser: Denoiser, schedule: Schedule, solver: Solver, samples: jax.Array, num_steps: int,
    grid: Any = "logsnr", lower_order_final: bool = True, *, trajectory: bool = False,
) -> tuple[jax.Array, Record]:  # fmt: skip
    """Carry data to the noise that gives them back.

    Parameters
    ----------
    denoiser, schedule, num_steps, lower_order_final, trajectory
        As in `solve`.
    solver
        One without noise of its own.
    samples
        Data at the last time of the grid, ``(n, ...)``, float32 or float64.
    grid
        As in `solve`, from noise to data; it is walked backwards.

    Returns
    -------
    jax.Array
        Noise at the first time of the grid, ``(n, ...)``: about sigma times standard normals.
    Record
        As of `solve`.

    Raises
    ------
    TypeError, ValueError
        For impossible arguments, and for a solver that draws noise.

    Examples
    --------
    >>> from shoal.sampling.diffusion import ddim, edm
    >>> denoiser = Denoiser(lambda x, t: x * 0.25 / (0.25 + t**2), "data")
    >>> noise, _ = encode(denoiser, edm(), ddim(), jnp.ones((1, 2)), 200)
    >>> data, _ = solve(denoiser, edm(), ddim(), noise, 200)
    >>> data.round(1)
    Array([[1., 1.]], dtype=float32)
    """
    rule = lambda schedule, num: grids.half_log_snrs(schedule, grid, num)[::-1]
    event = np.shape(samples)[1:]
    samples = _checks.real_array("samples", samples, ("n", *event))
    return solve(
        denoiser, schedule, solver, samples, num_steps, rule, lower_order_final,
        trajectory=trajectory,
    )  # fmt: skip


def interpolate(
    denoiser: Denoiser, schedule: Schedule, solver: Solver, first: jax.Array, second: jax.Array,
    num_points: int, num_steps: int, grid: Any = "logsnr", lower_order_final: bool = True,
) -> jax.Array:  # fmt: skip
    """Walk from data to other data: encode both, go along the arc between, and decode.

    Parameters
    ----------
    denoiser, schedule, solver, num_steps, grid, lower_order_final
        As in `encode`. What the denoiser is conditioned on must be the same for all points.
    first, second
        Data, both ``(n, ...)``: n pairs.
    num_points
        Points on each arc, with both ends, at least 2.

    Returns
    -------
    jax.Array
        Shape ``(num_points, n, ...)``, at even angles.

    Raises
    ------
    TypeError, ValueError
        For impossible arguments.

    Examples
    --------
    >>> from shoal.sampling.diffusion import ddim, edm
    >>> denoiser = Denoiser(lambda x, t: x * 0.25 / (0.25 + t**2), "data")
    >>> ends = jnp.ones((2, 1, 2)) * jnp.array([[1.0], [-0.5]])[:, None]
    >>> interpolate(denoiser, edm(), ddim(), *ends, 3, 100).shape
    (3, 1, 2)
    """
    num_points = _checks.integer("num_points", num_points, 2)
    event = np.shape(first)[1:]
    first = _checks.real_array("first", first, ("n", *event))
    second = _checks.real_array("second", second, first.shape)
    num = first.shape[0]
    both = jnp.concatenate([first, second])
    noise, _ = encode(denoiser, schedule, solver, both, num_steps, grid, lower_order_final)
    weights = jnp.linspace(0, 1, num_points, dtype=first.dtype)
    arcs = arc(noise[:num], noise[num:], weights)
    start = arcs.reshape(-1, *event)
    end, _ = solve(denoiser, schedule, solver, start, num_steps, grid, lower_order_final)
    return end.reshape(arcs.shape)


def arc(first: jax.Array, second: jax.Array, weights: jax.Array) -> jax.Array:
    """Interpolate along great circles; opposite points along the line.

    Parameters
    ----------
    first, second
        Ends, ``(n, ...)``; each of the n is one vector.
    weights
        How far to go from ``first``, ``(k,)`` in [0, 1].

    Returns
    -------
    jax.Array
        Shape ``(k, n, ...)``.

    Examples
    --------
    >>> x, y = jnp.eye(2)[:, None]
    >>> arc(x, y, jnp.array([0.5])).round(4)
    Array([[[0.7071, 0.7071]]], dtype=float32)
    """
    axes = tuple(range(1, first.ndim))
    inner = lambda a, b: jnp.sum(a * b, axes, keepdims=True)
    size = jnp.sqrt(inner(first, first) * inner(second, second))
    cosine = inner(first, second) / jnp.where(size > 0, size, 1)
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    is_line = jnp.sin(angle) < _SMALLEST_SINE
    angle = jnp.where(is_line, 1, angle)
    w = weights.reshape(-1, *[1] * first.ndim)
    left = jnp.where(is_line, 1 - w, jnp.sin((1 - w) * angle) / jnp.sin(angle))
    right = jnp.where(is_line, w, jnp.sin(w * angle) / jnp.sin(angle))
    return left * first + right * second
