"""Uses of shoal that a type checker must refuse, marked, among uses that it must accept."""

from typing import assert_type

import jax
import jax.numpy as jnp

import shoal


def log_density(x: jax.Array) -> jax.Array:
    return -0.5 * jnp.sum(x**2)


key = jax.random.key(0)
mala = shoal.langevin.mala(step_size=0.1)

result = shoal.sample(key, log_density, mala, init=jnp.zeros(3), num_chains=2, progress=False)
assert_type(result, shoal.Result)

shoal.sample(key, log_density, mala, num_chains="two")  # error: arg-type
shoal.langevin.mala(stepsize=0.1)  # error: call-arg
shoal.inference.Result.from_nowhere("run.nc")  # error: attr-defined
