"""A step of 256 chains in 100 dimensions: ours, BlackJAX's, and what no sampler can go below.

The floor is a loop that does only what every Langevin step must: the value and gradient of the log
density at a point that moves, and the normal numbers (for MALA one uniform more), all chains' from
one key. Ours draws each chain's numbers from (run key, chain, step) and checks what comes out.
"""

import blackjax
import jax
import jax.numpy as jnp
from _harness import Report, interleave

from shoal.models.densities import ill_conditioned_gaussian
from shoal.sampling import langevin
from shoal.sampling.core.random import particle_keys, step_key

CHAINS, DIM = 256, 100
KEY = jax.random.key(0)


def looped(step, carry, num_steps):
    """Return a call that runs ``step(carry, t)`` in one compiled loop."""
    body = lambda carry, t: (step(carry, t), None)
    loop = jax.jit(lambda carry: jax.lax.scan(body, carry, jnp.arange(num_steps))[0])
    return lambda: loop(carry)


def ours(sampler, log_density, start, num_steps):
    algorithm = sampler(log_density)
    ids = jnp.arange(CHAINS)

    def step(states, t):
        return jax.vmap(algorithm.step)(particle_keys(step_key(KEY, t), ids), states)[0]

    states = jax.vmap(algorithm.init)(start, particle_keys(KEY, ids))
    return looped(step, states, num_steps)


def blackjax_mala(log_density, start, num_steps):
    algorithm = blackjax.mala(log_density, 0.01)

    def step(states, t):
        keys = jax.random.split(jax.random.fold_in(KEY, t), CHAINS)
        return jax.vmap(algorithm.step)(keys, states)[0]

    return looped(step, jax.vmap(algorithm.init)(start), num_steps)


def floor(log_density, start, num_steps, uniform):
    value_and_grad = jax.vmap(jax.value_and_grad(log_density))

    def step(carry, t):
        x, _, gradient = carry
        key = jax.random.fold_in(KEY, t)
        y = x + 0.01 * gradient + 0.1 * jax.random.normal(key, x.shape)
        value, gradient = value_and_grad(y)
        if uniform:
            value = value + jax.random.uniform(jax.random.fold_in(key, 1), value.shape)
        return y, value, gradient

    return looped(step, (start, *value_and_grad(start)), num_steps)


def add_rows(report: Report) -> None:
    options = report.options
    num_steps = 100 if options.quick else 400
    rotated = ill_conditioned_gaussian(DIM, 100.0, jax.random.key(3))
    targets = {
        "isotropic Gaussian": lambda x: -0.5 * jnp.sum(x**2),
        "dense Gaussian": rotated.log_density,
    }
    start = jax.random.normal(jax.random.key(1), (CHAINS, DIM))
    for target, log_density in targets.items():
        times = interleave(
            {
                "ula": ours(langevin.ula(0.01), log_density, start, num_steps),
                "mala": ours(langevin.mala(0.01), log_density, start, num_steps),
                "blackjax": blackjax_mala(log_density, start, num_steps),
                "floor of ula": floor(log_density, start, num_steps, uniform=False),
                "floor of mala": floor(log_density, start, num_steps, uniform=True),
            },
            rounds=options.rounds(25, 7),
        )
        times = {name: [t / num_steps for t in values] for name, values in times.items()}
        name = f"seconds a step, {target}: "
        report.ratio(name + "ula / floor", times, 1.2, "ula", "floor of ula")
        report.ratio(name + "mala / floor", times, 1.2, "mala", "floor of mala")
        report.ratio(name + "mala / blackjax.mala", times, 1.0, "mala", "blackjax")
