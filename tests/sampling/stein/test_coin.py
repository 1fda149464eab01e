"""Coin betting: the recursion by hand, scales that need no tuning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stein_targets import steps

from shoal.sampling import stein
from shoal.sampling.core.algorithm import Status

pytestmark = pytest.mark.quick_compiler


@pytest.mark.usefixtures("x64")
def test_the_recursion_by_hand():
    """The authors' form, which keeps the start x_0; over a pytree."""
    optimizer = stein.coin_betting()
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(30, 3, 2)) + 0.3
    start = rng.normal(size=(3, 2))

    def step(carry, g):
        x, state = carry
        tree = lambda leaf: {"a": leaf[:2], "b": leaf[2]}
        updates, state = optimizer.update(tree(-g), state, tree(x))
        x = x + jnp.concatenate([updates["a"], updates["b"][None]])
        return (x, state), x

    begin = optimizer.init({"a": jnp.asarray(start[:2]), "b": jnp.asarray(start[2])})
    found = jax.jit(lambda: jax.lax.scan(step, (jnp.asarray(start), begin), gradients)[1])()
    x, largest, total, absolute, won = start, 1e-10, 0.0, 0.0, 0.0
    for g, moved in zip(gradients, found, strict=True):
        largest = np.maximum(largest, abs(g))
        total, absolute = total + g, absolute + abs(g)
        won = np.maximum(won + (x - start) * g, 0)
        x = start + total / (largest * (absolute + largest)) * (largest + won)
        np.testing.assert_allclose(moved, x, rtol=1e-10)


def test_no_gradient_moves_nothing():
    optimizer = stein.coin_betting()
    updates, state = optimizer.update(jnp.zeros(3), optimizer.init(jnp.ones(3)))
    np.testing.assert_array_equal(updates, 0)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in state)
    # As far for gradients that are as small or as large as the dtype allows.
    for size in (1e-30, 1.0, 1e30):
        updates, _ = optimizer.update(jnp.array([size, -size]), optimizer.init(jnp.ones(2)))
        np.testing.assert_allclose(updates, [-0.5, 0.5] if size > 1e-10 else 0, atol=1e-7)


def test_scales_from_a_hundredth_to_a_hundred_need_no_tuning():
    scale = jnp.array([0.01, 100.0])
    algorithm = stein.coin_svgd()(lambda x: -0.5 * jnp.sum((x / scale) ** 2))
    start = scale * (3 + jax.random.normal(jax.random.key(0), (30, 2)))
    state, info = steps(algorithm, algorithm.init(start), 2000)
    assert (info.status == Status.OK).all()
    white = state.position / scale
    np.testing.assert_allclose(white.mean(0), 0, atol=0.2)


def test_what_is_not_finite_kills_one_particle_alone():
    edge = lambda x: jnp.where(x[0] < 0.5, -0.5 * jnp.sum(x**2), jnp.nan)
    algorithm = stein.coin_svgd()(edge)
    start = jax.random.normal(jax.random.key(1), (20, 2)) * 0.1
    state, info = steps(algorithm, algorithm.init(start), 30)
    dead = np.asarray(~state.alive)
    assert 0 < dead.sum() < 20
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in (state.position, *state.optimizer))
    assert (state.position[:, 0] < 0.5).all()
    assert (info.status == Status.NONFINITE_LOG_DENSITY).sum() == dead.sum()
