"""Projections: SVGD in informed directions against closed forms, and on the Grassmann manifold."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import eigh, null_space
from stein_targets import dead_do_not_count, double_loop, steps

from shoal.sampling import stein
from shoal.sampling.core import kernels
from shoal.sampling.stein._prior import quadratic

pytestmark = pytest.mark.quick_compiler

SGD = optax.sgd(1.0)
RNG = np.random.default_rng(0)
imq = lambda a, b: (1 + np.sum((a - b) ** 2)) ** -0.5


def random_precision(dim: int) -> np.ndarray:
    root = np.random.default_rng(1).normal(size=(dim, dim)) / dim**0.5
    return root @ root.T + 0.5 * np.eye(dim)


# Two observations of a vector of normal coordinates that depend on each other.
DIM, NUM = 30, 40
MEAN, PRECISION = np.linspace(-1, 1, DIM), random_precision(DIM)
FORWARD, DATA, NOISE = RNG.normal(size=(2, DIM)), np.array([2.0, -1.0]), 0.5
INFORMED = PRECISION + FORWARD.T @ FORWARD / NOISE**2
POSTERIOR = np.linalg.solve(INFORMED, PRECISION @ MEAN + FORWARD.T @ DATA / NOISE**2)
START = MEAN + RNG.normal(size=(NUM, DIM)) @ np.linalg.inv(np.linalg.cholesky(PRECISION))


def inverse_problem(x: jax.Array) -> jax.Array:
    precision, forward = jnp.asarray(PRECISION, x.dtype), jnp.asarray(FORWARD, x.dtype)
    gap = x - jnp.asarray(MEAN, x.dtype)
    misfit = forward @ x - jnp.asarray(DATA, x.dtype)
    return -0.5 * gap @ precision @ gap - 0.5 * jnp.sum(misfit**2) / NOISE**2


def projected(**options: Any) -> Any:
    return stein.projected_svgd(num_dims=4, prior_mean=MEAN, prior_precision=PRECISION, **options)


@pytest.mark.usefixtures("x64")
def test_the_subspace_is_that_of_the_generalised_eigenvectors_and_svgd_runs_in_it():
    sampler = projected(optimizer=SGD, bandwidth=3.0)
    algorithm = sampler(inverse_problem)
    state, _ = jax.jit(lambda x: algorithm.step(jax.random.key(0), algorithm.init(x)))(START)
    misfit = (START @ FORWARD.T - DATA) @ FORWARD / NOISE**2
    values, vectors = eigh(misfit.T @ misfit / NUM, PRECISION)
    np.testing.assert_allclose(state.memory.eigenvalues[:2], values[:-3:-1], rtol=1e-8)
    assert (state.memory.eigenvalues[2:] < 1e-8).all()
    assert (state.memory.basis[:, 2:] == 0).all()
    # Orthonormal in P: coefficients w = VᵀP(x - m), moves V φ.
    leading = vectors[:, -2:]
    score = -(START - MEAN) @ PRECISION - misfit
    phi = double_loop(imq, (START - MEAN) @ PRECISION @ leading, score @ leading, 3.0)
    np.testing.assert_allclose(state.position - START, phi @ leading.T, rtol=1e-6, atol=1e-8)


def test_a_posterior_with_two_informed_directions():
    """Moments there in closed form; the complement stays as it was drawn, as with any optimiser."""
    algorithm = projected()(inverse_problem)
    state, _ = steps(algorithm, algorithm.init(jnp.asarray(START, jnp.float32)), 150)
    found = np.asarray(state.position, np.float64)
    seen = FORWARD @ np.linalg.inv(INFORMED) @ FORWARD.T
    np.testing.assert_allclose(FORWARD @ found.mean(0), FORWARD @ POSTERIOR, atol=0.05 * NOISE)
    moved = np.cov(found @ FORWARD.T, rowvar=False, bias=True)
    np.testing.assert_allclose(moved, seen, atol=0.1 * seen.max())
    assert (np.diag(FORWARD @ np.linalg.inv(PRECISION) @ FORWARD.T) > 10 * np.diag(seen)).all()
    assert np.abs(found - START).max() > 0.5
    np.testing.assert_allclose((found - START) @ PRECISION @ null_space(FORWARD), 0, atol=1e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["number", "diagonal", "matrix"])
def test_the_coordinates_of_the_prior(kind: str) -> None:
    """Derivatives of the map, its inverse and its volume, and the prior's law."""
    matrix = {"number": 4.0 * np.eye(3), "diagonal": np.diag([1.0, 4, 9])}.get(
        kind, random_precision(3)
    )
    given = {"number": matrix[0, 0], "diagonal": np.diag(matrix), "matrix": matrix}[kind]
    here = quadratic(jnp.asarray(MEAN[:3]), jnp.asarray(given))
    x, v = START[:4, :3], RNG.normal(size=3)
    y = here.to_dual(x)
    np.testing.assert_allclose(here.to_primal(y), x, atol=1e-12)
    gap = x - MEAN[:3]
    np.testing.assert_allclose(np.sum(y**2, 1), np.einsum("ia,ab,ib->i", gap, matrix, gap))
    root = jax.jacobian(here.to_dual)(x[0])
    np.testing.assert_allclose(root, root.T, atol=1e-12)
    np.testing.assert_allclose(here.hessian_product(x[0], v), root @ v, rtol=1e-10)
    np.testing.assert_allclose(here.inverse_hessian_product(x[0], root @ v), v, rtol=1e-10)
    volume = -np.linalg.slogdet(root)[1]
    np.testing.assert_allclose(here.log_det_dual_hessian(y), [volume] * 4, rtol=1e-10)
    white = here.hessian_noise(jax.random.key(0), jnp.zeros((40_000, 3)))
    np.testing.assert_allclose(np.cov(white.T), root, atol=0.05 * np.max(root))


