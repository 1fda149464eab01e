"""Discrepancies have the values that theory, SciPy and double loops give."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import norm, ortho_group, wasserstein_distance

from shoal.inference import _memorisation, _transport, discrepancy
from shoal.models.denoisers.data import digits_data
from shoal.sampling.core.kernels import RBF

# Laws and identities hold however the compiler rounds.
pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(11)


def points(num, dim=3, seed=0, dtype=np.float32):
    return np.random.default_rng([seed, num, dim]).normal(size=(num, dim)).astype(dtype)


def with_moments(num, mean, covariance, seed=0):
    """Return points that have exactly this mean and covariance (ddof 1)."""
    z = points(num, len(mean), seed, np.float64)
    z -= z.mean(0)
    white = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T
    return mean + white @ np.linalg.cholesky(covariance).T


# Errors of paired samples


def test_one_sample_in_the_wrong_mode_makes_the_rmse_and_not_the_median():
    reference = points(101, 4).reshape(101, 2, 2)
    errors = np.full((101, 1, 1), 0.01, np.float32)
    errors[7] = 3.0
    samples = reference + errors
    assert discrepancy.rmse(samples, reference) == pytest.approx((9 / 101 + 1e-4) ** 0.5, rel=1e-3)
    assert discrepancy.median_rmse(samples, reference) == pytest.approx(0.01, rel=1e-4)


# Fréchet distance


def test_frechet_distance_where_covariances_commute():
    a, b, shift = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.0]), np.array([1.0, -2.0, 0.5])
    turn = ortho_group.rvs(3, random_state=0)
    x = with_moments(50, shift, turn @ np.diag(a) @ turn.T)
    found = discrepancy.frechet_distance(x, np.zeros(3), turn @ np.diag(b) @ turn.T)
    assert found == pytest.approx(shift @ shift + ((a**0.5 - b**0.5) ** 2).sum(), rel=1e-12)


@pytest.mark.parametrize(("num", "rounding"), [(3, 1e-13), (40, 1e-25)])
def test_frechet_distance_is_the_formula_also_of_few_samples(num, rounding):
    x, y = points(num, 5, dtype=np.float64), points(30, 5, 1, np.float64) * np.arange(1, 6)
    mean, s, c = y.mean(0), np.cov(x.T), np.cov(y.T)
    root = sqrtm(c).real
    middle = np.linalg.eigvalsh(root @ s @ root).clip(0)
    formula = ((x.mean(0) - mean) ** 2).sum() + np.trace(s + c) - 2 * np.sqrt(middle).sum()
    found = discrepancy.frechet_distance(x.reshape(num, 5, 1), mean, c)
    assert found == pytest.approx(formula, rel=1e-6)
    assert discrepancy.frechet_distance(x, x.mean(0), s) < rounding


# Sliced Wasserstein distance


@pytest.mark.parametrize(("num", "order"), [(6, 1), (10, 1), (10, 2), (4, 2.5)])
def test_on_a_line_it_is_the_wasserstein_distance_of_any_two_sizes(num, order):
    x, y = points(num, 1, 2), points(6, 1, 3) + 0.5
    # Of repeated points, as many in each set, the sorted ones meet.
    many = np.lcm(num, 6)
    along = (np.repeat(np.sort(z[:, 0]), many // len(z)) for z in (x, y))
    expected = np.mean(np.abs(np.subtract(*along)) ** order) ** (1 / order)
    found = discrepancy.sliced_wasserstein(KEY, x, y, 3, order=order)
    assert found == pytest.approx(expected, rel=1e-5)
    if order == 1:
        assert found == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-5)


def z_shift(key):
    """Squared projections of a unit vector are Beta(1/2, (d - 1)/2)."""
    num, dim = 2000, 5
    x, shift = jnp.asarray(points(20, dim)), jnp.array([3.0, 0.0, 4.0, 0.0, 0.0])
    squared = discrepancy.sliced_wasserstein(key, x, x[::-1] + shift, num) ** 2 / 25
    sd = (2 * (dim - 1) / (dim**2 * (dim + 2))) ** 0.5
    return (squared - 1 / dim) / (sd / num**0.5)


def test_a_shift_has_its_share_of_each_coordinate():
    # False alarm 2e-7.
    assert abs(z_shift(KEY)) < 5.2


def test_lines_taken_some_at_a_time_are_the_same_lines(monkeypatch):
    x, y = points(20), points(30, seed=1)
    together = discrepancy.sliced_wasserstein(KEY, x, y, 11)
    monkeypatch.setattr(_transport, "_PIECE", 4 * 50)
    _transport._sliced.clear_cache()
    assert discrepancy.sliced_wasserstein(KEY, x, y, 11) == pytest.approx(float(together), rel=1e-5)
    _transport._sliced.clear_cache()


def test_memory_of_sliced_wasserstein_does_not_grow_with_lines():
    x = jax.ShapeDtypeStruct((100_000, 2), np.float32)
    coupling = _transport._coupling(100_000, 100_000)
    compiled = _transport._sliced.lower(KEY, x, x, coupling, 2000, 2).compile()
    # All at once would be 1.6 GB.
    assert compiled.memory_analysis().temp_size_in_bytes < 2**28


# Kernels and distances

KERNELS = {
    "rbf": (RBF(2.0), lambda q: np.exp(-q / 2)),
    "function": (lambda x, y: jnp.sum(jnp.abs(x - y)) ** 0 * jnp.sum((x - y) ** 2), lambda q: q),
    "energy": (None, lambda q: -np.sqrt(q)),
}


def naive(f, x, y, unbiased):
    """Average over pairs in float64."""
    k = f(cdist(x, y, "sqeuclidean"))
    if x is not y or not unbiased:
        return k.mean()
    return (k.sum() - np.trace(k)) / (len(x) * (len(x) - 1))


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("name", KERNELS)
def test_mmd_and_energy_are_their_double_loops(name, unbiased):
    kernel, f = KERNELS[name]
    x, y = 1000 + points(7), 1000.5 + points(5, seed=1)
    metric = functools.partial(discrepancy.mmd, kernel=kernel)
    metric = discrepancy.energy_distance if name == "energy" else metric
    parts = (naive(f, *pair, unbiased) for pair in ((x, x), (y, y), (x, y)))
    expected = np.dot([1, 1, -2], list(parts))
    assert metric(x, y, unbiased=unbiased, block_size=3) == pytest.approx(expected, abs=2e-3)
    turned = metric(y[::-1].copy(), x, unbiased=unbiased)
    assert turned == pytest.approx(expected, abs=2e-3)


def test_the_bandwidth_is_the_median_of_the_reference_alone():
    x, y = points(9), points(6, seed=1)
    q = np.sort(cdist(y, y, "sqeuclidean").ravel())
    expected = discrepancy.mmd(x, y, RBF(float(q[18])))
    assert discrepancy.mmd(x, y) == pytest.approx(float(expected), rel=1e-5)


def z_gaussians(key):
    """U-statistics of N(0, 1) and N(1, 4) average to their closed forms."""
    one, two = jax.random.split(key)
    x = jax.random.normal(one, (1000, 12, 1))
    y = 1 + 2 * jax.random.normal(two, (1000, 8, 1))
    rbf = functools.partial(discrepancy.mmd, kernel=RBF(2.0), unbiased=True)
    energy = functools.partial(discrepancy.energy_distance, unbiased=True)
    shift, variance = np.array([0.0, 0.0, 1.0]), np.array([2.0, 8.0, 5.0])
    sd = variance**0.5
    folded = 2 * sd * norm.pdf(shift / sd) + shift * (1 - 2 * norm.cdf(-shift / sd))
    kernel = (1 + variance) ** -0.5 * np.exp(-(shift**2) / (2 + 2 * variance))
    expected = np.stack([kernel, -folded]) @ [1, 1, -2]
    found = np.stack(jax.jit(jax.vmap(lambda x, y: (rbf(x, y), energy(x, y))))(x, y))
    return (found.mean(1) - expected) / (found.std(1) / 1000**0.5)


def test_mmd_and_energy_of_gaussians_have_their_closed_forms():
    # False alarm 2e-7 each.
    assert np.abs(z_gaussians(KEY)).max() < 5.2


def test_energy_has_finite_gradients_where_points_coincide():
    x = jnp.asarray(points(4))
    gradient = jax.jit(jax.grad(lambda x: discrepancy.energy_distance(x, x[:2])))(x)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0.01


@pytest.mark.usefixtures("x64")
def test_float64_stays_and_order_does_not_matter():
    x, y = points(9, dtype=np.float64), points(8, seed=1)
    sliced = functools.partial(discrepancy.sliced_wasserstein, KEY, num_projections=5)
    for metric in (discrepancy.mmd, discrepancy.energy_distance, sliced):
        value = metric(x, y)
        assert value.dtype == np.float64
        assert metric(x[::-1], y[::-1]) == pytest.approx(float(value), rel=1e-12)
        # The root of what a squared distance is rounded by.
        assert metric(x, x[::-1]) == pytest.approx(0, abs=1e-8)


# Memorisation


def test_nearest_neighbours_are_those_of_a_double_loop_and_copies_are_at_zero():
    data = 1000 + points(53)
    samples = np.concatenate([1000 + points(20, seed=1), data[50:]])
    distance = cdist(samples, data)
    for block_size in (None, 7):
        found = discrepancy.nearest_neighbours(samples, data, block_size=block_size)
        np.testing.assert_array_equal(found.indices, distance.argmin(1))
        np.testing.assert_allclose(found.distances, distance.min(1), rtol=1e-4)
        assert (np.asarray(found.distances[20:]) == 0).all()


def test_sixty_thousand_images_need_little_more_memory_than_their_own():
    x, y = (jax.ShapeDtypeStruct((num, 784), np.float32) for num in (1000, 60_000))
    compiled = _memorisation._nearest.lower(x, y, None).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1.2 * 60_000 * 784 * 4


def z_memorisation(key):
    """p values of fresh draws are uniform."""
    draws = np.asarray(jax.random.normal(key, (60, 3, 100, 4)))
    p = [discrepancy.memorisation(*sets).p_value for sets in draws]
    return (np.mean(p) - 0.5) / (1 / (12 * len(p))) ** 0.5


def test_fresh_draws_are_not_memorised():
    # False alarm 2e-7.
    assert abs(z_memorisation(KEY)) < 5.2


def test_copies_are_memorised_and_few_copies_are_counted():
    train, held_out, fresh = np.asarray(jax.random.normal(KEY, (3, 200, 6)))
    copies = discrepancy.memorisation(train[:100] + 0.01, train, held_out)
    assert copies.p_value < 1e-20
    assert copies.ratio == pytest.approx(copies.sample_median / copies.held_out_median)
    assert copies.ratio < 0.05
    assert copies.num_closer == 100
    far = discrepancy.memorisation(2 * fresh, train, held_out)
    assert far.p_value > 0.999
    assert far.ratio > 1.5
    few = discrepancy.memorisation(np.concatenate([fresh, train[:4]]), train, held_out)
    assert few.p_value > 1e-3
    assert 4 <= few.num_closer <= 10
    assert "4 samples" in str(few._replace(num_closer=4))


# Classes


def test_the_classifier_of_digits_is_right_about_held_out_ones():
    _, _, images, labels = digits_data()
    predict = discrepancy.digits_classifier()
    square = images.reshape(-1, 8, 8)
    assert discrepancy.class_accuracy(square, labels, predict) >= 0.99
    assert discrepancy.class_accuracy(square, (labels + 1) % 10, predict) <= 0.01


def test_digits_are_split_once_and_for_all():
    train, train_labels, test, test_labels = digits_data()
    assert (train.shape, test.shape) == ((1437, 64), (360, 64))
    assert (train.dtype, test_labels.dtype) == (np.float32, np.int32)
    assert (train.min(), train.max()) == (-1, 1)
    shares = (np.bincount(labels) / len(labels) for labels in (train_labels, test_labels))
    np.testing.assert_allclose(*shares, atol=0.003)
    with pytest.raises(ValueError, match="read-only"):
        train[0] = 0
