"""Exact OU transitions, thermodynamic solves with their errors, and natural gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import linalg

from shoal.sampling.langevin import ornstein_uhlenbeck as ou
from shoal.sampling.langevin.natural_gradient import natural_gradient

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
# Strongly non-normal: eigenvalues 1, 2 and 1.5, couplings of 30.
SHEAR = np.array([[1.0, 30.0, 0.0], [0.0, 2.0, 30.0], [0.0, 0.0, 1.5]])
SYMMETRIC = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, 0.2], [0.0, 0.2, 0.7]])
NOISE = np.array([[1.0, 0.3, 0.0], [0.3, 2.0, 0.1], [0.0, 0.1, 0.5]])
B = np.array([1.0, 2.0, -1.0])
# Three programs that the tests share, in place of hundreds of small ones.
transition = jax.jit(ou.transition, static_argnames="symmetric")


def exact(drift, noise, time):
    """E, s and C by the stationary law."""
    flow = linalg.expm(-drift * time)
    mean = np.linalg.solve(drift, B)
    rest = linalg.solve_continuous_lyapunov(drift, noise)
    return flow, mean - flow @ mean, rest - flow @ rest @ flow.T


def close(found, expected, tolerance=1e-9):
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("time", [0.05, 0.7, 40.0])
@pytest.mark.parametrize("kind", ["general", "symmetric", "symmetric as general", "scalar noise"])
def test_transition_is_exact(kind, time):
    drift = SHEAR if kind == "general" else SYMMETRIC
    noise = 0.6 * np.eye(3) if kind == "scalar noise" else NOISE
    given = 0.6 if kind == "scalar noise" else jnp.asarray(noise)
    symmetric = kind in ("symmetric", "scalar noise")
    law = transition(drift, B, given, time, symmetric=symmetric)
    flow, shift, covariance = exact(drift, noise, time)
    np.testing.assert_allclose(law.matrix, flow, rtol=1e-8, atol=1e-12)
    close(law.shift, shift)
    close(law.noise_factor @ law.noise_factor.T, covariance)


@pytest.mark.usefixtures("x64")
def test_the_symmetric_part_is_no_substitute():
    """By how much an eigendecomposition of (A + Aᵀ)/2 misses the covariance."""
    covariance = exact(SHEAR, np.eye(3), 0.5)[2]
    values, vectors = np.linalg.eigh((SHEAR + SHEAR.T) / 2)
    wrong = (vectors * -np.expm1(-values) / (2 * values)) @ vectors.T
    law = transition(SHEAR, B, np.eye(3), 0.5)
    close(law.noise_factor @ law.noise_factor.T, covariance)
    factor = np.trace(wrong) / np.trace(covariance)
    print(f"variance with the symmetric part: {factor:.3g} times the true one")
    assert factor > 1000


def by_quadrature(drift, time):
    """s and C by Gauss and Legendre's rule, exact to rounding for these smooth integrands."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    decays = [linalg.expm(-drift * time * (node + 1) / 2) for node in nodes]
    pairs = [(weight * time / 2, decay) for weight, decay in zip(weights, decays, strict=True)]
    return sum(w * e @ B for w, e in pairs), sum(w * e @ NOISE @ e.T for w, e in pairs)


@pytest.mark.usefixtures("x64")
def test_directions_without_drift_diffuse():
    """A singular A, symmetric and not, against quadrature; also one that is exactly zero."""
    rank_one = np.outer([1.0, 2.0, -1.0], [1.0, 2.0, -1.0])
    nilpotent = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    cases = ((np.zeros((3, 3)), True), (rank_one, True), (rank_one, False), (nilpotent, False))
    for drift, symmetric in cases:
        law = transition(drift, B, NOISE, 1.3, symmetric=symmetric)
        shift, covariance = by_quadrature(drift, 1.3)
        close(law.shift, shift)
        close(law.noise_factor @ law.noise_factor.T, covariance)


@pytest.mark.usefixtures("x64")
def test_two_halves_are_one_whole():
    half, whole = (transition(SHEAR, B, NOISE, t) for t in (0.4, 0.8))
    close(half.matrix @ half.matrix, whole.matrix)
    close(half.matrix @ half.shift + half.shift, whole.shift)
    early = half.matrix @ half.noise_factor
    close(
        early @ early.T + half.noise_factor @ half.noise_factor.T,
        whole.noise_factor @ whole.noise_factor.T,
    )


