"""Ensembles: a pytree with a leading particle axis, as a matrix, with weights in log space.

A particle whose step is not finite dies: it keeps its last finite position and counts no more,
while the others go on. A method with an ensemble keeps ``alive``, bool ``(n,)``, in its state and

1. sums over ``park_dead(position, alive)``, where the dead sit in one harmless place;
2. gives the dead no weight: ``jnp.where(alive[:, None], score, 0)`` for values (zero times the NaN
   of a dead particle's score would be NaN) and ``alive.astype(dtype)`` for weights of
   `pairwise`, -inf for log-weights and for the bias of a softmax, ``where=`` for ``jnp.mean`` and
   for every function of `bandwidth`;
3. ends its step with `keep_finite`.

The ensemble then moves as if the dead were not in it. That is a statement about values: where a
NaN arises inside what is differentiated, its derivative is NaN even if it is not chosen.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core._checks import check_entries, integer, real_array, real_values
from shoal.sampling.core.algorithm import Status
from shoal.sampling.core.random import check_key


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
    TypeError, ValueError
        If there are no leaves, one holds no real numbers or they disagree on ``n``; the message
        names the leaf.

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
    for path, leaf in leaves:
        real_values(f"particles{jax.tree_util.keystr(path)}", leaf)
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


def keep_finite(old: Any, new: Any, alive: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
    """Take a step for the particles that are alive and whose new position is finite.

    Parameters
    ----------
    old, new
        Ensembles of one structure, leaves ``(n, ...)``.
    alive
        bool ``(n,)``: the particles that counted before the step.

    Returns
    -------
    particles
        ``new`` where a particle is alive and all its numbers are finite, else ``old``; in the
        dtypes of ``old``.
    alive
        bool ``(n,)``: alive before, and ``new`` finite.
    status
        int8 ``(n,)``: ``OK``; ``NONFINITE_GRADIENT`` for a particle that died in this step;
        ``FROZEN`` for one that was dead before.

    Raises
    ------
    TypeError, ValueError
        If ``alive`` is not a bool mask of the particles or the two ensembles differ in shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> old, new = jnp.zeros(3), jnp.array([1.0, jnp.nan, 1.0])
    >>> kept, alive, status = keep_finite(old, new, jnp.array([True, True, False]))
    >>> kept.tolist(), alive.tolist(), status.tolist()
    ([1.0, 0.0, 0.0], [True, False, False], [0, 2, 6])
    """
    alive = check_mask("alive", alive, old)
    if jax.tree.map(jnp.shape, old) != jax.tree.map(jnp.shape, new):
        raise ValueError(
            f"new must have the shapes of old, {jax.tree.map(jnp.shape, old)}; "
            f"got {jax.tree.map(jnp.shape, new)}"
        )
    finite = jnp.ones_like(alive)
    for leaf in jax.tree.leaves(new):
        finite &= jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, jnp.ndim(leaf))))
    moves = alive & finite
    take = lambda a, b: jnp.where(_per_row(moves, a), a, b).astype(jnp.result_type(b))
    status = jnp.where(
        alive, jnp.where(finite, Status.OK, Status.NONFINITE_GRADIENT), Status.FROZEN
    )
    return jax.tree.map(take, new, old), moves, status.astype(jnp.int8)


def park_dead(particles: Any, alive: jax.Array) -> Any:
    """Put dead particles where the first living one is: a place where every function is as good.

    A dead particle may lie so far out that rounding around the common mean, or an overflow, spoils
    the sums over the others, even with weight zero. Sums over pairs, in which the dead have no
    weight, may use the ensemble returned; their own rows mean nothing.

    Parameters
    ----------
    particles
        Pytree, leaves ``(n, ...)``; rows of the dead may hold anything.
    alive
        bool ``(n,)``. Where nobody is alive, all stand at zero.

    Returns
    -------
    Any
        Like ``particles``. No derivative passes through the rows of the dead.

    Raises
    ------
    TypeError, ValueError
        If ``alive`` is not a bool mask of the particles.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> park_dead(jnp.array([1e30, 2.0, 3.0]), jnp.array([False, True, True])).tolist()
    [2.0, 2.0, 3.0]
    """
    alive = check_mask("alive", alive, particles)
    index = jnp.arange(alive.size)
    is_first = index == jnp.min(jnp.where(alive, index, alive.size))

    # Sums instead of an index: particles split over devices stay where they are.
    def place(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        first = jnp.sum(jnp.where(_per_row(is_first, leaf), leaf, 0), axis=0, dtype=leaf.dtype)
        return jnp.where(_per_row(alive, leaf), leaf, jax.lax.stop_gradient(first))

    return jax.tree.map(place, particles)


def check_mask(name: str, mask: Any, particles: Any) -> jax.Array:
    """Pass on a bool mask ``(n,)`` of an ensemble with leaves ``(n, ...)``; raise for any other."""
    if getattr(mask, "dtype", None) != jnp.dtype(bool):
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"{name} must be an array of dtype bool, got {kind}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(particles):
        if mask.shape != jnp.shape(leaf)[:1]:
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"{name} must have shape (n,), an entry for each particle; got {mask.shape} for "
                f"particles{where} of shape {jnp.shape(leaf)}"
            )
    return jnp.asarray(mask)


def _per_row(mask: jax.Array, leaf: Any) -> jax.Array:
    return mask.reshape(-1, *[1] * (jnp.ndim(leaf) - 1))


def normalize_log_weights(log_weights: jax.Array) -> jax.Array:
    """Shift log-weights of shape ``(..., n)`` so that the weights sum to one on the last axis.

    Weights that are all zero (every log-weight -inf) become uniform: they say nothing. One that is
    NaN or inf makes all of its row NaN. Raises ``TypeError`` or ``ValueError`` for what is no array
    of floats.
    """
    log_weights = real_array("log_weights", log_weights, (..., "n"))
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

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; or, unless traced, for a log-weight that is NaN or inf:
        indices could not tell of it.

    References
    ----------
    Douc, Cappé, Moulines, "Comparison of resampling schemes for particle filtering", ISPA 2005,
    section 2.4.
    """
    check_key(key)
    log_weights = real_array("log_weights", log_weights, ("n",))
    check_entries("log_weights", log_weights, lambda logs: logs < jnp.inf, "numbers below inf")
    num = log_weights.shape[0] if num is None else integer("num", num)
    weights = jnp.exp(normalize_log_weights(log_weights))
    # Dividing by the last partial sum makes it exactly one, so that rounding cannot send the
    # last point beyond the last particle that has a weight.
    levels = jnp.cumsum(weights)
    levels = levels / levels[-1]
    points = (jnp.arange(num) + jax.random.uniform(key, dtype=levels.dtype)) / num
    below_one = jnp.minimum(points, 1 - jnp.finfo(levels.dtype).epsneg)
    return jnp.searchsorted(levels, below_one, side="right").astype(jnp.int32)
