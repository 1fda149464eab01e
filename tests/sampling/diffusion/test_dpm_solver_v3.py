"""DPM-Solver-v3: exact where it should be, of its order elsewhere; statistics by other means."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.models.denoisers import gaussian, gaussian_mixture
from shoal.sampling.core import random
from shoal.sampling.core.multistep import polynomial_weights
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion import edm, grids, solve, vp_linear
from shoal.sampling.diffusion._v3_integrals import Curves, newton_weights
from shoal.sampling.diffusion.dpm_solver_v3 import degenerate, dpm_solver_v3
from shoal.sampling.diffusion.exponential import Multistep, advance
from shoal.sampling.diffusion.program import Tape
from shoal.sampling.diffusion.statistics import (
    Statistics,
    estimate_statistics,
    load_statistics,
    spline,
)

pytestmark = pytest.mark.quick_compiler
SCHEDULE = vp_linear(t_min=0.02)
KEY = jax.random.key(3)


def mixture():
    """Return the denoiser of two wide correlated modes, and starts."""
    cov = np.array([[0.5, 0.2], [0.2, 0.3]])
    denoiser = gaussian_mixture([0.4, 0.6], [[-1.0, 0.5], [1.0, -0.2]], np.stack([cov, cov / 2]))
    return denoiser, np.asarray(jax.random.normal(jax.random.key(1), (8, 2), float))


def runner(denoiser, schedule=SCHEDULE):
    """Return a function that runs programs, of any number of rows, with one compiled call."""
    call = jax.jit(lambda x, half_log_snr: denoiser.on(schedule).data(x, half_log_snr))

    def run(solver, x, num_steps, lower_order_final=True, grid="logsnr"):
        steps = functools.partial(grids.half_log_snrs, schedule, grid)
        program = solver.program(steps, num_steps, lower_order_final)
        registers = [x] + [np.zeros_like(x)] * (program.matrices.shape[1] - 1)
        for matrix, half_log_snr in zip(program.matrices, program.half_log_snr, strict=False):
            columns = [*registers, np.asarray(call(registers[0], half_log_snr))]
            columns += [np.ones_like(x)] * ("one" in program.inputs)
            registers = [sum(f * c for f, c in zip(row, columns, strict=True)) for row in matrix]
        return registers[0]

    return run


@pytest.mark.usefixtures("x64")
def test_degenerate_statistics_are_the_multistep_family():
    denoiser, x = mixture()
    run = runner(denoiser)
    for form in ("data", "noise"):
        statistics = degenerate(form, SCHEDULE, (2,))
        for order in (1, 2, 3):
            solver = dpm_solver_v3(statistics, order, corrector=False)
            expected = run(Multistep(form, order), x, 7, grid="quadratic")
            np.testing.assert_allclose(run(solver, x, 7, grid="quadratic"), expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_gaussian_data_take_one_step():
    """Along principal axes also correlated entries, with one law for all also several means."""
    mean, cov = np.array([1.0, -2.0]), np.array([[0.5, 0.3], [0.3, 0.9]])
    x = jax.random.normal(KEY, (5, 2), float)
    scales = unit_scales(SCHEDULE.half_log_snr(np.array([SCHEDULE.t_max, SCHEDULE.t_min])))
    (alpha_T, alpha_0), (sigma_T, sigma_0) = scales
    for covariance, options in (
        (np.diag([0.3, 2.0]), {}), (cov, dict(axes="principal")),
        (np.diag([0.4, 0.4]), dict(average=True)),
    ):  # fmt: skip
        denoiser = gaussian(mean, covariance)
        variances, basis = np.linalg.eigh(covariance)
        # Points that have this covariance exactly, up to a factor.
        apart = (basis * np.sqrt(variances)).T
        points = jnp.asarray(mean + np.concatenate([apart, -apart]))
        statistics = estimate_statistics(KEY, denoiser, SCHEDULE, points, **options)
        solver = dpm_solver_v3(statistics)
        found, record = solve(denoiser, SCHEDULE, solver, x, 1, trajectory=True)
        ratio = (alpha_0**2 * variances + sigma_0**2) / (alpha_T**2 * variances + sigma_T**2)
        flow = basis * np.sqrt(ratio) @ basis.T
        np.testing.assert_allclose(found, alpha_0 * mean + (x - alpha_T * mean) @ flow, atol=1e-10)
        np.testing.assert_allclose(record.trajectory[0], x, atol=1e-14)
        assert np.all(record.num_calls == 1)


@pytest.mark.usefixtures("x64")
def test_orders_by_slope_with_no_floor():
    """From half-way between noise and data, at full order from the first step on."""
    denoiser, x = mixture()
    schedule = edm(0.15, 3.0)
    run = runner(denoiser, schedule)
    statistics = estimate_statistics(KEY, denoiser, schedule, denoiser.fn.sample(KEY, 64))
    exact = runge_kutta(denoiser, schedule, x, 2000)

    def error(num_steps, *options, **more):
        solver = dpm_solver_v3(statistics, *options, **more, start="sweeps")
        return np.sqrt(np.mean((run(solver, x, num_steps, False) - exact) ** 2))

    for order, options in (
        (1, dict(corrector=False)), (2, dict(corrector=False)), (3, dict(corrector=False)),
        (4, dict(corrector=False)), (2, {}), (3, {}), (2, dict(pseudo_corrector=True)),
    ):  # fmt: skip
        coarse, fine = error(50, order, **options), error(100, order, **options)
        assert order - 0.2 < np.log2(coarse / fine) < order + 0.6, (order, options, coarse, fine)
    assert error(360, 4) < 1e-9


def runge_kutta(denoiser, schedule, x, num_steps):
    """Solve dq/dλ = data - q in q = x / alpha, classically, and return x at unit variance."""
    start, end = schedule.half_log_snr(np.array([schedule.t_max, schedule.t_min]))
    h = (end - start) / num_steps
    model = denoiser.on(schedule)

    def slope(q, at):
        alpha, _ = unit_scales(at)
        return model.data(alpha * q, at) - q

    def step(i, q):
        at = start + h * i
        a = slope(q, at)
        b = slope(q + h / 2 * a, at + h / 2)
        c = slope(q + h / 2 * b, at + h / 2)
        d = slope(q + h * c, at + h)
        return q + h / 6 * (a + 2 * b + 2 * c + d)

    q = jax.jit(lambda q: jax.lax.fori_loop(0, num_steps, step, q))(x / unit_scales(start)[0])
    return np.asarray(q) * unit_scales(end)[0]


def test_step_where_statistics_are_constant():
    """Against closed forms, over many panels, forwards and back."""
    for s, t, l, rate, b in ((-1.0, 2.0, 0.4, -1.3, 0.7), (1.5, -1.5, 0.8, 0.5, -0.2)):  # noqa: E741
        fill = lambda value: np.full(3, value)
        grid = np.array([-2.0, 0.0, 3.0])
        curves = Curves(Statistics(grid, fill(l), fill(rate), fill(b)))
        (alpha_s, _), (alpha_t, _) = unit_scales(np.array(s)), unit_scales(np.array(t))
        h = t - s
        # The law f' = rate f + b from f at s, and the same weighted with e^{l (λ - t)}.
        weighted = np.exp(-l * h) * np.expm1((l + rate) * h) / (l + rate)
        f, x = 1.7, 0.6
        drift = b / rate * (weighted - np.exp(-l * h) * np.expm1(l * h) / l)
        expected = alpha_t * (np.exp(-l * h) * x / alpha_s - f * weighted - drift)
        weights = curves.step(s, t, [s])
        np.testing.assert_allclose(
            weights.base * x + weights.points[0] * f + weights.constant, expected, rtol=1e-12
        )
        # A second point on the same solution changes nothing.
        other = np.exp(rate * 0.5) * f + b * np.expm1(rate * 0.5) / rate
        for rule in (polynomial_weights, newton_weights):
            two = curves.step(s, t, [s, s + 0.5], rule)
            value = two.base * x + two.points[0] * f + two.points[1] * other + two.constant
            np.testing.assert_allclose(value, expected, rtol=1e-12)


def corrected_by_hand(steps, num_steps, lower_order_final):
    """Return the program of three second-order steps of which the second is corrected."""
    clock, tape = steps(3), Tape()
    a = tape.evaluate(tape.start, clock[0])
    b = tape.evaluate(advance("data", a.position, *clock[:2], [a]), clock[1])
    c = tape.evaluate(advance("data", b.position, *clock[1:3], [b, a]), clock[2])
    corrected = advance("data", b.position, *clock[1:3], [b, c])
    return tape.finish(advance("data", corrected, *clock[2:], [c, b]), clock[3])


@pytest.mark.usefixtures("x64")
def test_correction_and_its_region_in_time():
    denoiser, x = mixture()
    make = functools.partial(dpm_solver_v3, degenerate("data", SCHEDULE), 2)
    run = functools.partial(runner(denoiser), x=x, num_steps=3, lower_order_final=False)
    plain, corrected = run(make(corrector=False)), run(make())
    expected = run(SimpleNamespace(program=corrected_by_hand))
    np.testing.assert_allclose(corrected, expected, atol=1e-12)
    assert np.abs(plain - corrected).max() > 1e-3
    # The call after the step that is corrected, the third, is at times[2].
    times = SCHEDULE.time(grids.half_log_snrs(SCHEDULE, "logsnr", 3))
    for region, expected in (
        ((0.0, 1.0), corrected), ((times[2] + 1e-6, 1.0), plain), ((0.0, times[2] - 1e-6), plain),
    ):  # fmt: skip
        solver = make(corrector_region=region)
        found, _ = solve(denoiser, SCHEDULE, solver, jnp.array(x), 3, lower_order_final=False)
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_statistics_against_differences_along_the_flow():
    """One number per sample, where probes are exact; in batches that do not fit."""
    denoiser = gaussian_mixture([0.3, 0.7], [[-1.0], [1.0]], 0.1)
    points = denoiser.fn.sample(jax.random.key(4), 20)
    schedule = edm(0.1, 5.0)
    found = estimate_statistics(KEY, denoiser, schedule, points, batch_size=7)
    noise = np.asarray(random.normal(KEY, jnp.arange(20), 0, (1,), jnp.float64))
    model = jax.jit(lambda q, half_log_snr: denoiser.fn(q, jnp.exp(-half_log_snr)))
    slope = spline(found.half_log_snr, 1 - found.l)

    def f(q, half_log_snr):
        return slope(half_log_snr) * q - np.asarray(model(q, half_log_snr))

    def push(q, at):
        return np.asarray(model(q, at)) - q

    def move(q, at, h):
        """Go along dq/dλ = data - q, by the midpoint rule."""
        return q + h * push(q + h / 2 * push(q, at), at + h / 2)

    for i in (10, 60, 110):
        at = found.half_log_snr[i]
        q = np.asarray(points) + np.exp(-at) * noise
        width = 1e-4
        apart = [np.asarray(model(q + move, at)) for move in (-width, width)]
        np.testing.assert_allclose(1 - found.l[i], np.mean(apart[1] - apart[0]) / (2 * width),
                                   rtol=1e-6)  # fmt: skip
        ends = [f(move(q, at, h), at + h) for h in (-width, width)]
        f_dot = (ends[1] - ends[0]) / (2 * width)
        here = f(q, at)
        s = np.mean((here - here.mean()) * f_dot) / np.var(here)
        np.testing.assert_allclose(found.s[i, 0], s, rtol=1e-5)
        np.testing.assert_allclose(found.b[i, 0], f_dot.mean() - s * here.mean(), rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_statistics_of_all_entries_together_and_in_a_file(tmp_path):
    denoiser = gaussian([0.0, 0.0], np.diag([0.2, 3.0]))
    points = denoiser.fn.sample(KEY, 32)
    each = estimate_statistics(KEY, denoiser, SCHEDULE, points, num_points=10)
    both = estimate_statistics(KEY, denoiser, SCHEDULE, points, num_points=10, average=True)
    assert both.l.shape == both.s.shape == both.b.shape == (11,)
    np.testing.assert_allclose(both.l, each.l.mean(axis=1), rtol=1e-12)
    assert np.all(each.s == 0)
    for one in (both, each._replace(axes=np.eye(2))):
        one.save(tmp_path / "statistics.npz")
        again = load_statistics(tmp_path / "statistics.npz")
        jax.tree.map(np.testing.assert_array_equal, one, again)
