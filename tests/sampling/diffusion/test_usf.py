"""Schedules of decisions: known solvers are some of them; each decision does what it says.

Solvers are compared as tables on the host; nothing is compiled but where a call is saved.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.multistep import exponential_weights, phi, polynomial_weights
from shoal.sampling.core.schedules import unit_scales, vp_linear
from shoal.sampling.diffusion import (
    SolverSchedule,
    Statistics,
    Step,
    Update,
    ddim,
    deis,
    dpm_solver,
    dpm_solver_pp,
    dpm_solver_v3,
    multistep_schedule,
    singlestep_schedule,
    solve,
    unipc,
    usf,
)
from shoal.sampling.diffusion._decisions import relaxation_factor, series
from shoal.sampling.diffusion._tables import unroll
from shoal.sampling.diffusion._v3_integrals import newton_weights
from shoal.sampling.diffusion.grids import half_log_snrs

STEPS = functools.partial(half_log_snrs, vp_linear(), "quadratic")
NUM = 6
NAMES = (
    "ddim", "2M", "2M, taylor", "3M", "deis", "unipc 2 bh1", "unipc 2 bh2", "unipc 3 bh2",
    "unipc 3 vary", "dpm 2S", "dpm 3S", "dpm++ 3S", "v3", "v3 pseudo", "v3, no corrector",
)  # fmt: skip


def statistics():
    λ = np.linspace(*STEPS(1), 31)[:, None]
    l = 1 / (1 + np.array([0.2, 0.7]) * np.exp(2 * λ))  # noqa: E741
    return Statistics(λ[:, 0], l, -0.4 + 0.2 * np.sin(λ + [0, 1]), 0.3 * np.cos(λ + [0, 2]))


def named(name):
    """Return a known solver and its schedule."""
    many = functools.partial(multistep_schedule, NUM)
    v3 = functools.partial(dpm_solver_v3, statistics())
    return {
        "ddim": lambda: (ddim(), many(1)),
        "2M": lambda: (dpm_solver_pp(2), many(2, relaxation="bh2")),
        "2M, taylor": lambda: (dpm_solver_pp(2, variant="taylor"), many(2)),
        "3M": lambda: (dpm_solver_pp(3), many(3, relaxation="bh2")),
        "deis": lambda: (deis(3), many(3, "noise")),
        "unipc 2 bh1": lambda: (unipc(2, "bh1"), many(2, relaxation="bh1", corrector=1)),
        "unipc 2 bh2": lambda: (unipc(2, "bh2"), many(2, relaxation="bh2", corrector=1)),
        "unipc 3 bh2": lambda: (unipc(3, "bh2"), many(3, relaxation="bh2", corrector=1)),
        "unipc 3 vary": lambda: (unipc(3, "vary"), many(3, corrector=1)),
        "dpm 2S": lambda: (dpm_solver(2), singlestep_schedule(NUM, 2)),
        "dpm 3S": lambda: (dpm_solver(3), singlestep_schedule(NUM, 3)),
        "dpm++ 3S": lambda: (dpm_solver_pp(3, False), singlestep_schedule(NUM, 3, "data")),
        "v3": lambda: (v3(3), many(3, "v3", corrector=0)),
        "v3 pseudo": lambda: (
            v3(3, pseudo_predictor=True, pseudo_corrector=True),
            many(3, "v3", corrector=1, pseudo_predictor=True, pseudo_corrector=True),
        ),
        "v3, no corrector": lambda: (v3(2, corrector=False), many(2, "v3")),
    }[name]()


def table(solver, num=NUM):
    return unroll(solver.program(STEPS, num, True))


@pytest.mark.parametrize("name", NAMES)
def test_named_solvers_are_schedules(name):
    solver, schedule = named(name)
    expected = table(solver)
    np.testing.assert_allclose(
        table(usf(schedule, statistics=statistics())), expected, 0, 1e-12 * np.abs(expected).max()
    )


def test_forms_may_change_from_step_to_step():
    """Each history is of its own form: a step is what it would be in a solver of one form."""
    data, noise = multistep_schedule(NUM, 2), multistep_schedule(NUM, 2, "noise")
    mixed = SolverSchedule((*data.steps[:3], *noise.steps[3:]))
    found, whole = table(usf(mixed)), table(usf(data))
    np.testing.assert_allclose(found[:3], whole[:3], 0, 1e-12)
    assert np.abs(found[3] - whole[3]).max() > 1e-3
    # From the third position on, the noise predicted there and before leads further.
    s, t = STEPS(NUM)[3:5]
    (α_s, _), (α_t, σ_t) = unit_scales(s), unit_scales(t)
    nodes = np.array([0.0, (STEPS(NUM)[2] - s) / (t - s)])
    expected = α_t / α_s * found[2]
    for weight, i in zip(exponential_weights(t - s, nodes), (3, 2), strict=True):
        α, σ = unit_scales(STEPS(NUM)[i])
        ε = (found[i - 1] - α * np.eye(NUM + 2)[i + 2]) / σ
        expected = expected - σ_t * (t - s) * weight * ε
    np.testing.assert_allclose(found[3], expected, 0, 1e-12)


def test_an_implicit_corrector_calls_again_where_it_leads():
    first = Step("data", Update(1), corrector=Update(2), implicit=True)
    clock = (-2.0, -1.0, 0.5)
    schedule = SolverSchedule((first, Step()), clock)
    assert schedule.num_calls == 3
    solver = usf(schedule)
    program = solver.record(np.array(clock))[0]
    found = unroll(program)
    np.testing.assert_array_equal(program.half_log_snr, [-2.0, -1.0, -1.0, 0.5])
    unit = np.eye(5)
    (α, σ), h = unit_scales(np.array(clock)), np.diff(clock)
    weights = exponential_weights(-h[0], np.array([0.0, 1.0]))
    corrected = σ[1] / σ[0] * unit[0] + α[1] * h[0] * weights @ unit[2:4]
    np.testing.assert_allclose(found[0], σ[1] / σ[0] * unit[0] - α[1] * np.expm1(-h[0]) * unit[2])
    np.testing.assert_allclose(found[1], corrected)
    np.testing.assert_allclose(found[2], σ[2] / σ[1] * corrected - α[2] * np.expm1(-h[1]) * unit[4])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("first", ["noise", "data"])
def test_a_first_call_that_is_known_need_not_be_made(first):
    """A model that says what the analytic first step assumes loses nothing by it."""
    mean = np.array([0.3, -0.2])

    def known(x, t):
        α, σ = vp_linear().alpha(t), vp_linear().sigma(t)
        # Later on it is curved, so that each point counts.
        guess = (1 - σ) / α * x if first == "noise" else jnp.broadcast_to(mean, x.shape)
        return guess + jnp.where(t < 0.99, jnp.sin(x), 0.0)

    schedule = multistep_schedule(4, 2, relaxation="bh2", corrector=1)
    x = jax.random.normal(jax.random.key(0), (3, 2), jnp.float64)
    run = functools.partial(solve, Denoiser(known, "data"), vp_linear(), x_T=x, grid="quadratic")
    full, _ = run(solver=usf(schedule), num_steps=4)
    saved, record = run(solver=usf(schedule._replace(first=first), mean=mean), num_steps=3)
    np.testing.assert_allclose(saved, full, 0, 1e-12)
    assert record.num_calls.tolist() == [3] * 3
    np.testing.assert_allclose(record.half_log_snr, STEPS(4)[1:])


def test_derivatives_come_from_as_many_points_as_asked():
    nodes = np.array([0.0, -0.7, -1.9, -2.4])
    np.testing.assert_allclose(series(Update(4), 1.0, nodes), polynomial_weights(nodes), 0, 1e-12)
    pseudo = series(Update(4, (1, 2, 3)), 1.0, nodes)
    np.testing.assert_allclose(pseudo, newton_weights(nodes), 0, 1e-12)
    # One point more than needed: the derivative is exact for a cubic.
    row = series(Update(2, (3,)), 1.0, nodes)[1]
    np.testing.assert_allclose(row @ (nodes + nodes**2 - 4 * nodes**3), 1.0)


@pytest.mark.parametrize("z", [-3.0, -1e-3, 1e-3, 2.0])
def test_relaxations_are_those_published(z):
    h = abs(z)
    e = math.expm1(z)
    rest = z**2 * phi(2, z)
    expected = {
        "bh1": z**2 / rest / 2, "bh2": z * e / rest / 2, "+exp": 1 + e / 2, "-exp": 1 - e / 2,
        0.3: 1 + 0.3 * h, None: 1.0,
    }  # fmt: skip
    for name, factor in expected.items():
        assert relaxation_factor(name, z, h) == pytest.approx(factor, rel=1e-12)
        # They keep the order: near h = 0 they are one.
        assert relaxation_factor(name, 1e-9 * z, 1e-9 * h) == pytest.approx(1.0, abs=1e-8)


def test_a_schedule_has_its_calls_and_its_ends():
    solver = usf(multistep_schedule(3, 2)._replace(half_log_snr=(-5.0, 0.0, 1.0, 4.0)))
    with pytest.raises(ValueError, match=r"grid must go from -5\.0 to 4\.0"):
        solver.program(STEPS, 3, True)
    with pytest.raises(ValueError, match="num_steps must be 3.*got 4"):
        solver.program(STEPS, 4, True)
