"""Samplers with estimated scores: exact laws under known gradient noise, unbiased estimates.

The statistical checks compare with thresholds of 5.2 standard errors (two-sided p 2e-7) of some 80
statistics in all: they fail for one key in 60,000, had the keys not been fixed.
"""

import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import block_diag, solve_discrete_lyapunov

from shoal.inference.diagnostics import linear_gaussian_test
from shoal.sampling import langevin
from shoal.sampling.core import minibatches
from shoal.sampling.core.algorithm import Status
from shoal.sampling.langevin import gradient_estimators as estimators

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
MEAN = np.array([1.0, -0.5])
PRECISION = np.array([[1.5, -0.6], [-0.6, 1.0]])
METRIC = np.array([[1.2, 0.5], [0.5, 0.9]])
NOISE = 1.3
TEMPERATURE = 1.4
NUM_PARTICLES = 20_000


class NoisyGaussian(eqx.Module):
    """A Gaussian whose score has noise N(0, NOISE² I): the batch is that noise."""

    dim: int = eqx.field(static=True, default=2)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.dim != 2:
            return -0.5 * jnp.sum(x**2)
        return -0.5 * (x - MEAN) @ jnp.asarray(PRECISION, x.dtype) @ (x - MEAN)

    def draw(self, key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (self.dim,))

    def estimate(self, x: jax.Array, batch: jax.Array) -> jax.Array:
        return self(x) + NOISE * jnp.sum(batch * x)


@functools.cache
def law_of_sgld() -> tuple[Any, ...]:
    """x' = x + h M ĝ + √(2hT) L ξ."""
    h = 0.4
    algorithm = langevin.sgld(h, METRIC, TEMPERATURE)(NoisyGaussian())
    added = 2 * h * TEMPERATURE * METRIC + (h * NOISE) ** 2 * METRIC @ METRIC
    return algorithm, MEAN, np.eye(2) - h * METRIC @ PRECISION, added, None, None


@functools.cache
def law_of_sghmc() -> tuple[Any, ...]:
    """Point, momentum and estimated score, z = (x, w, ĝ), under the product of linear maps."""
    h, friction, told = 0.5, 0.9, np.array([0.8, 0.4])
    ell = np.linalg.cholesky(METRIC)
    decay, one, zero = np.exp(-friction * h), np.eye(2), np.zeros((2, 2))
    drift = np.block([[one, h / 2 * ell, zero], [zero, one, zero], [zero, zero, one]])
    kick = np.block([[one, zero, zero], [zero, one, h / 2 * ell.T], [zero, zero, one]])
    damp = block_diag(one, decay * one, one)
    renew = np.block([[one, zero, zero], [zero, one, zero], [-PRECISION, zero, zero]])
    injected = TEMPERATURE * (1 - decay**2) - (1 + decay) ** 2 / 4 * h**2 * told
    nothing = np.zeros((6, 6))
    transition, noise = np.eye(6), nothing
    for linear, added in (
        (kick, nothing),
        (drift, nothing),
        (damp, block_diag(zero, np.diag(injected), zero)),
        (drift, nothing),
        (renew, block_diag(zero, zero, NOISE**2 * one)),
        (kick, nothing),
    ):
        transition, noise = linear @ transition, linear @ noise @ linear.T + added
    algorithm = langevin.sghmc(h, friction, METRIC, TEMPERATURE, told)(NoisyGaussian())

    def start(key: jax.Array, z: jax.Array) -> Any:
        return algorithm.init(z[:2], key)._replace(momentum=z[2:4], score=z[4:])

    def observe(state: Any) -> Any:
        return state.position, state.momentum, state.score

    mean = np.concatenate([MEAN, np.zeros(4)])
    return algorithm, mean, transition, noise, start, observe


def z_law(key: jax.Array, sampler: str) -> np.ndarray:
    law = {"sgld": law_of_sgld, "sghmc": law_of_sghmc}[sampler]
    algorithm, mean, transition, noise, start, observe = law()
    result = linear_gaussian_test(
        key, algorithm, mean, transition, noise, num_particles=NUM_PARTICLES, start=start,
        observe=observe,
    )  # fmt: skip
    print(sampler, result)
    return result.z


