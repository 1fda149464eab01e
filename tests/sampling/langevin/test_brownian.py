"""Brownian paths against the exact law: increments and areas are linear in the normals drawn.

Each check of a law feeds unit vectors for the normals, so that covariances come out as matrix
products, and compares them with integrals of polynomials by Gauss's rule. No number is random.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.extend.random import threefry_2x32

from shoal.sampling.langevin import _brownian_tree as tree, _dyadic_walk as dyadic, brownian
from shoal.sampling.langevin._exponential_schemes import SCHEMES, Evaluation, Increment, Phase
from shoal.sampling.langevin.metric import as_metric

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
LEVY = ("W", "WH", "WHK")
KEY = jax.random.key(4)


def exact_covariance(intervals, levy: str) -> np.ndarray:
    """Covariance of the parts over all intervals, row by row, from their polynomials."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    cuts = np.unique(np.ravel(intervals))
    total = 0.0
    for low, high in zip(cuts[:-1], cuts[1:], strict=True):
        t = low + (high - low) * (nodes + 1) / 2
        rows = []
        for s, u in intervals:
            y = (t - s) / (u - s) if u > s else t
            inside = (s <= low) & (high <= u)
            parts = np.ones_like(y), 0.5 - y, (6 * y**2 - 6 * y + 1) / 12
            rows += [inside * part for part in parts[: len(levy)]]
        rows = np.array(rows)
        total = total + (rows * weights * (high - low) / 2) @ rows.T
    return total


def rows(*increments) -> jax.Array:
    return jnp.stack([part for increment in increments for part in increment if part is not None])


class UnitNoise(brownian.BrownianPath):
    """A path whose normals are unit vectors: every one its own coordinate of the shape."""

    def _normals(self, node, seed=None):
        parts = len(self.levy)
        place = parts * node + jnp.arange(parts)
        return jax.nn.one_hot(place, self.shape[0], dtype=self.dtype)

    def _cut_normals(self, leaf, is_further, share):
        return self._normals(jnp.where(is_further, 2, 1) * (1 << self.depth) + leaf)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("levy", LEVY)
