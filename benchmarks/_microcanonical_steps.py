"""A step of 256 microcanonical chains in 100 dimensions: ours and BlackJAX's, both minimal norm.

The noise is what no such step can go below: one normal number a coordinate, all chains' from one
key. The whole of a step is that, two gradients and three turns of the direction.
"""

import blackjax
import jax
import jax.numpy as jnp
from _harness import Report, interleave

from shoal.models.densities import ill_conditioned_gaussian
from shoal.sampling import langevin
from shoal.sampling.core.random import particle_keys, step_key

CHAINS, DIM = 256, 100
STEP_SIZE, LENGTH = 0.5, 10.0
KEY = jax.random.key(0)


def looped(step, carry, num_steps):
    """Return a call that runs ``step(carry, t)`` in one compiled loop."""
    body = lambda carry, t: (step(carry, t), None)
    loop = jax.jit(lambda carry: jax.lax.scan(body, carry, jnp.arange(num_steps))[0])
    return lambda: loop(carry)


def ours(log_density, start, num_steps, **options):
    algorithm = langevin.mclmc(STEP_SIZE, LENGTH, **options)(log_density)
    ids = jnp.arange(CHAINS)

    def step(states, t):
        return jax.vmap(algorithm.step)(particle_keys(step_key(KEY, t), ids), states)[0]

    states = jax.vmap(algorithm.init)(start, particle_keys(KEY, ids))
    return looped(step, states, num_steps)


def blackjax_mclmc(log_density, start, num_steps):
    algorithm = blackjax.mclmc(log_density, L=LENGTH, step_size=STEP_SIZE)

    def step(states, t):
        keys = jax.random.split(jax.random.fold_in(KEY, t), CHAINS)
        return jax.vmap(algorithm.step)(keys, states)[0]

    return looped(step, jax.vmap(algorithm.init)(start, jax.random.split(KEY, CHAINS)), num_steps)


def noise(start, num_steps):
    draw = lambda x, t: x + jax.random.normal(jax.random.fold_in(KEY, t), x.shape)
    return looped(draw, start, num_steps)


def add_rows(report: Report) -> None:
    options = report.options
    num_steps = 50 if options.quick else 200
    targets = {
        "isotropic Gaussian": lambda x: -0.5 * jnp.sum(x**2),
        "dense Gaussian": ill_conditioned_gaussian(DIM, 100.0, jax.random.key(3)).log_density,
    }
    start = jax.random.normal(jax.random.key(1), (CHAINS, DIM))
    for target, log_density in targets.items():
        times = interleave(
            {
                "ours": ours(log_density, start, num_steps),
                "leapfrog": ours(log_density, start, num_steps, integrator="leapfrog"),
                "blackjax": blackjax_mclmc(log_density, start, num_steps),
                "noise": noise(start, num_steps),
            },
            rounds=options.rounds(15, 7),
        )
        times = {name: [t / num_steps for t in values] for name, values in times.items()}
        name = f"seconds a step, {target}: "
        report.ratio(name + "mclmc / blackjax.mclmc", times, 0.5, "ours", "blackjax")
        report.ratio(name + "mclmc / its noise alone", times, None, "ours", "noise")
        report.ratio(name + "mclmc by leapfrog / its noise", times, None, "leapfrog", "noise")
