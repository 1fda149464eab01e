"""The driver: the same bits whatever the chunks, one compilation, honest progress."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference import _chunk, _work
from shoal.inference.progress import Progress
from shoal.inference.run import run
from shoal.sampling import langevin
from shoal.sampling.core.random import particle_keys, step_key

KEY = jax.random.key(5)
# A compiled program belongs to its number of steps: tests with the same one share it.
STEPS = 42


def log_density(x):
    return -0.5 * jnp.sum(x**2)


class Walk(eqx.Module):
    """Four chains of a sampler, as one algorithm."""

    sampler: object

    def init(self):
        return jax.vmap(self.sampler(log_density).init)(jnp.ones((4, 3)))

    def step(self, key, states):
        return jax.vmap(self.sampler(log_density).step)(particle_keys(key, jnp.arange(4)), states)


def keep(state, info):
    return state.position, info.acceptance_rate


def tally(state, info):
    return {"accepted": jnp.sum(info.is_accepted)}


def test_equals_a_bare_loop_bit_for_bit():
    walk = Walk(langevin.mala(0.3))
    finished = run(KEY, walk, walk.init(), STEPS, first_step=7, keep=keep, tally=tally)

    def step(states, t):
        states, info = walk.step(step_key(KEY, t), states)
        return states, (states.position, info.acceptance_rate, info.is_accepted)

    scan = jax.jit(lambda s: jax.lax.scan(step, s, 7 + jnp.arange(STEPS)))
    state, (positions, rates, accepted) = scan(walk.init())
    np.testing.assert_array_equal(finished.kept[0], positions)
    np.testing.assert_array_equal(finished.kept[1], rates)
    np.testing.assert_array_equal(finished.state.position, state.position)
    assert finished.tally["accepted"] == accepted.sum()


@pytest.mark.parametrize("seconds", [0.0, 1e-4, 1e9])
def test_the_result_does_not_depend_on_the_chunks(monkeypatch, seconds):
    walk = Walk(langevin.mala(0.3))
    expected = run(KEY, walk, walk.init(), 60, keep=keep).kept
    calls = []
    original = _work.run_chunk
    monkeypatch.setattr(_work, "CHUNK_SECONDS", seconds)
    monkeypatch.setattr(_work, "run_chunk", lambda *args: calls.append(1) or original(*args))
    kept = run(KEY, walk, walk.init(), 60, keep=keep).kept
    jax.tree.map(np.testing.assert_array_equal, kept, expected)
    # The first call runs no step; no chunk is more than eight times as long as the one before.
    assert len(calls) == (61 if seconds == 0.0 else len(calls))
    assert len(calls) >= 4


def test_two_runs_make_one():
    walk = Walk(langevin.mala(0.3))
    whole = run(KEY, walk, walk.init(), 60, keep=keep)
    first = run(KEY, walk, walk.init(), 30, keep=keep)
    second = run(KEY, walk, first.state, 30, first_step=30, keep=keep)
    joined = np.concatenate([first.kept[0], second.kept[0]])
    np.testing.assert_array_equal(joined, whole.kept[0])


@pytest.mark.parametrize("thin", [1, 2, 7])
def test_thinning_keeps_every_so_many_and_counts_all(thin):
    walk = Walk(langevin.mala(0.3))
    every = run(KEY, walk, walk.init(), STEPS, keep=keep, tally=tally)
    thinned = run(KEY, walk, walk.init(), STEPS, keep=keep, tally=tally, thin=thin)
    np.testing.assert_array_equal(thinned.kept[0], every.kept[0][thin - 1 :: thin])
    assert thinned.tally["accepted"] == every.tally["accepted"]


def test_other_lengths_steps_and_parameters_compile_nothing():
    traces = []

    def counted(x):
        traces.append(1)
        return log_density(x)

    class Counting(Walk):
        def step(self, key, states):
            keys = particle_keys(key, jnp.arange(4))
            return jax.vmap(self.sampler(counted).step)(keys, states)

    walk = Counting(langevin.mala(0.3))
    run(KEY, walk, walk.init(), 10, keep=keep)
    compiled = _chunk.compiled_chunk._cache_size()
    run(jax.random.key(9), walk, walk.init(), 10, first_step=3, keep=keep)
    other = Counting(langevin.mala(0.7))
    run(KEY, other, other.init(), 10, keep=keep)
    assert _chunk.compiled_chunk._cache_size() == compiled


def test_the_state_that_was_given_survives():
    walk = Walk(langevin.mala(0.3))
    state = walk.init()
    run(KEY, walk, state, 60, keep=keep)
    np.testing.assert_array_equal(state.position, 1.0)


def test_counts_do_not_overflow_or_stop_growing(monkeypatch):
    class Counter(eqx.Module):
        def step(self, key, state):
            return state, ()

    monkeypatch.setattr(_work, "CHUNK_SECONDS", 5e-4)
    many = lambda state, info: {"n": jnp.int32(2**12), "p": jnp.float32(0.25)}
    counts = run(KEY, Counter(), jnp.zeros(1), 2**20, tally=many).tally
    assert counts["n"] == 2**32
    np.testing.assert_allclose(counts["p"], 2.0**18, rtol=1e-3)


def test_progress_is_reported_after_every_chunk_and_ends_at_the_total():
    seen: list[Progress] = []
    walk = Walk(langevin.mala(0.3))
    describe = lambda tally, steps: f"accepted {int(tally['accepted'])} of {4 * steps}"
    finished = run(
        KEY,
        walk,
        walk.init(),
        30,
        tally=tally,
        phase="test",
        describe=describe,
        progress=seen.append,
    )
    assert [p.done for p in seen] == sorted({p.done for p in seen})
    assert seen[-1].done == seen[-1].total == 30
    assert seen[-1].summary == f"accepted {int(finished.tally['accepted'])} of 120"
    assert seen[0].phase == "test"
    assert seen[0].compile_seconds > 0


def test_the_progress_line_names_the_phase_and_its_statistics(capsys):
    walk = Walk(langevin.mala(0.3))
    describe = lambda tally, steps: "acceptance 0.99"
    run(KEY, walk, walk.init(), 30, tally=tally, phase="sampling", describe=describe, progress=True)
    line = capsys.readouterr().err
    assert "sampling" in line
    assert "acceptance 0.99" in line
    assert "compiled in" in line
    assert "30/30" in line


def test_an_algorithm_of_plain_functions_runs_too():
    algorithm = langevin.ula(0.1)(log_density)
    finished = run(KEY, algorithm, algorithm.init(jnp.zeros(2)), 10, keep=keep)
    assert finished.kept[0].shape == (10, 2)
