"""Stein variational natural gradient: one step in full, averages, minibatches, constant metrics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shoal.sampling import stein
from shoal.sampling.core import minibatches

pytestmark = pytest.mark.quick_compiler

NUM, DIM, H, TRUNCATION, JITTER = 6, 3, 0.7, 0.9, 1e-5
SGD = optax.sgd(1.0)
rng = np.random.default_rng(4)
POINTS, ROWS = rng.normal(size=(NUM, DIM)), rng.normal(size=(5, DIM))


def log_density(x):
    return -0.5 * jnp.sum(x**2)


def predict(x):
    return jnp.sin(ROWS.astype(x.dtype) @ x)


VARIANCE = lambda f: 2 + f**2
FISHER = stein.gauss_newton(predict, VARIANCE, weight=0.5)


def metric(x):
    """Return G and its derivatives ∂_d G_bc, by hand, for the points ``(n, d)``."""
    f, cosine = np.sin(x @ ROWS.T), np.cos(x @ ROWS.T)
    weight, slope = 0.5 * (2 + f**2) * cosine**2, 0.5 * 2 * f * cosine * cosine**2
    slope += 0.5 * (2 + f**2) * 2 * cosine * -f
    products = np.einsum("ib,ic->ibc", ROWS, ROWS)
    return (
        np.einsum("ni,ibc->nbc", weight, products),
        np.einsum("ni,ibc,id->nbcd", slope, products, ROWS),
    )


def official(x, matrix, slope):
    """Return the direction with metrics ``(n, d, d)`` and Σ ∂_d G_bc (G⁻¹)_cd, arrays in full."""
    inverse = np.linalg.inv(matrix)
    divergence = -np.einsum("nab,nb->na", inverse, slope)
    difference = x[:, None] - x
    base = 1 + (difference**2).sum(-1) / H
    slopes = -(base**-1.5)[:, :, None] * difference / H
    values, vectors = np.linalg.eigh(base**-0.5 + JITTER * np.eye(NUM))
    values, vectors = values[::-1] / NUM, vectors[:, ::-1]
    rank = int((np.cumsum(values / values.sum()) < TRUNCATION).sum()) + 1
    root, u = np.sqrt(values[:rank]), np.sqrt(NUM) * vectors[:, :rank]
    slope_u = np.einsum("lpa,pr->lra", slopes, u) / (NUM * values[:rank, None])
    half = np.einsum("ir,r,tr->it", u, root, u)
    slope_half = np.einsum("tr,r,lra->tla", u, root, slope_u)
    total = np.einsum("it,tab,tl,lbc,lc->ia", half, matrix, half, inverse, -x)
    total += np.einsum("it,tab,tlc,lbc->ia", half, matrix, slope_half, inverse)
    total += np.einsum("it,tab,tl,lb->ia", half, matrix, half, divergence)
    return np.einsum("nab,nb->na", inverse, total / NUM**2)


@functools.partial(jax.jit, static_argnums=(0, 2))
def run(algorithm, points, num):
    """Return the states and infos of a run, all of it one program."""
    step = lambda state, key: (lambda pair: (pair[0], pair))(algorithm.step(key, state))
    keys = jax.random.split(jax.random.key(0), num)
    return jax.lax.scan(step, algorithm.init(points, jax.random.key(1)), keys)[1]


# A metric of the package, and any function of the user's.
METRICS = {"known": FISHER, "function": lambda x: FISHER(x)}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.usefixtures("x64")
def test_two_steps_are_the_sums_over_all_pairs(name):
    sampler = stein.svng(
        METRICS[name], None, SGD, bandwidth=H, truncation=TRUNCATION, jitter=JITTER, damping=0.3
    )
    states, _ = run(sampler(log_density), jnp.asarray(POINTS), 2)
    x, seen, slope = POINTS, 0, 0
    for step in range(2):
        # Weights min(1 - 1/t, 0.95): nothing of the zeros at the start, then one half.
        old = min(1 - 1 / (step + 1), 0.95)
        matrix, derivatives = metric(x)
        seen = old * seen + (1 - old) * matrix
        damped = seen + 0.3 * np.eye(DIM)
        fresh = np.einsum("nbcd,ncd->nb", derivatives, np.linalg.inv(damped))
        slope = old * slope + (1 - old) * fresh
        x = x + official(x, damped, slope)
        np.testing.assert_allclose(states.position[step], x, rtol=1e-10)
    np.testing.assert_allclose(states.memory.metric[1], seen, rtol=1e-10)
    np.testing.assert_allclose(states.memory.slope[1], slope, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_a_constant_metric_preconditions_svgd():
    matrix = ROWS.T @ ROWS
    natural = stein.svng(
        lambda x: jnp.asarray(matrix), None, SGD, bandwidth=H, truncation=1.0, jitter=0.0
    )
    points = jnp.asarray(POINTS)
    moved = run(natural(log_density), points, 1)[0].position[0] - POINTS
    plain = run(stein.svgd(None, SGD, bandwidth=H)(log_density), points, 1)[0].position[0] - POINTS
    np.testing.assert_allclose(moved, np.linalg.solve(matrix, plain.T).T, rtol=1e-8)


def test_the_metric_sees_the_batch_and_a_particle_without_one_dies_alone():
    data = jnp.asarray(ROWS, jnp.float32)
    density = minibatches.from_arrays(
        lambda x: -0.5 * jnp.sum(x**2), lambda x, rows: -0.5 * (rows @ x) ** 2, data, 5
    )
    fisher = stein.gauss_newton(lambda x, rows: rows @ x)
    # Logarithms of negative numbers: no metric where the first coordinate is negative.
    partial = lambda x, rows: fisher(x, rows) + jnp.log(jnp.sign(x[0])) * jnp.ones((DIM, DIM))
    points = jnp.asarray(POINTS, jnp.float32)
    options = {"bandwidth": H, "truncation": 1.0, "jitter": 1e-3, "damping": 1.0}
    states, infos = run(stein.svng(partial, None, SGD, **options)(density), points, 1)
    alive = POINTS[:, 0] > 0
    assert 1 < alive.sum() < NUM
    np.testing.assert_array_equal(infos.status[0] == 0, alive)
    np.testing.assert_array_equal(states.position[0][~alive], points[~alive])
    few, _ = run(stein.svng(fisher, None, SGD, **options)(density), points[alive], 1)
    np.testing.assert_allclose(states.position[0][alive], few.position[0], rtol=1e-3)
    matrices = np.tile(ROWS.T @ ROWS, (alive.sum(), 1, 1))
    np.testing.assert_allclose(few.memory.metric[0], matrices, rtol=1e-5)
