"""The protocol: status codes, samplers as pytrees, and BlackJAX both ways."""

import functools

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling import langevin
from shoal.sampling.core.algorithm import Sampler, Status, proposal_status

pytestmark = pytest.mark.quick_compiler


def log_density(x):
    return -0.5 * jnp.sum(x**2)


def test_every_status_has_a_sentence():
    assert len({status.sentence for status in Status}) == len(Status)


def test_proposals_are_judged_by_the_first_fault():
    values = jnp.array([0.0, jnp.nan, jnp.inf, -jnp.inf, 0.0])
    finite = jnp.array([True, False, True, False, False])
    expected = [0, 1, 1, 4, 2]
    status = proposal_status(values, finite)
    np.testing.assert_array_equal(status, expected)
    assert status.dtype == jnp.int8


SAMPLERS = {
    "ula": langevin.ula,
    "mala": langevin.mala,
    "baoab": langevin.baoab,
    "obabo": langevin.obabo,
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_changing_a_float_compiles_nothing(name):
    traces = []

    @eqx.filter_jit
    def step(sampler, key, position):
        traces.append(1)
        algorithm = sampler(log_density)
        return algorithm.step(key, algorithm.init(position, key))[0].position

    sampler = jax.tree.map(jnp.asarray, SAMPLERS[name](step_size=0.1))
    first = step(sampler, jax.random.key(0), jnp.ones(3))
    other = jax.tree.map(jnp.asarray, SAMPLERS[name](step_size=0.2))
    second = step(other, jax.random.key(0), jnp.ones(3))
    assert len(traces) == 1
    assert not np.allclose(first, second)


@pytest.mark.parametrize("name", SAMPLERS)
def test_our_samplers_serve_where_blackjax_expects_an_algorithm(name):
    algorithm = SAMPLERS[name](step_size=0.1)(log_density)
    theirs = blackjax.SamplingAlgorithm(*algorithm)
    final, (states, infos) = blackjax.util.run_inference_algorithm(
        jax.random.key(0),
        theirs,
        num_steps=20,
        initial_position=jnp.ones(2),
        transform=lambda state, info: (state.position, info),
    )
    assert states.shape == (20, 2)
    assert (infos.status == 0).all()
    assert final.position.shape == (2,)


def test_partial_of_blackjax_becomes_a_sampler_with_dynamic_floats():
    partial = functools.partial(
        blackjax.hmc,
        step_size=0.1,
        inverse_mass_matrix=jnp.ones(2),
        num_integration_steps=3,
    )
    sampler = Sampler.from_partial(partial)
    assert set(sampler.parameters) == {"step_size", "inverse_mass_matrix"}
    assert dict(sampler.options) == {"num_integration_steps": 3}
    algorithm = sampler.replace(step_size=0.2)(log_density)
    state, info = algorithm.step(jax.random.key(0), algorithm.init(jnp.ones(2), jax.random.key(1)))
    theirs = partial(log_density, step_size=0.2)
    expected, _ = theirs.step(jax.random.key(0), theirs.init(jnp.ones(2)))
    np.testing.assert_array_equal(state.position, expected.position)
    assert info.num_integration_steps == 3


def test_unknown_hyperparameters_and_positional_arguments_are_refused():
    with pytest.raises(TypeError, match=r"unknown hyperparameters \['stepsize'\]"):
        langevin.mala().replace(stepsize=0.1)
    with pytest.raises(TypeError, match="positional"):
        Sampler.from_partial(functools.partial(blackjax.mala, log_density))
