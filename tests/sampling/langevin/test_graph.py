"""Self-repellent random walks: one step by hand, asymptotic variances, and graphs that are none."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference.run import run
from shoal.sampling.langevin import graph

# Laws and identities hold however the compiler rounds.
pytestmark = pytest.mark.quick_compiler

# A triangle with a tail.
NEIGHBOURS = np.array([[1, 2, -1], [0, 2, 3], [0, 1, -1], [1, 4, -1], [3, 5, -1], [4, -1, -1]])
TARGET = np.array([1.0, 2.0, 1.0, 3.0, 2.0, 1.5])


def base_matrix():
    """The Metropolis chain, from its definition."""
    num = len(TARGET)
    degree = (NEIGHBOURS >= 0).sum(1)
    matrix = np.zeros((num, num))
    for i in range(num):
        for j in NEIGHBOURS[i, : degree[i]]:
            matrix[i, j] = min(1 / degree[i], TARGET[j] / (TARGET[i] * degree[j]))
        matrix[i, i] = 1 - matrix[i].sum()
    return matrix


def z_step(key, alpha):
    """One step of many walkers from each node, against K[x], after known visits."""
    num = 10_000
    visits = np.array([3, 40, 7, 11, 25, 2])
    walk = graph.srrw(graph.metropolis_walk(NEIGHBOURS, TARGET), TARGET, alpha, fake_visits=2.0)
    starts = np.repeat(np.arange(6), num)
    state = walk.init(starts)._replace(
        visits=jnp.tile(jnp.asarray(visits, jnp.int32), (6 * num, 1))
    )
    new, info = eqx.filter_jit(walk.step)(key, state)
    counts = np.stack([np.bincount(x, minlength=6) for x in np.split(np.asarray(new.position), 6)])
    weights = base_matrix() * ((visits + 2) / TARGET) ** -alpha
    wanted = weights / weights.sum(1, keepdims=True)
    assert (counts[wanted == 0] == 0).all()
    assert (info.is_accepted == (new.position != starts)).all()
    added = np.asarray(new.visits) - visits
    assert (added.sum(1) == 1).all()
    assert (added[np.arange(6 * num), new.position] == 1).all()
    is_random = (wanted > 1e-3) & (wanted < 1 - 1e-6)
    error = np.sqrt(num * wanted * (1 - wanted))[is_random]
    return (counts - num * wanted)[is_random] / error


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_a_step_has_the_probabilities_of_its_equation(alpha):
    assert np.abs(z_step(jax.random.key(0), alpha)).max() < 5.2


@functools.cache
def program(num_walkers, num_steps):
    @jax.jit
    def go(walk, key):
        state = walk.init(jnp.arange(num_walkers) % 6)
        keys = jax.random.split(key, num_steps)
        return jax.lax.scan(lambda s, k: (walk.step(k, s)[0], None), state, keys)[0].visits

    return go


@pytest.mark.quick_compiler(level=1)
@pytest.mark.parametrize("alpha", [0.0, 1.0, 10.0])
def test_asymptotic_variances(alpha):
    """To 10 %, as of 4000 walkers whose sample variances have a standard error of 2.2 %."""
    num_walkers, num_steps = 4000, 1000
    walk = graph.srrw(graph.metropolis_walk(NEIGHBOURS, TARGET), TARGET, alpha)
    visits = np.asarray(program(num_walkers, num_steps)(walk, jax.random.key(1)), np.float64)
    wanted = graph.asymptotic_covariance(base_matrix(), TARGET, alpha)
    error = visits / num_steps - TARGET / TARGET.sum()
    found = num_steps * error.T @ error / num_walkers
    np.testing.assert_allclose(np.diag(found), np.diag(wanted), rtol=0.1)
    assert np.linalg.norm(found - wanted) < 0.1 * np.linalg.norm(wanted)


def test_the_covariance_of_the_formula():
    """Against the definition, a sum of autocovariances, for α = 0; then like 1 / α."""
    matrix, mu = base_matrix(), TARGET / TARGET.sum()
    # The fundamental matrix: Σ_t (P^t - 1 μᵀ).
    fundamental = np.linalg.inv(np.eye(6) - matrix + mu) - mu
    flow = mu[:, None] * fundamental
    wanted = flow + flow.T - np.diag(mu) + np.outer(mu, mu)
    covariance = graph.asymptotic_covariance(matrix, TARGET)
    np.testing.assert_allclose(covariance, wanted, atol=1e-12)
    half = np.full((2, 2), 0.5)
    found = graph.asymptotic_covariance(half, [1.0, 1], 2.0)
    np.testing.assert_allclose(found, np.array([[1, -1], [-1, 1]]) / 4 / 5, atol=1e-12)
    far, farther = (np.trace(graph.asymptotic_covariance(matrix, mu, a)) for a in (1e3, 2e3))
    np.testing.assert_allclose(farther / far, 0.5, rtol=0.01)
    assert far < 1e-3 * np.trace(covariance)


def test_only_ratios_of_target_and_visits_matter():
    chain = graph.metropolis_walk(NEIGHBOURS, TARGET)
    walk = graph.srrw(chain, TARGET, 3.0)
    scaled = graph.srrw(chain, 1e-3 * TARGET, 3.0)
    np.testing.assert_allclose(walk.log_target, scaled.log_target, rtol=1e-6)
    unnormalised = eqx.tree_at(lambda w: w.log_target, walk, walk.log_target + 4.0)
    often = eqx.tree_at(lambda w: w.fake_visits, unnormalised, 1000 * walk.fake_visits)
    state = walk.init(np.arange(6).repeat(50))
    visits = jnp.asarray(np.random.default_rng(0).integers(0, 30, (300, 6)), jnp.int32)
    step = jax.jit(lambda walk, visits: walk.step(jax.random.key(2), state._replace(visits=visits)))
    one, other = step(walk, visits)[0], step(often, 1000 * visits)[0]
    np.testing.assert_array_equal(one.position, other.position)
    np.testing.assert_allclose(
        walk.shares(state._replace(visits=visits)),
        often.shares(state._replace(visits=1000 * visits)), rtol=1e-6,
    )  # fmt: skip


def test_matrices_and_lists_are_the_same_chain():
    chain = graph.metropolis_walk(NEIGHBOURS, TARGET)
    assert chain.neighbours.shape == (6, 4)
    dense, lists = graph.srrw(base_matrix(), TARGET), graph.srrw(chain, TARGET)
    for walk in (dense, lists):
        matrix = np.zeros((6, 6))
        np.add.at(matrix, (np.arange(6)[:, None], walk.neighbours), np.exp(walk.log_probability))
        np.testing.assert_allclose(matrix, base_matrix(), atol=1e-7)


def test_a_graph_of_many_nodes_through_the_driver():
    num = 3000
    ring = (np.arange(num)[:, None] + np.array([-1, 1])) % num
    walk = graph.srrw(graph.metropolis_walk(ring, np.ones(num)), np.ones(num), 10.0)
    finished = run(jax.random.key(3), walk, walk.init(np.array([0, 1500])), 1000)
    visits = np.asarray(finished.state.visits)
    assert (visits.sum(1) == 1000).all()
    # A walker of the base chain would get some 30 nodes away: one that shuns its way goes far.
    assert ((visits > 0).sum(1) > 300).all()
    assert finished.failures.count.sum() == 2000


def test_graphs_and_chains_that_are_none():
    pair = np.array([[1], [0]])
    for neighbours, says in (
        (np.array([[1], [0], [-1]]), r"isolated nodes.*\[2\]"),
        (np.array([[1], [2], [0]]), "symmetric"),
        (np.array([[1, 1], [0, -1], [-1, -1]]), r"isolated nodes.*\[2\]"),
        (np.array([[1, 1], [0, 2], [1, -1]]), "listed once"),
        (np.array([[0], [2], [1]]), "other nodes than the row's own"),
        (np.array([[3], [2], [1]]), "nodes below 3"),
        (pair, r"shape \(3, m\)"),
    ):
        with pytest.raises(ValueError, match=says):
            graph.metropolis_walk(neighbours, np.ones(3))
    for transition, target, says in (
        (np.eye(2), [1.0, 1], r"isolated nodes.*\[0, 1\]"),
        (np.kron(np.eye(2), np.full((2, 2), 0.5)), np.ones(4), "connected"),
        (np.full((2, 2), 0.4), [1.0, 1], "sum one"),
        (np.full((2, 2), 0.5), [1.0, 2], "reversible"),
        (np.full((2, 2), 0.5), [1.0, 0], r"positive.*\[1\] is 0"),
        (np.full((2, 2), 0.5), np.ones(3), "3 nodes of target"),
        (np.array([[1.5, -0.5], [0.5, 0.5]]), [1.0, 1], "non-negative"),
    ):
        with pytest.raises(ValueError, match=says):
            graph.srrw(transition, target)
    walk = graph.srrw(np.full((2, 2), 0.5), [1.0, 1])
    with pytest.raises(ValueError, match=r"node, 0 to 1, .*\[1\] is 2"):
        walk.init(np.array([0, 2]))
    with pytest.raises(TypeError, match="float64"):
        walk.init(np.array([0.0, 1.0]))
