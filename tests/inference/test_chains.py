"""Chains side by side: keys and parameters of their own, a guard, and one report for all."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference.chains import Chains, broadcast
from shoal.sampling.core.algorithm import Algorithm, Sampler, Status

pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(11)
NAN, INF = np.nan, np.inf


class Flat:
    """A target on which every algorithm is right."""

    def log_density(self, position: Any) -> jax.Array:
        return jnp.zeros(())


class State(NamedTuple):
    position: jax.Array
    logdensity: jax.Array


class Info(NamedTuple):
    acceptance_rate: jax.Array
    is_divergent: jax.Array
    nonans: jax.Array


def noisy(log_density: Any, scale: jax.Array) -> Algorithm:
    """Start and move at random, with what chain and step give."""

    def init(position: jax.Array, key: jax.Array) -> State:
        return State(position + jax.random.normal(key), jnp.zeros(()))

    def step(key: jax.Array, state: State) -> tuple[State, Info]:
        new = State(state.position + scale * jax.random.normal(key), jnp.zeros(()))
        return new, Info(jnp.ones(()), jnp.asarray(False), jnp.asarray(True))

    return Algorithm(init, step)


def test_every_chain_has_its_own_key_and_parameters() -> None:
    ids, scales = jnp.array([5, 2, 9]), jnp.array([1.0, 2.0, 3.0])
    chains = Chains(Sampler(noisy, {"scale": scales}), Flat(), ids)
    noise = np.array([jax.random.normal(jax.random.fold_in(KEY, i)) for i in (5, 2, 9)])
    states = chains.init(jnp.zeros(3), KEY)
    np.testing.assert_allclose(states.position, noise, rtol=1e-6)
    states, report = chains.step(KEY, states)
    np.testing.assert_allclose(states.position, noise + scales * noise, rtol=1e-6)
    assert report.moved.all()


def test_parameters_are_copied_for_every_chain() -> None:
    sampler = broadcast(Sampler(noisy, {"scale": 0.5, "matrix": jnp.ones((2, 3))}), 4)
    assert sampler.parameters["scale"].shape == (4,)
    assert sampler.parameters["matrix"].shape == (4, 2, 3)


def scripted(log_density: Any, after: Any) -> Algorithm:
    """Step to the state and the info that the parameters hold."""
    return Algorithm(lambda position, key: State(position, jnp.ones(())), lambda key, state: after)


# What a step of each chain returns: position, log density, rate, divergent, without NaN; and then
# the status, position, log density and whether it moved that the chain must report.
STEPS = (
    (([1.0, 2.0], -3.0, 0.7, False, True), (Status.OK, [1.0, 2.0], -3.0, True)),
    (([0.0, 2.0], -3.0, 0.7, False, True), (Status.OK, [0.0, 2.0], -3.0, True)),
    (([0.0, 0.0], -3.0, 0.0, True, True), (Status.DIVERGENCE, [0.0, 0.0], -3.0, False)),
    (([1.0, NAN], -3.0, 0.7, False, True), (Status.NONFINITE_LOG_DENSITY, [0.0, 0.0], 1.0, False)),
    (([1.0, 2.0], -INF, 0.7, True, True), (Status.NONFINITE_LOG_DENSITY, [0.0, 0.0], 1.0, False)),
    (([1.0, 2.0], -3.0, NAN, False, False), (Status.NONFINITE_LOG_DENSITY, [0.0, 0.0], 1.0, False)),
)


def test_a_step_into_what_is_not_finite_is_undone() -> None:
    position, density, rate, divergent, clean = (
        jnp.asarray(np.array(column)) for column in zip(*(given for given, _ in STEPS), strict=True)
    )
    after = (State(position, density), Info(rate, divergent, clean))
    chains = Chains(Sampler(scripted, {"after": after}), Flat(), jnp.arange(len(STEPS)))
    states, report = chains.step(KEY, chains.init(jnp.zeros((len(STEPS), 2)), KEY))
    status, position, density, moved = zip(*(wanted for _, wanted in STEPS), strict=True)
    np.testing.assert_array_equal(report.status, status)
    np.testing.assert_array_equal(states.position, position)
    np.testing.assert_array_equal(report.statistics["lp"], density)
    np.testing.assert_array_equal(report.moved, moved)
    np.testing.assert_array_equal(report.statistics["diverging"], np.array(status) == 3)
    rates = np.where(np.isnan(rate), 0, rate)
    np.testing.assert_array_equal(report.statistics["acceptance_rate"], rates)
