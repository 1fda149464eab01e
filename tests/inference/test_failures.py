"""What goes wrong in a run is counted, located, and told as `on_failure` says."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference.failures import combine, no_failures, record
from shoal.inference.run import RunError, RunWarning, run
from shoal.sampling.core.algorithm import Status
from shoal.sampling.core.particles import keep_finite

pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(0)


class State(NamedTuple):
    position: Any
    alive: Any
    time: Any


class Info(NamedTuple):
    status: Any


class Solver(eqx.Module):
    """A flow by Euler steps whose network breaks for some particles, each at its own time."""

    breaks_at: jax.Array

    def init(self, position):
        return State(position, jnp.ones(len(position), bool), jnp.asarray(0))

    def step(self, key, state):
        drift = jnp.where(state.time >= self.breaks_at, jnp.nan, -0.1)[:, None] * state.position
        new = state.position + drift
        position, alive, status = keep_finite(state.position, new, state.alive)
        return State(position, alive, state.time + 1), Info(status)


class Careless(eqx.Module):
    """Tells no status, and runs into infinity."""

    def step(self, key, state):
        return state * 1e30, ()


def solver(**breaks_at):
    times = jnp.full(40, 10**6)
    for particle, time in breaks_at.items():
        times = times.at[int(particle[1:])].set(time)
    algorithm = Solver(times)
    return algorithm, algorithm.init(jnp.ones((40, 2)))


def keep(state, info):
    return state.position, info.status


def test_a_network_that_breaks_is_located_and_its_particle_keeps_its_last_position():
    algorithm, state = solver(p3=7, p9=7, p5=30)
    with pytest.warns(RunWarning, match=r"in 3 of 2000 steps .* \(first: particle 3 in step 7\)"):
        finished = run(KEY, algorithm, state, 50, keep=keep)
    position, status = finished.kept
    assert finished.outcome == "completed"
    assert finished.failures.count[Status.NONFINITE_GRADIENT] == 3
    assert finished.failures.count.sum() == 2000
    # The others end where they would have without company, the broken where they were at step 7.
    np.testing.assert_allclose(position[-1][0], 0.9**50, rtol=1e-5)
    np.testing.assert_allclose(position[-1][3], 0.9**7, rtol=1e-5)
    assert np.isfinite(position).all()
    assert (status[8:30] == Status.FROZEN).sum(axis=1).tolist() == [2] * 22


def test_on_failure_raises_with_what_was_done_or_says_nothing():
    algorithm, state = solver(p0=3)
    with pytest.raises(RunError, match="gradient was not finite") as caught:
        run(KEY, algorithm, state, 10, on_failure="raise")
    assert caught.value.finished.num_steps == 10
    quiet = run(KEY, algorithm, state, 10, on_failure="ignore")
    assert quiet.failures.first_step[Status.NONFINITE_GRADIENT] == 3
    assert len(quiet.problems) == 2


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_a_run_stops_at_the_step_in_which_a_tenth_of_the_particles_are_dead(monkeypatch, seconds):
    """Wherever the chunks end: particles 0 to 4 of 40 break, the fifth in step 15."""
    from shoal.inference import _work

    monkeypatch.setattr(_work, "CHUNK_SECONDS", seconds)
    algorithm, state = solver(p0=3, p1=6, p2=9, p3=12, p4=15)
    with pytest.warns(RunWarning, match="stopped after 16 steps, because more than a tenth"):
        finished = run(KEY, algorithm, state, 50, keep=keep)
    assert (finished.outcome, finished.num_steps, len(finished.kept[0])) == ("failed", 16, 16)


@pytest.mark.parametrize("thin", [1, 3])
def test_until_stops_at_the_first_row_that_satisfies_it(thin):
    algorithm, state = solver()
    far = lambda state: jnp.max(state.position) < 0.5
    options = dict(keep=keep, thin=thin, on_failure="ignore")
    finished = run(KEY, algorithm, state, 60, until=far, **options)
    assert (finished.outcome, finished.problems) == ("stopped", ())
    # 0.9**7 = 0.478 is the first below one half.
    assert finished.num_steps == {1: 7, 3: 9}[thin]
    again = run(KEY, algorithm, finished.state, 60, until=far)
    assert again.num_steps == 0


def test_an_algorithm_without_status_that_ends_in_infinity_is_told_of():
    with pytest.warns(RunWarning, match="state not finite after the last step"):
        run(KEY, Careless(), jnp.ones(3), 5)


def test_the_first_occurrence_is_the_earliest_over_chunks_and_devices():
    def seen(step, *codes):
        info = Info(jnp.array(codes, jnp.int8))
        return record(no_failures(), info, jnp.asarray(step), jnp.arange(len(codes)))

    whole = combine(no_failures(np), seen(4, 0, 3, 3), 3)
    assert (whole.count[3], whole.first_step[3], whole.first_particle[3]) == (2, 4, 1)
    later = jax.tree.map(lambda a, b: jnp.stack([a, b]), seen(9, 1, 3), seen(8, 0, 1))
    whole = combine(whole, later, 4)
    assert whole.count[[0, 1, 3]].tolist() == [2, 2, 3]
    assert (whole.first_step[1], whole.first_particle[1]) == (8, 1)
    assert (whole.first_step[3], whole.first_particle[3]) == (4, 1)


def test_rows_that_fill_up_a_device_are_not_counted():
    info = Info(jnp.array([0, 1, 1], jnp.int8))
    failures = record(no_failures(), info, jnp.asarray(2), jnp.array([0, 1, -1]))
    assert failures.count[1] == 1
