"""Counted gradients against evaluations that really happened."""

import functools

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference.gradients import gradient_cost
from shoal.sampling import langevin

pytestmark = pytest.mark.quick_compiler


def log_density(x):
    return -0.5 * jnp.sum(x**2 * jnp.array([1.0, 9.0]))


METRIC = jnp.ones(2)
SAMPLERS = {
    "ula": (langevin.ula(0.1), (1, 0)),
    "mala": (langevin.mala(0.1), (1, 0)),
    "baoab": (langevin.baoab(0.1), (1, 0)),
    "obabo": (langevin.obabo(0.1), (1, 0)),
    "aboba": (langevin.aboba(0.1), (1, 0)),
    "ubu": (langevin.ubu(0.1), (1, 0)),
    "align": (langevin.align(0.1), (1, 0)),
    "should": (langevin.should(0.1), (2, 0)),
    "quicsort": (langevin.quicsort(0.1), (2, 0)),
    "ghmc": (langevin.ghmc(0.1), (1, 0)),
    "malt": (langevin.malt(0.1), (0, 1)),
    "mclmc": (langevin.mclmc(0.1), (2, 0)),
    "mams": (langevin.mams(0.1), (0, 2)),
    "barker": (langevin.barker(0.1), (1, 0)),
    "myula": (langevin.myula(step_size=0.1), (1, 0)),
    "prox_mala": (langevin.prox_mala(step_size=0.1), (1, 0)),
    "spherical": (langevin.spherical(0.1), (1, 0)),
    "blackjax.mala": (functools.partial(blackjax.mala, step_size=0.1), (1, 0)),
    "blackjax.barker": (functools.partial(blackjax.barker, step_size=0.1), (1, 0)),
    "blackjax.mclmc": (functools.partial(blackjax.mclmc, L=1.0, step_size=0.1), (2, 0)),
    "blackjax.hmc": (
        functools.partial(
            blackjax.hmc, step_size=0.1, inverse_mass_matrix=METRIC, num_integration_steps=7
        ),
        (7, 0),
    ),
    "blackjax.hmc, two gradients an integration step": (
        functools.partial(
            blackjax.hmc,
            step_size=0.1,
            inverse_mass_matrix=METRIC,
            num_integration_steps=7,
            integrator=blackjax.mcmc.integrators.mclachlan,
        ),
        (14, 0),
    ),
    "blackjax.nuts": (
        functools.partial(blackjax.nuts, step_size=0.1, inverse_mass_matrix=METRIC),
        (0, 1),
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_count_equals_the_evaluations_of_a_real_step(name):
    sampler, expected = SAMPLERS[name]
    evaluated = []

    @jax.custom_vjp
    def counted(x):
        return log_density(x)

    def forward(x):
        jax.debug.callback(lambda: evaluated.append(1))
        value, gradient = jax.value_and_grad(log_density)(x)
        return value, gradient

    counted.defvjp(forward, lambda gradient, ct: (ct * gradient,))

    state = sampler(log_density).init(jnp.ones(2), jax.random.key(0))
    cost = gradient_cost(sampler, log_density, state)
    assert cost == expected
    _, info = jax.jit(sampler(counted).step)(jax.random.key(1), state)
    jax.effects_barrier()
    iterations = int(getattr(info, "num_integration_steps", 0))
    assert len(evaluated) == cost.per_step + cost.per_iteration * iterations
    assert np.isfinite(log_density(state.position))


def test_loops_and_branches_are_multiplied_out():
    class Made:
        def __init__(self, log_density):
            self.log_density = log_density

        def step(self, key, state):
            gradient = jax.grad(self.log_density)
            body = lambda x, _: (x + gradient(x), None)
            state, _ = jax.lax.scan(body, state, None, length=5)
            twice = lambda x: gradient(gradient(x))
            return jax.lax.cond(state[0] > 0, twice, gradient, state), None

    assert gradient_cost(Made, log_density, jnp.ones(2)) == (7, 0)
