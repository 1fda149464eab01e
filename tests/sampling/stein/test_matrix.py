"""Matrix-valued SVGD: the paper's sums, reductions, affine maps, averages, broken curvature."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stein_targets import correlated, dead_do_not_count, double_loop, steps

from shoal.sampling import stein
from shoal.sampling.core import minibatches
from shoal.sampling.core.algorithm import Status
from shoal.sampling.stein._metric import positive_part

pytestmark = pytest.mark.quick_compiler

SGD = optax.sgd(1.0)
X = np.random.default_rng(0).normal(size=(5, 2))
TURN = np.array([[1.0, 0.5], [-0.3, 0.8]])


def double_well(x: jax.Array) -> jax.Array:
    """Log density with two modes: turned up between them."""
    y = jnp.asarray(TURN, x.dtype) @ x
    return -((y[0] ** 2 - 1) ** 2) - y[1] ** 2


def well_score(x: np.ndarray) -> np.ndarray:
    y = x @ TURN.T
    return np.stack([-4 * y[:, 0] * (y[:, 0] ** 2 - 1), -2 * y[:, 1]], 1) @ TURN


def well_curvature(x: np.ndarray) -> np.ndarray:
    """Hessians of the negative log density, ``(n, 2, 2)``; eigenvalues below zero set to zero."""
    y = x @ TURN.T
    found = []
    for a in y[:, 0]:
        values, vectors = np.linalg.eigh(TURN.T @ np.diag([12 * a**2 - 4, 2.0]) @ TURN)
        found.append(vectors @ np.diag(np.maximum(values, 0)) @ vectors.T)
    return np.array(found)


def imq(q: Any) -> Any:
    return (1 + q) ** -0.5


def step_on_the_wells(form: str) -> Any:
    """Return what one step adds, and the bandwidth."""
    sampler = stein.matrix_svgd(None, SGD, preconditioner=form, bandwidth=1.7)
    algorithm = sampler(double_well)
    state, info = jax.jit(lambda x: algorithm.step(jax.random.key(0), algorithm.init(x)))(X)
    return state.position - X, info.bandwidth


@pytest.mark.usefixtures("x64")
def test_the_average_is_the_double_loop():
    curved = well_curvature(X)
    assert np.linalg.eigvalsh(curved).min() < 1e-12
    q = curved.mean(0)
    k = lambda a, b: imq((a - b) @ q @ (a - b))
    expected = double_loop(k, X, well_score(X), 1.7) @ np.linalg.inv(q)
    moved, h = step_on_the_wells("average")
    np.testing.assert_allclose(moved, expected, rtol=1e-7, atol=1e-8)
    assert h == 1.7


@pytest.mark.usefixtures("x64")
def test_the_mixture_is_its_double_loops():
    curved = well_curvature(X)
    q = (curved + curved.mean(0)) / 2

    def weights(x: np.ndarray) -> np.ndarray:
        gaps = x - X
        heights = np.exp(-np.einsum("la,lab,lb->l", gaps, q, gaps) / 2)
        heights = heights * np.sqrt(np.linalg.det(q))
        return heights / heights.sum()

    expected = np.zeros_like(X)
    for one in range(len(X)):
        # The derivative is in the first argument, and of the weight too.
        k = lambda a, b, i=one: weights(a * 1.7**0.5)[i] * imq((a - b) @ q[i] @ (a - b))
        own = double_loop(k, X, well_score(X), 1.7) @ np.linalg.inv(q[one])
        expected += np.array([weights(x)[one] for x in X])[:, None] * own
    np.testing.assert_allclose(step_on_the_wells("mixture")[0], expected, rtol=1e-7, atol=1e-8)


def test_a_constant_curvature_is_svgd_with_scaled_steps():
    """Q = 4 I: φ / 4, and distances count fourfold; the same by damping alone."""
    four = lambda x: 4 * jnp.eye(2)
    zero = lambda x: jnp.zeros((2, 2))
    samplers = {
        "svgd": stein.svgd(None, SGD, bandwidth="median_all"),
        "average": stein.matrix_svgd(None, SGD, curvature=four, bandwidth="median_all"),
        "damping": stein.matrix_svgd(
            None, SGD, curvature=zero, damping=4.0, bandwidth="median_all"
        ),
    }

    def go(x: jax.Array) -> dict[str, Any]:
        made = {}
        for name, sampler in samplers.items():
            algorithm = sampler(correlated)
            state, info = algorithm.step(jax.random.key(0), algorithm.init(x))
            made[name] = state.position - x, info.bandwidth
        return made

    x = jnp.asarray(X, jnp.float32)
    found = jax.jit(go)(x)
    moved, h = found.pop("svgd")
    for name, (quarter, scaled) in found.items():
        np.testing.assert_allclose(4 * quarter, moved, rtol=2e-5, atol=2e-6, err_msg=name)
        np.testing.assert_allclose(scaled, 4 * h, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_moves_follow_affine_maps():
    """Particles and target mapped: the same moves, mapped, with the bandwidth that is tracked."""

    def bowl(y: jax.Array) -> jax.Array:
        return -jnp.sum(y**2) - (TURN @ y)[0] ** 4

    def go(x: jax.Array, inverse: jax.Array, shift: jax.Array) -> Any:
        positions = []
        for form in ("average", "mixture"):
            sampler = stein.matrix_svgd(preconditioner=form)
            algorithm = sampler(lambda y: bowl(inverse @ (y - shift)))
            state = algorithm.init(x)
            positions.append(steps(algorithm, state, 3)[0].position)
        return positions

    go = jax.jit(go)
    matrix, shift = np.array([[30.0, 1.0], [-2.0, 0.01]]), np.array([5.0, -1e3])
    here = go(X, np.eye(2), np.zeros(2))
    there = go(X @ matrix.T + shift, np.linalg.inv(matrix), shift)
    for one, other in zip(here, there, strict=True):
        assert np.abs(one - X).min() > 1e-3
        back = (other - shift) @ np.linalg.inv(matrix).T
        np.testing.assert_allclose(back, one, atol=1e-7)


def test_the_metric_is_an_average_over_batches():
    """Positions are pytrees; curvature sees the batch, whose mean differs from step to step."""
    data = jnp.asarray([[1.0], [2.0], [4.0]])
    density = minibatches.from_arrays(
        lambda p: -jnp.sum(p["a"] ** 2), lambda p, y: -(p["b"][0] ** 2) * y[0], data, 1
    )
    seen = lambda p, batch: jnp.diag(jnp.stack([2.0, 6 * batch[0, 0]])) + 0 * p["b"][0]
    sampler = stein.matrix_svgd(None, SGD, curvature=seen, decay=0.4, bandwidth=1.0)
    algorithm = sampler(density)
    x = jnp.asarray(X, jnp.float32)
    key = jax.random.key(0)

    def go(position: Any) -> Any:
        one, _ = algorithm.step(key, algorithm.init(position, key))
        two, _ = algorithm.step(jax.random.key(5), one)
        return one, two

    one, two = jax.jit(go)({"a": x[:, 0], "b": x[:, 1:]})
    drawn = [density.draw(jax.random.split(k)[1])[0, 0] for k in (key, jax.random.key(5))]
    assert drawn[0] != drawn[1]
    np.testing.assert_allclose(one.memory[1], np.diag([2, 6 * drawn[0]]), rtol=1e-6)
    mean = 0.4 * drawn[0] + 0.6 * drawn[1]
    np.testing.assert_allclose(two.memory[1], np.diag([2, 6 * mean]), rtol=1e-6)


def test_curvature_that_is_not_finite_counts_as_none_and_without_any_the_particles_die():
    broken = lambda x: jnp.where(x[0] > 0.6, jnp.nan, 1.0) * jnp.eye(2)
    flat = lambda x: jnp.zeros((2, 2))
    x = jnp.asarray(X, jnp.float32)

    def go(x: jax.Array) -> Any:
        made = []
        for curvature in (broken, flat):
            sampler = stein.matrix_svgd(None, SGD, curvature=curvature, bandwidth=1.0)
            algorithm = sampler(correlated)
            made.append(algorithm.step(jax.random.key(0), algorithm.init(x)))
        return made

    (state, info), (stuck, stuck_info) = jax.jit(go)(x)
    count = (X[:, 0] <= 0.6).sum()
    assert 0 < count < len(X)
    np.testing.assert_allclose(state.memory[1], np.eye(2) * count / len(X), rtol=1e-6)
    assert (info.status == Status.OK).all()
    assert (stuck_info.status == Status.NONFINITE_GRADIENT).all()
    np.testing.assert_array_equal(stuck.position, x)


def test_the_dead_are_as_if_they_were_not_there():
    samplers = {
        "average": stein.matrix_svgd(None, SGD),
        "mixture": stein.matrix_svgd(None, SGD, preconditioner="mixture", bandwidth=2.0),
    }
    dead_do_not_count(samplers, double_well, jnp.asarray(X, jnp.float32))


def test_the_positive_part():
    matrix = jnp.array([[1.0, 2.0], [2.0, 1.0]])
    np.testing.assert_allclose(positive_part(matrix), np.full((2, 2), 1.5), rtol=1e-6)
