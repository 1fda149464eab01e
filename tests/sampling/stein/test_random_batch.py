"""Random-batch SVGD: unbiased over all partitions, the dead, the tracked bandwidth."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stein_targets import correlated, correlated_score, double_loop, steps

from shoal.sampling import stein
from shoal.sampling.core import kernels, pairwise
from shoal.sampling.stein._direction import Ensemble, stein_direction
from shoal.sampling.stein.random_batch import direction_in_batches

pytestmark = pytest.mark.quick_compiler
H = 1.3
KERNELS = {
    "radial": kernels.IMQ(1.0),
    "not radial": kernels.RBF(1.0) + 0.5 * kernels.Linear(0.5),
}


def ensemble(x, alive):
    """Rows of the dead as the engine gives them: parked, without score."""
    x = jnp.where(alive[:, None], x, x[jnp.argmax(alive)])
    score = jnp.where(alive[:, None], correlated_score(x), 0).astype(x.dtype)
    count = alive.sum().astype(x.dtype)
    return Ensemble(
        x, x, score, alive, count, jnp.asarray(H, x.dtype), jnp.asarray(2.0, x.dtype),
        jnp.int32(0), correlated, None, lambda flat: flat, None,
    )  # fmt: skip


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kernel", "num", "size", "dead"),
    [
        ("radial", 4, 2, ()),
        ("not radial", 5, 2, (1,)),
        ("not radial", 5, 3, ()),
        ("radial", 6, 4, (0, 3)),
        ("radial", 5, 4, (0, 2, 3, 4)),
    ],
)
def test_the_mean_over_all_partitions_is_the_direction_of_svgd(kernel, num, size, dead):
    """And that of the counts of near particles the count."""
    x = jax.random.normal(jax.random.key(0), (num, 2))
    alive = jnp.ones(num, bool).at[jnp.array(dead, int)].set(False)
    made = ensemble(x, alive)
    orders = jnp.array(list(itertools.permutations(range(num))))
    over_orders = jax.vmap(lambda order: direction_in_batches(KERNELS[kernel], made, order, size))
    found = jax.jit(over_orders)(orders)
    whole = stein_direction(KERNELS[kernel], made)
    np.testing.assert_allclose(found.phi.mean(0)[alive], whole.phi[alive], atol=1e-12)
    fraction = lambda near: jnp.sum(jnp.where(alive, near - 1, len(dead) - near))
    np.testing.assert_allclose(
        jnp.mean(jax.vmap(fraction)(found.near)), fraction(whole.near), atol=1e-12
    )
    if alive.sum() > size:
        assert found.phi.std(0)[alive].min() > 1e-3


def test_one_partition_is_a_double_loop_inside_of_batches():
    """Six in order in batches of two, dealt in turn: 0 and 3, 1 and 4, 2 and 5."""
    x = jax.random.normal(jax.random.key(1), (6, 2))
    made = ensemble(x, jnp.ones(6, bool))
    kernel = KERNELS["radial"]
    found = jax.jit(lambda: direction_in_batches(kernel, made, jnp.arange(6), 2))()
    plain = lambda a, b: (1 + np.sum((a - b) ** 2)) ** -0.5
    score = correlated_score(x)
    for batch in ([0, 3], [1, 4], [2, 5]):
        inside = double_loop(plain, x[jnp.array(batch)], score[batch], H)
        # Of a pair: the mean of two terms, its own s / 2 among them.
        expected = (1 - 1 / 6) * (2 * inside - score[batch]) + score[batch] / 6
        np.testing.assert_allclose(found.phi[jnp.array(batch)], expected, rtol=1e-5, atol=1e-5)


def test_one_batch_of_all_is_svgd():
    x = jax.random.normal(jax.random.key(2), (5, 2))
    pair = stein.random_batch_svgd(batch_size=8), stein.svgd()
    one, other = (steps(s(correlated), s(correlated).init(x), 3)[0] for s in pair)
    np.testing.assert_allclose(one.position, other.position, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.median.threshold, other.median.threshold, rtol=1e-4)


def test_small_batches_lead_near_where_svgd_does():
    """A tenth of the pairs in a step; the bandwidth follows the median by those alone."""
    optimizer = optax.sgd(optax.exponential_decay(0.5, 100, 0.5))
    algorithm = stein.random_batch_svgd(None, optimizer, batch_size=20)(correlated)
    start = algorithm.init(4 + 0.1 * jax.random.normal(jax.random.key(3), (200, 2)))
    state, info = steps(algorithm, start, 500)
    covariance = np.linalg.inv([[1.5, -0.6], [-0.6, 1.0]])
    np.testing.assert_allclose(state.position.mean(0), [1.0, -0.5], atol=0.1)
    np.testing.assert_allclose(np.cov(state.position.T), covariance, atol=0.15)
    h = info.bandwidth[-1]
    near = pairwise.count_within(state.position, state.position, h)
    fraction = (jnp.sum(near) - 200) / (200 * 199)
    assert 0.4 < fraction < 0.6


def test_dead_particles_have_no_influence():
    algorithm = stein.random_batch_svgd(batch_size=2)(correlated)
    start = algorithm.init(jax.random.normal(jax.random.key(4), (6, 2)))
    alive = start.alive.at[1].set(False)

    @jax.jit
    def go(value):
        state = start._replace(position=start.position.at[1].set(value), alive=alive)
        step = lambda s, k: algorithm.step(k, s)
        return jax.lax.scan(step, state, jax.random.split(jax.random.key(5), 4))[0].position

    one, other = go(0.5), go(jnp.inf)
    others = np.arange(6) != 1
    np.testing.assert_array_equal(one[others], other[others])
    assert (np.abs(one - start.position)[others].max(1) > 1e-3).all()
