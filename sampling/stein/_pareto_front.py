"""Dominance, hypervolume, and the points that add most of it; all objectives are minimised."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import check_finite, real_values


def nondominated(points: Any) -> np.ndarray:
    """Tell which points no other point dominates.

    A point dominates another if it is nowhere larger and somewhere smaller. Equal points do not
    dominate each other. A point with an entry that is not finite counts as dominated.

    Parameters
    ----------
    points
        Shape ``(n, m)``, real.

    Returns
    -------
    np.ndarray
        bool ``(n,)``.

    Raises
    ------
    TypeError, ValueError
        If ``points`` is not real or not of that shape.

    Examples
    --------
    >>> import numpy as np
    >>> nondominated(np.array([[0.0, 2.0], [1.0, 1.0], [1.0, 3.0], [np.nan, 0.0]])).tolist()
    [True, True, False, False]
    """
    array = np.asarray(real_values("points", points))
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(f"points must have shape (n, m), got {array.shape}")
    valid = np.isfinite(array).all(1)
    no_worse, better = np.ones((len(array),) * 2, bool), np.zeros((len(array),) * 2, bool)
    for column in np.where(valid[:, None], array, np.inf).T:
        no_worse &= column[:, None] <= column
        better |= column[:, None] < column
    return valid & ~(no_worse & better).any(0)


def hypervolume(points: Any, reference: Any) -> jax.Array:
    """Return the volume that is dominated by points, up to a reference point.

    It is exact up to rounding, by sorting for two objectives, O(n log n), and by a sweep along the
    third for three, O(n²). Points beyond the reference point add nothing.

    Parameters
    ----------
    points
        Shape ``(n, m)`` with m of 2 or 3, finite; n may be 0.
    reference
        Shape ``(m,)``, finite.

    Returns
    -------
    jax.Array
        Scalar in the floating dtype that both share.

    Raises
    ------
    TypeError, ValueError
        If the arrays are not real, finite and of these shapes.

    Notes
    -----
    It may be compiled and differentiated. Without 64 bits enabled it is computed in float32.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(hypervolume(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.array([2.0, 2.0])))
    3.0
    """
    points, reference = real_values("points", points), real_values("reference", reference)
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise ValueError(f"points must have shape (n, 2) or (n, 3), got {points.shape}")
    if reference.shape != points.shape[1:]:
        raise ValueError(f"reference must have shape {points.shape[1:]}, got {reference.shape}")
    check_finite("points", points)
    check_finite("reference", reference)
    dtype = jnp.result_type(points, reference, jnp.float32)
    return dominated_volume(jnp.asarray(points, dtype), jnp.asarray(reference, dtype))


@jax.jit
def dominated_volume(points: jax.Array, reference: jax.Array) -> jax.Array:
    """Return the hypervolume of ``(n, m)``, where infinite points add nothing."""
    order = jnp.argsort(points[:, 0])
    points = jnp.minimum(points[order], reference)
    widths = jnp.diff(points[:, 0], append=reference[0])
    depths = reference[1] - points[:, 1]
    if reference.size == 2:
        return _area(widths, depths)
    heights = jnp.sort(points[:, 2])
    # Between two heights the slice is that of the points below.
    slices = jax.vmap(lambda z: _area(widths, jnp.where(points[:, 2] <= z, depths, 0)))(heights)
    return jnp.sum(slices * jnp.diff(heights, append=reference[2]))


def _area(widths: jax.Array, depths: jax.Array) -> jax.Array:
    return jnp.sum(widths * jax.lax.cummax(depths))


@functools.partial(jax.jit, static_argnames="num")
def choose_greedily(
    values: jax.Array, front: jax.Array, reference: jax.Array, num: int
) -> jax.Array:
    """Return indices ``(num,)`` of values that add most to a front's hypervolume, one by one.

    ``front`` may be padded with infinite points. None is chosen twice; where none adds anything it
    is the first that is left.
    """

    def choose(carry: tuple[jax.Array, jax.Array], place: jax.Array) -> Any:
        front, is_left = carry
        volumes = jax.vmap(lambda value: dominated_volume(front.at[place].set(value), reference))
        best = jnp.argmax(jnp.where(is_left, volumes(values), -1))
        return (front.at[place].set(values[best]), is_left.at[best].set(False)), best

    room = jnp.full((num, front.shape[1]), jnp.inf, front.dtype)
    start = jnp.concatenate([front, room]), jnp.ones(len(values), bool)
    return jax.lax.scan(choose, start, len(front) + jnp.arange(num))[1]
