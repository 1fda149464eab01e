"""The tile of every sum of a kernel over pairs: values, gradients and counts in one pass."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from shoal.sampling.core._kernel_algebra import Kernel
from shoal.sampling.core._tiles import Reduction, Ring, block_sides, reduce_pairs


class Terms(NamedTuple):
    """What to sum over j: ``values`` and ``gradients`` together in one total, and a count.

    Attributes
    ----------
    values
        ``v`` of shape ``(n, p)``: adds ``k(x_i, y_j) v_j``. With ``gradients``, p is d.
    gradients
        ``w`` of shape ``(n,)``: adds ``w_j grad_{y_j} k(x_i, y_j)``.
    threshold
        Scalar t: counts the j with ``|x_i - y_j|^2 <= t``.
    """

    values: jax.Array | None = None
    gradients: jax.Array | None = None
    threshold: Any = None


class Sums(NamedTuple):
    """The total ``(m, p)`` and the count ``(m,)``; ``None`` for what `Terms` did not ask for."""

    total: Any
    near: Any


class _Weights(NamedTuple):
    """What a column counts for; zeros in a column that pads."""

    values: Any
    gradients: Any
    near: Any


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Multiply matrices in full precision (a GPU would round to ten bits)."""
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)


def fixed_mean(y: jax.Array) -> jax.Array:
    """Return the mean over rows as one settled constant, for results that do not depend on it.

    XLA repeats the mean's last multiplication in each place that uses it and contracts some of
    them with the subtraction there, so that one mean would have several values. Rounding away its
    last bit settles one.
    """
    precision = jnp.finfo(y.dtype)
    mean = jax.lax.stop_gradient(jnp.mean(y, axis=0))
    return jax.lax.reduce_precision(mean, precision.nexp, precision.nmant - 1)


