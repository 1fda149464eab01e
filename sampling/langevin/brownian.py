"""A Brownian path with Lévy areas from a single seed, exact in law at any times.

The interval [t0, t1] is the root of a binary tree, 2^depth equal leaves at its end. A node's
increment (W, H, K) is drawn given its parent's, from normals that are a hash of (key, number of
the node) alone, so the path is fixed by its key: queries may come in any order, be repeated, and
overlap. Within a leaf the exact conditional law goes on (`_brownian_tree.cut`). Times at least
``tol`` apart have exactly the joint law of Brownian motion.

`BrownianPath.increment` walks from the root to both ends. `BrownianPath.advance` starts where the
last query ended, with a stack of the nodes that lie ahead: a walk over n ordered times that divide
the interval evenly costs about n draws of a node in all. Rejecting a step means going on from the
old cursor.

Reference: Jelinčič, Foster and Kidger, "Single-seed generation of Brownian paths and integrals for
adaptive and high order SDE solvers", arXiv:2405.06464, section 3; same law as
``diffrax.VirtualBrownianTree``, not the same numbers. That one takes an increment as a difference
of two from the start, and so loses H and K in float32 far from there (on [0, 100], at time 99, the
variance of K over 0.2 comes out 11 times too large); here the parts of an interval are joined.
"""

import math
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import floating_dtype, integer, real_parameter
from shoal.sampling.core.random import check_key
from shoal.sampling.langevin import _brownian_tree as tree
from shoal.sampling.langevin._brownian_tree import LEVY, Increment

_AREAS = (diffrax.BrownianIncrement, diffrax.SpaceTimeLevyArea, diffrax.SpaceTimeTimeLevyArea)
# Any: its class attributes are declared in ways that no checker follows.
_Path: Any = diffrax.AbstractBrownianPath


class Cursor(NamedTuple):
    """A place on a path from which to go on.

    Attributes
    ----------
    leaf
        Number of the leaf that holds the place, or begins there: int32 scalar.
    share
        Share of that leaf which lies behind, in [0, 1).
    rest
        Increment over what of that leaf lies ahead; meaningless where ``share`` is 0.
    pending
        Increments over the nodes that lie ahead, ``(depth + 1, *shape)``, by level. The one that
        begins at leaf ``i`` has the level at which ``i`` is an odd multiple of its size.
    """

    leaf: jax.Array
    share: jax.Array
    rest: Increment
    pending: Increment


