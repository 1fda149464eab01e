"""The tuned default: what its warm-up finds against what is known, and steps that fail."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference import Result, Target, sample
from shoal.inference.chains import Chains, broadcast
from shoal.sampling import langevin
from shoal.sampling.core.algorithm import Status
from shoal.sampling.core.random import step_key

pytestmark = pytest.mark.quick_compiler

# A correlated Gaussian of very unequal scales.
SCALES = np.array([0.01, 0.3, 1.0, 4.0, 30.0])
CORRELATION = 0.9
COVARIANCE = np.outer(SCALES, SCALES) * (CORRELATION + (1 - CORRELATION) * np.eye(SCALES.size))
PRECISION = np.linalg.inv(COVARIANCE)


def log_density(x: jax.Array) -> jax.Array:
    return -0.5 * x @ jnp.asarray(PRECISION, x.dtype) @ x


def metric_and_slowest() -> tuple[np.ndarray, float]:
    """M_i = (Var x_i / Var score_i)^(1/2), and the largest variance in coordinates it whitens."""
    metric = np.sqrt(np.diag(COVARIANCE) / np.diag(PRECISION))
    scale = np.sqrt(metric)
    return metric, np.linalg.eigvalsh(COVARIANCE / np.outer(scale, scale))[-1]


def tune(sampler: Any, density: Any, starts: jax.Array, num_steps: int) -> tuple[Any, Any, Any]:
    """Run the warm-up alone; return its end, the tuned parameters and all steps' reports."""
    num = len(starts)
    chains = Chains(broadcast(sampler, num), Target.from_log_density(density), jnp.arange(num))
    tuning = sampler.warm_up(chains, num_steps)

    @jax.jit
    def run(starts: jax.Array) -> Any:
        step = lambda state, t: tuning.step(step_key(jax.random.key(2), t), state)
        state = tuning.init(chains.init(starts, jax.random.key(1)))
        state, info = jax.lax.scan(step, state, jnp.arange(num_steps))
        return state, tuning.final_sampler(state).parameters, info

    return run(starts)


@pytest.mark.parametrize("adjusted", [False, True])
def test_it_finds_metric_and_slowest_direction(adjusted: bool) -> None:
    starts = jax.random.uniform(jax.random.key(3), (16, 5), minval=-2.0, maxval=2.0)
    state, parameters, info = tune(langevin.auto(adjusted), log_density, starts, 600)
    metric, slowest = metric_and_slowest()
    found = np.asarray(parameters["metric"].factor) ** 2
    assert (found == found[0]).all()
    # Of 16 chains with some tens of independent draws each: standard deviations to 10 %.
    np.testing.assert_allclose(found[0] / metric, 1, atol=0.3)
    if adjusted:
        found = parameters["path_length"][0]
        np.testing.assert_allclose(found, 1.25 * np.sqrt(slowest * 5), rtol=0.2)
        # The last 100 steps, all at nearly the same step size.
        rate = np.asarray(info.statistics["acceptance_rate"])[-100:].mean()
        assert abs(rate - 0.8) < 0.05
    else:
        np.testing.assert_allclose(parameters["friction"][0], 2 / np.sqrt(slowest), rtol=0.2)
        relative = np.asarray(info.statistics["energy_error"])[-150:] ** 2 / 5
        measure = np.mean(np.minimum(relative, 1) ** 2) / (3 * 0.01**2)
        # q grows like h to the twelfth power: this is the step size to 10 %.
        assert 0.3 < measure < 3.5
    assert (np.asarray(state.chains.log_density) > -40).all()


def test_the_step_size_settles_where_its_error_is_one() -> None:
    chains = Chains(
        broadcast(langevin.auto().replace(step_size=0.8), 3), Target.from_log_density(log_density),
        jnp.arange(3),
    )  # fmt: skip
    tuning = langevin.auto().warm_up(chains, 400)
    state = tuning.init(chains.init(jnp.ones((3, 5)), jax.random.key(1)))
    state = state._replace(log_step_size=jnp.log(jnp.float32(0.8)))

    def step(state: Any, t: jax.Array) -> Any:
        # The first try shows an error 280 times too large, as its twelfth power does.
        error = (state.sampler.parameters["step_size"] / 0.5) ** 12
        begin = tuning.num_climb + tuning.num_learn
        return tuning._set_step_size(
            state._replace(step=begin + t), error, jnp.asarray(False)
        ), None

    state, _ = jax.lax.scan(step, state, jnp.arange(100))
    np.testing.assert_allclose(state.sampler.parameters["step_size"], 0.5, rtol=0.01)


