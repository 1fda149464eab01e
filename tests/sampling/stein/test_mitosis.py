"""Mitosis: where children are put, what they inherit, the dead and the edges of the support."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stein_targets import correlated, steps

from shoal.sampling import stein
from shoal.sampling.core import kernels, mirror
from shoal.sampling.stein._direction import stein_direction
from shoal.sampling.stein._ensemble import Method
from shoal.sampling.stein._options import check_bandwidth

pytestmark = pytest.mark.quick_compiler


def after(algorithm, x, num=3):
    return steps(algorithm, algorithm.init(x), num)[0]


def test_children_stand_around_their_parents_and_inherit():
    """20 particles; root mean square distances over 2 (m - 1) 20 = 160 numbers, by their law."""
    algorithm = stein.svgd()(correlated)
    state = after(algorithm, jax.random.normal(jax.random.key(0), (20, 2)) * jnp.array([1.0, 50]))
    num, spread = 5, 0.2
    make = lambda s: stein.split(jax.random.key(1), algorithm, s, num=num, spread=spread)
    made = jax.jit(make)(state)
    parents = np.asarray(state.position, np.float64)
    shifts = np.asarray(made.position, np.float64).reshape(20, num, 2) - parents[:, None]
    np.testing.assert_allclose(shifts.mean(1), 0, atol=1e-4)
    white = parents / parents.std(0)
    q = ((white[:, None] - white) ** 2).sum(-1) + 1e9 * np.eye(20)
    units = shifts / parents.std(0) / np.sqrt(q.min(1))[:, None, None] / spread
    # Chi-squared with 160 degrees of freedom over their number: standard deviation 0.112.
    assert abs((units**2).sum(-1).mean() - 1) < 5.2 * 0.112
    assert np.abs(units).max(1).min() > 0.05
    assert made.alive.all()
    assert made.num_steps == 3
    assert made.median == state.median
    for new, old in zip(
        jax.tree.leaves(made.optimizer), jax.tree.leaves(state.optimizer), strict=True
    ):
        expected = np.repeat(old, num, axis=0) if np.ndim(old) else old
        np.testing.assert_array_equal(new, expected)
    values, scores = jax.jit(jax.vmap(jax.value_and_grad(correlated)))(made.position)
    np.testing.assert_allclose(made.log_density, values, rtol=1e-6)
    np.testing.assert_allclose(made.score, scores, rtol=1e-5, atol=1e-5)
    # Coordinates of unlike scales have shifts of unlike scales.
    ratio = shifts.std((0, 1)) / parents.std(0)
    assert 0.4 < ratio[0] / ratio[1] < 2.5


def test_children_of_the_dead_are_dead_and_so_are_those_beyond_the_support():
    edge = lambda x: jnp.where(x[0] < 0.4, -0.5 * jnp.sum(x**2), -jnp.inf)
    algorithm = stein.svgd()(edge)
    x = jax.random.uniform(jax.random.key(0), (20, 2), maxval=0.4)
    state = algorithm.init(x)
    state = state._replace(
        alive=state.alive.at[3].set(False), position=x.at[3].set(jnp.array([1e30, 0.0]))
    )
    made = jax.jit(lambda s: stein.split(jax.random.key(1), algorithm, s, spread=2.0))(state)
    dead = ~np.asarray(made.alive)
    assert dead[6:8].all()
    assert 2 < dead.sum() < 30
    origin = np.repeat(state.position, 2, axis=0)
    np.testing.assert_array_equal(made.position[dead], origin[dead])
    assert (np.abs(made.position - origin)[~dead].max(1) > 0).all()
    assert (made.position[~dead, 0] < 0.4).all()
    assert jnp.isfinite(made.log_density).all()
    assert jnp.isfinite(made.score).all()


def test_the_jitter_survives_coin_betting_and_minibatch_keys():
    algorithm = stein.coin_svgd()(correlated)
    state = after(algorithm, jax.random.normal(jax.random.key(0), (6, 2)))
    made = jax.jit(lambda s: stein.split(jax.random.key(1), algorithm, s))(state)
    more, info = jax.jit(algorithm.step)(jax.random.key(2), made)
    gap = lambda s: np.diff(np.asarray(s.position).reshape(6, 2, 2), axis=1)
    assert (info.status == 0).all()
    assert (np.linalg.norm(gap(more), axis=-1) > 0.5 * np.linalg.norm(gap(made), axis=-1)).all()


def test_what_a_method_remembers_of_each_particle_is_inherited():
    """And nothing else, although there are as many particles as coordinates."""
    remember = lambda points: {"each": points + 1, "all": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    method = Method(
        lambda key, e: stein_direction(kernels.RBF(1.0), e)._replace(memory=e.memory),
        optax.sgd(0.1),
        check_bandwidth(1.0),
        memory=remember,
    )
    algorithm = method.algorithm(correlated)
    state = algorithm.init(jnp.array([[0.0, 1.0], [2.0, 3.0]]))
    made = jax.jit(lambda s: stein.split(jax.random.key(1), algorithm, s))(state)
    np.testing.assert_array_equal(made.memory["each"], [[1, 2], [1, 2], [3, 4], [3, 4]])
    np.testing.assert_array_equal(made.memory["all"], state.memory["all"])


def test_mirrored_children_stay_in_the_set():
    simplex = mirror.simplex()
    sampler = stein.msvgd(simplex, optimizer=optax.adam(0.1))
    algorithm = sampler(lambda p: jnp.sum(2 * jnp.log(p)))
    state = after(algorithm, jax.nn.softmax(jax.random.normal(jax.random.key(0), (8, 3))))
    made = stein.split(jax.random.key(1), algorithm, state, num=3, mirror=simplex)
    assert made.dual.shape == (24, 2)
    np.testing.assert_allclose(made.position.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(simplex.to_primal(made.dual), made.position, rtol=1e-5)
    np.testing.assert_allclose(made.dual.reshape(8, 3, 2).mean(1), state.dual, atol=1e-5)
    assert made.alive.all()
    with pytest.raises(ValueError, match="mirror is None, but the state is of a mirrored"):
        stein.split(jax.random.key(1), algorithm, state)
    lonely = state._replace(alive=jnp.arange(8) == 0)
    with pytest.raises(ValueError, match="living particles in state must be at least 2, got 1"):
        stein.split(jax.random.key(1), algorithm, lonely, mirror=simplex)
