"""Recordings, the registers they are given, and the compiled scan, against plain evaluation."""

import diffusion_targets as targets
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import edm, unit_scales, vp_linear
from shoal.sampling.diffusion.program import Tape
from shoal.sampling.diffusion.solver import LinearSolver, solve

pytestmark = [pytest.mark.quick_compiler, pytest.mark.usefixtures("x64")]
CLOCK = np.array([-1.3, -0.9, -0.2, 0.3, 0.4, 1.1, 1.9])


def predict(x, t):
    return jnp.sin(x) - 0.3 * t


def random_recording(seed, uses_derivative):
    """Record random combinations of all that there is, and evaluate them directly as well."""
    rng = np.random.default_rng(seed)
    tape, value = Tape(), targets.STARTS
    known = [(tape.start, value)]

    def combine(num):
        expression, total = None, 0.0
        chosen = [known[-1], *(known[i] for i in rng.integers(len(known), size=num))]
        for recorded, direct in chosen:
            factor = rng.normal(size=2 if rng.random() < 0.5 else ()) / len(chosen)
            term = factor * recorded
            expression, total = (
                term if expression is None else expression + term,
                total + (factor * direct),
            )
        return expression, total

    x = known[0]
    for at in CLOCK[:-1]:
        here = tape.evaluate(x[0], at)
        alpha, sigma = unit_scales(at)
        level = sigma / alpha
        data = np.sin(x[1] / alpha) - 0.3 * level
        # d/dλ of predict(X, e^-λ) along dX/dλ = -σ (X - m) / σ.
        slope = np.cos(x[1] / alpha) * (data - x[1] / alpha) + 0.3 * level
        known += [(here.position, x[1]), (here.data, data)]
        known += [(here.noise, (x[1] - alpha * data) / sigma)]
        known += [(here.derivative, slope)] * uses_derivative
        for _ in range(2):
            recorded, direct = combine(2)
            known += [(tape.keep(recorded), direct)]
        x = combine(3)
    return tape.finish(x[0], CLOCK[-1]), x[1]


@pytest.mark.parametrize("seed", range(4))
def test_registers_hold_what_is_used_later(seed):
    program, wanted = random_recording(seed, False)
    model = lambda x, at: np.sin(x / unit_scales(at)[0]) - 0.3 * np.exp(-at)
    columns = np.broadcast_to(program.matrices, (*program.matrices.shape[:3], 2))
    program = program._replace(matrices=columns)
    end, num_calls = targets.follow(program, targets.STARTS, model)
    np.testing.assert_allclose(end, wanted, rtol=1e-11)
    assert num_calls == len(CLOCK) - 1


def test_scan_executes_what_was_recorded():
    """With derivatives, and coefficients for each entry, on another schedule."""

    class Recorded(LinearSolver):
        def program(self, steps, num_steps, lower_order_final):
            return program

    program, wanted = random_recording(7, True)
    scale = vp_linear(), Denoiser(predict, "data", edm())
    end, record = solve(scale[1], scale[0], Recorded(), jnp.asarray(targets.STARTS), 6)
    np.testing.assert_allclose(end, wanted, rtol=1e-9)
    assert record.num_calls.tolist() == [12] * 8
    np.testing.assert_allclose(vp_linear().half_log_snr(np.asarray(record.times)), CLOCK)


def test_few_registers_for_few_points():
    """What is no longer used makes room, and stays where it is until then."""
    from shoal.sampling.diffusion import ddim, dpm_solver_pp, unipc

    make = lambda solver: solver.program(targets.steps("logsnr"), 12, True)
    program = make(dpm_solver_pp(3))
    assert program.matrices.shape == (12, 4, 5)
    assert program.inputs == ("data",)
    assert program.slots[:9].tolist() == [1, 2, 3] * 3
    # A corrected position is not remembered, only the predictions that correct it.
    assert make(unipc(3)).slots[:8].tolist() == [1, 2, 3, 4] * 2
    assert make(ddim()).matrices.shape == (12, 1, 2)


def test_the_first_call_is_where_the_run_starts():
    tape = Tape()
    with pytest.raises(ValueError, match="first call"):
        tape.evaluate(2.0 * tape.start, 0.0)