def distance_factors(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return A ``(m, d+2)`` and C ``(n, d+2)`` with ``A @ C.T`` the squared distances.

    ``A = [-2 x, |x|^2, 1]`` and ``C = [y, 1, |y|^2]`` around the mean of y. Without that common
    centre float32 loses every digit once the mean is a few thousand times the spread; the
    distances do not depend on it, hence no derivative passes through.
    """
    centre = fixed_mean(y)
    x, y = x - centre, y - centre
    norm_x, norm_y = (jnp.sum(z * z, axis=1, keepdims=True) for z in (x, y))
    a = jnp.concatenate([-2 * x, norm_x, jnp.ones_like(norm_x)], axis=1)
    c = jnp.concatenate([y, jnp.ones_like(norm_y), norm_y], axis=1)
    return a, c


def squared_distances(a: jax.Array, c: jax.Array) -> jax.Array:
    """Return the tile of squared distances, none below zero.

    Rounding can push a distance below zero; its derivative is that of the unclipped one.
    """
    q = dot(a, c.T)
    return q + jax.lax.stop_gradient(jnp.maximum(-q, 0))


def kernel_sums(
    kernel: Kernel,
    x: jax.Array,
    y: jax.Array,
    terms: Terms,
    exclude_diagonal: bool,
    block_size: int | None,
    ring: Ring | None,
) -> Sums:
    """Return the sums that ``terms`` asks for."""
    rows: dict[str, jax.Array] = {}
    points: dict[str, jax.Array] = {}
    if kernel.has_jet or terms.threshold is not None:
        rows["a"], points["c"] = distance_factors(x, y)
    if not (kernel.has_jet and kernel.is_radial):
        rows["x"], points["y"] = x, y
    if exclude_diagonal:
        rows["index"] = jnp.arange(x.shape[0], dtype=jnp.int32)
        points["index"] = jnp.arange(y.shape[0], dtype=jnp.int32)
    near = None if terms.threshold is None else jnp.ones(y.shape[0], y.dtype)
    weights = _Weights(terms.values, terms.gradients, near)
    wants_total = terms.values is not None or terms.gradients is not None
    identity = Sums(0.0 if wants_total else None, None if near is None else 0.0)
    reduction = Reduction(_tile, _add, identity, 0.0)
    cost = 1 if kernel.has_jet else y.shape[1]
    sides = block_sides(x.shape[0], y.shape[0], block_size, cost, aspect=2)
    return reduce_pairs(reduction, (kernel, terms.threshold), rows, points, weights, sides, ring)


def _add(a: Sums, b: Sums) -> Sums:
    return jax.tree.map(jnp.add, a, b)


def _tile(parameters: Any, rows: Any, points: Any, weights: _Weights) -> Sums:
    """Sum one block of columns into one block of rows."""
    kernel, threshold = parameters
    q = squared_distances(rows["a"], points["c"]) if "a" in rows else None
    # What multiplies the tile entrywise: zero on the diagonal where that does not count.
    keep = rows["index"][:, None] != points["index"] if "index" in rows else None
    near = None
    if weights.near is not None:
        near = jnp.sum(_masked(keep, jnp.where(q <= threshold, weights.near, 0)), axis=1)
    if weights.values is None and weights.gradients is None:
        return Sums(None, near)
    total = _closed_form if kernel.has_jet else _pair_by_pair
    return Sums(total(kernel, q, keep, rows, points, weights), near)


def _masked(keep: jax.Array | None, tile: jax.Array) -> jax.Array:
    return tile if keep is None else jnp.where(keep, tile, 0)


def _closed_form(
    kernel: Kernel, q: Any, keep: jax.Array | None, rows: Any, points: Any, weights: _Weights
) -> jax.Array:
    """Sum a kernel that is a function of q and of the inner product.

    The part of a gradient that q brings is ``2 dk/dq (y_j - x_i)``, hence its sum over j a product
    of the tile of dk/dq with ``2 w [y, 1]``. Where dk/dq is a constant times k, that product and
    the one with the values become one.
    """
    inner = dot(rows["x"], points["y"].T) if "x" in rows else 0.0
    jet = kernel.jet(q, inner)
    value = _masked(keep, jet.value)
    if weights.gradients is None:
        return dot(value, weights.values)
    w = weights.gradients[:, None]
    dim = points["c"].shape[1] - 2
    slope = 2 * w * points["c"][:, : dim + 1]
    if kernel.log_slope is not None:
        slope = kernel.log_slope * slope
        if weights.values is not None:
            slope = slope.at[:, :dim].add(weights.values)
        moments = dot(value, slope)
    else:
        moments = dot(_masked(keep, jnp.broadcast_to(jet.q, q.shape)), slope)
        if weights.values is not None:
            moments = moments.at[:, :dim].add(dot(value, weights.values))
    centred_x = -0.5 * rows["a"][:, :dim]
    total = moments[:, :dim] - centred_x * moments[:, dim:]
    if kernel.is_radial:
        return total
    return total + rows["x"] * dot(_masked(keep, jnp.broadcast_to(jet.g, q.shape)), w)


def _pair_by_pair(
    kernel: Kernel, q: Any, keep: jax.Array | None, rows: Any, points: Any, weights: _Weights
) -> jax.Array:
    """Sum a function known only at pairs; for its gradients all y_j of a row move as one."""
    x, y = rows["x"], points["y"]
    total: Any = 0.0
    if weights.values is not None:
        over_y = jax.vmap(kernel, in_axes=(None, 0))
        total = dot(_masked(keep, jax.vmap(over_y, in_axes=(0, None))(x, y)), weights.values)
    if weights.gradients is None:
        return total
    w = _masked(keep, jnp.broadcast_to(weights.gradients, (x.shape[0], y.shape[0])))

    def row_sum(shift: jax.Array, x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sum(w * jax.vmap(lambda y: kernel(x, y + shift))(y))

    return total + jax.vmap(jax.grad(row_sum), in_axes=(None, 0, 0))(jnp.zeros_like(y[0]), x, w)