def projected_discrepancy(a: np.ndarray, x: np.ndarray, s: np.ndarray, h: float) -> float:
    """(1/n²) Σ_ij of Stein's operator on k(|z - z'|²/h) twice, z = Aᵀx, pair by pair."""
    z, t = x @ a, s @ a
    total = 0.0
    for zi, ti in zip(z, t, strict=True):
        for zj, tj in zip(z, t, strict=True):
            gap = zi - zj
            base = 1 + gap @ gap / h
            first, second = -0.5 / h * base**-1.5, 0.75 / h**2 * base**-2.5
            total += base**-0.5 * ti @ tj - 2 * first * ((ti - tj) @ gap + len(gap))
            total -= 4 * gap @ gap * second
    return total / len(x) ** 2


CROSS = np.array([[2.0, 0.9, 0], [0.9, 1, 0.3], [0, 0.3, 0.5]])


@pytest.mark.usefixtures("x64")
def test_projectors_climb_the_discrepancy_and_particles_follow():
    """One step without noise to speak of; the projectors move first."""
    x = RNG.normal(size=(5, 3))
    sampler = stein.grassmann_svgd(
        None, SGD, num_dims=2, num_projections=2, bandwidth=1.7,
        projector_step_size=0.2, temperature=1e-30,
    )  # fmt: skip
    algorithm = sampler(lambda y: -0.5 * y @ CROSS @ y)
    state, _ = jax.jit(lambda x: algorithm.step(jax.random.key(0), algorithm.init(x)))(x)
    score, expected = -x @ CROSS, np.zeros_like(x)
    for after, columns in zip(state.memory.projectors, ([0, 1], [2, 0]), strict=True):
        a = np.eye(3)[:, columns]
        slope = np.zeros_like(a)
        for entry in np.ndindex(*a.shape):
            e = np.zeros_like(a)
            e[entry] = 1e-5
            up, down = (projected_discrepancy(a + d, x, score, 1.7) for d in (e, -e))
            slope[entry] = (up - down) / 2e-5
        moved = np.linalg.qr(a + 0.2 * (slope - a @ a.T @ slope))[0]
        assert np.abs(moved @ moved.T - a @ a.T).max() > 0.05
        np.testing.assert_allclose(after @ after.T, moved @ moved.T, atol=1e-7)
        expected += double_loop(imq, x @ after, score @ after, 1.7) @ after.T
    np.testing.assert_allclose(state.position - x, expected, rtol=1e-7, atol=1e-8)


