"""`solve`: schedules, grids, infinite ends, encoding, counts, failures; adaptive steps."""

import diffusion_targets as targets
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import edm, flow, vp_linear
from shoal.sampling.diffusion import adaptive, ddim, dpm_solver, dpm_solver_pp, heun, solve

pytestmark = [pytest.mark.quick_compiler, pytest.mark.usefixtures("x64")]
STARTS = targets.STARTS
mixture = lambda: Denoiser(targets.mixture, "data", edm())


def test_same_clock_gives_the_same_sample_on_every_schedule():
    clock = np.linspace(-3.0, 2.5, 7)
    found = []
    for schedule in (vp_linear(), edm(1e-3, 1e3), flow()):
        alpha, sigma = schedule.scales(clock)
        start = STARTS * np.sqrt(alpha[0] ** 2 + sigma[0] ** 2)
        end, record = solve(mixture(), schedule, dpm_solver_pp(3), start, 6, schedule.time(clock))
        np.testing.assert_allclose(record.half_log_snr, clock, atol=1e-12)
        np.testing.assert_allclose(record.times, schedule.time(clock), rtol=1e-12)
        found.append(end / alpha[-1])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-10)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-10)


@pytest.mark.parametrize("solver", [dpm_solver_pp(2), dpm_solver(3, variant="taylor")])
def test_flow_from_noise_alone_to_data_alone(solver):
    """Of normal data with mean 0.7 and deviation 0.5 the map is 0.7 + 0.5 x, λ infinite twice."""
    gain = lambda t: 0.25 * (1 - t) / (0.25 * (1 - t) ** 2 + t**2)
    denoiser = Denoiser(lambda x, t: 0.7 + gain(t) * (x - 0.7 * (1 - t)), "data")
    schedule = flow(t_min=0.0, t_max=1.0)
    end, record = solve(denoiser, schedule, solver, STARTS, 60, "uniform")
    np.testing.assert_allclose(end, 0.7 + 0.5 * targets.STARTS, atol=5e-3)
    assert record.times[0] == 1.0
    assert record.times[-1] == 0.0


def test_encoding_and_decoding():
    times = np.linspace(0.05, 0.95, 61)
    back, _ = solve(mixture(), flow(), dpm_solver_pp(3), STARTS, 60, times[::-1])
    there, _ = solve(mixture(), flow(), dpm_solver_pp(3), back, 60, times)
    assert np.abs(there - STARTS).max() < 2e-2
    assert np.abs(back - STARTS).max() > 0.5


def _counting(num_calls):
    made = []

    def fn(x, t):
        jax.debug.callback(lambda t: made.append(float(t)), t)
        return targets.mixture(x, t)

    return Denoiser(fn, "data", edm(), num_calls), made


@pytest.mark.parametrize("solver", [ddim(), dpm_solver(2), heun(), adaptive(2)])
def test_calls_are_counted_and_at_the_times_recorded(solver):
    denoiser, made = _counting(2)
    num_steps = 400 if solver == adaptive(2) else 7
    end, record = solve(denoiser, edm(), solver, 80.0 * STARTS, num_steps)
    end.block_until_ready()
    jax.effects_barrier()
    assert record.num_calls.tolist() == [2 * len(made)] * 8
    assert record.failed_at.tolist() == [-1] * 8
    if num_steps == 7:
        assert len(made) == 7
        np.testing.assert_allclose(record.times[:-1], made, rtol=1e-12)
    else:
        assert made[0] == pytest.approx(record.times[0])


def test_trajectory_holds_the_positions_of_the_calls():
    seen = lambda num: solve(
        mixture(), flow(), dpm_solver_pp(2), STARTS, 5, np.linspace(0.9, 0.1, 6), False,
        trajectory=True,
    )  # fmt: skip
    end, record = seen(5)
    assert record.trajectory.shape == (6, 8, 2)
    np.testing.assert_allclose(record.trajectory[0], STARTS, rtol=1e-14)
    np.testing.assert_array_equal(record.trajectory[-1], end)
    first = 0.74 / 0.9 * STARTS + (0.26 - 0.1 * 0.74 / 0.9) * targets.mixture(STARTS / 0.1, 9.0)
    np.testing.assert_allclose(record.trajectory[1], first, rtol=1e-10)


def test_failures_name_the_call():
    """The network fails for one sample at its fourth call; the others do not notice."""
    times = np.array([40.0, 20.0, 8.0, 3.0, 1.0, 0.5])

    def fn(x, t):
        value = targets.mixture(x, t)
        return value.at[2, 1].set(jnp.where(t < 4.0, jnp.nan, value[2, 1]))

    good, _ = solve(mixture(), edm(), dpm_solver_pp(2), 40.0 * STARTS, 5, times)
    end, record = solve(
        Denoiser(fn, "data", edm()), edm(), dpm_solver_pp(2), 40.0 * STARTS, 5, times
    )
    assert record.failed_at.tolist() == [-1, -1, 3, -1, -1, -1, -1, -1]
    others = np.arange(8) != 2
    np.testing.assert_allclose(end[others], good[others], rtol=1e-12)
    end, record = solve(Denoiser(fn, "data", edm()), edm(), adaptive(), 40.0 * STARTS, 300)
    assert record.failed_at[2] > 0
    assert np.isnan(end[2]).all()
    assert np.isfinite(end[others]).all()
    assert (record.failed_at[others] == -1).all()


@pytest.mark.parametrize(("order", "form"), [(2, "noise"), (3, "noise"), (3, "data")])
def test_adaptive_error_falls_with_the_tolerance(order, form):
    points = vp_linear(t_min=0.02).half_log_snr(np.array([1.0, 0.02]))
    exact = targets.reference(*points.tolist())
    errors, calls = [], []
    for rtol in (0.1, 0.001):
        solver = adaptive(order, form, rtol=rtol, atol=0.15 * rtol)
        end, record = solve(mixture(), vp_linear(t_min=0.02), solver, STARTS, 1000)
        errors.append(np.sqrt(np.mean((end - exact) ** 2)))
        calls.append(int(record.num_calls[0]))
        assert calls[-1] % order == 0
        np.testing.assert_allclose(record.times, [1.0, 0.02], rtol=1e-12)
    assert errors[1] < 2e-3
    assert errors[1] < errors[0] / 10
    assert calls[1] > 1.5 * calls[0]


def test_adaptive_steps_of_one_sample_and_of_a_batch():
    run = lambda solver, x, num: jax.jit(lambda x: solve(mixture(), vp_linear(), solver, x, num))(x)
    own, record = run(adaptive(2, per_sample=True), STARTS, 400)
    alone, its = run(adaptive(2), STARTS[3:4], 400)
    np.testing.assert_allclose(own[3], alone[0], rtol=1e-9)
    assert record.num_calls[3] == its.num_calls[0]
    assert len(set(record.num_calls.tolist())) > 1


def test_adaptive_cap_is_never_a_success():
    end, record = solve(mixture(), vp_linear(), adaptive(3), STARTS, 31)
    assert record.num_calls.tolist() == [30] * 8
    assert record.failed_at.tolist() == [30] * 8
    assert np.isnan(end).all()
