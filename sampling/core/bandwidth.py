"""Bandwidths h of k = exp(-|x - y|^2 / h) from the spread of n particles.

Four conventions of the median rule are in use, which differ by factors of log n and by whether
the n zero distances of particles to themselves count. With q the squared distances:

=======================  ======================================================================
``median_offdiag_log``   (median of sqrt(q) over pairs i < j)^2 / log n; BlackJAX
``median_all_log``       (median of sqrt(q) over all n^2)^2 / log n; NumPyro
``median_all_log1p``     median of q over all n^2, / log(n + 1); the code of Liu and Wang (2016)
``median_all``           the floor(n^2 / 2)-th largest of all n^2 q; the code of Shi, Liu and
                         Mackey (2022) for mirrored Stein samplers
``fixed``                the number given
=======================  ======================================================================

A median of an even number of values is the mean of the middle two. The four are found exactly,
without sorting, by bisecting the bits of the answer: some 30 passes over the pairs for float32.
A method that moves its particles for many steps should follow the median instead: `track` starts
and `update` corrects a threshold from the count of pairs within it, which a step gets while it
sums over the pairs anyway (`pairwise.kernel_matvec_plus_grad_sum`).

Every function takes ``where``, bool ``(n,)``: the particles that count, all by default. What the
others hold, NaN included, changes nothing.

A bandwidth is finite and positive for particles with finite squared distances. Where they
coincide and the median is zero, or there is one only, or none, it is 1. (The tracked one is 1 for
up to one particle; on particles that coincide it sinks, as no pair is farther apart, to a floor
far below any use: `collapsed` tells.) It is NaN where a particle that counts is not finite. No
derivative passes through.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import real_array, real_parameter
from shoal.sampling.core._kernel_sums import distance_factors, squared_distances
from shoal.sampling.core._tiles import (
    Reduction,
    Ring,
    block_sides,
    check_block_size,
    check_ring,
    reduce_pairs,
)
from shoal.sampling.core.particles import check_mask, park_dead

RULES = ("fixed", "median_all", "median_all_log", "median_all_log1p", "median_offdiag_log")

# Limits of the tracked median: the largest move of the log-threshold and change of its slope in
# one update, and the slopes that are believed.
_LARGEST_MOVE = 2.0
_SLOPE_CHANGE = 4.0
_SLOPES = (0.1, 1e4)


def from_rule(
    rule: str,
    particles: jax.Array,
    value: jax.Array | float | None = None,
    *,
    where: jax.Array | None = None,
    block_size: int | None = None,
    ring: Ring | None = None,
) -> jax.Array:
    """Compute the bandwidth of an RBF kernel by the name of its rule.

    Parameters
    ----------
    rule
        One of `RULES`, see the head of this module.
    particles
        Shape ``(n, d)``, float32 or float64.
    value
        The bandwidth of the rule ``fixed``, a positive number; not accepted by the others.
    where
        bool ``(n,)``, the particles that count; all when None.
    block_size, ring
        As in `shoal.sampling.core.pairwise`.

    Returns
    -------
    jax.Array
        Scalar in the particles' dtype.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(from_rule("median_all", jnp.array([[0.0], [1.0], [3.0]])))
    4.0
    """
    particles = real_array("particles", particles, ("n", "d"))
    if rule not in RULES:
        raise ValueError(f"rule must be one of {RULES}, got {rule!r}")
    if (value is None) == (rule == "fixed"):
        raise ValueError(f"value is for rule='fixed' and needed there, got {value!r} for {rule!r}")
    where = None if where is None else check_mask("where", where, particles)
    if rule == "fixed":
        return jnp.asarray(real_parameter("value", value, 0.0, scalar=True), particles.dtype)
    return _median_bandwidth(
        jax.lax.stop_gradient(particles),
        where,
        rule,
        check_block_size(block_size),
        check_ring(ring),
    )


@functools.partial(jax.jit, static_argnames=("rule", "block_size", "ring"))
def _median_bandwidth(
    particles: jax.Array,
    where: jax.Array | None,
    rule: str,
    block_size: int | None,
    ring: Ring | None,
) -> jax.Array:
    num = particles.shape[0]
    # Ranks may need more than 32 bits and, with a mask, depend on what only the program knows: it
    # looks them up.
    if where is None:
        where, counts = jnp.ones(num, bool), np.array([num])
    else:
        particles, counts = park_dead(particles, where), np.arange(num + 1)
    count = jnp.sum(where)
    low, high = _middle_ranks(rule, counts)
    *wanted, is_one = (
        jnp.asarray(table)[count - counts[0]] for table in (*_digits(2 * low), low == high)
    )
    first, second = _order_statistics(particles, where, wanted, block_size, ring)
    second = jnp.where(is_one, first, second)
    size = jnp.maximum(count, 2).astype(particles.dtype)
    if rule in ("median_offdiag_log", "median_all_log"):
        median = ((jnp.sqrt(first) + jnp.sqrt(second)) / 2) ** 2 / jnp.log(size)
    elif rule == "median_all_log1p":
        median = (first + second) / 2 / jnp.log1p(size)
    else:
        median = first
    # A positive bandwidth where particles coincide; NaN stays NaN.
    smallest = jnp.finfo(particles.dtype).tiny
    return jnp.where((median < smallest) | (count == 0), 1, median)


def _middle_ranks(rule: str, num: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks, among the distances of pairs i < j in ascending order from 1, of the middle two.

    Rank 0 stands for a particle's distance zero to itself: among all n^2 values those n come
    first, and every later value comes twice.
    """
    pairs = num * (num - 1) // 2
    if rule == "median_offdiag_log":
        return (pairs + 1) // 2, np.minimum(pairs // 2 + 1, pairs)
    total = num * num
    if rule == "median_all":
        middle = (total - total // 2 + 1,) * 2
    else:
        middle = (total + 1) // 2, total // 2 + 1
    low, high = (np.clip(-(-(rank - num) // 2), 0, pairs) for rank in middle)
    return low, high


def _digits(numbers: Any) -> tuple[Any, Any]:
    """Split whole numbers into int32 digits of base 4096, the higher one without bound."""
    high, low = divmod(numbers, 4096)
    return high.astype(np.int32), low.astype(np.int32)


def _order_statistics(
    particles: jax.Array,
    where: jax.Array,
    wanted: Sequence[jax.Array],
    block_size: int | None,
    ring: Ring | None,
) -> tuple[jax.Array, jax.Array]:
    """Return the squared distances of pairs i < j in ``where`` with some rank and the next one.

    ``wanted`` holds the `_digits` of twice the rank: the number of pairs (i, j), in either order,
    up to that distance. The first is found bit by bit, since the bits of positive floats are
    ordered as the floats are; the second is the smallest above, unless the first occurs again.
    """
    num, dim = particles.shape
    a, c = distance_factors(particles, particles)
    index = jnp.arange(num, dtype=jnp.int32)
    sides = block_sides(num, num, block_size, 1)
    # Rounding leaves this much, relative to the norms, between particles that coincide.
    noise = jnp.finfo(particles.dtype).eps * np.sqrt(16 + dim)

    def distances(rows: Any, points: Any) -> jax.Array:
        q = squared_distances(rows[0], points[0])
        norms = rows[0][:, dim, None] + points[0][:, dim + 1]
        q = jnp.where(q <= noise * norms, 0, q)
        return jnp.where(rows[1][:, None] == points[1], jnp.inf, q)

    def within(threshold: jax.Array, rows: Any, points: Any, weights: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(distances(rows, points) <= threshold, weights, 0), axis=1)

    def least_above(threshold: jax.Array, rows: Any, points: Any, weights: jax.Array) -> jax.Array:
        q = distances(rows, points)
        return jnp.min(jnp.where((q > threshold) & (weights > 0), q, jnp.inf), axis=1)

    def reduce(reduction: Reduction, threshold: jax.Array) -> jax.Array:
        ones = where.astype(jnp.int32)
        out = reduce_pairs(reduction, threshold, (a, index), (c, index), ones, sides, ring)
        return jnp.where(where, out, reduction.identity)

    def at_least(threshold: jax.Array, wanted: Sequence[jax.Array]) -> jax.Array:
        return _sums_to_at_least(reduce(Reduction(within, jnp.add, 0, 0), threshold), wanted)

    integer = jnp.dtype(f"int{8 * particles.dtype.itemsize}")

    def halve(bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = at_least(jax.lax.bitcast_convert_type(middle, particles.dtype), wanted)
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    largest = jax.lax.bitcast_convert_type(jnp.finfo(particles.dtype).max, integer)
    bounds = (jnp.zeros((), integer), largest)
    bits = jax.lax.while_loop(lambda b: b[0] < b[1], halve, bounds)[0]
    first = jax.lax.bitcast_convert_type(bits, particles.dtype)
    above = jnp.min(reduce(Reduction(least_above, jnp.minimum, jnp.inf, 0), first))
    carried, low = _digits(wanted[1] + 2)
    second = jnp.where(at_least(first, (wanted[0] + carried, low)), first, above)
    finite = jnp.all(jnp.isfinite(particles))
    return jnp.where(finite, first, jnp.nan), jnp.where(finite, second, jnp.nan)


def _sums_to_at_least(counts: jax.Array, wanted: Sequence[Any]) -> jax.Array:
    """Whether int32 counts of shape ``(n,)`` sum to the number with the `_digits` ``wanted``."""
    high, low = _digits(counts)
    carried, low = _digits(jnp.sum(low))
    high = jnp.sum(high) + carried
    return (high > wanted[0]) | ((high == wanted[0]) & (low >= wanted[1]))


class TrackedMedian(NamedTuple):
    """A running estimate of the median squared distance of pairs i < j.

    Attributes
    ----------
    log_threshold
        Logarithm of the estimate, scalar.
    slope
        Estimated derivative, in the log-threshold, of the normal quantile of the fraction of
        pairs within the threshold.
    previous_log_threshold, previous_score
        The estimate before, and the normal quantile that was counted there (NaN before the first
        count).
    """

    log_threshold: jax.Array
    slope: jax.Array
    previous_log_threshold: jax.Array
    previous_score: jax.Array

    @property
    def threshold(self) -> jax.Array:
        """The estimate: count the pairs within it to `update`."""
        return jnp.exp(self.log_threshold)

    def bandwidth(self, num: jax.Array | int) -> jax.Array:
        """Return ``threshold / log(num)`` (as ``median_offdiag_log``); 1 for up to one particle."""
        size = jnp.maximum(jnp.asarray(num), 2).astype(self.log_threshold.dtype)
        return jnp.where(num > 1, self.threshold / jnp.log(size), 1)


def track(particles: jax.Array, where: jax.Array | None = None) -> TrackedMedian:
    """Start to follow the median squared distance of particles of shape ``(n, d)``.

    The start is the mean squared distance of pairs, twice the summed variance: O(n d), no pairs.
    ``where``, bool ``(n,)``, says which particles count; all when None.
    """
    particles = jax.lax.stop_gradient(real_array("particles", particles, ("n", "d")))
    variance, count = _variance(particles, where)
    mean = 2 * variance * (count / jnp.maximum(count - 1, 1))
    smallest, largest = _threshold_limits(particles.dtype)
    start = jnp.clip(jnp.log(jnp.where((mean == 0) | (count < 2), 1, mean)), smallest, largest)
    return TrackedMedian(start, jnp.ones_like(start), start, jnp.full_like(start, jnp.nan))


def update(state: TrackedMedian, near: jax.Array, where: jax.Array | None = None) -> TrackedMedian:
    """Correct the estimate by a count taken at ``state.threshold``.

    A secant step on the normal quantile of the fraction of pairs within the threshold, as a
    function of the log-threshold: a straight line where distances are log-normal, as they nearly
    are for most clouds. The slope may change by a factor of four in one update, which keeps it
    sane while the particles move. On clouds with one centre at rest the fraction is within 0.001
    of one half after a few updates, with outliers or unequal clusters after some 15; where the
    median lies at the edge of a gap between clusters it may go round that edge instead.

    Parameters
    ----------
    state
        From `track` or the last update.
    near
        For each particle the number of particles within the threshold, itself included, shape
        ``(n,)``: the count of `pairwise.kernel_matvec_plus_grad_sum` or `pairwise.count_within`.
    where
        bool ``(n,)``, the particles that count; all when None. The others must have been counted
        in one common place, where `particles.park_dead` puts them.

    Returns
    -------
    TrackedMedian
        A count that is not finite leaves the estimate where it was.

    Examples
    --------
    >>> import jax
    >>> from shoal.sampling.core import pairwise
    >>> x = jax.random.normal(jax.random.key(0), (200, 3))
    >>> state = track(x)
    >>> for _ in range(5):
    ...     state = update(state, pairwise.count_within(x, x, state.threshold))
    >>> near = pairwise.count_within(x, x, state.threshold)
    >>> bool(abs((near.sum() - 200) / (200 * 199) - 0.5) < 1e-3)
    True
    """
    near = real_array("near", near, ("n",))
    where = jnp.ones(near.shape, bool) if where is None else check_mask("where", where, near)
    count, rest = (jnp.sum(mask).astype(near.dtype) for mask in (where, ~where))
    pairs = jnp.maximum(count * (count - 1), 1)
    # The dead, all in one place, are near each other and near as many of the living in their rows
    # as in their columns: what they add to the rows of the living is what is in their own rows,
    # less the pairs among themselves.
    fraction = (jnp.sum(jnp.where(where, near - 1, rest - near))) / pairs
    score = jax.scipy.special.ndtri(jnp.clip(fraction, 1 / pairs, 1 - 1 / pairs))
    moved = state.log_threshold - state.previous_log_threshold
    secant = (score - state.previous_score) / moved
    limits = state.slope / _SLOPE_CHANGE, state.slope * _SLOPE_CHANGE
    # Two counts at one place, or the first count, say nothing about the slope.
    known = jnp.isfinite(secant) & (jnp.abs(moved) > jnp.sqrt(jnp.finfo(moved.dtype).eps) / 8)
    slope = jnp.where(known, jnp.clip(jnp.clip(secant, *limits), *_SLOPES), state.slope)
    move = jnp.clip(-score / slope, -_LARGEST_MOVE, _LARGEST_MOVE)
    move = jnp.where(jnp.isfinite(move), move, 0).astype(state.log_threshold.dtype)
    log_threshold = jnp.clip(state.log_threshold + move, *_threshold_limits(move.dtype))
    new = TrackedMedian(log_threshold, slope, state.log_threshold, score)
    return jax.tree.map(lambda a, b: jnp.where(count > 1, a, b), new, state)


def collapsed(particles: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Whether the particles coincide as far as their dtype can tell.

    Parameters
    ----------
    particles
        Shape ``(n, d)``, float32 or float64.
    where
        bool ``(n,)``, the particles that count; all when None.

    Returns
    -------
    jax.Array
        bool scalar: whether no coordinate ranges over more than a few units in the last place of
        the largest one. Distances, and a bandwidth made of them, are then rounding errors, and a
        method reports `Status.FROZEN`. False for up to one particle, which has no
        distances, and where a particle is not finite.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> bool(collapsed(jnp.array([[1000.0], [1000.0001]]))), bool(collapsed(jnp.eye(2)))
    (True, False)
    """
    particles = real_array("particles", particles, ("n", "d"))
    where = (
        jnp.ones(len(particles), bool) if where is None else check_mask("where", where, particles)
    )
    particles = park_dead(particles, where)
    low, high = jnp.min(particles, axis=0), jnp.max(particles, axis=0)
    largest = jnp.max(jnp.maximum(-low, high))
    rounding = 4 * jnp.finfo(particles.dtype).eps * largest
    return (jnp.sum(where) > 1) & jnp.all(high - low <= rounding)


def _variance(particles: jax.Array, where: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Return the summed variance of the coordinates, and how many particles count."""
    where = (
        jnp.ones(len(particles), bool) if where is None else check_mask("where", where, particles)
    )
    variance = jnp.sum(jnp.var(particles, axis=0, where=where[:, None]))
    return variance, jnp.sum(where).astype(particles.dtype)


def _threshold_limits(dtype: Any) -> tuple[float, float]:
    """Bounds of a log-threshold that leave room to divide by the threshold and sum over pairs."""
    precision = jnp.finfo(dtype)
    return float(np.log(precision.tiny)) / 2, float(np.log(precision.max)) - 1
