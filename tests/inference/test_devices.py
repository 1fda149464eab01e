"""Particles over eight simulated devices, in a process of its own.

Independent particles have to come out bit for bit, ensembles to 1e-6 of their size after a step.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference.run import run
from shoal.sampling import langevin

SCRIPT = """
import functools, re, sys
import blackjax, jax, jax.numpy as jnp, numpy as np
sys.path[:0] = [TESTS, TESTS + "/faults"]
from algorithms import SteinEnsemble
from compilation import compile_quickly
from shoal.inference import Checkpoint, resume, sample
from shoal.inference._chunk import _Static, compiled_chunk, empty, make_program, put_inputs
from shoal.inference._draw import _keep, _tally
from shoal.inference.chains import Chains, broadcast
from shoal.inference.run import run
from shoal.inference.target import Target
from shoal.sampling import langevin
from shoal.sampling.core.pairwise import Ring
import equinox as eqx

KEY = jax.random.key(0)
assert jax.device_count() == 8
mesh = jax.make_mesh((8,), ("chains",))
two = jax.make_mesh((2,), ("chains",), devices=jax.devices()[:2])

def log_density(x):
    return -0.5 * jnp.sum(x**2) - jnp.exp(x[0])

def draws(sampler, mesh, num_chains, num_warmup=20, **options):
    result = sample(
        KEY, log_density, sampler, init=jnp.zeros(4), num_chains=num_chains, num_samples=30,
        num_warmup=num_warmup, mesh=mesh, progress=False, on_failure="ignore", **options,
    )
    return result

# Independent chains, a vector's length of them on each device: the same bits, also of what was
# saved on eight devices and continued on two and on one.
checkpoint = Checkpoint(FOLDER, every=0.0)
alone, shared = draws("mala", None, 128), draws("mala", mesh, 128, checkpoint=checkpoint)
np.testing.assert_array_equal(alone.posterior["position"], shared.posterior["position"])
np.testing.assert_array_equal(alone.parameters["step_size"], shared.parameters["step_size"])
assert alone.status == shared.status and alone.num_gradients == shared.num_gradients
go_on = functools.partial(resume, FOLDER, log_density, progress=False, on_failure="ignore")
again = go_on(num_samples=40, mesh=two)
np.testing.assert_array_equal(again.posterior["position"][:, :30], shared.posterior["position"])
last = go_on(num_samples=50)
np.testing.assert_array_equal(last.posterior["position"][:, :40], again.posterior["position"])

# From here on nothing is about the last bit.
compile_quickly()

# A number that the devices do not divide: filled up, and to rounding the same after a step.
uneven = [draws("ula", m, 13, 0).posterior["position"] for m in (None, mesh)]
assert uneven[0].shape == uneven[1].shape == (13, 30, 4)
np.testing.assert_allclose(uneven[1][:, 0], uneven[0][:, 0], atol=1e-6)
np.testing.assert_allclose(uneven[1], uneven[0], atol=1e-4)

# The program of independent chains never communicates.
target = Target.from_log_density(log_density)
chains = Chains(broadcast(langevin.mala(0.1), 16), target, jnp.arange(16))
states = chains.init(jnp.zeros((16, 4)), KEY)
program, shapes = make_program(mesh, chains, states, KEY, _keep, _tally, None)
algorithm, state, key = put_inputs(program, chains, states, KEY)
arrays, static = eqx.partition(algorithm, eqx.is_array)
scalars = [key, *(np.asarray(n, np.int32) for n in (0, 1, 0, 5))]
carry = state, *empty(program, shapes, 5)
lowered = compiled_chunk.lower(_Static.of((static, program)), arrays, scalars, carry)
text = lowered.compile().as_text()
communication = re.findall("all-reduce|all-gather|all-to-all|collective-permute", text)
assert not communication, communication

# An ensemble round the ring, even and uneven.
def position(state, info):
    return state.position

means = jnp.array([[2.0, 0.0], [-2.0, 1.0]])
for num in (64, 50):
    start = jax.random.normal(KEY, (num, 2))
    found = []
    for mesh_or_none in (None, mesh):
        ring = None if mesh_or_none is None else Ring(mesh_or_none, "chains")
        ensemble = SteinEnsemble(means, 0.1, 0.05, ring=ring)
        state = ensemble.init(start)
        finished = run(KEY, ensemble, state, 20, keep=position, mesh=mesh_or_none)
        assert finished.state.alive.shape == (num,) and finished.state.alive.all()
        found.append(np.asarray(finished.kept))
    scale = np.abs(found[0]).max()
    assert np.abs(found[1][0] - found[0][0]).max() <= 1e-6 * scale
    assert np.abs(found[1] - found[0]).max() <= 20e-6 * scale
print("done")
"""


def test_eight_devices_give_what_one_gives(root, tmp_path):
    tests, folder = str(root / "tests"), str(tmp_path / "run")
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    script = f"TESTS, FOLDER = {tests!r}, {folder!r}\n{SCRIPT}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(tmp_path),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.endswith("done\n")


def walk():
    algorithm = langevin.ula(0.1)(lambda x: -0.5 * jnp.sum(x**2))
    return algorithm, algorithm.init(jnp.zeros(3))


def test_what_is_no_mesh_of_one_axis_is_refused():
    algorithm, state = walk()
    with pytest.raises(TypeError, match="mesh must be a jax.sharding.Mesh or None, got int"):
        run(jax.random.key(0), algorithm, state, 5, mesh=8)
    square = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("a", "b"))
    with pytest.raises(ValueError, match="one axis"):
        run(jax.random.key(0), algorithm, state, 5, mesh=square)


def test_a_state_without_particles_cannot_be_split():
    class Counter:
        def step(self, key, state):
            return state + 1, ()

    with pytest.raises(ValueError, match="no leading particle axis"):
        run(jax.random.key(0), Counter(), jnp.asarray(0), 5, mesh=jax.make_mesh((1,), ("a",)))