@pytest.mark.parametrize("sampler", ["sgld", "sghmc"])
def test_the_law_under_known_gradient_noise_is_exact(sampler: str) -> None:
    assert np.abs(z_law(jax.random.key(3), sampler)).max() < 5.2


@pytest.mark.parametrize(("h", "precision"), [(0.1, 1.0), (0.5, 2.5)])
def test_the_stated_variance_of_sgld_is_that_of_its_law(h: float, precision: float) -> None:
    transition, noise = 1 - h * precision, 2 * h * TEMPERATURE + (h * NOISE) ** 2
    ((variance,),) = solve_discrete_lyapunov([[transition]], [[noise]])
    stated = (TEMPERATURE + h * NOISE**2 / 2) / (precision * (1 - h * precision / 2))
    assert np.isclose(variance, stated, rtol=1e-12)


# Momentum in 10 dimensions at h = 0.2; noise that doubles the heat that γ = 0.2 balances.
DIM, STEP_SIZE, FRICTION, NUM_CHAINS, NUM_STEPS, BURN_IN = 10, 0.2, 0.2, 128, 1000, 300


@jax.jit
def run_chains(sampler: Any, key: jax.Array) -> tuple[Any, Any, Any]:
    """Start exactly, run many chains; return states before and after and all that was seen."""
    algorithm = sampler(NoisyGaussian(DIM))
    keys = jax.random.split(key, (NUM_CHAINS, NUM_STEPS + 2))
    positions = jax.vmap(lambda k: jax.random.normal(k, (DIM,)))(keys[:, 0])
    first = jax.vmap(algorithm.init)(positions, keys[:, 1])

    def step(state: Any, key: jax.Array) -> Any:
        state, info = algorithm.step(key, state)
        return state, (jnp.mean(state.position**2), info.temperature)

    last, seen = jax.vmap(lambda s, k: jax.lax.scan(step, s, k))(first, keys[:, 2:])
    return first, last, seen


def mean_and_error(values: Any) -> tuple[float, float]:
    """Mean over chains and draws after burn-in, and its standard error from the chains."""
    each = np.asarray(values, np.float64)[:, BURN_IN:].mean(1)
    return each.mean(), each.std(ddof=1) / len(each) ** 0.5


def test_the_thermostat_finds_the_temperature_that_friction_alone_misses() -> None:
    """SGNHT and informed SGHMC are right, to 1 % of bias in h; uninformed SGHMC is far too hot."""
    first, last, (squares, temperature) = run_chains(
        langevin.sgnht(STEP_SIZE, FRICTION), jax.random.key(7)
    )
    # The friction is the integral of the excess of the temperature: all of it is accounted for.
    change = STEP_SIZE * np.sum(np.asarray(temperature, np.float64) - 1, 1)
    np.testing.assert_allclose(last.friction - first.friction, change, atol=2e-3)
    mean, error = mean_and_error(squares)
    print(f"sgnht: {mean:.4f} +- {error:.4f}, temperature {mean_and_error(temperature)}")
    print(f"friction {last.friction.mean():.3f}")
    assert abs(mean - 1) < 0.02 + 5.2 * error
    # z balances γ and the gradient's heat h s²/2.
    assert abs(last.friction.mean() - FRICTION - STEP_SIZE * NOISE**2 / 2) < 0.03


def test_what_sghmc_is_told_of_the_noise_it_takes_off() -> None:
    friction = 0.5
    hot = 1 + STEP_SIZE * NOISE**2 / 2 / friction
    for told, expected in ((0.0, hot), (NOISE**2, 1.0)):
        sampler = langevin.sghmc(STEP_SIZE, friction, gradient_noise=told)
        mean, error = mean_and_error(run_chains(sampler, jax.random.key(8))[2][0])
        print(f"sghmc told {told:.2f}: {mean:.4f} +- {error:.4f}")
        assert abs(mean - expected) < 0.02 + 5.2 * error


DATA = {"y": np.array([0.3, -1.0, 2.2, 0.7, 1.9, -0.4]), "t": np.arange(6.0) / 3}


def log_prior(x: dict) -> jax.Array:
    return -0.5 * jnp.sum(x["a"] ** 2) - 0.1 * x["b"] ** 4


def log_likelihood(x: dict, row: dict) -> jax.Array:
    return -jnp.log(jnp.cosh(row["y"] - x["a"][0] - x["a"][1] * row["t"])) - x["b"] ** 2 * row["t"]


