"""Metrics of ULA and MALA: low rank plus diagonal, and dependent on the position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference.diagnostics import invariance_test
from shoal.sampling import langevin
from shoal.sampling.core import random
from shoal.sampling.core.algorithm import Status
from shoal.sampling.langevin.metric import low_rank

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
RNG = np.random.default_rng(0)
DIAGONAL = np.array([0.5, 2.0, 1.5, 1.0])
VECTORS = np.linalg.qr(RNG.normal(size=(4, 2)))[0]
EIGENVALUES = np.array([9.0, 0.25])


def dense():
    root = np.diag(np.sqrt(DIAGONAL))
    return root @ (np.eye(4) + (VECTORS * (EIGENVALUES - 1)) @ VECTORS.T) @ root


def test_low_rank_is_the_dense_matrix_that_it_says():
    metric = low_rank(DIAGONAL, VECTORS, EIGENVALUES)
    ell, z = np.asarray(metric.factor), RNG.normal(size=4).astype(np.float32)
    np.testing.assert_allclose(ell @ ell.T, dense(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metric.color(z), ell @ z, rtol=1e-5)
    np.testing.assert_allclose(metric.whiten(z), ell.T @ z, rtol=1e-5)


def test_a_scalar_diagonal_is_that_of_all_coordinates():
    metric = low_rank(2.0, VECTORS, EIGENVALUES)
    same = low_rank(np.full(4, 2.0), VECTORS, EIGENVALUES)
    np.testing.assert_array_equal(metric.factor, same.factor)
    np.testing.assert_array_equal(metric.color(DIAGONAL), same.color(DIAGONAL))


def test_mala_with_low_rank_accepts_as_with_the_dense_metric():
    """Same proposal, whatever the factor: the acceptance rate of a given move is the same."""
    target = lambda x: -jnp.sum(x**4) / 4 - x[0] * x[1]
    low = low_rank(DIAGONAL, VECTORS, EIGENVALUES)
    position = jnp.array([0.4, -0.3, 0.6, 0.1])
    new, info = _steps(langevin.mala(0.1).replace(metric=low)(target), position, 100)
    y, x = np.asarray(new.position, np.float64), np.asarray(position, np.float64)
    value = lambda x: -np.sum(x**4, -1) / 4 - x[..., 0] * x[..., 1]
    derivative = lambda x: (
        -(x**3) - np.stack([x[..., 1], x[..., 0], *np.zeros((2, *x.shape[:-1]))], -1)
    )
    s, score = derivative(y), derivative(x)
    back, forth = x - y - 0.1 * s @ dense(), y - x - 0.1 * score @ dense()
    norm = lambda r: np.sum(r @ np.linalg.inv(dense()) * r, 1) / 0.4
    expected = np.exp(np.minimum(0, value(y) - value(x) - norm(back) + norm(forth)))
    moved = np.asarray(info.is_accepted)
    assert 20 < moved.sum() < 100
    np.testing.assert_allclose(info.acceptance_rate[moved], expected[moved], rtol=1e-4)


def test_chains_may_have_low_rank_metrics_of_their_own():
    make = lambda scale: langevin.ula(0.1, low_rank(scale, VECTORS, EIGENVALUES))
    samplers = jax.vmap(make)(jnp.array([1.0, 2.0]))

    def one(sampler):
        algorithm = sampler(lambda x: -0.5 * jnp.sum(x**2))
        return algorithm.step(jax.random.key(0), algorithm.init(jnp.ones(4)))[0].position

    together, alone = jax.jit(lambda many, single: (jax.vmap(one)(many), one(single)))(
        samplers, make(2.0)
    )
    np.testing.assert_allclose(together[1], alone, rtol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.01


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"diagonal": -1.0}, ValueError, "diagonal.*positive"),
        ({"diagonal": np.ones(3)}, ValueError, r"diagonal.*\(4,\).*\(3,\)"),
        ({"vectors": np.ones((4, 2))}, ValueError, "vectors.*orthonormal"),
        ({"vectors": np.ones(4)}, ValueError, r"vectors.*\(d, k\).*\(4,\)"),
        ({"vectors": np.full((4, 2), np.nan)}, ValueError, "vectors.*nan"),
        ({"eigenvalues": np.array([1.0, 0.0])}, ValueError, r"eigenvalues.*\[1\] is 0"),
        ({"eigenvalues": np.ones(3)}, ValueError, r"eigenvalues.*\(2,\).*\(3,\)"),
        ({"eigenvalues": "two"}, TypeError, "eigenvalues.*'two'"),
    ],
)
def test_impossible_low_rank_metrics_are_refused(change, error, message):
    good = {"diagonal": 1.0, "vectors": VECTORS, "eigenvalues": EIGENVALUES}
    with pytest.raises(error, match=message):
        low_rank(**{**good, **change})


def test_a_low_rank_metric_of_the_wrong_size_is_refused_at_the_start():
    sampler = langevin.mala(0.1, low_rank(1.0, VECTORS, EIGENVALUES))
    with pytest.raises(ValueError, match=r"metric.*\(4, 2\).*3 coordinates"):
        sampler(lambda x: -jnp.sum(x**2)).init(jnp.zeros(3))


# Metrics that depend on the position, in one and two dimensions.
def cauchy_like(x):
    """Grows with the distance: long moves in the tails."""
    return 0.5 + 0.5 * x**2


def sheared(x):
    """Neither diagonal nor with rows whose divergence vanishes."""
    ell = jnp.array([[1.0, 0.0], [jnp.tanh(x[0]), 0.7 + 0.3 * jnp.sin(x[1])]])
    return ell @ ell.T


def skewed(x):
    return jnp.sum(2 * x - jnp.exp(x))


def draws(key, num):
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return np.log(rng.gamma(2.0, size=(num, 2))).astype(np.float32)


POSITION_METRICS = {"diagonal": cauchy_like, "dense": sheared}


def _steps(algorithm, position, num):
    return _many(algorithm, position, random.particle_keys(jax.random.key(1), jnp.arange(num)))


def _many(algorithm, position, keys):
    """Take one step from one point for each key."""

    @jax.jit
    def run(position, keys):
        state = algorithm.init(position)
        return jax.vmap(lambda key: algorithm.step(key, state))(keys)

    return run(position, keys)


def z_mala_law(key, metric):
    algorithm = langevin.mala(0.6, POSITION_METRICS[metric])(skewed)
    result = invariance_test(key, algorithm, draws, num_particles=50_000, reversible=True)
    print(result)
    assert 0.3 * result.num_particles < result.num_moved
    assert not result.num_nonfinite
    return result.z


@pytest.mark.parametrize("metric", POSITION_METRICS)
def test_mala_keeps_the_law_in_a_metric_that_depends_on_the_position(metric):
    assert np.abs(z_mala_law(jax.random.key(3), metric)).max() < 5.2


def z_ula_step(key, metric):
    """Mean and covariance of a step against M, log π and their derivatives by hand."""
    x, h, num = np.array([0.6, -0.4]), 0.2, 20_000
    algorithm = langevin.ula(h, POSITION_METRICS[metric])(skewed)
    keys = random.particle_keys(key, jnp.arange(num))
    new, _ = _many(algorithm, jnp.asarray(x, jnp.float32), keys)
    score = 2 - np.exp(x)
    if metric == "diagonal":
        matrix, divergence = np.diag(0.5 + 0.5 * x**2), x
    else:
        t, b = np.tanh(x[0]), 0.7 + 0.3 * np.sin(x[1])
        matrix = np.array([[1.0, t], [t, t**2 + b**2]])
        divergence = np.array([0.0, 1 - t**2 + 2 * b * 0.3 * np.cos(x[1])])
    off = np.asarray(new.position, np.float64) - (x + h * (matrix @ score + divergence))
    white = np.linalg.solve(np.linalg.cholesky(2 * h * matrix), off.T)
    products = np.array([white[0], white[1], white[0] * white[1], *(white**2 - 1) / np.sqrt(2)])
    return products.mean(1) * np.sqrt(num)


@pytest.mark.parametrize("metric", POSITION_METRICS)
def test_ula_has_the_drift_with_the_divergence(metric):
    assert np.abs(z_ula_step(jax.random.key(2), metric)).max() < 5.2


def wavy(x):
    return 1 + 0.6 * jnp.cos(x)


def _stationary_variance(drift, var, grid):
    """Variance of the chain that goes from x to N(x + drift, var) on a grid, by quadrature."""
    kernel = np.exp(-((grid - (grid + drift)[:, None]) ** 2) / (2 * var[:, None]))
    kernel /= kernel.sum(1, keepdims=True)
    # Stationary: p (P - 1) = 0 with p summing to one, in place of one of the equations.
    equations = kernel.T - np.eye(len(grid))
    equations[0] = 1
    law = np.linalg.solve(equations, np.eye(len(grid))[0])
    return law @ grid**2


def test_the_bias_of_ula_vanishes_with_the_step_only_because_of_the_divergence():
    """On N(0, 1), with drift and factor that the sampler keeps in its state."""
    grid = np.linspace(-7, 7, 421)
    init = langevin.ula(0.1, wavy)(lambda x: -0.5 * jnp.sum(x**2)).init
    state = jax.jit(jax.vmap(init))(jnp.asarray(grid[:, None], jnp.float32))
    drift, matrix = (np.asarray(a, np.float64)[:, 0] for a in (state.drift, state.factor**2))
    steps = (0.2, 0.1, 0.05)
    bias = [_stationary_variance(h * drift, 2 * h * matrix, grid) - 1 for h in steps]
    assert 0.02 < bias[2] < 0.06
    np.testing.assert_allclose(bias[:2], 2 * np.array(bias[1:]), rtol=0.25)
    # Without the divergence the law tends to exp(-x²/2) / M(x).
    wrong = _stationary_variance(-0.05 * matrix * grid, 0.1 * matrix, grid)
    weights = np.exp(-(grid**2) / 2) / matrix
    limit = weights @ grid**2 / weights.sum()
    assert limit > 1.2
    assert abs(wrong - limit) < 0.1


def test_where_the_metric_is_not_positive_definite_the_chain_stays_and_says_so():
    metric = lambda x: jnp.where(x > 0, 1.0, -1.0)
    algorithm = langevin.mala(0.5, metric)(lambda x: -0.5 * jnp.sum(x**2))
    new, info = _steps(algorithm, jnp.array([0.3, 0.3]), 100)
    assert (new.position > 0).all()
    outside = np.asarray(info.status) == Status.NONFINITE_GRADIENT
    assert 20 < outside.sum() < 90
    assert (np.asarray(info.acceptance_rate)[outside] == 0).all()


@pytest.mark.parametrize(
    ("metric", "error", "message"),
    [
        (lambda x: jnp.ones(3), ValueError, r"metric.*\(2,\) or \(2, 2\).*\(3,\)"),
        (lambda x: jnp.sum(x), ValueError, r"metric.*\(2,\) or \(2, 2\).*\(\)"),
        (lambda x: jnp.ones(2, int), TypeError, "metric.*float32.*int32"),
        (lambda x: -jnp.ones(2), ValueError, "metric.*positive"),
        (lambda x: jnp.array([[1.0, 2.0], [2.0, 1.0]]), ValueError, "metric.*definite"),
        (lambda x: 1 + jnp.sqrt(x), ValueError, "metric.*finite"),
    ],
)
def test_unusable_metric_functions_are_refused_at_the_start(metric, error, message):
    algorithm = langevin.ula(0.1, metric)(lambda x: -0.5 * jnp.sum(x**2))
    with pytest.raises(error, match=message):
        algorithm.init(jnp.zeros(2))
