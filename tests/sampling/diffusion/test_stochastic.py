"""Stochastic solvers: law of a step, limits, convergence of moments and along one path."""

import diffusion_targets as targets
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import edm, unit_scales, vp_linear
from shoal.sampling.diffusion import ddim, dpm_solver_pp, solve
from shoal.sampling.diffusion.noise import increment

pytestmark = [pytest.mark.quick_compiler, pytest.mark.usefixtures("x64")]
SDE = lambda order, eta=1.0, **options: dpm_solver_pp(order, sde=True, eta=eta, **options)
SOLVERS = {
    "1": SDE(1),
    "2 midpoint": SDE(2),
    "2 taylor": SDE(2, variant="taylor"),
    "3": SDE(3),
    "3 upstream": SDE(3, compat="upstream"),
    "slow": SDE(2, 0.3),
    "fast": SDE(3, 2.0),
    "ddim": ddim(1.0),
    "ddim half": ddim(0.5),
}
KEY = jax.random.key(11)


def moments(program, prediction):
    """Return mean factors and variance of the end, where the prediction is a factor times x.

    ``prediction(λ)`` gives the factor and a constant; the start is standard normal.
    """
    num = program.matrices.shape[1]
    mean, covariance = np.zeros(num), np.zeros((num, num))
    covariance[0, 0] = 1.0
    for matrix, at in zip(program.matrices, program.half_log_snr[:-1], strict=True):
        factor, constant = prediction(at)
        step = matrix[:, :num].copy()
        step[:, 0] += factor * matrix[:, num]
        mean = step @ mean + constant * matrix[:, num]
        covariance = step @ covariance @ step.T + np.outer(matrix[:, -1], matrix[:, -1])
    return mean[0], covariance[0, 0]


@pytest.mark.parametrize("name", SOLVERS)
def test_law_is_exact_for_one_image(name):
    """All data at 1: x is normal around alpha with deviation sigma at every time, any steps."""
    clock = np.array([-30.0, -3.0, -1.0, 0.4, 0.5, 2.0])
    program = SOLVERS[name].program(lambda num: clock, 5, False)
    mean, variance = moments(program, lambda at: (0.0, 1.0))
    alpha, sigma = unit_scales(clock[-1])
    np.testing.assert_allclose([mean, variance], [alpha, sigma**2], rtol=1e-12)


@pytest.mark.parametrize("name", SOLVERS)
def test_variance_of_normal_data_converges(name):
    points = targets.steps("logsnr")

    def factor(at):
        alpha, sigma = unit_scales(at)
        return alpha * 0.25 / (0.25 * alpha**2 + sigma**2), 0.0

    def error(num):
        program = SOLVERS[name].program(points, num, False)
        alpha, sigma = unit_scales(points(1)[-1])
        return abs(moments(program, factor)[1] / (0.25 * alpha**2 + sigma**2) - 1)

    assert error(512) < 2e-2
    assert error(64) / error(512) > 6


@pytest.mark.parametrize("order", [1, 2, 3])
def test_without_noise_it_is_the_ordinary_equation(order):
    points = targets.steps("quadratic")
    ordinary = dpm_solver_pp(order).program(points, 9, True)
    still = SDE(order, 0.0).program(points, 9, True)
    np.testing.assert_array_equal(still.matrices, ordinary.matrices)
    slow = SDE(order, 1e-10).program(points, 9, True)
    np.testing.assert_allclose(slow.matrices[..., :-1], ordinary.matrices, rtol=1e-8, atol=1e-9)
    assert ddim(0.0).program(points, 9, True).inputs == ("data",)


def test_full_ddim_is_the_first_order_stochastic_solver():
    points = targets.steps("logsnr")
    one, other = (s.program(points, 5, True).matrices for s in (ddim(1.0), SDE(1)))
    np.testing.assert_allclose(one, other, rtol=1e-12)


def pieces(clock, eta):
    clock = np.asarray(clock)
    return np.stack([clock[:-1], clock[1:], np.full(len(clock) - 1, eta)], 1)


@jax.jit
def draws(key, pieces):
    """Return increments ``(6, 2000)``."""
    return jax.vmap(lambda piece: increment(key, jnp.arange(2000), piece, ()))(pieces)


def z_increments(key, eta):
    """Mean, variance and pairwise products of 2,000 paths over six pieces of any length."""
    z = np.asarray(draws(key, pieces([-40.0, -6.3, -2.0, -1.999, 0.37, 0.4, 3.0], eta)))
    products = z @ z.T / np.sqrt(z.shape[1])
    off = products[np.triu_indices(len(z), 1)]
    square = (np.diag(products) - np.sqrt(z.shape[1])) / np.sqrt(2)
    return np.concatenate([z.sum(1) / np.sqrt(z.shape[1]), square, off])


@pytest.mark.parametrize("eta", [1.0, 0.3])
def test_increments_are_independent_standard_normals(eta):
    """27 statistics; with a threshold of 5.2 a false alarm in 180,000 runs."""
    assert np.abs(z_increments(KEY, eta)).max() < 5.2


def test_increments_of_a_path_add_up():
    clock = np.array([-5.0, -2.25, 0.1, 0.7315, 1.0, 1.5])
    whole = np.concatenate([pieces(clock, 0.7), [[-5.0, 1.5, 0.7]]])
    z = np.asarray(draws(KEY, whole))
    size = lambda s, t: np.sqrt(-np.expm1(-1.4 * (t - s)))
    total = sum(
        np.exp(-0.7 * (clock[-1] - t)) * size(s, t) * one
        for s, t, one in zip(clock[:-1], clock[1:], z[:-1], strict=True)
    )
    np.testing.assert_allclose(total, size(clock[0], clock[-1]) * z[-1], atol=1e-9)


def test_one_path_for_all_grids():
    """Of one image every grid gives the same sample; of normal data finer ones converge."""
    start = jnp.asarray(targets.STARTS[:4])
    run = lambda fn, num, ids=None: solve(
        Denoiser(fn, "data", edm()), vp_linear(), SDE(2), start, num, key=KEY, ids=ids
    )[0]
    image = lambda x, t: jnp.ones_like(x)
    first = run(image, 3)
    np.testing.assert_allclose(first, run(image, 8), atol=1e-9)
    shifted = run(image, 3, jnp.arange(1, 5))
    # Noise goes with the number of a sample; the start is forgotten.
    np.testing.assert_allclose(shifted[:-1], first[1:], atol=1e-5)
    rows = [run(targets.gaussian_data(0.5, 0.7), num) for num in (8, 32, 128)]
    coarse, fine = (np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(rows, rows[1:], strict=False))
    assert fine < 0.05
    assert coarse > 2.5 * fine