X = {"a": np.array([0.4, -0.2]), "b": np.array(0.7)}
CENTER = {"a": np.array([0.1, 0.3]), "b": np.array(0.2)}


def flat_score(gradient: Any) -> np.ndarray:
    return np.asarray(jax.flatten_util.ravel_pytree(gradient)[0])


def estimates(name: str, position: Any, memory_at: Any) -> tuple[np.ndarray, np.ndarray]:
    """Value and score from every batch of two rows, a row each; and those by all the data."""
    x, at = (jax.tree.map(jnp.asarray, tree) for tree in (position, memory_at))
    batches = minibatches.from_arrays(log_prior, log_likelihood, DATA, 2)
    density = {
        "plain": estimators.plain,
        "control variates": functools.partial(estimators.control_variates, center=at),
        "svrg": functools.partial(estimators.svrg, refresh_every=10),
    }[name](batches)
    rows = np.array(list(itertools.combinations(range(6), 2)))

    def one(rows: jax.Array) -> jax.Array:
        batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], DATA)
        (value, gradient), _ = density.estimate(x, batch, density.init(at))
        return jnp.append(jax.flatten_util.ravel_pytree(gradient)[0], value)

    value, gradient = jax.jit(jax.value_and_grad(density))(x)
    return np.asarray(jax.jit(jax.vmap(one))(rows)), np.append(flat_score(gradient), value)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["plain", "control variates", "svrg"])
def test_the_mean_over_all_batches_is_what_all_the_data_say(name: str) -> None:
    every, exact = estimates(name, X, CENTER)
    np.testing.assert_allclose(every.mean(0), exact, rtol=1e-12, atol=1e-12)
    assert every.std(0).min() > 0.01


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["control variates", "svrg"])
def test_the_noise_vanishes_at_the_anchor(name: str) -> None:
    every, exact = estimates(name, X, X)
    np.testing.assert_allclose(every, np.broadcast_to(exact, every.shape), rtol=1e-12, atol=1e-12)
    near = {"a": X["a"] + 1e-4, "b": X["b"]}
    assert estimates(name, near, X)[0].std(0).max() < 1e-3


def test_svrg_goes_through_all_the_data_only_when_it_is_due() -> None:
    """Three chains side by side, 7 steps, renewal every 3: anchors at steps 0, 3 and 6."""
    passes = []

    def counted_likelihood(x: jax.Array, y: jax.Array) -> jax.Array:
        if y.shape == (6,):
            jax.debug.callback(lambda: passes.append(1))
        return -0.5 * (y - x) ** 2

    data = jnp.asarray(DATA["y"], jnp.float32)
    batches = minibatches.from_arrays(lambda x: -0.5 * x**2, counted_likelihood, data, 2)
    algorithm = langevin.sgld(0.01)(estimators.svrg(batches, 3))
    keys = jax.random.split(jax.random.key(0), (3, 8))
    first = jax.jit(jax.vmap(algorithm.init))(jnp.zeros(3), keys[:, 0])
    jax.effects_barrier()
    passes.clear()

    def step(states: Any, keys: jax.Array) -> Any:
        states, _ = jax.vmap(algorithm.step)(keys, states)
        return states, states

    _, seen = jax.jit(lambda s, k: jax.lax.scan(step, s, k))(first, keys[:, 1:].T)
    jax.effects_barrier()
    # One of all three chains together, at two steps.
    assert len(passes) == 2
    np.testing.assert_array_equal(seen.memory.age[:, 0], [2, 3, 1, 2, 3, 1, 2])
    for i in (2, 5):
        np.testing.assert_array_equal(seen.memory.anchor.position[i], seen.position[i])
        exact = np.sum(DATA["y"]) - 7 * seen.position[i]
        np.testing.assert_allclose(seen.score[i, :, 0], exact, rtol=1e-5)
    np.testing.assert_array_equal(seen.memory.anchor.position[4], seen.position[2])


def z_subsets(key: jax.Array) -> np.ndarray:
    """How often each of the 10 pairs of 5 rows is drawn."""
    num = 20_000
    draw = jax.jit(jax.vmap(lambda key: minibatches.draw_subset(key, 5, 2)))
    pairs = np.sort(draw(jax.random.split(key, num)), 1)
    counts = [np.sum((pairs == pair).all(1)) for pair in itertools.combinations(range(5), 2)]
    return (np.array(counts) - num / 10) / np.sqrt(num * 0.1 * 0.9)