def test_halves_and_cuts_have_the_exact_law(levy: str) -> None:
    parts, h = len(levy), 1.7
    noise = jnp.eye(2 * parts)
    whole = tree.draw(noise[:parts], h)

    @jax.jit
    @jax.vmap
    def cut(r):
        left, right = tree.cut(whole, noise[parts:], h, r)
        return rows(left, right, whole), rows(tree.join(left, right, r))

    shares = np.array([0, 1e-12, 0.1, 0.37, 0.5, 0.62, 0.9, 1 - 1e-9, 1])
    for r, drawn, joined in zip(shares, *cut(shares), strict=True):
        exact = exact_covariance([(0, r * h), (r * h, h), (0, h)], levy)
        if r in (0, 1):  # nothing is left of one side
            exact = np.where(
                np.eye(3 * parts)[parts * int(r) : parts * int(r) + parts].any(0), 0, exact
            )
        np.testing.assert_allclose(drawn @ drawn.T, exact, atol=1e-12)
        np.testing.assert_allclose(joined, rows(whole), atol=1e-12)
    left, right = tree.halve(whole, noise[parts:], h)
    drawn = rows(left, right, whole)
    exact = exact_covariance([(0, h / 2), (h / 2, h), (0, h)], levy)
    np.testing.assert_allclose(drawn @ drawn.T, exact, atol=1e-12)
    np.testing.assert_allclose(rows(tree.join(left, right, 0.5)), rows(whole), atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("levy", LEVY)
def test_any_walk_has_the_exact_joint_law(levy: str) -> None:
    """Increments along ordered times are independent, even several within one leaf of 1/8."""
    depth = 3
    size = len(levy) * 3 * 2**depth
    ends = jnp.array(2.0), jnp.array(5.0)
    path = UnitNoise(jnp.zeros(2, "uint32"), *ends, (size,), np.dtype("float64"), levy, depth)
    unit = np.array([0, 0.07, 0.1, 0.125, 0.3, 0.5, 0.62, 0.75, 0.99, 1])
    times = 2 + 3 * unit
    step = lambda cursor, t: path.advance(cursor, t)[::-1]
    _, found = jax.jit(lambda: jax.lax.scan(step, path.start(), times[1:]))()
    drawn = np.stack([part for part in found if part is not None], 1).reshape(-1, size)
    exact = exact_covariance(list(zip(times[:-1], times[1:], strict=True)), levy)
    np.testing.assert_allclose(drawn @ drawn.T, exact, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_increments_add_up_and_cursors_find_the_same() -> None:
    path = brownian.path(KEY, -1.0, 3.0, (2,), tol=4 / 64)
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(-1, 3, (40, 3)), 1)
    times[::3] = np.round(times[::3] * 16) / 16
    times[::5, 0], times[::7, 2] = -1, 3
    times = times[np.diff(times, axis=1).min(1) > 4 / 64]
    assert len(times) > 20

    def walk(times):
        step = lambda cursor, t: path.advance(cursor, t)[::-1]
        return jax.lax.scan(step, path.start(), times)[1]

    @jax.jit
    def read(times):
        walked = jax.lax.map(walk, times)
        pairs = times[:, jnp.array([[0, 1], [1, 2], [0, 2]])].reshape(-1, 2)
        found = jax.lax.map(lambda pair: path.increment(*pair), pairs)
        found = jax.tree.map(lambda x: x.reshape(-1, 3, 2).swapaxes(0, 1), found)
        first, second, both = (type(found)(*parts) for parts in zip(*found, strict=True))
        share = (times[:, 1] - times[:, 0]) / (times[:, 2] - times[:, 0])
        joined = tree.join(first, second, share[:, None])
        return rows(joined), rows(both), rows(walked)[:, :, 1:], rows(first), rows(second)

    joined, both, walked, first, second = read(times)
    np.testing.assert_allclose(joined, both, atol=1e-12)
    np.testing.assert_allclose(walked, np.stack([first, second], 2), atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_dyadic_walk_reads_the_same_path() -> None:
    depth, length = 5, 2.0
    path = brownian.path(KEY, 0.0, length, (2,), tol=length / 2**depth)
    seed = tree.seed_of(KEY)
    wants_down = np.random.default_rng(1).random(60) < 0.55

    def step(carry, wants):
        walk, is_done = carry
        left, right = dyadic.halves(seed, walk, length)
        goes_down = wants & (walk.level < depth)
        level = jnp.stack([walk.level + 1])
        stored = dyadic.store(walk, level, (right,), jnp.stack([goes_down]))
        after, is_last = dyadic.on(walk)
        new = jax.tree.map(
            lambda a, b: jnp.where(goes_down, a, b), dyadic.to_left(stored, left, True), after
        )
        size = dyadic.size(walk, length)
        expected = path.increment(walk.number * size, (walk.number + 1) * size)
        off = jnp.max(jnp.abs(rows(walk.node) - rows(expected)))
        return (new, is_done | (is_last & ~goes_down)), (off, goes_down, is_done, size)

    length = jnp.float64(length)
    start = dyadic.start(seed, length, 2, "WHK", depth), jnp.zeros((), bool)
    _, (off, went_down, is_done, size) = jax.jit(lambda: jax.lax.scan(step, start, wants_down))()
    visited = ~is_done
    assert is_done[-1]
    assert (off[visited] < 1e-12).all()
    assert np.sum(size[visited & ~went_down]) == length
    assert len(np.unique(size[visited])) >= 4


def z_same_law_as_diffrax(key: jax.Array) -> np.ndarray:
    """Second moments of (W, H, K) over two intervals that overlap, of 7,500 paths each."""
    area, times = diffrax.SpaceTimeTimeLevyArea, np.array([[0.1, 0.35], [0.2, 0.95]])

    def ours(key, s, t):
        return rows(brownian.path(key, 0.0, 1.0, (5,), tol=0.03).increment(s, t))

    def diffraxs(key, s, t):
        found = diffrax.VirtualBrownianTree(0.0, 1.0, 0.03, (5,), key, area).evaluate(
            s, t, use_levy=True
        )
        return jnp.stack([found.W, found.H, found.K])

    def moments(draw, key):
        keys = jax.random.split(key, 1500)
        over = jax.jit(jax.vmap(jax.vmap(draw, (None, 0, 0)), (0, None, None)))
        parts = np.moveaxis(np.asarray(over(keys, *times.T), np.float64), 3, 1).reshape(-1, 6)
        products = (parts[:, :, None] * parts[:, None])[:, *np.tril_indices(6)]
        return products.mean(0), products.var(0) / len(products)

    (a, va), (b, vb) = (
        moments(d, k) for d, k in zip((ours, diffraxs), jax.random.split(key), strict=True)
    )
    return (a - b) / np.sqrt(va + vb)


def test_the_law_is_that_of_diffrax() -> None:
    # 21 statistics at 5.2 standard errors: 4e-6.
    assert np.abs(z_same_law_as_diffrax(jax.random.key(8))).max() < 5.2


@pytest.mark.usefixtures("x64")
def test_diffrax_solves_on_our_path() -> None:
    """QUICSORT of diffrax on a path, and ours on the path's increments: the same numbers."""
    path = brownian.path(KEY, 0.0, 1.0, (2,), tol=0.05)
    force = lambda x, _: x**3
    terms = diffrax.MultiTerm(
        diffrax.UnderdampedLangevinDriftTerm(1.3, 1.0, force),
        diffrax.UnderdampedLangevinDiffusionTerm(1.3, 1.0, path),
    )
    x, w = jnp.array([1.0, -0.5]), jnp.array([0.2, 0.3])
    solution = diffrax.diffeqsolve(
        terms, diffrax.QUICSORT(0.0), 0.0, 1.0, 0.25, (x, w), adjoint=diffrax.ForwardMode()
    )
    value_and_score = jax.value_and_grad(lambda x: -jnp.sum(x**4) / 4)
    phase = Phase(x, w, Evaluation(x, *value_and_score(x)), jnp.zeros(()))
    h, friction = jnp.float64(0.25), jnp.float64(1.3)

    def step(phase, s):
        increment = Increment(*path.increment(s, s + h))
        args = value_and_score, as_metric(None), friction, h, increment
        return SCHEMES["quicsort"].step(*args, phase)[0], None

    end, _ = jax.jit(lambda: jax.lax.scan(step, phase, jnp.arange(4) / 4))()
    np.testing.assert_allclose(solution.ys[0][0], end.position, rtol=1e-10)
    np.testing.assert_allclose(solution.ys[1][0], end.momentum, rtol=1e-10)


@pytest.mark.parametrize("levy", LEVY)
def test_evaluate_returns_what_diffrax_expects(levy: str) -> None:
    path = brownian.path(KEY, 1.0, 2.0, (2, 2), levy, tol=0.1)
    found = path.evaluate(1.2, 1.7, use_levy=True)
    assert type(found) is path.levy_area
    assert isinstance(found, diffrax.AbstractBrownianIncrement)
    np.testing.assert_allclose(found.dt, 0.5, rtol=1e-6)
    increment = path.increment(1.2, 1.7)
    for part in levy:
        np.testing.assert_array_equal(getattr(increment, part), getattr(found, part))
    assert [hasattr(found, part) for part in "WHK"] == [part is not None for part in increment]
    np.testing.assert_allclose(path.evaluate(1.7) - path.evaluate(1.2), found.W, atol=1e-6)


def test_same_key_same_path_however_it_is_mapped() -> None:
    keys = jax.random.split(KEY, 3)
    times = jnp.array([[0.1, 0.3], [0.25, 0.5], [0.0, 1.0]])
    draw = lambda row: rows(brownian.path(row[0], 0.0, 1.0, (2,)).increment(*row[1]))
    both = jax.jit(lambda rows: (jax.vmap(draw)(rows), jax.lax.map(draw, rows)))
    mapped, alone = both((keys, times))
    np.testing.assert_allclose(mapped, alone, atol=1e-6)
    assert len(np.unique(np.round(mapped, 5))) == mapped.size


@pytest.mark.usual_compiler
def test_float32_keeps_the_areas_far_from_the_start() -> None:
    draw = lambda key: brownian.path(key, 0.0, 100.0, (10,), tol=2**-10).increment(99.3, 99.32)
    found = jax.jit(jax.vmap(draw))(jax.random.split(KEY, 500))
    variances = [np.var(part) / 0.02 * c for part, c in zip(found, (1, 12, 720), strict=True)]
    # 5000 draws; three statistics at 5.2 standard errors, 6e-7, and 0.1 % of length rounded off.
    np.testing.assert_allclose(variances, 1, atol=5.2 * (2 / 5000) ** 0.5 + 1e-3)


def test_times_out_of_order_or_range_give_nan() -> None:
    path = brownian.path(KEY, 0.0, 1.0, (2,), tol=0.1)
    times = np.array([(0.5, 0.4), (-0.1, 0.5), (0.5, 1.1), (-0.2, -0.1), (0.5, 0.5)])
    found = jax.jit(jax.vmap(lambda pair: path.increment(*pair).W))(times)
    assert np.isnan(found[:4]).all()
    np.testing.assert_array_equal(found[4], 0)


def test_the_hash_is_threefry_and_its_normals_are_normal() -> None:
    seed = tree.seed_of(KEY)
    low = jnp.arange(50, dtype=jnp.uint32)
    words = threefry_2x32(seed, jnp.concatenate([jnp.full(50, 7, jnp.uint32), low]))
    np.testing.assert_array_equal(jnp.concatenate(tree.threefry(seed, 7, low)), words)
    for dtype in (np.dtype("float32"), np.dtype("float64")):
        with jax.enable_x64(True):
            normals = np.asarray(tree.node_normals(seed, 7, "WH", (20_001,), dtype))
        assert normals.dtype == dtype
        # Fixed key; a correct generator fails one with probability 1e-6.
        assert scipy.stats.kstest(normals.ravel(), "norm").pvalue > 1e-6
        np.testing.assert_allclose(np.corrcoef(normals)[0, 1], 0, atol=5.2 / 20_001**0.5)


def test_tol_needs_numbers_and_bounds_the_depth() -> None:
    with pytest.raises(TypeError, match="tol"):
        jax.jit(lambda t1: brownian.path(KEY, 0.0, t1, (1,), tol=0.1).depth)(1.0)
    with pytest.raises(ValueError, match="at most 20"):
        brownian.path(KEY, 0.0, 1.0, (1,), tol=1e-9)
    assert brownian.path(KEY, 0.0, 1.0, (1,), tol=0.25).depth == 2
    assert brownian.path(KEY, 0.0, 1.0, (1,), tol=0.24).depth == 3
