"""DDIM, DPM-Solver, DPM-Solver++ and Heun: orders, published formulas, exactness."""

import diffusion_targets as targets
import numpy as np
import pytest

from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion import ddim, dpm_solver, dpm_solver_pp, heun
from shoal.sampling.diffusion.exponential import advance
from shoal.sampling.diffusion.program import Atom, Evaluation, Expression
from shoal.sampling.diffusion.singlestep import block_orders

SOLVERS = {
    "ddim": (ddim(), 1),
    "2M": (dpm_solver_pp(2), 2),
    "2M taylor": (dpm_solver_pp(2, variant="taylor"), 2),
    "3M": (dpm_solver_pp(3), 3),
    "3M taylor": (dpm_solver_pp(3, variant="taylor"), 3),
    "3M upstream": (dpm_solver_pp(3, compat="upstream"), 2),
    "2S": (dpm_solver_pp(2, False), 2),
    "2S taylor": (dpm_solver_pp(2, False, variant="taylor"), 2),
    "3S": (dpm_solver_pp(3, False), 3),
    "3S taylor": (dpm_solver_pp(3, False, variant="taylor"), 3),
    "noise 2": (dpm_solver(2), 2),
    "noise 2 taylor": (dpm_solver(2, variant="taylor"), 2),
    "noise 3": (dpm_solver(3), 3),
    "noise 3 taylor": (dpm_solver(3, variant="taylor"), 3),
    "heun": (heun(), 2),
}
# Published for inner points at 1/3 and 2/3.
SMOOTH_ONLY = ("3S", "noise 3")


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("grid", ["logsnr", "uniform", "quadratic", "uneven"])
def test_order(name, grid):
    solver, wanted = SOLVERS[name]
    if grid == "uneven" and name in SMOOTH_ONLY:
        wanted = 2
    assert abs(targets.order(solver, grid) - wanted) < 0.3