def test_every_subset_is_as_likely() -> None:
    z = z_subsets(jax.random.key(1))
    assert np.abs(z).max() < 5.2
    np.testing.assert_array_equal(minibatches.draw_subset(jax.random.key(0), 4, 4), np.arange(4))


@pytest.mark.parametrize("sampler", [langevin.sgld, langevin.sgnht])
def test_a_schedule_sets_the_step_sizes(sampler: Any) -> None:
    cycle = optax.cosine_decay_schedule(0.1, 3)
    algorithm = sampler(optax.join_schedules([cycle, cycle], [3]))(lambda x: -0.5 * jnp.sum(x**2))
    state = jax.jit(algorithm.init)(jnp.ones(2), jax.random.key(0))
    step = jax.jit(lambda state, key: algorithm.step(key, state))
    _, info = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 6))
    cosine = 0.05 * (1 + np.cos(np.pi * np.array([0, 1, 2] * 2) / 3))
    np.testing.assert_allclose(info.step_size, cosine, rtol=1e-5)


@pytest.mark.parametrize("sampler", [langevin.sgld, langevin.sgnht])
def test_a_step_to_where_nothing_is_finite_is_not_taken(sampler: Any) -> None:
    wall = lambda x: jnp.where(x[0] > 0.5, jnp.nan, -0.5 * jnp.sum(x**2))
    algorithm = sampler(1e3)(wall)
    state = jax.jit(algorithm.init)(jnp.zeros(2), jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 40)
    new, info = jax.jit(jax.vmap(algorithm.step, (0, None)))(keys, state)
    bad = info.status == Status.NONFINITE_LOG_DENSITY
    assert bad.any()
    np.testing.assert_array_equal(info.is_accepted, info.status == 0)
    np.testing.assert_array_equal(new.position[bad], np.zeros((bad.sum(), 2)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new))
    np.testing.assert_array_equal(new.num_steps, 1)


def test_batches_may_come_from_the_caller() -> None:
    """The same batches, drawn or given, make the same chain."""
    data = jnp.asarray(DATA["y"], jnp.float32)
    prior, likelihood = lambda x: -0.5 * x**2, lambda x, y: -0.5 * (y - x) ** 2
    drawn = minibatches.from_arrays(prior, likelihood, data, 2)
    streamed = langevin.sgld(0.01)(minibatches.from_stream(prior, likelihood, 6))
    inner = langevin.sgld(0.01)(drawn)
    key_init, key_step = jax.random.split(jax.random.key(0))
    state = inner.init(jnp.array(0.5), key_init)
    other = streamed.init(jnp.array(0.5), batch=drawn.draw(key_init))
    state, _ = jax.jit(inner.step)(key_step, state)
    batch = drawn.draw(jax.random.split(key_step)[1])
    other, _ = jax.jit(streamed.step)(key_step, other, batch)
    assert (state.position, state.score) == (other.position, other.score)
    with pytest.raises(TypeError, match="give init and step a batch"):
        streamed.step(key_step, other)
    with pytest.raises(TypeError, match="all the data at once"):
        langevin.ula(0.01)(minibatches.from_stream(prior, likelihood, 6)).init(jnp.array(0.5))


def test_the_noise_of_an_estimate_is_measured() -> None:
    """Sample variances of 4000 batches, to 5.2 standard errors; through L they are those of Lᵀĝ."""
    metric = np.array([0.5, 3.0])
    found = estimators.noise_variance(
        jax.random.key(0), NoisyGaussian(), jnp.zeros(2), metric, num_batches=4000
    )
    np.testing.assert_allclose(found, metric * NOISE**2, rtol=5.2 * (2 / 4000) ** 0.5)


def test_a_state_of_another_density_is_refused() -> None:
    state = langevin.sgld()(NoisyGaussian()).init(jnp.zeros(2), jax.random.key(0))
    algorithm = langevin.sgld()(lambda x: -0.5 * jnp.sum(x**2))
    with pytest.raises(TypeError, match="made by another density"):
        algorithm.step(jax.random.key(1), state)