def z_tangents(key: jax.Array) -> Any:
    """Variance of what many projectors move by, √(2 T δ) in each direction off their span."""
    num, step_size, heat = 4000, 1e-6, 10.0
    sampler = stein.grassmann_svgd(
        None, SGD, num_projections=num, bandwidth=1.0,
        projector_step_size=step_size, temperature=heat,
    )  # fmt: skip
    algorithm = sampler(lambda y: -0.5 * jnp.sum(y**2))
    x = jax.random.normal(jax.random.key(1), (4, 3))
    state, _ = jax.jit(lambda x: algorithm.step(key, algorithm.init(x)))(x)
    after = np.asarray(state.memory.projectors, np.float64)[:, :, 0]
    off = after * (np.arange(3) != (np.arange(num) % 3)[:, None])
    # Chi-squared with two degrees of freedom each.
    return (np.sum(off**2) / (2 * heat * step_size) - 2 * num) / np.sqrt(4 * num)


def test_the_noise_of_the_projectors():
    assert np.abs(z_tangents(jax.random.key(0))) < 5.2


def test_projectors_stay_orthonormal_and_variances_large():
    """In 15 dimensions, from a third of the spread."""
    start = 0.3 * jax.random.normal(jax.random.key(0), (20, 15))
    normal = lambda x: -0.5 * jnp.sum(x**2)
    rbf = stein.svgd(kernels.RBF(1.0), bandwidth="tracked_log")(normal)
    algorithm = stein.grassmann_svgd(num_dims=2)(normal)
    state, _ = steps(algorithm, algorithm.init(start), 100)
    plain, _ = steps(rbf, rbf.init(start), 100)
    assert np.var(state.position, 0).mean() > 0.8 > 0.2 > np.var(plain.position, 0).mean()
    gram = np.einsum("bdm,bdp->bmp", state.memory.projectors, state.memory.projectors)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(2), gram.shape), atol=1e-5)
    # φ has settled, more than once.
    assert state.memory.temperature > 0.01
    assert np.abs(state.memory.projectors - algorithm.init(start).memory.projectors).max() > 0.5


@pytest.mark.usefixtures("x64")
def test_one_projector_of_all_dimensions_is_svgd():
    """Whatever the coordinates: the projector is turned, the sums are not."""
    x, turn = RNG.normal(size=(5, 3)), np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    grassmann = stein.grassmann_svgd(None, SGD, num_dims=3)
    plain = stein.svgd(None, SGD)

    def go(x: jax.Array) -> Any:
        density = lambda y: -0.5 * y @ CROSS @ y
        one, other = grassmann(density), plain(density)
        state = one.init(x)
        state = state._replace(memory=state.memory._replace(projectors=jnp.asarray(turn)[None]))
        after, info = one.step(jax.random.key(0), state)
        expected, expected_info = other.step(jax.random.key(0), other.init(x))
        return after.position, expected.position, info.bandwidth, expected_info.bandwidth

    after, expected, *bandwidths = jax.jit(go)(x)
    assert np.abs(expected - x).min() > 1e-3
    np.testing.assert_allclose(after, expected, atol=1e-12)
    np.testing.assert_allclose(*bandwidths, rtol=1e-9)


def test_the_dead_are_as_if_they_were_not_there():
    samplers = {
        "projected": stein.projected_svgd(None, SGD, num_dims=1, bandwidth=2.0),
        "grassmann": stein.grassmann_svgd(None, SGD, bandwidth=2.0),
    }
    density = lambda x: -0.5 * jnp.sum(x**2) - 2 * (x[0] + 0.5 * x[1] - 1) ** 2
    dead_do_not_count(samplers, density, jax.random.normal(jax.random.key(0), (6, 2)))
