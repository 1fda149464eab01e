"""Stochastic SVGD: the product of n targets is its law; what it is without noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stein_targets import COVARIANCE, MEAN, correlated, steps

from shoal.sampling import stein
from shoal.sampling.core import kernels
from shoal.sampling.core.algorithm import Status

pytestmark = pytest.mark.quick_compiler
NUM = 3
STEP = 0.02
KERNELS = {
    "radial": kernels.IMQ(1.0),
    # Its k(x, x) depends on x, as a radial kernel's does not.
    "not radial": kernels.RBF(1.0) + 0.5 * kernels.Linear(0.5),
}


def z_law(key, name, langevin=0.0):
    """Ensembles of three exact draws, after two units of time: every moment up to the second.

    Euler's bias is below half a standard error, see the test below.
    """
    sampler = stein.stochastic_svgd(KERNELS[name], STEP, bandwidth=1.5, langevin=langevin)
    algorithm = sampler(correlated)
    num, key_start = 4000, jax.random.fold_in(key, 1)
    factor = jnp.asarray(np.linalg.cholesky(COVARIANCE), jnp.float32)
    start = MEAN + jax.random.normal(key_start, (num, NUM, 2)) @ factor.T

    @jax.jit
    def go(start, key):
        states = jax.vmap(algorithm.init)(start)
        step = lambda s, k: (jax.vmap(algorithm.step)(jax.random.split(k, num), s)[0], None)
        return jax.lax.scan(step, states, jax.random.split(key, 100))[0]

    states = go(start, key)
    assert states.alive.all()
    x = (np.asarray(states.position, np.float64) - MEAN) @ np.linalg.inv(factor).T
    assert np.abs(np.asarray(states.position - start)).mean() > 0.3
    white = np.swapaxes(x, 0, 1)
    statistics = [
        *(one[:, a] for one in white for a in (0, 1)),
        *(one[:, 0] * one[:, 1] for one in white),
        *((one[:, a] ** 2 - 1) / 2**0.5 for one in white for a in (0, 1)),
        *(white[i, :, a] * white[i - 1, :, b] for i in range(3) for a in (0, 1) for b in (0, 1)),
    ]
    # By the law, not by the draws: all these have variance one.
    return np.sum(statistics, axis=1) / num**0.5


@pytest.mark.parametrize(("name", "langevin"), [("radial", 0.0), ("not radial", 0.5)])
def test_the_law_is_the_product_of_targets(name, langevin):
    assert np.abs(z_law(jax.random.key(0), name, langevin)).max() < 5.2


def test_the_variance_is_kept_where_that_of_svgd_falls():
    """Ten particles in 20 dimensions, over time; the step's bias is below 0.02."""
    dim, num = 20, 10
    start = jax.random.normal(jax.random.key(0), (num, dim))
    density = lambda x: -0.5 * jnp.sum(x**2)
    algorithm = stein.stochastic_svgd(None, 0.3, bandwidth=40.0)(density)

    @jax.jit
    def go(state):
        step = lambda s, k: (algorithm.step(k, s)[0],) * 2
        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 3000))[1].position

    found = go(algorithm.init(start))[500:]
    assert abs(jnp.mean(found**2) - 1) < 0.06
    descent = stein.svgd(None, bandwidth=40.0)(density)
    state, _ = steps(descent, descent.init(start), 1000)
    assert state.position.var(0).mean() < 0.6


def test_without_any_noise_it_is_svgd():
    start = jax.random.normal(jax.random.key(2), (5, 2))
    pair = (
        stein.stochastic_svgd(None, 0.3, has_kernel_noise=False),
        stein.svgd(None, optax.sgd(0.3)),
    )
    one, other = (steps(s(correlated), s(correlated).init(start), 3)[0] for s in pair)
    np.testing.assert_allclose(one.position, other.position, rtol=1e-6)


def test_without_kernel_noise_a_lone_particle_makes_langevin_steps():
    """Of temperature λ / (1 + λ): SPOS, one particle of which is pushed twice and shaken once."""
    sampler = stein.stochastic_svgd(None, 0.05, langevin=0.5, has_kernel_noise=False)
    algorithm = sampler(lambda x: -0.5 * jnp.sum(x**2))
    state = jax.vmap(algorithm.init)(jnp.ones((4000, 1, 1)))
    step = lambda s, k: (jax.vmap(algorithm.step)(jax.random.split(k, 4000), s)[0], None)
    state = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(3), 150))[0])(
        state
    )
    # Euler's variance: 2 ε λ / (1 - (1 - 1.5 ε)²) = 0.3463; standard error 2.2 percent.
    np.testing.assert_allclose(jnp.mean(state.position**2), 0.3463, rtol=0.11)


def test_the_dead_have_no_influence_and_do_not_move():
    algorithm = stein.stochastic_svgd(KERNELS["not radial"], 0.1)(correlated)
    start = algorithm.init(jax.random.normal(jax.random.key(4), (5, 2)))
    alive = start.alive.at[1].set(False)

    @jax.jit
    def go(value):
        state = start._replace(position=start.position.at[1].set(value), alive=alive)
        step = lambda s, k: algorithm.step(k, s)
        return jax.lax.scan(step, state, jax.random.split(jax.random.key(5), 4))

    (one, info), (other, _) = go(0.5), go(jnp.inf)
    others = np.arange(5) != 1
    np.testing.assert_array_equal(one.position[others], other.position[others])
    assert (one.position[1] == 0.5).all()
    assert (info.status[:, 1] == Status.FROZEN).all()
    assert (info.status[:, others] == Status.OK).all()


def test_particles_close_together_have_a_factor():
    """A matrix of kernel values that is singular to rounding."""
    algorithm = stein.stochastic_svgd(None, 0.01, bandwidth=1.0)(correlated)
    start = 1e-3 * jax.random.normal(jax.random.key(6), (100, 2))
    state, info = steps(algorithm, algorithm.init(start), 3)
    assert (info.status == Status.OK).all()
    assert jnp.isfinite(state.position).all()