def _published(name: str, clock: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Multistep DPM-Solver++ as its papers and code write it."""
    alpha, sigma = unit_scales(clock)
    m = []
    for i in range(1, len(clock)):
        m.insert(0, targets.data(x, clock[i - 1]))
        h = clock[i] - clock[i - 1]
        phi_1 = np.expm1(-h)
        phi_2 = phi_1 / h + 1
        phi_3 = phi_2 / h - 0.5
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * phi_1 * m[0]
        if len(m) > 1:
            r_0 = (clock[i - 1] - clock[i - 2]) / h
            d_0 = (m[0] - m[1]) / r_0
        if len(m) == 2 or (len(m) > 2 and name.startswith("2M")):
            weight = phi_2 if name == "2M taylor" else -0.5 * phi_1
            x = x + alpha[i] * weight * d_0
        elif len(m) > 2:
            r_1 = (clock[i - 2] - clock[i - 3]) / h
            d_1 = (m[1] - m[2]) / r_1
            second = (d_0 - d_1) / (r_0 + r_1)
            first = d_0 + r_0 * second
            second = second if name == "3M upstream" else 2 * second
            x = x + alpha[i] * (phi_2 * first - phi_3 * second)
    return x


@pytest.mark.parametrize("name", ["2M", "2M taylor", "3M", "3M upstream"])
def test_multistep_is_the_published_formula(name):
    points = targets.steps("quadratic")
    end, _ = targets.follow(SOLVERS[name][0].program(points, 9, False), targets.STARTS)
    np.testing.assert_allclose(end, _published(name, points(9), targets.STARTS), rtol=1e-11)


def test_third_order_single_step_is_the_published_formula():
    """With the prediction of the data and inner points at 1/3 and 2/3."""
    clock = np.linspace(-1.0, 1.4, 4)
    (alpha, sigma), h = unit_scales(clock), clock[-1] - clock[0]
    ratio = sigma / sigma[0]
    x, r_1, r_2 = targets.STARTS, 1 / 3, 2 / 3
    m_s = targets.data(x, clock[0])
    u = ratio[1] * x - alpha[1] * np.expm1(-r_1 * h) * m_s
    d_1 = targets.data(u, clock[1]) - m_s
    phi_22 = np.expm1(-r_2 * h) / (r_2 * h) + 1
    u = ratio[2] * x - alpha[2] * np.expm1(-r_2 * h) * m_s + r_2 / r_1 * alpha[2] * phi_22 * d_1
    d_2 = targets.data(u, clock[2]) - m_s
    phi_2 = np.expm1(-h) / h + 1
    x = ratio[3] * x - alpha[3] * np.expm1(-h) * m_s + alpha[3] * phi_2 / r_2 * d_2
    program = dpm_solver_pp(3, False).program(lambda num: clock, 3, False)
    np.testing.assert_allclose(targets.follow(program, targets.STARTS)[0], x, rtol=1e-12)


@pytest.mark.parametrize("form", ["data", "noise"])
def test_steps_are_exact_for_polynomials(form):
    """Multistep and single-step, degrees 0 to 2, points at any distance; against quadrature."""
    clock = np.array([-0.7, -0.3, 0.5, 0.8])
    polynomial = np.polynomial.Polynomial([0.3, -0.8, 0.5])
    nodes, weights = np.polynomial.legendre.leggauss(30)

    def exact(s: float, t: float, degree: int) -> float:
        (a_s, s_s), (a_t, s_t) = unit_scales(s), unit_scales(t)
        at = s + (t - s) * (nodes + 1) / 2
        weigh = lambda sign: (weights * np.exp(sign * at) * polynomial.cutdeg(degree)(at)).sum()
        if form == "data":
            return s_t * (0.4 / s_s + (t - s) / 2 * weigh(1))
        return a_t * (0.4 / a_s - (t - s) / 2 * weigh(-1))

    def model(degree: int, x: float, at: float) -> float:
        alpha, sigma = unit_scales(at)
        value = polynomial.cutdeg(degree)(at)
        return value if form == "data" else (x - sigma * value) / alpha

    name = lambda kind, i: Expression({Atom(kind, i): 1.0})
    for degree in range(3):
        values, points = {Atom("start", 0): 0.4}, []
        for i, at in enumerate(clock[2 : 1 - degree if degree < 2 else None : -1]):
            values |= {Atom("x", i): 0.0, Atom("data", i): model(degree, 0.0, at)}
            points.append(Evaluation(at, name("x", i), name("data", i), name("slope", i)))
        step = advance(form, name("start", 0), clock[2], clock[3], points)
        value = sum(factor * values[atom] for atom, factor in step.terms.items())
        assert value == pytest.approx(exact(clock[2], clock[3], degree), rel=1e-12)
        factory = dpm_solver if form == "noise" else lambda p, **k: dpm_solver_pp(p, False, **k)
        solver = factory(degree + 1, variant="taylor")
        block = clock[: degree + 2]
        program = solver.program(lambda num, block=block: block, degree + 1, False)
        end, _ = targets.follow(program, np.array(0.4), lambda x, at, d=degree: model(d, x, at))
        assert end == pytest.approx(exact(block[0], block[-1], degree), rel=1e-12)


def test_single_steps_as_published():
    orders = lambda num, order, lower: block_orders(np.linspace(0, 1, num + 1), order, lower)
    assert orders(9, 3, True) == [3, 3, 2, 1]
    assert orders(9, 3, False) == [3, 3, 3]
    assert orders(10, 3, True) == [3, 3, 3, 1]
    assert orders(11, 3, True) == [3, 3, 3, 2]
    assert orders(6, 2, True) == [2, 2, 2]
    assert orders(7, 2, True) == [2, 2, 2, 1]
    infinite = np.array([-np.inf, 0.0, 1.0, 2.0, 3.0, np.inf])
    assert block_orders(infinite, 3, False) == [1, 3, 1]
    assert block_orders(np.array([-np.inf, np.inf]), 3, True) == [1]


@pytest.mark.parametrize("num_steps", [9, 10])
def test_heun_is_the_published_algorithm(num_steps):
    """Last step of Euler where the number of calls is odd, also to sigma = 0."""
    sigmas = 5.0 * np.linspace(1, 0 if num_steps == 9 else 0.1, 6) ** 2
    with np.errstate(divide="ignore"):
        clock = -np.log(sigmas)
    x = 5.0 * targets.STARTS
    for sigma, below in zip(sigmas[:-1], sigmas[1:], strict=True):
        d = (x - targets.mixture(x, sigma)) / sigma
        y = x + (below - sigma) * d
        if below > 0:
            y = x + (below - sigma) * (d + (y - targets.mixture(y, below)) / below) / 2
        x = y
    program = heun().program(lambda num: clock, num_steps, True)
    scale = np.sqrt(1 + sigmas**2)
    end, num_calls = targets.follow(program, 5.0 * targets.STARTS / scale[0])
    np.testing.assert_allclose(end * scale[-1], x, rtol=1e-11)
    assert num_calls == num_steps


def test_heun_starts_anywhere():
    """Its start is the run's own to the last digit, whatever 1 / alpha times alpha is."""
    for start in np.linspace(-8, 0, 50):
        program = heun().program(lambda num, start=start: np.array([start, 0.5]), 2, True)
        assert program.matrices.shape[0] == 2


def test_churn_raises_the_noise_as_published():
    sigmas = np.array([4.0, 3.0, 2.0, 1.0, 0.5])
    solver = heun(churn=1.0, churn_min=0.6, churn_max=2.5, noise_scale=1.1)
    program = solver.program(lambda num: -np.log(sigmas), 8, True)
    levels = [4.0, 3.0, 3.0, 2.0, 2.0 * 1.25, 1.0, 1.0 * 1.25, 0.5, 0.5]
    np.testing.assert_allclose(np.exp(-program.half_log_snr), levels, rtol=1e-12)
    noise = program.matrices[:, 0, -1] / unit_scales(program.half_log_snr[1:])[0]
    added = 1.1 * np.sqrt(1.25**2 - 1) * np.array([2.0, 1.0])
    np.testing.assert_allclose(noise[[3, 5]], added, rtol=1e-12)
    assert np.count_nonzero(noise) == 2
