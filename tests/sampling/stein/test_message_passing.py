"""Message-passing SVGD: reductions to SVGD, the plain double loop, chains of many coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stein_targets import correlated, steps

from shoal.sampling import stein
from shoal.sampling.core import kernels

pytestmark = pytest.mark.quick_compiler
SGD = optax.sgd(1.0)


def chain(dim):
    index = np.arange(dim)
    return abs(index[:, None] - index) == 1


@pytest.mark.parametrize("bandwidth", ["median_all", 1.7])
def test_with_all_neighbours_it_is_svgd(bandwidth):
    kernel = kernels.RBF(1.0) + 0.5 * kernels.Linear(1.0)
    options = dict(bandwidth=bandwidth)
    pair = (
        stein.message_passing_svgd(kernel, SGD, neighbours=np.ones((2, 2), bool), **options),
        stein.svgd(kernel, SGD, **options),
    )
    x = jax.random.normal(jax.random.key(0), (6, 2))
    one, other = (steps(s(correlated), s(correlated).init(x), 2) for s in pair)
    np.testing.assert_allclose(one[0].position, other[0].position, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one[1].bandwidth, other[1].bandwidth, rtol=1e-5)


@pytest.mark.parametrize("bandwidth", ["median_all", 1.7])
def test_one_update_is_the_double_loop_of_its_equation(bandwidth):
    """A chain of four: k_a on the coordinates a - 1, a, a + 1, with its own part of h."""
    dim, num = 4, 5
    precision = 2.5 * np.eye(dim) - chain(dim)
    density = lambda x: -0.5 * x @ jnp.asarray(precision, x.dtype) @ x
    x = jax.random.normal(jax.random.key(1), (num, dim)) * jnp.array([1.0, 3.0, 0.3, 1.0])
    sampler = stein.message_passing_svgd(None, SGD, neighbours=chain(dim), bandwidth=bandwidth)
    algorithm = sampler(density)
    state, info = jax.jit(lambda x: algorithm.step(jax.random.key(0), algorithm.init(x)))(x)
    at = np.asarray(x, np.float64)
    score, phi = -at @ precision, np.zeros((num, dim))
    for a in range(dim):
        near = slice(max(a - 1, 0), a + 2)
        h = float(info.bandwidth)
        if bandwidth != 1.7:
            h *= at[:, near].var(0).sum() / at.var(0).sum()
        for i in range(num):
            for j in range(num):
                q = np.sum((at[j, near] - at[i, near]) ** 2)
                k = (1 + q / h) ** -0.5
                phi[i, a] += (k * score[j, a] - k**3 / h * (at[j, a] - at[i, a])) / num
    np.testing.assert_allclose(state.position - x, phi, rtol=2e-5, atol=2e-5)


def test_neighbours_must_be_those_of_the_particles():
    sampler = stein.message_passing_svgd(neighbours=chain(3))
    with pytest.raises(ValueError, match="neighbours are of 3 coordinates.*has 2"):
        sampler(correlated).init(jnp.eye(4, 2))
    lopsided = chain(3)
    lopsided[0, 2] = True
    with pytest.raises(ValueError, match=r"symmetric, but entry \[0, 2\] is True and \[2, 0\]"):
        stein.message_passing_svgd(neighbours=lopsided)
