"""Exact denoisers against closed forms and double loops in NumPy, differences and each other.

Statistical checks have fixed keys and fail right code with probability 2e-7 per statistic (5.2
standard errors), 27 statistics in all.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from shoal.models.denoisers import (
    digits_mixture,
    empirical,
    gaussian,
    gaussian_mixture,
    ring_mixture,
)

pytestmark = pytest.mark.quick_compiler
WEIGHTS = np.array([1.0, 0.0, 2.5, 0.5])
MEANS = np.array([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0], [3.0, -1.0, 2.0], [-1.0, 1.0, 0.5]])
COVARIANCE = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])
FLAT = np.outer([1.0, 2.0, -1.0], [1.0, 2.0, -1.0])  # a mode without variance across a line
COVARIANCES = np.stack([COVARIANCE, np.eye(3), np.diag([0.3, 2.0, 1.0]), FLAT])
X = np.array([[0.1, 0.2, -0.4], [2.0, -1.0, 1.0], [-3.0, 1.0, 4.0], [1.5, -0.5, 1.0]])
SIGMAS = (1e-4, 0.3, 1.0, 30.0, 1e4)
call = jax.jit(lambda denoiser, x, sigma: denoiser.fn(x, sigma))
log_density = jax.jit(lambda denoiser, x, sigma: denoiser.fn.log_density(x, sigma))


def mixture_in_numpy(weights, means, covs, x, sigma):
    """Return log density and mean of the data at each x."""
    logs, parts = [], []
    for weight, mean, cov in zip(weights, means, covs, strict=True):
        noisy = cov + sigma**2 * np.eye(len(mean))
        if weight > 0:
            logs.append(np.log(weight) + stats.multivariate_normal(mean, noisy).logpdf(x))
            parts.append(mean + np.linalg.solve(noisy, (x - mean).T).T @ cov)
    logs = np.array(logs) - np.log(np.sum(weights))
    share = special.softmax(logs, axis=0)
    return special.logsumexp(logs, axis=0), np.einsum("kn,knd->nd", share, parts)


def empirical_in_numpy(data, bandwidth, x, sigma):
    covs = np.broadcast_to(bandwidth**2 * np.eye(data.shape[1]), (len(data), *data.shape[1:] * 2))
    return mixture_in_numpy(np.ones(len(data)), data, covs, x, sigma)


@functools.cache
def points(num=40, dim=3):
    return np.random.default_rng(0).normal(size=(num, dim))


def full_mixture():
    return gaussian_mixture(WEIGHTS, MEANS, COVARIANCES)


MADE = {
    "mixture": full_mixture,
    "data set": lambda: empirical(points()),
    "smoothed data set": lambda: empirical(points(), 0.1),
}


@pytest.mark.usefixtures("x64")
def test_gaussian_is_its_closed_form_in_any_shape():
    x = X.reshape(2, 2, 3)
    diagonal = np.arange(1.0, 7.0).reshape(2, 3)
    root = np.random.default_rng(1).normal(size=(6, 6))
    for cov, matrix in (
        (0.7, 0.7 * np.eye(6)),
        (diagonal, np.diag(diagonal.ravel())),
        (root @ root.T, root @ root.T),
    ):
        denoiser = gaussian(np.ones((2, 3)), cov)
        for sigma in SIGMAS:
            gain = matrix @ np.linalg.inv(matrix + sigma**2 * np.eye(6))
            expected = 1 + (x.reshape(2, 6) - 1) @ gain.T
            out = call(denoiser, x, sigma)
            np.testing.assert_allclose(out, expected.reshape(x.shape), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(denoiser.fn.mean, np.ones(6))
        np.testing.assert_allclose(denoiser.fn.covariance, matrix, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_mixture_is_the_sum_over_components():
    denoiser = full_mixture()
    for sigma in SIGMAS:
        log_p, mean = mixture_in_numpy(WEIGHTS, MEANS, COVARIANCES, X, sigma)
        np.testing.assert_allclose(log_density(denoiser, X, sigma), log_p, rtol=1e-9)
        np.testing.assert_allclose(call(denoiser, X, sigma), mean, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_covariances_of_every_shape_agree():
    ones = np.array([0.5, 1.5, 0.1, 2.0])
    diagonals = ones[:, None] * np.ones(3)
    matrices = diagonals[:, :, None] * np.eye(3)
    made = [gaussian_mixture(WEIGHTS, MEANS, covs) for covs in (ones, diagonals, matrices)]
    for sigma in SIGMAS:
        first, *rest = [call(denoiser, X, sigma) for denoiser in made]
        for other in rest:
            np.testing.assert_allclose(other, first, atol=1e-11)
    np.testing.assert_allclose(made[0].fn.covariance, made[2].fn.covariance, atol=1e-13)
    shared = gaussian_mixture(WEIGHTS, MEANS, 0.5).fn
    np.testing.assert_array_equal(shared.variances, np.full((3, 3), 0.5))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MADE)
def test_denoiser_is_the_score_of_its_log_density(name):
    denoiser, sigma = MADE[name](), 0.7
    score = jax.jit(jax.grad(lambda x: jnp.sum(denoiser.fn.log_density(x, sigma))))(X)
    np.testing.assert_allclose((call(denoiser, X, sigma) - X) / sigma**2, score, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("bandwidth", [0.0, 0.4])
def test_data_set_is_the_sum_over_its_points(bandwidth):
    denoiser = empirical(points(), bandwidth)
    for sigma in SIGMAS[1:]:
        log_p, mean = empirical_in_numpy(points(), bandwidth, X, sigma)
        np.testing.assert_allclose(log_density(denoiser, X, sigma), log_p, rtol=1e-9)
        np.testing.assert_allclose(call(denoiser, X, sigma), mean, atol=1e-9)
    np.testing.assert_allclose(denoiser.fn.mean, points().mean(axis=0), atol=1e-14)
    expected = np.cov(points().T, ddof=0) + bandwidth**2 * np.eye(3)
    np.testing.assert_allclose(denoiser.fn.covariance, expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_data_set_in_the_limits():
    noiseless = call(empirical(points()), points() + 1e-6, 1e-4)
    np.testing.assert_allclose(noiseless, points(), atol=1e-12)
    # A broad kernel explains x by itself, and noise far beyond the data leaves their mean.
    np.testing.assert_allclose(call(empirical(points(), 1e4), X, 1e-3), X, rtol=1e-9)
    middle = points().mean(axis=0) + np.zeros_like(X)
    np.testing.assert_allclose(call(empirical(points()), X, 1e6), middle, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_data_set_by_tiles_is_the_same_with_its_derivatives():
    x, push = points()[:13] * 1.1, (points()[13:26], jnp.asarray(0.5))

    def at(block_size):
        denoiser = empirical(points().reshape(40, 3, 1), 0.2, block_size=block_size)
        x3, push3 = x[..., None], (push[0][..., None], push[1])
        return jax.jit(lambda x, s: jax.jvp(denoiser.fn, (x, s), push3))(x3, jnp.asarray(0.6))

    for tiled, dense in zip(at(5), at(None), strict=True):
        np.testing.assert_allclose(tiled, dense, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["mixture", "smoothed data set"])
def test_jvps_are_finite_differences(name):
    denoiser, step = MADE[name](), 1e-6
    for sigma in (0.05, 1.0):
        along = np.array([1.0, -0.5, 0.25])
        out, slope = jax.jvp(
            functools.partial(call, denoiser),
            (jnp.asarray(X), jnp.asarray(sigma)),
            (along + jnp.zeros_like(X), jnp.asarray(0.3)),
        )
        up, down = (call(denoiser, X + s * along, sigma + 0.3 * s) for s in (step, -step))
        np.testing.assert_allclose(out, call(denoiser, X, sigma), atol=1e-13)
        np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-5, atol=1e-7)


@pytest.mark.usual_compiler
@pytest.mark.parametrize("name", MADE)
def test_float32_is_accurate_and_finite_at_every_noise_and_distance(name):
    make = MADE[name]
    denoiser = make()
    with jax.enable_x64(True):
        wide = make()

    def both(denoiser, x, sigma):
        value, push = jax.linearize(denoiser.fn, x, sigma)
        total = lambda x, s: jnp.sum(denoiser.fn(x, s)) + jnp.sum(denoiser.fn.log_density(x, s))
        grads = jax.grad(total, (0, 1))(x, sigma)
        return value, push(jnp.ones_like(x), jnp.ones_like(sigma)), *grads

    compiled = eqx.filter_jit(both)
    for sigma in np.float32(SIGMAS):
        x = np.float32(MEANS[0] + points(8) * np.hypot(1, sigma))
        with jax.enable_x64(True):
            exact = call(wide, np.float64(x), np.float64(sigma))
        out = compiled(denoiser, x, sigma)[0]
        np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-5)
        for far in (1e3, 1e8, 1e15):
            for leaf in compiled(denoiser, np.float32(x + far), sigma):
                assert leaf.dtype == np.float32
                assert np.isfinite(leaf).all(), (sigma, far)


@pytest.mark.usefixtures("x64")
def test_arrays_are_arguments_and_the_input_sets_the_dtype():
    denoiser = full_mixture()
    made = eqx.filter_make_jaxpr(lambda denoiser, x, s: denoiser.fn(x, s))(denoiser, X, 1.0)[0]
    assert not [const for const in made.consts if np.size(const) > 1]
    for one in (denoiser, empirical(points(), 0.1)):
        assert call(one, np.float32(X), jnp.float32(1.0)).dtype == np.float32


def z_draws(key, name):
    """Standardise means and second moments of draws by the denoiser's own moments."""
    fn = {
        "full": full_mixture,
        "diagonal": lambda: gaussian_mixture([1.0, 2.0], MEANS[2:], [[1.0, 2.0, 0.5], [0.1] * 3]),
        "data set": lambda: empirical(points(), 0.4),
    }[name]().fn
    draws = np.asarray(fn.sample(key, 20_000), np.float64) - fn.mean
    first, second = np.triu_indices(3)
    moments = np.concatenate([draws, draws[:, first] * draws[:, second]], axis=1)
    expected = np.concatenate([np.zeros(3), fn.covariance[first, second]])
    return (moments.mean(axis=0) - expected) / (moments.std(axis=0) / np.sqrt(len(draws)))


@pytest.mark.parametrize("name", ["full", "diagonal", "data set"])
def test_draws_have_the_stated_moments(name):
    assert np.abs(z_draws(jax.random.key(3), name)).max() < 5.2


def test_draws_of_a_data_set_are_its_points():
    drawn = np.asarray(empirical(points()).fn.sample(jax.random.key(0), 300))
    assert len(np.unique(drawn, axis=0)) == 40
    assert set(map(tuple, drawn)) == set(map(tuple, np.float32(points())))


def test_mixtures_that_solvers_are_compared_on():
    digits, ring = digits_mixture().fn, ring_mixture().fn
    np.testing.assert_allclose(np.hypot(*ring.means.T), 1.0, rtol=1e-6)
    np.testing.assert_allclose(ring.covariance, (0.5 + 0.01) * np.eye(2), atol=1e-6)
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    np.testing.assert_allclose(digits.weights, np.array(counts) / 1797, rtol=1e-6)
    # The first pixel of every image is 0: only the added variance is left.
    np.testing.assert_allclose(digits.mean[0], -1.0, rtol=1e-6)
    np.testing.assert_allclose(digits.covariance[0, 0], 0.05**2, rtol=1e-4)