def test_chains_that_start_absurdly_far_off_arrive() -> None:
    # Log densities of -1e6 and scores of 1e5 for one chain, while the others start well.
    density = lambda x: -0.5 * jnp.sum(x**2) - jnp.exp(x[0])
    starts = jnp.zeros((4, 5)).at[0, 0].set(13.8)
    state, parameters, _ = tune(langevin.auto(), density, starts, 300)
    assert density(starts[0]) < -9e5
    assert (np.asarray(state.chains.log_density) > -20).all()
    assert 0.1 < parameters["step_size"][0] < 1.5
    np.testing.assert_allclose(parameters["metric"].factor[0], 1, atol=0.5)


def _step(stiffness: float, position: float) -> tuple[Any, Any, Any, jax.Array]:
    """Make one step of size 1 on a Gaussian of precision ``stiffness`` squared."""
    density = lambda x: -0.5 * jnp.sum((stiffness * x) ** 2)
    sampler = langevin.auto().replace(step_size=1.0)
    algorithm, key = sampler(density), jax.random.key(5)
    state = algorithm.init(jnp.full(3, position), jax.random.key(4))
    return state, *algorithm.step(key, state), key


def test_a_step_is_baoab_where_that_succeeds() -> None:
    state, new, info, key = _step(0.5, 1.0)
    baoab = langevin.baoab(1.0)(lambda x: -0.5 * jnp.sum((0.5 * x) ** 2))
    expected, _ = baoab.step(jax.random.split(key)[0], state)
    np.testing.assert_allclose(new.position, expected.position, rtol=1e-6)
    assert info.num_integration_steps == 0


# h √λ is 6 or 7.4, unstable: 1.5 after division by 4; 1.85 fails at the second step, 0.5 not.
@pytest.mark.parametrize(("stiffness", "parts", "least", "most"), [(6, 4, 4, 4), (7.4, 16, 18, 18)])
def test_a_step_that_fails_is_made_of_smaller_ones(
    stiffness: float, parts: int, least: int, most: int
) -> None:
    state, new, info, key = _step(stiffness, 1.2 / stiffness)
    again, tried = jax.random.split(key)[1], int(info.num_integration_steps)
    assert least <= tried <= most
    algorithm = langevin.baoab(1.0 / parts)(lambda x: -0.5 * jnp.sum((stiffness * x) ** 2))
    expected = state
    for i in range(tried - parts, tried):
        expected, _ = algorithm.step(jax.random.fold_in(again, i), expected)
    assert bool(info.is_accepted)
    assert info.status == Status.OK
    np.testing.assert_allclose(new.position, expected.position, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new.momentum, expected.momentum, rtol=1e-4, atol=1e-5)


def test_a_step_that_fails_for_good_turns_back() -> None:
    state, new, info, _ = _step(1e4, 2.0)
    np.testing.assert_array_equal(new.position, state.position)
    np.testing.assert_array_equal(new.momentum, -state.momentum)
    assert info.num_integration_steps == 2
    assert info.status == Status.DIVERGENCE


@functools.cache
def drawn(num_samples: int) -> Result:
    return sample(
        jax.random.key(0), log_density, langevin.auto(), init=jnp.ones((8, 5)),
        num_chains=8, num_warmup=400, num_samples=num_samples, progress=False,
    )  # fmt: skip


def test_through_sample_the_draws_are_right_and_gradients_counted() -> None:
    result = drawn(2000)
    extra = result.sample_stats["n_steps"].sum()
    assert result.num_gradients == 8 * 2000 + extra
    assert result.num_gradients_warmup >= 8 * 401
    draws = result.posterior["position"].astype(float)
    # BAOAB is exact here; 16,000 draws are worth more than 500 independent ones: 5 deviations.
    np.testing.assert_allclose(draws.var((0, 1)) / np.diag(COVARIANCE), 1, atol=0.32)
    assert np.abs(draws.mean((0, 1)) / SCALES).max() < 0.23


def test_nothing_is_tuned_after_the_warm_up() -> None:
    """A short run is the beginning of a long one, with the same parameters."""
    long, short = drawn(2000), drawn(50)
    begun = long.posterior["position"][:, :50]
    np.testing.assert_array_equal(begun, short.posterior["position"])
    for name in ("step_size", "friction", "metric"):
        told = long.parameters[name], short.parameters[name]
        jax.tree.map(np.testing.assert_array_equal, *told)


def test_too_short_a_warm_up_and_other_flags_are_refused() -> None:
    with pytest.raises(ValueError, match="num_warmup must be at least 50.*got 49"):
        sample(
            jax.random.key(0), log_density, langevin.auto(), init=jnp.ones(5), num_warmup=49,
            progress=False,
        )  # fmt: skip
    with pytest.raises(TypeError, match="adjusted"):
        langevin.auto("yes")  # type: ignore[arg-type]
