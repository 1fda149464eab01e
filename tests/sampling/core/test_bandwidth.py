"""Bandwidth rules against NumPy, BlackJAX and NumPyro; the tracked median on clouds at rest."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.vi.svgd import median_heuristic
from numpyro.contrib.einstein.stein_util import median_bandwidth

from shoal.sampling.core import bandwidth, kernels, pairwise, particles

pytestmark = pytest.mark.quick_compiler

MEDIANS = [rule for rule in bandwidth.RULES if rule != "fixed"]


def by_sorting(rule: str, x: np.ndarray) -> float:
    n = len(x)
    q = ((x[:, None] - x) ** 2).sum(-1)
    upper = np.sqrt(q[np.triu_indices(n, 1)])
    return {
        "median_offdiag_log": lambda: np.median(upper) ** 2 / np.log(n),
        "median_all_log": lambda: np.median(np.sqrt(q)) ** 2 / np.log(n),
        "median_all_log1p": lambda: np.median(q) / np.log(n + 1),
        "median_all": lambda: np.sort(q, axis=None)[::-1][n * n // 2 - 1],
    }[rule]()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [2, 7, 8, 50])
def test_rules_are_the_sorted_ones_for_even_and_odd_numbers(n: int) -> None:
    x = np.random.default_rng(n).normal(size=(n, 3)) + 20
    for rule in MEDIANS:
        found = float(bandwidth.from_rule(rule, x, block_size=16))
        assert found == pytest.approx(by_sorting(rule, x), rel=1e-10), rule


def test_conventions_are_those_of_blackjax_and_numpyro() -> None:
    x = jax.random.normal(jax.random.key(1), (60, 4))
    theirs = median_heuristic({}, x)["length_scale"]
    np.testing.assert_allclose(bandwidth.from_rule("median_offdiag_log", x), theirs, rtol=1e-5)
    theirs = median_bandwidth(x, lambda n: 1 / jnp.log(n))
    np.testing.assert_allclose(bandwidth.from_rule("median_all_log", x), theirs, rtol=1e-5)


def test_the_same_value_tiled_and_dense_and_under_jit() -> None:
    x = jax.random.normal(jax.random.key(2), (301, 5))
    dense = bandwidth.from_rule("median_all", x)
    assert dense == bandwidth.from_rule("median_all", x, block_size=64)
    assert dense == jax.jit(lambda x: bandwidth.from_rule("median_all", x))(x)
    slope = jax.grad(lambda x: bandwidth.from_rule("median_all", x))(x)
    assert not np.any(slope)


@pytest.mark.parametrize("rule", MEDIANS)
def test_degenerate_clouds_have_a_positive_bandwidth(rule: str) -> None:
    assert bandwidth.from_rule(rule, jnp.ones((1, 2))) == 1
    two_places = jnp.repeat(jnp.array([[1.234, 5.6], [70.0, -3.0]]), jnp.array([8, 2]), axis=0)
    assert bandwidth.from_rule(rule, two_places) == 1
    assert bandwidth.from_rule(rule, jnp.full((9, 3), 1.2345)) == 1
    # In some of these, rounding leaves 0.002 between the points that coincide.
    for seed in range(4):
        x = 100 * np.random.default_rng(seed).normal(size=(4, 30)).astype(np.float32)
        assert bandwidth.from_rule(rule, np.repeat(x, [9, 1, 1, 1], axis=0)) == 1
    assert np.isnan(bandwidth.from_rule(rule, two_places.at[3, 1].set(jnp.nan)))


@pytest.mark.parametrize("rule", MEDIANS)
def test_particles_that_do_not_count_change_nothing(rule: str) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    x[::7] = np.nan
    x[1] = 1e30
    found = jax.jit(lambda x, where: bandwidth.from_rule(rule, x, where=where, block_size=16))
    for count in (35, 34, 3, 2):
        where = np.zeros(40, bool)
        where[[i for i in range(40) if i % 7 and i != 1][:count]] = True
        wanted = by_sorting(rule, x[where].astype(np.float64))
        assert float(found(x, where)) == pytest.approx(wanted, rel=1e-5), where.sum()
    nobody = np.zeros(40, bool)
    assert found(x, nobody) == 1
    nobody[2] = True
    assert found(x, nobody) == 1
    nobody[7] = True
    assert np.isnan(found(x, nobody))


def test_fixed_is_the_number_given() -> None:
    found = bandwidth.from_rule("fixed", jnp.ones((3, 2)), 2)
    assert found == 2.0
    assert found.dtype == jnp.float32


def test_counts_beyond_32_bits_are_compared_exactly() -> None:
    counts = jnp.full(70_000, 69_999, jnp.int32)
    total = 70_000 * 69_999
    for wanted, expected in ((total - 1, True), (total, True), (total + 1, False)):
        digits = bandwidth._digits(np.asarray(wanted))
        assert bool(bandwidth._sums_to_at_least(counts, digits)) is expected


def _cloud(name: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    n = 400
    return {
        "normal, 1 dimension": lambda: rng.normal(size=(n, 1)),
        "normal, 100 dimensions": lambda: rng.normal(size=(n, 100)),
        "normal, 1000 dimensions": lambda: rng.normal(size=(n, 1000)),
        "scales from 1e-3 to 1": lambda: rng.normal(size=(n, 30)) * np.logspace(-3, 0, 30),
        "cauchy": lambda: rng.standard_cauchy((n, 3)),
        "log-normal": lambda: np.exp(3 * rng.normal(size=(n, 1))),
        "an outlier": lambda: np.concatenate([rng.normal(size=(n - 1, 5)), np.full((1, 5), 1e6)]),
        "two unequal clusters": lambda: (
            rng.normal(size=(n, 2)) + 1e4 * (np.arange(n) < n // 4)[:, None]
        ),
    }[name]()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "updates"),
    [
        ("normal, 1 dimension", 8),
        ("normal, 100 dimensions", 8),
        ("normal, 1000 dimensions", 10),
        ("scales from 1e-3 to 1", 8),
        ("cauchy", 10),
        ("log-normal", 10),
        ("an outlier", 18),
        ("two unequal clusters", 18),
    ],
)
@pytest.mark.parametrize("factor", [1.0, 20.0, 0.05])
def test_tracked_median_settles_on_a_cloud_at_rest(
    name: str, updates: int, factor: float, settle: Callable[..., jax.Array]
) -> None:
    x = jnp.asarray(_cloud(name))
    fractions = settle(x, jnp.asarray(factor))
    assert np.abs(fractions[updates:] - 0.5).max() < 1e-3


@pytest.fixture(scope="module")
def settle() -> Callable[..., jax.Array]:
    @jax.jit
    def run(x: jax.Array, factor: jax.Array) -> jax.Array:
        """Return the fractions of pairs within the threshold before each of 21 updates."""
        n = x.shape[0]
        start = bandwidth.track(x)
        start = start._replace(log_threshold=start.log_threshold + jnp.log(factor))

        def step(
            state: bandwidth.TrackedMedian, _: None
        ) -> tuple[bandwidth.TrackedMedian, jax.Array]:
            near = pairwise.count_within(x, x, state.threshold)
            return bandwidth.update(state, near), (near.sum() - n) / (n * (n - 1))

        return jax.lax.scan(step, start, length=21)[1]

    return run


def test_tracked_median_follows_a_cloud_that_shrinks() -> None:
    # The cloud shrinks by 5 % in squared distance a step; the estimate may lag by some steps.
    x = jax.random.normal(jax.random.key(0), (200, 10))
    median = bandwidth.from_rule("median_offdiag_log", x) * np.log(200)

    def step(
        state: bandwidth.TrackedMedian, k: jax.Array
    ) -> tuple[bandwidth.TrackedMedian, jax.Array]:
        scale = jnp.exp(-0.025 * k)
        lag = state.log_threshold - jnp.log(median * scale**2)
        near = pairwise.count_within(scale * x, scale * x, state.threshold)
        return bandwidth.update(state, near), lag

    lag = jax.lax.scan(step, bandwidth.track(x), jnp.arange(100.0))[1]
    assert np.abs(lag).max() < 0.3


def test_tracked_median_starts_finite_and_survives_a_bad_count() -> None:
    for x in (jnp.ones((1, 2)), jnp.full((6, 3), 1.2345)):
        state = bandwidth.track(x)
        near = pairwise.count_within(x, x, state.threshold)
        state = bandwidth.update(bandwidth.update(state, near), near)
        assert np.isfinite(state.threshold)
        assert state.bandwidth(len(x)) > 0
    state = bandwidth.track(jax.random.normal(jax.random.key(0), (5, 2)))
    after = bandwidth.update(state, jnp.full(5, jnp.nan))
    assert after.log_threshold == state.log_threshold


def test_tracked_median_is_that_of_the_particles_that_count() -> None:
    x = jax.random.normal(jax.random.key(5), (120, 4))
    where = jnp.arange(120) % 6 != 1
    bad = jnp.where(where[:, None], x, jnp.nan)
    alone, masked = bandwidth.track(x[where]), bandwidth.track(bad, where)
    parked = particles.park_dead(bad, where)
    for _ in range(4):
        np.testing.assert_allclose(masked.bandwidth(where.sum()), alone.bandwidth(100), rtol=1e-5)
        near = pairwise.count_within(x[where], x[where], alone.threshold)
        alone = bandwidth.update(alone, near)
        near = pairwise.count_within(parked, parked, masked.threshold)
        masked = bandwidth.update(masked, near, where)
    nobody = jnp.zeros(120, bool)
    for mask in (nobody, nobody.at[3].set(True)):
        state = bandwidth.track(bad, mask)
        state = bandwidth.update(state, jnp.full(120, 119.0), mask)
        assert state.bandwidth(mask.sum()) == 1


def test_tracked_bandwidth_of_one_point_stays_usable() -> None:
    # Never farther apart, always near: the threshold sinks at every update.
    x = jnp.full((20, 2), 1.2345)
    kernel_sum = jax.jit(
        lambda h: pairwise.kernel_matvec_plus_grad_sum(kernels.RBF(h), x, x, x, jnp.ones(20)).total
    )
    state = bandwidth.track(x)
    update = jax.jit(bandwidth.update)
    for _ in range(80):
        state = update(state, jnp.full(20, 20.0))
    assert 0 < state.bandwidth(20) < 1e-18
    assert np.all(np.isfinite(kernel_sum(state.bandwidth(20))))


@pytest.mark.usual_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_collapse_is_a_spread_that_rounding_explains(dtype: str, x64: None) -> None:
    eps = np.finfo(dtype).eps
    point = np.array([1.0, -700.0, 3.0], dtype)
    ensemble = lambda spread: jnp.asarray(np.stack([point, point, point * (1 + spread)]))
    assert bandwidth.collapsed(ensemble(0))
    assert bandwidth.collapsed(ensemble(2 * eps))
    assert not bandwidth.collapsed(ensemble(20 * eps))
    assert bandwidth.collapsed(jnp.zeros((3, 2), dtype))
    assert not bandwidth.collapsed(jnp.ones((1, 3), dtype))
    assert not bandwidth.collapsed(ensemble(np.nan))
    where = jnp.array([True, True, False])
    for spread in (1.0, np.nan):
        assert bandwidth.collapsed(ensemble(spread), where)
    assert not bandwidth.collapsed(ensemble(0), jnp.array([True, False, False]))


def test_tracked_bandwidth_is_the_rule_with_the_diagonal_left_out() -> None:
    x = jax.random.normal(jax.random.key(3), (100, 4))
    state = bandwidth.track(x)
    for _ in range(8):
        state = bandwidth.update(state, pairwise.count_within(x, x, state.threshold))
    wanted = bandwidth.from_rule("median_offdiag_log", x)
    np.testing.assert_allclose(state.bandwidth(100), wanted, rtol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("median", jnp.ones((2, 2))), ValueError, "rule must be one of"),
        (("median_all", jnp.ones(2)), ValueError, r"particles must have shape \(n, d\)"),
        (("median_all", jnp.ones((2, 2), int)), TypeError, "particles must have dtype"),
        (("fixed", jnp.ones((2, 2))), ValueError, "value is for rule='fixed' and needed there"),
        (("median_all", jnp.ones((2, 2)), 1.0), ValueError, "value is for rule='fixed'"),
        (("fixed", jnp.ones((2, 2)), -1.0), ValueError, "value must be finite and > 0, got -1.0"),
    ],
)
def test_impossible_arguments_are_refused(
    arguments: tuple, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bandwidth.from_rule(*arguments)