@pytest.mark.usefixtures("x64")
def test_stationary_covariance():
    found = ou.stationary_covariance(jnp.asarray(SHEAR), jnp.asarray(NOISE))
    close(found, linalg.solve_continuous_lyapunov(SHEAR, NOISE))
    assert np.isnan(ou.stationary_covariance(jnp.asarray(-SHEAR), 1.0)).all()


def z_draws(key):
    """Moments of simulated draws, whitened by the exact law, in float32."""
    law = transition(SHEAR, B, NOISE, 0.6)
    num, start = 20_000, np.array([1.0, -1.0, 0.5], np.float32)
    draws = jax.jit(jax.vmap(law.draw, (0, None)))(jax.random.split(key, num), start)
    flow, shift, covariance = exact(SHEAR, NOISE, 0.6)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (draws - flow @ start - shift).T)
    products = np.array([white[i] * white[j] - (i == j) for i in range(3) for j in range(i + 1)])
    features = np.concatenate([white, products])
    return features.mean(1) / (features.std(1) / np.sqrt(num))


def test_draws_have_the_moments_of_the_transition():
    assert np.abs(z_draws(jax.random.key(1))).max() < 5.2


def z_solve(key, kind):
    """Estimates over keys: their mean, and their spread against the error that is reported."""
    matrix = SYMMETRIC + (
        0 if kind == "symmetric" else np.array([[0, 3, 0], [-1, 0, 3], [0, 0, 0]])
    )
    num = 2000
    run = lambda key: ou.solve(key, matrix, B, 0.5, 60, 0.4, 8.0, symmetric=kind == "symmetric")
    found = jax.jit(jax.vmap(run))(jax.random.split(key, num))
    assert 0 < float(found.transient[0]) < 0.01
    errors = (found.estimate - np.linalg.solve(matrix, B)) / found.standard_error
    return zs(np.asarray(errors, np.float64))


def zs(errors):
    """Standardised errors must have mean 0 and mean square 1."""
    num = len(errors)
    means = errors.mean(0) * np.sqrt(num)
    return np.append(means, (np.mean(errors**2, 0) - 1) * np.sqrt(num / 2))


@pytest.mark.parametrize("kind", ["symmetric", "general"])
def test_solve_says_how_wrong_it_is(kind):
    assert np.abs(z_solve(jax.random.key(2), kind)).max() < 5.2


def test_what_is_left_of_the_start_is_known():
    found = jax.jit(lambda key: ou.solve(key, SYMMETRIC, B, 0.0, 5, 0.5, 1.0))(jax.random.key(0))
    lowest = np.linalg.eigvalsh(SYMMETRIC)[0]
    share = np.mean(np.exp(-lowest * (1.0 + 0.5 * np.arange(5))))
    np.testing.assert_allclose(found.transient, share, rtol=1e-4)
    solution = np.linalg.solve(SYMMETRIC, B)
    error = np.linalg.norm(found.estimate - solution) / np.linalg.norm(solution)
    assert 0.1 * share < error <= share
    np.testing.assert_array_equal(found.standard_error, 0)


def z_inverse(key):
    run = lambda key: ou.inverse(key, SYMMETRIC, 400, 0.4, 8.0)
    found = jax.jit(jax.vmap(run))(jax.random.split(key, 2000))
    errors = (found.estimate - np.linalg.inv(SYMMETRIC)) / found.standard_error
    errors = np.asarray(errors, np.float64)[:, *np.tril_indices(3)]
    means = errors.mean(0) * np.sqrt(len(errors))
    # The errors of variances are skewed: their own fourth moment is what judges.
    squares = errors**2 - 1
    return np.append(means, squares.mean(0) / squares.std(0) * np.sqrt(len(errors)))


def test_inverse_says_how_wrong_it_is():
    assert np.abs(z_inverse(jax.random.key(3))).max() < 5.2


