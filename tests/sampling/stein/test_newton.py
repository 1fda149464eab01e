"""Stein variational Newton: steps against dense formulas, one particle, affine maps, noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stein_targets import MEAN, correlated, dead_do_not_count, steps

from shoal.sampling import stein

pytestmark = pytest.mark.quick_compiler

X = np.random.default_rng(0).normal(size=(5, 2))
MATRIX, SHIFT = np.array([[30.0, 1.0], [-2.0, 0.01]]), np.array([5.0, -1e3])
DAMPING = 0.03


def quartic(x: jax.Array) -> jax.Array:
    """Log density with curvature that changes sign along the first coordinate."""
    return -(x[0] ** 4) / 4 + x[0] ** 2 / 4 - (x[1] - 0.3 * x[0]) ** 2


def quartic_score(x: np.ndarray) -> np.ndarray:
    gap = x[:, 1] - 0.3 * x[:, 0]
    return np.stack([-(x[:, 0] ** 3) + x[:, 0] / 2 + 0.6 * gap, -2 * gap], 1)


def quartic_curvature(x: np.ndarray) -> np.ndarray:
    found = []
    for a in x[:, 0]:
        values, vectors = np.linalg.eigh([[3 * a**2 - 0.5 + 0.18, -0.6], [-0.6, 2.0]])
        found.append(vectors @ np.diag(np.maximum(values, 0)) @ vectors.T)
    return np.array(found)


def pairs(x: np.ndarray, s: np.ndarray, curved: np.ndarray) -> tuple[Any, ...]:
    """Return φ, K, the ∇_{x_j} k(x_j, x_i) and the blocks of both terms of H, pair by pair."""
    n, d = x.shape
    m = curved.mean(0)
    k, slope = np.zeros((n, n)), np.zeros((n, n, d))
    for i in range(n):
        for j in range(n):
            gap = x[j] - x[i]
            k[i, j] = np.exp(-gap @ m @ gap / (2 * d))
            slope[i, j] = -k[i, j] * m @ gap / d
    phi = (k @ s + slope.sum(1)) / n
    own = [sum(k[i, j] ** 2 * curved[j] for j in range(n)) / n for i in range(n)]
    spread = [sum(np.outer(g, g) for g in slope[i]) / n for i in range(n)]
    return phi, k, np.array(own), np.array(spread), m


def coupled(x: np.ndarray, curved: np.ndarray, s: np.ndarray) -> tuple[Any, ...]:
    """Return φ, K and H + λ K ⊗ M, dense."""
    n, d = x.shape
    phi, k, _, spread, m = pairs(x, s, curved)
    whole = np.zeros((n, d, n, d))
    for i in range(n):
        for other in range(n):
            both = sum(k[i, j] * k[other, j] * curved[j] for j in range(n)) / n
            whole[i, :, other] = both + DAMPING * k[i, other] * m + (i == other) * spread[i]
    return phi, k, whole.reshape(n * d, n * d)


def move(sampler: Any, x: Any, log_density: Any = quartic) -> Any:
    """Return what one step adds."""
    algorithm = sampler(log_density)
    step = lambda x: algorithm.step(jax.random.key(0), algorithm.init(x))[0].position
    return jax.tree.map(jnp.subtract, jax.jit(step)(x), x)


@pytest.mark.usefixtures("x64")
def test_the_step_with_blocks_is_the_double_loop():
    curved = quartic_curvature(X)
    assert np.linalg.eigvalsh(curved).min() < 1e-12
    phi, _, own, spread, m = pairs(X, quartic_score(X), curved)
    expected = [np.linalg.solve(h, p) for h, p in zip(own + spread + DAMPING * m, phi, strict=True)]
    moved = move(stein.svn(step_size=0.7, damping=DAMPING), X)
    np.testing.assert_allclose(moved, 0.7 * np.array(expected), rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_the_full_step_is_the_dense_solution():
    """With curvatures of the user's, at positions that are dictionaries."""
    phi, k, whole = coupled(
        X, np.array([np.diag([1 + a**2, 2 + b**2]) for a, b in X]), quartic_score(X)
    )
    alpha = np.linalg.solve(whole, phi.ravel()).reshape(X.shape)
    given = lambda p: jnp.diag(jnp.stack([1 + p["a"] ** 2, 2 + p["b"][0] ** 2]))
    sampler = stein.svn(step_size=0.7, form="full", damping=DAMPING, curvature=given)
    density = lambda p: quartic(jnp.stack([p["a"], p["b"][0]]))
    moved = move(sampler, {"a": X[:, 0], "b": X[:, 1:]}, density)
    found = np.column_stack([moved["a"], moved["b"]])
    np.testing.assert_allclose(found, 0.7 * k @ alpha, rtol=1e-7, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_one_particle_makes_newton_steps():
    samplers = stein.svn(damping=0.0), stein.svn(step_size=0.5, damping=0.0, form="full")

    def go(x: jax.Array) -> Any:
        made = [sampler(correlated) for sampler in samplers]
        key = jax.random.key(0)
        return [algorithm.step(key, algorithm.init(x))[0].position for algorithm in made]

    start = np.array([[40.0, -7.0]])
    exact, half = jax.jit(go)(start)
    np.testing.assert_allclose(exact, MEAN[None], atol=1e-10)
    np.testing.assert_allclose(half, (start + MEAN) / 2, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_moves_follow_affine_maps():
    def bowl(y: jax.Array) -> jax.Array:
        return -jnp.sum(y**2) - (y[0] + y[1]) ** 4

    def go(x: jax.Array, inverse: jax.Array, shift: jax.Array) -> Any:
        positions = []
        for form in ("block", "full"):
            algorithm = stein.svn(form=form)(lambda y: bowl(inverse @ (y - shift)))
            positions.append(steps(algorithm, algorithm.init(x), 3)[0].position)
        return positions

    go = jax.jit(go)
    here = go(X, np.eye(2), np.zeros(2))
    there = go(X @ MATRIX.T + SHIFT, np.linalg.inv(MATRIX), SHIFT)
    for one, other in zip(here, there, strict=True):
        assert np.abs(one - X).max(1).min() > 0.01
        np.testing.assert_allclose((other - SHIFT) @ np.linalg.inv(MATRIX).T, one, atol=1e-7)


def test_a_badly_scaled_mean_is_reached_in_few_steps():
    """Precisions from 1 to 10,000: SVGD is far from it after ten times as many steps."""
    scales = 1 / np.sqrt(np.geomspace(1.0, 1e4, 6))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    precision = jnp.asarray(turn.T @ np.diag(scales**-2) @ turn, jnp.float32)
    density = lambda x: -0.5 * (x - 1) @ precision @ (x - 1)
    start = jax.random.normal(jax.random.key(0), (20, 6))

    def error(sampler: Any, num: int) -> float:
        algorithm = sampler(density)
        state, _ = steps(algorithm, algorithm.init(start), num)
        return float(np.abs((np.mean(state.position, 0) - 1) @ turn.T / scales).max())

    newton, plain = error(stein.svn(), 10), error(stein.svgd(), 100)
    assert newton < 0.1 < 1 < plain


def z_noise(key: jax.Array) -> Any:
    """Covariances of one noisy step from a fixed state: 2 ε/n K H⁻¹ K."""
    num, step_size = 8000, 0.1
    with jax.enable_x64(True):
        x = X[:3]
        sampler = stein.svn(step_size=step_size, form="full", damping=DAMPING, is_stochastic=True)
        algorithm = sampler(quartic)

        def go(keys: Any) -> Any:
            state = algorithm.init(x)
            return jax.vmap(lambda k: algorithm.step(k, state)[0].position)(keys)

        moved = np.asarray(jax.jit(go)(jax.random.split(key, num))) - x
    phi, k, whole = coupled(x, quartic_curvature(x), quartic_score(x))
    wide = np.kron(k, np.eye(2))
    covariance = 2 * step_size / len(x) * wide @ np.linalg.inv(whole) @ wide
    mean = step_size * wide @ np.linalg.solve(whole, phi.ravel())
    flat = moved.reshape(num, -1) - mean
    variance = np.diag(covariance)
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / num)
    z = (flat.T @ flat / num - covariance) / error
    return np.concatenate([z[np.triu_indices(6)], flat.mean(0) / np.sqrt(variance / num)])


def test_the_noise_has_the_covariance_of_the_method():
    assert np.abs(z_noise(jax.random.key(1))).max() < 5.2


def test_the_dead_are_as_if_they_were_not_there():
    samplers = {form: stein.svn(form=form) for form in ("block", "full")}
    dead_do_not_count(samplers, quartic, jnp.asarray(X, jnp.float32))


@pytest.mark.parametrize(
    "sampler",
    [
        stein.svn(),
        stein.svn(form="full", is_stochastic=True),
        stein.matrix_svgd(),
        stein.matrix_svgd(preconditioner="mixture"),
        stein.grassmann_svgd(num_dims=3),
    ],
    ids=["block", "full", "average", "mixture", "grassmann"],
)
def test_no_array_is_of_pairs_and_coordinates(sampler: Any) -> None:
    n, d = 61, 7
    algorithm = sampler(lambda x: -0.5 * jnp.sum(x**2))
    step = lambda x: algorithm.step(jax.random.key(0), algorithm.init(x))
    text = jax.jit(step).lower(jax.ShapeDtypeStruct((n, d), jnp.float32)).as_text()
    assert "tensor<61x7x" in text
    for shape in ("61x61x7", "61x7x61", "7x61x61", "427x427", "61x427"):
        assert shape not in text, shape
