"""Ensembles: a pytree with a leading particle axis, as a matrix, with weights in log space."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree


def to_matrix(particles: Any) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """Lay an ensemble out as a matrix with a row for each particle.

    Parameters
    ----------
    particles
        Pytree whose leaves have shape ``(n, ...)``.

    Returns
    -------
    matrix
        Shape ``(n, d)``, in the leaves' common dtype.
    from_matrix
        Maps any ``(m, d)`` matrix back to a pytree with leaves ``(m, ...)``, in the leaves' dtypes.

    Raises
    ------
    ValueError
        If there are no leaves or they disagree on ``n``; the message names the leaf.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> matrix, from_matrix = to_matrix({"a": jnp.zeros((5, 2)), "b": jnp.ones(5)})
    >>> matrix.shape, from_matrix(matrix)["b"].shape
    ((5, 3), (5,))
    """
    leaves = jax.tree_util.tree_leaves_with_path(particles)
    if not leaves:
        raise ValueError("particles has no array in it; give a pytree of arrays of shape (n, ...)")
    num = {jnp.shape(leaf)[:1] for _, leaf in leaves}
    if len(num) > 1 or () in num:
        shapes = {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
        raise ValueError(
            f"particles must share one leading axis (a row for each particle); got shapes {shapes}"
        )
    one = jax.tree.map(
        lambda leaf: jnp.zeros(jnp.shape(leaf)[1:], jnp.result_type(leaf)), particles
    )
    unravel = ravel_pytree(one)[1]
    matrix = jax.vmap(lambda particle: ravel_pytree(particle)[0])(particles)
    return matrix, jax.vmap(unravel)


def normalize_log_weights(log_weights: jax.Array) -> jax.Array:
    """Shift log-weights of shape ``(..., n)`` so that the weights sum to one on the last axis.

    Weights that are all zero (every log-weight -inf) become uniform: they say nothing.
    """
    total = jax.nn.logsumexp(log_weights, axis=-1, keepdims=True)
    uniform = -jnp.log(jnp.asarray(log_weights.shape[-1], log_weights.dtype))
    dead = total == -jnp.inf
    return jnp.where(dead, uniform, log_weights - jnp.where(dead, 0, total))


def effective_sample_size(log_weights: jax.Array) -> jax.Array:
    """Kish's effective sample size, ``(sum w)^2 / sum w^2``, of log-weights ``(..., n)``.

    Between 1 (one particle carries all) and n (equal weights), whatever the weights' scale.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(effective_sample_size(jnp.array([0.0, 0.0, -jnp.inf, -jnp.inf])))
    2.0
    """
    return jnp.exp(-jax.nn.logsumexp(2 * normalize_log_weights(log_weights), axis=-1))


def systematic_resampling(
    key: jax.Array, log_weights: jax.Array, num: int | None = None
) -> jax.Array:
    """Draw the indices of survivors by one uniform number (systematic resampling).

    Particle i is copied either ``floor(num * w_i)`` or ``ceil(num * w_i)`` times, ``num * w_i``
    times on average; a particle of zero weight is never copied.

    Parameters
    ----------
    key
        Typed key of shape ``()``.
    log_weights
        Shape ``(n,)``, any scale.
    num
        Number of survivors; ``n`` when None.

    Returns
    -------
    jax.Array
        int32 indices, shape ``(num,)``, ascending.

    References
    ----------
    Douc, Cappé, Moulines, "Comparison of resampling schemes for particle filtering", ISPA 2005,
    section 2.4.
    """
    num = log_weights.shape[0] if num is None else num
    weights = jnp.exp(normalize_log_weights(log_weights))
    # Dividing by the last partial sum makes it exactly one, so that rounding cannot send the
    # last point beyond the last particle that has a weight.
    levels = jnp.cumsum(weights)
    levels = levels / levels[-1]
    points = (jnp.arange(num) + jax.random.uniform(key, dtype=levels.dtype)) / num
    below_one = jnp.minimum(points, 1 - jnp.finfo(levels.dtype).epsneg)
    return jnp.searchsorted(levels, below_one, side="right").astype(jnp.int32)