class BrownianPath(_Path):
    """Brownian motion on [t0, t1] as a function; made by `path`.

    A pytree: seed and times are leaves, so that paths can be made and used under ``jit`` and
    ``vmap``. It is a ``diffrax.AbstractBrownianPath`` and can stand wherever
    ``diffrax.VirtualBrownianTree`` does.

    Attributes
    ----------
    seed
        Two words, uint32, that stand for the key.
    t0, t1
        Ends of the interval.
    shape, dtype
        Of W, and of H and K each.
    levy
        ``"W"``, ``"WH"`` or ``"WHK"``: what an increment holds.
    depth
        Levels of the tree below its root.
    """

    seed: jax.Array
    t0: Any
    t1: Any
    shape: tuple[int, ...] = eqx.field(static=True)
    dtype: np.dtype = eqx.field(static=True)
    levy: str = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    @property
    def levy_area(self) -> Any:
        """The diffrax class that `evaluate` returns with ``use_levy=True``."""
        return _AREAS[len(self.levy) - 1]

    def increment(self, s: Any, t: Any) -> Increment:
        """Return the increment over [s, t].

        Parameters
        ----------
        s, t
            Real scalars, ``t0 <= s <= t <= t1``, traced or not.

        Returns
        -------
        Increment
            W, H, K, each of `shape`. NaN where the times are out of order or out of [t0, t1]. Where
            s and t are less than ``tol`` apart the law is right, but increments from other calls
            need not add up.
        """
        return _increment(self, self._time(s), self._time(t))

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> Any:
        """Return the increment over [t0, t1] for diffrax; over [self.t0, t0] without ``t1``.

        Parameters
        ----------
        t0, t1
            Times, as in `increment`.
        left
            Without meaning, as the path has no jumps.
        use_levy
            Whether to return a `levy_area` with ``dt``, W, H and K; W alone otherwise.
        """
        del left
        s, t = (self.t0, t0) if t1 is None else (t0, t1)
        increment = self.increment(s, t)
        if not use_levy:
            return increment.W
        parts = [part for part in increment if part is not None]
        return self.levy_area(self._time(t) - self._time(s), *parts)

    def start(self) -> Cursor:
        """Return the cursor at ``t0``."""
        root = tree.draw(self._normals(0), self._length(0))
        zero = jax.tree.map(jnp.zeros_like, root)
        stack = lambda part: jnp.zeros((self.depth + 1, *self.shape), self.dtype).at[0].set(part)
        share = jnp.zeros((), self.dtype)
        return Cursor(jnp.zeros((), jnp.int32), share, zero, jax.tree.map(stack, root))

    def advance(self, cursor: Cursor, t: Any) -> tuple[Increment, Cursor]:
        """Go on from a cursor to time ``t``; the cursor given stays valid.

        Parameters
        ----------
        cursor
            From `start` or an earlier call on the same path.
        t
            Real scalar, not before the cursor and not after ``t1``.

        Returns
        -------
        tuple
            The increment from the cursor to ``t``, as `increment` returns it, and the cursor at
            ``t``. Joint law and values are those of `increment` for times at least ``tol`` apart;
            for closer ones the increments of successive calls still have the exact joint law.
        """
        return _advance(self, cursor, self._time(t))

    def _advance(self, cursor: Cursor, t: jax.Array) -> tuple[Increment, Cursor]:
        target, share, is_valid = self._locate(t)
        is_inside = share > 0
        is_same = (target == cursor.leaf) & (cursor.share > 0)
        begin = cursor.leaf + (cursor.share > 0)
        done = jax.tree.map(lambda p: jnp.where(cursor.share > 0, p, 0), cursor.rest)
        i, done = self._pass_over(cursor, begin, done, target)
        i, node, done, pending = self._descend(cursor, i, done, target, is_inside)
        whole = jax.tree.map(lambda a, b: jnp.where(is_same, a, b), cursor.rest, node)
        place = jnp.where(is_same, (share - cursor.share) / (1 - cursor.share), share)
        cut = lambda: tree.cut(
            whole,
            self._cut_normals(target, is_same, share),
            self._length(self.depth) * jnp.where(is_same, 1 - cursor.share, 1),
            place,
        )
        nothing = jax.tree.map(jnp.zeros_like, whole)
        before, after = jax.lax.cond(is_inside, cut, lambda: (nothing, nothing))
        behind = self._span(cursor, i)
        joined = tree.join(done, before, _share(behind, share))
        found = jax.tree.map(lambda a, b: jnp.where(is_same, a, b), before, joined)
        is_valid &= cursor.leaf >= 0
        is_valid &= (target > cursor.leaf) | ((target == cursor.leaf) & (share >= cursor.share))
        found = jax.tree.map(lambda part: jnp.where(is_valid, part, jnp.nan), found)
        return found, Cursor(target, share, after, pending)

    def _pass_over(
        self, cursor: Cursor, i: jax.Array, done: Increment, target: jax.Array
    ) -> tuple[jax.Array, Increment]:
        """Take up the pending nodes that end before or at the target leaf."""

        def body(carry: Any) -> Any:
            i, done = carry
            level, size = self._node_at(i)
            node = jax.tree.map(lambda p: p[level], cursor.pending)
            a = _share(self._span(cursor, i), size.astype(self.dtype))
            return i + size, tree.join(done, node, a)

        return jax.lax.while_loop(
            lambda c: c[0] + self._node_at(c[0])[1] <= target, body, (i, done)
        )

    def _descend(
        self, cursor: Cursor, i: jax.Array, done: Increment, target: jax.Array, is_inside: jax.Array
    ) -> tuple[jax.Array, Increment, Increment, Increment]:
        """Halve the pending node that begins at ``i`` until one begins at the target.

        Or, for a target within a leaf, until it is that leaf.
        """
        level, _ = self._node_at(i)
        node = jax.tree.map(lambda p: p[level], cursor.pending)

        def is_not_there(carry: Any) -> jax.Array:
            i, level, *_ = carry
            return (i < target) | (is_inside & (level < self.depth) & (i == target))

        def body(carry: Any) -> Any:
            i, level, node, done, pending = carry
            size = self._size(level + 1)
            number = (1 << level) + (i >> (self.depth - level))
            left, right = tree.halve(node, self._normals(number), self._length(level))
            goes_right = target >= i + size
            choose = lambda a, b: jax.tree.map(lambda x, y: jnp.where(goes_right, x, y), a, b)
            a = _share(self._span(cursor, i), size.astype(self.dtype))
            done = choose(tree.join(done, left, a), done)
            # Going right, the slot is written in vain: no node of that level lies ahead.
            pending = jax.tree.map(lambda p, x: p.at[level + 1].set(x), pending, right)
            return i + goes_right * size, level + 1, choose(right, left), done, pending

        start = i, level, node, done, cursor.pending
        i, level, node, done, pending = jax.lax.while_loop(is_not_there, body, start)
        # The leaf that holds the target does not lie ahead; its slot may be its sibling's.
        keep = lambda p, x: p.at[level].set(jnp.where(is_inside, p[level], x))
        return i, node, done, jax.tree.map(keep, pending, node)

    def _locate(self, t: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the leaf of a time, the share of the leaf before it, and whether it exists.

        A time that differs from the end of a leaf by rounding alone counts as that end.
        """
        leaves = 2.0**self.depth
        x = (t - self._time(self.t0)) / self._length(0) * leaves
        slack = 2 * leaves * float(jnp.finfo(self.dtype).eps)
        x = jnp.where(jnp.abs(x - jnp.round(x)) <= slack, jnp.round(x), x)
        index = jnp.floor(x)
        return index.astype(jnp.int32), x - index, (x >= 0) & (x <= leaves)

    def _node_at(self, i: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return level and size, in leaves, of the pending node that begins at leaf ``i``.

        At the end of the interval no node begins; the size is then such that nothing fits.
        """
        size = jnp.where(i == 0, 1 << self.depth, i & -i)
        level = self.depth - jax.lax.population_count(size - 1)
        return level, size

    def _size(self, level: jax.Array) -> jax.Array:
        return jnp.int32(1) << (self.depth - level)

    def _length(self, level: Any) -> jax.Array:
        """Return the length of a node in time."""
        whole = self._time(self.t1) - self._time(self.t0)
        return whole * jnp.exp2(-jnp.asarray(level, self.dtype))

    def _span(self, cursor: Cursor, i: jax.Array) -> jax.Array:
        """Return the length from a cursor to the beginning of leaf ``i``, in leaves."""
        return (i - cursor.leaf).astype(self.dtype) - cursor.share

    def _time(self, t: Any) -> jax.Array:
        # An array, as equinox would compile anew for every float; nothing differentiates in it.
        return jax.lax.stop_gradient(jnp.asarray(t, self.dtype))

    def _normals(self, node: Any, seed: jax.Array | None = None) -> jax.Array:
        seed = self.seed if seed is None else seed
        return tree.node_normals(seed, node, self.levy, self.shape, self.dtype)

    def _cut_normals(self, leaf: jax.Array, is_further: jax.Array, share: jax.Array) -> jax.Array:
        """Return the normals of the cut of a leaf; of a further cut, by its place."""
        place = jax.lax.bitcast_convert_type(share.astype(jnp.float32), jnp.uint32)
        further = jnp.stack(tree.threefry(self.seed, (1 << 30) + leaf, place))
        seed = jnp.where(is_further, further, self.seed)
        return self._normals((1 << self.depth) + leaf, seed)


@eqx.filter_jit
def _advance(path: BrownianPath, cursor: Cursor, t: jax.Array) -> tuple[Increment, Cursor]:
    return path._advance(cursor, t)


@eqx.filter_jit
def _increment(path: BrownianPath, s: jax.Array, t: jax.Array) -> Increment:
    # A loop of two, so that its body is compiled once.
    go = lambda cursor, time: path._advance(cursor, time)[::-1]
    _, found = jax.lax.scan(go, path.start(), jnp.stack([s, t]))
    return jax.tree.map(lambda part: part[1], found)


def path(
    key: jax.Array,
    t0: Any,
    t1: Any,
    shape: tuple[int, ...],
    levy: str = "WHK",
    tol: float | None = None,
    dtype: Any = None,
) -> BrownianPath:
    """Return a Brownian path on [t0, t1], fixed by its key.

    Parameters
    ----------
    key
        Typed key of shape ``()``. Same key, interval, shape, ``levy`` and depth, same path.
    t0, t1
        Real scalars, t0 < t1. They may be traced where ``tol`` is None.
    shape
        Shape of W: a tuple of integers.
    levy
        ``"W"``, ``"WH"`` or ``"WHK"``: increment alone, with space-time Lévy area H, with
        space-time-time Lévy area K too. Each gives another path.
    tol
        Times at least this far apart have the exact joint law: at most the smallest step of a
        solver. The tree gets ``ceil(log2((t1 - t0) / tol))`` levels, at most 20 in float32 and 29
        in float64; 10 for None.
    dtype
        Floating dtype of the path; JAX's default float when None.

    Returns
    -------
    BrownianPath
        With methods ``increment(s, t)``, ``start()`` and ``advance(cursor, t)``, and ``evaluate``
        for diffrax.

    Raises
    ------
    TypeError, ValueError
        If ``key`` is not one typed key, the times are no finite real scalars in order, ``shape`` or
        ``levy`` is not as above, or ``tol`` is not positive or needs too many levels.

    Examples
    --------
    >>> import jax
    >>> from shoal.sampling.langevin import brownian
    >>> path = brownian.path(jax.random.key(0), 0.0, 1.0, (3,), tol=1e-3)
    >>> path.increment(0.25, 0.5).K.shape
    (3,)

    A stepper goes on from where it was:

    >>> first, cursor = path.advance(path.start(), 0.25)
    >>> second, cursor = path.advance(cursor, 0.5)
    >>> bool(abs(second.H - path.increment(0.25, 0.5).H).max() < 1e-6)
    True
    """
    check_key(key)
    real_parameter("t0", t0, scalar=True)
    real_parameter("t1", t1, scalar=True)
    if not isinstance(shape, tuple | list):
        raise TypeError(f"shape must be a tuple of integers, got {shape!r}")
    sizes = tuple(integer(f"shape={shape}", size, 0) for size in shape)
    if levy not in LEVY:
        raise ValueError(f"levy must be one of {', '.join(map(repr, LEVY))}, got {levy!r}")
    found = floating_dtype("dtype", dtype)
    is_concrete = not any(isinstance(time, jax.core.Tracer) for time in (t0, t1))
    if is_concrete and not t0 < t1:
        raise ValueError(f"t0 must be less than t1, got t0={t0} and t1={t1}")
    depth = _depth(t0, t1, tol, found)
    ends = jnp.asarray(t0, found), jnp.asarray(t1, found)
    return BrownianPath(tree.seed_of(key), *ends, sizes, found, levy, depth)


def _depth(t0: Any, t1: Any, tol: Any, dtype: np.dtype) -> int:
    if tol is None:
        return 10
    if any(isinstance(value, jax.core.Tracer) for value in (t0, t1, tol)):
        raise TypeError(
            "tol sets the number of levels of the tree, so t0, t1 and tol must not be traced; "
            "make the path outside of jit, or leave tol out"
        )
    real_parameter("tol", tol, 0.0, scalar=True, wanted="positive and finite")
    depth = max(1, math.ceil(math.log2(float(t1 - t0) / float(tol)) - 1e-6))
    most = 29 if dtype.itemsize > 4 else 20
    if depth > most:
        raise ValueError(
            f"tol={tol} needs {depth} levels on an interval of length {t1 - t0}; at most {most} "
            f"are possible in {dtype}"
        )
    return depth


def _share(before: jax.Array, after: jax.Array) -> jax.Array:
    """Share of the first length in both, 0 where there is none."""
    total = before + after
    return before / jnp.where(total > 0, total, 1)
