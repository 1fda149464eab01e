"""Langevin dynamics in convex sets: exact where the inner sampler is, inside of the set always."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference import sample
from shoal.inference.diagnostics import invariance_test
from shoal.sampling import langevin
from shoal.sampling.core import mirror
from shoal.sampling.core.algorithm import Status

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
CONCENTRATION = np.array([2.0, 3.0, 4.0])


def dirichlet(p):
    return jnp.sum((jnp.asarray(CONCENTRATION, p.dtype) - 1) * jnp.log(p))


def sparse(p):
    return jnp.sum((0.1 - 1) * jnp.log(p))


def beta_and_gamma(low, high):
    """Beta(2, 3) in a box, or independent gamma laws of shape 2 in the orthant."""
    if high is None:
        return lambda x: jnp.sum(jnp.log(x) - x)
    return lambda x: jnp.sum(jnp.log(x - low) + 2 * jnp.log(high - x))


LOW, HIGH = -1.0, 1.0
CASES = {
    "simplex": (mirror.simplex(), dirichlet, lambda rng, n: rng.dirichlet(CONCENTRATION, n)),
    "orthant": (
        mirror.orthant(), beta_and_gamma(0, None), lambda rng, n: rng.gamma(2, size=(n, 2)),
    ),
    "box": (
        mirror.box(LOW, HIGH), beta_and_gamma(LOW, HIGH),
        lambda rng, n: LOW + (HIGH - LOW) * rng.beta(2, 3, size=(n, 2)),
    ),
}  # fmt: skip


def z_law(key, name):
    """`mala` in the dual space, exact draws of the primal law, five steps."""
    chosen, log_density, exact = CASES[name]
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    draws = exact(rng, 40_000).astype(np.float32)
    algorithm = langevin.mirrored(chosen, langevin.mala(0.5))(log_density)
    # Of the probabilities two are enough: the last one is no further feature.
    features = lambda x: (x[:2], x[:2] ** 2, x[0] * x[1], jnp.sin(3 * x[:2]))
    result = invariance_test(key, algorithm, draws, features=features)
    print(result)
    assert 0.3 * result.num_particles < result.num_moved
    assert not result.num_nonfinite
    return result.z


@pytest.mark.parametrize("name", CASES)
def test_the_law_in_the_set_is_kept(name):
    assert np.abs(z_law(jax.random.key(3), name)).max() < 5.2


def z_mirror_step(key):
    """Mean and covariance of a step of mirror Langevin in the dual space, by hand."""
    num, h = 20_000, 0.03
    p = np.array([0.2, 0.5, 0.3])
    algorithm = langevin.mirror_langevin(mirror.simplex(), h)(dirichlet)

    @jax.jit
    def run(p, keys):
        state = algorithm.init(p)
        return jax.vmap(lambda k: algorithm.step(k, state)[0].dual.position)(keys)

    duals = np.asarray(run(jnp.asarray(p, jnp.float32), jax.random.split(key, num)), np.float64)
    score = (CONCENTRATION - 1) / p
    mean = np.log(p[:2] / p[2]) + h * (score[:2] - score[2])
    factor = np.linalg.cholesky(2 * h * (np.diag(1 / p[:2]) + 1 / p[2]))
    white = np.linalg.solve(factor, (duals - mean).T)
    products = np.array([white[0], white[1], white[0] * white[1], *(white**2 - 1) / np.sqrt(2)])
    return products.mean(1) * np.sqrt(num)


def test_a_step_of_mirror_langevin_has_the_mean_and_covariance_of_its_equation():
    assert np.abs(z_mirror_step(jax.random.key(2))).max() < 5.2


def _run(sampler, log_density, start, num_chains, num_steps):
    algorithm = sampler(log_density)

    @jax.jit
    def run():
        def step(states, key):
            states, info = jax.vmap(algorithm.step)(jax.random.split(key, num_chains), states)
            return states, info.status

        states = jax.vmap(algorithm.init)(jnp.broadcast_to(start, (num_chains, len(start))))
        return jax.lax.scan(step, states, jax.random.split(jax.random.key(0), num_steps))

    states, status = run()
    return np.asarray(states.position, np.float64), np.asarray(status)


def test_mirror_langevin_is_near_the_target_for_small_steps():
    start = np.full(3, 1 / 3, np.float32)
    points, status = _run(
        langevin.mirror_langevin(mirror.simplex(), 0.003), dirichlet, start, 4000, 600
    )
    # Where the noise throws a point to the edge, its gradient overflows and the chain stays.
    assert (status == Status.OK).mean() > 0.99
    mean = CONCENTRATION / CONCENTRATION.sum()
    np.testing.assert_allclose(points.mean(0), mean, atol=0.01)
    np.testing.assert_allclose(points.var(0), mean * (1 - mean) / 10, rtol=0.2)


@pytest.mark.usual_compiler
def test_a_sparse_dirichlet_in_float32():
    """Parameters 0.1: most probabilities are below 1e-3, some below what float32 can hold."""
    start = np.full(10, 0.1, np.float32)
    points, status = _run(
        langevin.mirrored(mirror.simplex(), step_size=3.0), sparse, start, 2000, 1500
    )
    assert (status == Status.OK).all()
    assert np.isfinite(points).all()
    assert (points > 0).all()
    np.testing.assert_allclose(points.sum(1), 1, atol=1e-5)
    assert points.min() < 1e-20
    # Each mean is 0.1 with a standard deviation of 0.212: over four standard errors of 1500 points.
    np.testing.assert_allclose(points.mean(0), 0.1, atol=0.025)
    np.testing.assert_allclose(points.std(0), (0.09 / 2) ** 0.5, atol=0.02)


def test_through_the_front_door_with_warm_up_of_the_step_size():
    sampler = langevin.mirrored(mirror.simplex(), step_size=0.01)
    result = sample(
        jax.random.key(0), dirichlet, sampler, init=jnp.full((4, 3), 1 / 3), num_warmup=200,
        num_samples=300, progress=False, on_failure="ignore",
    )  # fmt: skip
    draws = result.posterior["position"]
    np.testing.assert_allclose(draws.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(draws.mean((0, 1)), CONCENTRATION / 9, atol=0.04)
    assert (result.parameters["step_size"] > 0.1).all()


def test_any_sampler_any_tree_and_the_step_size_of_either():
    """A kinetic sampler, which draws at the start, on a tree of positive numbers."""
    inner = langevin.baoab(0.3, friction=2.0)
    sampler = langevin.mirrored(mirror.orthant(), inner)
    assert sampler.parameters["step_size"] == 0.3
    assert sampler.target_acceptance == inner.target_acceptance
    assert not sampler.is_adjusted
    density = lambda x: jnp.sum(jnp.log(x["a"]) - x["a"]) + jnp.log(x["b"]) - x["b"]
    position = {"a": jnp.array([0.5, 2.0]), "b": jnp.array(1.5)}

    @jax.jit
    def run(sampler):
        algorithm = sampler(density)
        start = algorithm.init(position, jax.random.key(0))
        return start, algorithm.step(jax.random.key(1), start)[0]

    start, state = run(sampler)
    _, other = run(sampler.replace(step_size=0.1))
    assert jax.tree.structure(state.position) == jax.tree.structure(position)
    assert min(float(leaf.min()) for leaf in jax.tree.leaves(state.position)) > 0
    move = lambda state: np.abs(state.dual.position - start.dual.position).max()
    assert 0 < move(other) < 0.7 * move(state)
    # The density of the logarithms: that of the point times its volume.
    flat = np.array([0.5, 2.0, 1.5])
    np.testing.assert_allclose(start.log_density, np.sum(2 * np.log(flat) - flat), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mirror": "simplex"}, TypeError, "mirror.*str: 'simplex'"),
        ({"mirror": mirror.simplex}, TypeError, "mirror.*function"),
        ({"sampler": "mala"}, TypeError, "sampler.*str: 'mala'"),
        ({"sampler": langevin.mala}, TypeError, "sampler.*function"),
        ({"step_size": -1.0}, ValueError, "step_size.*-1.0"),
    ],
)
def test_impossible_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        langevin.mirrored(**options)


@pytest.mark.parametrize("make", [langevin.mirrored, langevin.mirror_langevin])
def test_starts_outside_of_the_set_are_refused(make):
    with pytest.raises(ValueError, match="sum of position must be 1"):
        make(mirror.simplex())(lambda p: jnp.sum(p)).init(jnp.array([0.5, 0.2]))
