"""Barker's proposal against its density, its law, and where MALA is stuck."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference.diagnostics import invariance_test
from shoal.sampling import langevin

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
METRICS = {"diagonal": np.array([0.5, 1.6]), "dense": np.array([[1.2, 0.7], [0.7, 0.9]])}


def quartic(x):
    return -jnp.sum(x**4) / 4 - x[0] * x[1]


def skewed(x):
    """Two independent coordinates, each the logarithm of a gamma variable of shape 2."""
    return jnp.sum(2 * x - jnp.exp(x))


def draws(key, num):
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return np.log(rng.gamma(2.0, size=(num, 2))).astype(np.float32)


def z_law(key, metric):
    """At 57 % acceptance; five steps, as cached values need a rejection and then a move."""
    algorithm = langevin.barker(0.9, METRICS[metric])(skewed)
    result = invariance_test(key, algorithm, draws, num_particles=50_000, reversible=True)
    print(result)
    assert 0.3 * result.num_particles < result.num_moved
    assert not result.num_nonfinite
    return result.z


@pytest.mark.parametrize("metric", METRICS)
def test_the_law_is_kept(metric):
    assert np.abs(z_law(jax.random.key(3), metric)).max() < 5.2


def test_it_accepts_with_the_ratio_of_the_proposal_densities():
    """Against 2 φ(w) σ(c w) for each coordinate of w = L⁻¹(y - x), in NumPy at double precision."""
    algorithm = langevin.barker(0.3, METRICS["dense"])(quartic)
    x = np.array([0.3, -1.1])
    keys = jax.random.split(jax.random.key(3), 200)

    @jax.jit
    def run(x, keys):
        state = algorithm.init(x)
        return jax.vmap(lambda key: algorithm.step(key, state))(keys)

    new, info = run(jnp.asarray(x, jnp.float32), keys)
    factor = np.linalg.cholesky(METRICS["dense"])
    value = lambda x: -np.sum(x**4) / 4 - x[0] * x[1]
    score = lambda x: -(x**3) - x[::-1]

    def log_q(start, end):
        w = np.linalg.solve(factor, end - start)
        return -np.sum(np.log1p(np.exp(-(factor.T @ score(start)) * w)))

    rows = np.flatnonzero(info.is_accepted)
    assert 20 < len(rows) < 200
    for row in rows:
        y = np.asarray(new.position[row], np.float64)
        expected = np.exp(min(0, value(y) - value(x) + log_q(y, x) - log_q(x, y)))
        np.testing.assert_allclose(info.acceptance_rate[row], expected, rtol=2e-5)


@pytest.mark.usual_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_comes_in_from_where_mala_is_stuck(dtype):
    target = lambda x: -jnp.sum(x**4) / 4
    with jax.enable_x64(True):
        start = jnp.asarray([20.0, -20.0], dtype)
        keys = jax.random.split(jax.random.key(0), 400)

        def run(sampler):
            algorithm = sampler(target)
            step = lambda state, key: algorithm.step(key, state)
            return jax.jit(lambda: jax.lax.scan(step, algorithm.init(start), keys))()

        state, info = run(langevin.barker(0.3))
        stuck, _ = run(langevin.mala(0.3))
    assert state.position.dtype == dtype
    np.testing.assert_array_equal(stuck.position, start)
    assert np.abs(state.position).max() < 3
    # In the tails every move has the right sign: half of 400 steps are left for the centre.
    assert 0.4 < np.asarray(info.acceptance_rate)[200:].mean() < 0.95


@pytest.mark.usual_compiler
def test_a_huge_gradient_overflows_nothing():
    """Tilts of 1e9 in float32, whose exponentials do not exist."""
    algorithm = langevin.barker(1.0)(lambda x: -jnp.sum(x**4) / 4)
    step = jax.jit(lambda start: algorithm.step(jax.random.key(0), algorithm.init(start)))
    state, info = step(jnp.array([1e3, -1e3]))
    assert float(info.acceptance_rate) == 1.0
    assert np.isfinite(state.position).all()