@jax.jit
def direction(key, time, temperature=0.0, **curvature):
    """One update from a direction that is not zero."""
    transform = natural_gradient(key, 0.1, time, temperature)
    state = transform.init(GRADIENT)._replace(direction=OLD)
    found = transform.update(GRADIENT, state, **curvature)[0]
    return jnp.concatenate([found["a"], found["b"]])


ravel = lambda tree: np.concatenate([tree["a"], tree["b"]])
ROWS = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
FISHER = ROWS.T @ ROWS / 3
JACOBIAN = {"a": ROWS[:, :2], "b": ROWS[:, 2:]}
GRADIENT = {"a": np.array([1.0, -0.5], np.float32), "b": np.array([0.3, 2.0, 0.0, 1], np.float32)}
OLD = jax.tree.map(lambda leaf: leaf[::-1] - 0.2, GRADIENT)


@pytest.mark.parametrize("curvature", [{"jacobian": JACOBIAN}, {"fisher": FISHER}])
def test_natural_gradient_and_its_limits(curvature):
    a = FISHER.astype(np.float64) + 0.1 * np.eye(6)
    for time in (1e-4, 0.7, 30.0):
        flow = linalg.expm(-a * time)
        expected = flow @ ravel(OLD) + np.linalg.solve(a, (np.eye(6) - flow) @ ravel(GRADIENT))
        np.testing.assert_allclose(
            direction(jax.random.key(0), time, **curvature), expected, rtol=2e-4, atol=2e-4
        )
    natural = np.linalg.solve(a, ravel(GRADIENT))
    found = direction(jax.random.key(0), math.inf, **curvature)
    np.testing.assert_allclose(found, natural, rtol=2e-4, atol=2e-4)


def z_natural_gradient_noise(key):
    num, temperature, time = 4000, 0.4, 0.7
    draw = jax.vmap(lambda key: direction(key, time, temperature, jacobian=JACOBIAN))
    found = np.asarray(draw(jax.random.split(key, num)), np.float64)
    a = FISHER.astype(np.float64) + 0.1 * np.eye(6)
    covariance = temperature * np.linalg.solve(a, np.eye(6) - linalg.expm(-2 * a * time))
    noise = found - direction(jax.random.key(0), time, jacobian=JACOBIAN)
    white = np.linalg.solve(np.linalg.cholesky(covariance), noise.T)
    return np.append(white.mean(1) * np.sqrt(num), (np.mean(white**2, 1) - 1) * np.sqrt(num / 2))


def test_natural_gradient_has_the_noise_of_its_temperature():
    assert np.abs(z_natural_gradient_noise(jax.random.key(4))).max() < 5.2


def test_natural_gradient_remembers_its_direction():
    """Two updates of half the time are one, if nothing else has changed."""
    results = []
    for time, updates in ((0.8, 1), (0.4, 2)):
        optimizer = optax.chain(natural_gradient(jax.random.key(0), 0.1, time), optax.scale(-1.0))
        state, update = optimizer.init(GRADIENT), jax.jit(optimizer.update)
        for _ in range(updates):
            found, state = update(GRADIENT, state, jacobian=JACOBIAN)
        results.append(ravel(found))
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-6)
    assert state[0].num_updates == 2


def test_what_is_asked_of_the_arguments():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="drift_matrix must be symmetric"):
        ou.transition(SHEAR, symmetric=True)
    with pytest.raises(ValueError, match=r"b must be a scalar or \(3,\), got shape \(2,\)"):
        ou.transition(SHEAR, np.ones(2))
    with pytest.raises(ValueError, match=r"diffusion must have shape \(3, 3\), got \(2, 2\)"):
        ou.transition(SHEAR, 0.0, np.eye(2))
    transform = natural_gradient(key)
    state = transform.init(GRADIENT)
    for curvature in ({}, {"jacobian": JACOBIAN, "fisher": FISHER}):
        with pytest.raises(ValueError, match="give either jacobian or fisher"):
            transform.update(GRADIENT, state, **curvature)
    with pytest.raises(ValueError, match=r"fisher must have shape \(6, 6\), got \(3, 6\)"):
        transform.update(GRADIENT, state, fisher=ROWS)
    with pytest.raises(ValueError, match=r"jacobian must have 6 columns, got shape \(3, 2\)"):
        transform.update(GRADIENT, state, jacobian={"a": ROWS[:, :2]})
