"""Randomness by (run key, particle, step): nothing depends on how the work was cut."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core import random

KEY = jax.random.key(7)


def test_normal_is_the_documented_function_of_key_particle_and_step():
    draws = random.normal(KEY, jnp.array([3, 11]), step=5, shape=(4,))
    for row, particle in enumerate((3, 11)):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 5), particle)
        np.testing.assert_array_equal(draws[row], jax.random.normal(key, (4,)))


def test_particles_and_steps_do_not_share_numbers():
    draws = jax.vmap(lambda t: random.normal(KEY, jnp.arange(50), t, (3,)))(jnp.arange(50))
    assert np.unique(np.asarray(draws)).size > 0.999 * draws.size


def z_normal(key):
    """First four moments, and products of neighbours: particles, steps and entries."""
    draw = lambda step: np.asarray(random.normal(key, jnp.arange(1000), step, (100,)), np.float64)
    x, later = draw(0), draw(1)
    moments = [x, (x**2 - 1) / 2**0.5, x**3 / 15**0.5, (x**4 - 3) / 96**0.5]
    products = [x * later, x[1:] * x[:-1], x[:, 1:] * x[:, :-1]]
    return np.array([part.mean() * part.size**0.5 for part in moments + products])


def test_moments_are_standard_normal():
    # Seven statistics: a false alarm in 1.4e-6 of all keys.
    assert np.abs(z_normal(KEY)).max() < 5.2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_is_respected(dtype):
    with jax.enable_x64(True):
        assert random.normal(jax.random.key(0), jnp.arange(2), 0, (3,), dtype).dtype == dtype


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (jax.random.PRNGKey(0), "typed key"),
        (0, "typed key"),
        (jax.random.split(jax.random.key(0)), r"shape \(\)"),
    ],
)
def test_wrong_keys_are_refused(key, message):
    with pytest.raises(TypeError, match=message):
        random.normal(key, jnp.arange(2), 0)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from shoal.sampling import langevin
from shoal.sampling.core import random

assert jax.device_count() == 4
algorithm = langevin.mala(step_size=0.3)(lambda x: -0.5 * jnp.sum(x**2))
ids = jnp.arange(8)
start = jnp.ones((8, 5))

@jax.jit
def run(ids, start):
    def step(states, t):
        keys = random.particle_keys(random.step_key(jax.random.key(1), t), ids)
        return jax.vmap(algorithm.step)(keys, states)[0], None
    return jax.lax.scan(step, jax.vmap(algorithm.init)(start), jnp.arange(50))[0].position

mesh = Mesh(np.array(jax.devices()), ("particles",))
rows = NamedSharding(mesh, P("particles"))
sharded = run(jax.device_put(ids, rows), jax.device_put(start, rows))
assert len(sharded.sharding.device_set) == 4
one_device = run(ids, start)
assert len(one_device.sharding.device_set) == 1
np.testing.assert_array_equal(np.asarray(sharded), np.asarray(one_device))
"""


def test_chains_are_bitwise_the_same_on_four_devices_and_on_one():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    subprocess.run([sys.executable, "-c", SHARDED], env=environment, check=True)
