"""UniPC, Adams, momentum and Taylor solvers: orders, exactness, published weights, stability.

A solver is a table of matrices; here tables are executed in NumPy, where nothing is compiled, on
the exact denoiser of a mixture of three normals. Derivatives along the flow are by complex steps.
"""

import dataclasses
import functools

import numpy as np
import pytest

from shoal.sampling.core.schedules import vp_linear
from shoal.sampling.diffusion import (
    deis,
    dpm_solver_pp,
    ghvb,
    heavy_ball,
    plms,
    taylor,
    unipc,
)
from shoal.sampling.diffusion.adams import averaged_weights, constant_weights
from shoal.sampling.diffusion.exponential import Multistep

MEANS = np.array([[1.0, 0.3], [-0.8, 0.6], [0.2, -1.1]])
VARIANCE = 0.09
START = np.random.default_rng(0).normal(size=(8, 2))
LOW, HIGH = -np.log(4.0), -np.log(0.1)
rho = lambda λ: np.exp(-λ)


def scales(λ):
    return np.sqrt(1 / (1 + np.exp(-2 * λ))), np.sqrt(1 / (1 + np.exp(2 * λ)))


def mixture(x, λ):
    """Exact prediction of the data at unit variance; complex arguments are for derivatives."""
    γ = np.exp(-λ)
    x = x[:, None] * np.sqrt(1 + γ**2)
    logits = -((x - MEANS) ** 2).sum(-1) / (2 * (VARIANCE + γ**2))
    weights = np.exp(logits - logits.real.max(1, keepdims=True))
    weights = weights / weights.sum(1, keepdims=True)
    return (weights[..., None] * (MEANS * γ**2 + x * VARIANCE) / (VARIANCE + γ**2)).sum(1)


def slope_of(data, x, λ):
    alpha, _ = scales(λ)
    change = alpha * (data(x, λ) - alpha * x)
    return data(x + 1e-30j * change, λ + 1e-30j).imag / 1e-30


def positions(solver, steps, num_steps, data=mixture, start=START, final=False):
    """Return the positions at all calls and at the end, at unit variance."""
    program = solver.program(steps, num_steps, final)
    registers = np.zeros((program.matrices.shape[1], *start.shape))
    registers[0], found = start, [start]
    for matrix, λ in zip(program.matrices, program.half_log_snr[:-1], strict=True):
        x = registers[0]
        seen = [data(x, λ)]
        if "derivative" in program.inputs:
            seen.append(slope_of(data, x, λ))
        registers = np.tensordot(matrix, np.concatenate([registers, seen]), 1)
        found.append(registers[0])
    return np.array(found)


def karras(num):
    return -7 * np.log(np.linspace(np.exp(-LOW / 7), np.exp(-HIGH / 7), num + 1))


def uneven(num):
    """Steps of λ in the ratios 5 : 3 : 7, however many."""
    lengths = np.resize([1.0, 0.6, 1.4], num)
    return LOW + (HIGH - LOW) * np.concatenate([[0], np.cumsum(lengths) / lengths.sum()])


@functools.cache
def reference():
    """By Runge and Kutta in d(x / sigma)/dλ = exp(λ) x_0; error 1e-11."""
    y, h = START / scales(LOW)[1], (HIGH - LOW) / 2000
    rate = lambda y, λ: np.exp(λ) * mixture(y * scales(λ)[1], λ)
    for λ in LOW + h * np.arange(2000):
        k1 = rate(y, λ)
        k2 = rate(y + h / 2 * k1, λ + h / 2)
        k3 = rate(y + h / 2 * k2, λ + h / 2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(y + h * k3, λ + h))
    return y * scales(HIGH)[1]


def order_of(solver, steps, counts):
    errors = [
        np.sqrt(np.mean((positions(solver, steps, n)[-1] - reference()) ** 2)) for n in counts
    ]
    return np.log(errors[0] / errors[1]) / np.log(counts[1] / counts[0])


def timed(solver):
    """Return a solver in the variable t as it is on a schedule."""
    return dataclasses.replace(solver, time=vp_linear().time)


ORDERS = {
    **{
        f"unipc {p} {variant} {form}": (unipc(p, variant, form=form, start="sweeps"), p + 1)
        for p in (1, 2, 3)
        for variant in ("bh1", "bh2", "vary")
        for form in ("data", "noise")
    },
    "unipc 3 without corrector": (unipc(3, corrector=False, start="sweeps"), 3),
    "unipc 2 as it usually begins": (unipc(2), 3),
    "upstream unipc 2 vary": (unipc(2, "vary", compat="upstream"), 1),
    "upstream unipc 3 vary": (unipc(3, "vary", compat="upstream"), 1),
    "deis 2": (deis(2), 2),
    **{f"deis 3 {u}": (deis(3, u, start="sweeps"), 3) for u in ("log_rho", "rho")},
    "deis 3 t": (timed(deis(3, "t", start="sweeps")), 3),
    "plms 4": (plms(4, start="sweeps"), 4),
    "plms 4 rho": (plms(4, "rho", start="sweeps"), 4),
    **{f"ghvb {k} {b}": (ghvb(k, b, start="sweeps"), k) for k, b in ((1, 0.5), (2, 0.5), (3, 0.7))},
    "ghvb 4 0.8": (ghvb(4, 0.8, start="sweeps"), 4),
    "ghvb 4 0.6 rho": (ghvb(4, 0.6, "rho", start="sweeps"), 4),
    "heavy ball": (heavy_ball(3, 0.8), 1),
    "heavy ball data": (heavy_ball(2, 0.8, form="data"), 1),
    **{f"taylor 2 {form}": (taylor(2, form), 2) for form in ("data", "noise", "raw")},
    "taylor 1": (taylor(1), 1),
    "taylor 4": (taylor(4), 4),
}


@pytest.mark.parametrize("steps", [karras, uneven])
@pytest.mark.parametrize("name", ORDERS)
def test_order(name, steps):
    solver, expected = ORDERS[name]
    assert abs(order_of(solver, steps, (70, 140)) - expected) < 0.25


@pytest.mark.parametrize("k", [3, 4])
def test_published_constant_weights_are_of_second_order_on_uneven_grids(k):
    assert abs(order_of(plms(k, compat="upstream"), karras, (70, 140)) - 2) < 0.25


def primitive(polynomial, form):
    """Return ∫ dγ of noise, or ∫ exp(λ) dλ of data, over the grid by 200 Gauss points."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    λ = LOW + (HIGH - LOW) * (nodes + 1) / 2
    density = -np.exp(-λ) if form == "noise" else np.exp(λ)
    return (HIGH - LOW) / 2 * np.sum(weights * density * polynomial(λ))


EXACT = {
    # Solver, form and variable, degree for which it is exact.
    "unipc bh2": (unipc(3, start="sweeps"), "data", lambda λ: λ, 2),
    "unipc vary noise": (unipc(4, "vary", form="noise", start="sweeps"), "noise", lambda λ: λ, 3),
    "deis": (deis(4, start="sweeps"), "noise", lambda λ: λ, 3),
    "deis rho": (deis(4, "rho", start="sweeps"), "noise", rho, 3),
    "deis t": (timed(deis(3, "t", start="sweeps")), "noise", vp_linear().time, 2),
    "ghvb": (ghvb(5, 0.6, start="sweeps"), "noise", lambda λ: λ, 4),
    "ghvb rho": (ghvb(4, 0.3, "rho", start="sweeps"), "noise", rho, 3),
    "taylor data": (taylor(2), "data", lambda λ: λ, 1),
    "taylor noise": (taylor(2, "noise"), "noise", lambda λ: λ, 1),
    "taylor raw": (taylor(2, "raw"), "noise", rho, 1),
    "hermite data": (taylor(4), "data", lambda λ: λ, 3),
    "hermite raw": (taylor(4, "raw"), "noise", rho, 3),
}


@pytest.mark.parametrize("name", EXACT)
def test_polynomials_are_integrated_exactly(name):
    solver, form, u, degree = EXACT[name]
    polynomial = lambda λ: 1 + (0.3 * u(λ) - 0.4) ** degree
    alpha, sigma = scales(HIGH)
    base = alpha / scales(LOW)[0] if form == "noise" else sigma / scales(LOW)[1]
    expected = base * START + (alpha if form == "noise" else sigma) * primitive(polynomial, form)

    def data(x, λ):
        alpha, sigma = scales(λ)
        return polynomial(λ) + 0 * x if form == "data" else (x - sigma * polynomial(λ)) / alpha

    found = positions(solver, uneven, 25, data)[-1]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    # One degree more is not.
    degree += 1
    assert np.abs(positions(solver, uneven, 25, data)[-1] - expected).max() > 1e-6


# Wizadwongsa et al. (2024), table of coefficients.
PUBLISHED = {
    1: lambda b: np.array([b]),
    2: lambda b: np.array([2 + b, -(2 - b)]) / 2,
    3: lambda b: np.array([18 + 5 * b, -(24 - 8 * b), 6 - b]) / 12,
    4: lambda b: np.array([46 + 9 * b, -(78 - 19 * b), 42 - 5 * b, -(10 - b)]) / 24,
    5: lambda b: np.array([
        1650 + 251 * b, -(3420 - 646 * b), 2880 - 264 * b, -(1380 - 106 * b), 270 - 19 * b,
    ]) / 720,
}  # fmt: skip


@pytest.mark.parametrize("k", PUBLISHED)
def test_weights_are_the_published_ones_on_even_grids(k):
    for beta in (0.4, 1.0):
        expected = PUBLISHED[k](beta) / beta
        np.testing.assert_allclose(constant_weights(k, beta), expected, rtol=1e-12)
        nodes = -np.log(np.arange(100.0, 20.0, -1.0))
        found = averaged_weights(rho, nodes[-1], -np.log(20.0), nodes, k, beta)
        np.testing.assert_allclose(-found, expected, rtol=1e-8)


def published_step(variant, form, x, s, t, points, new):
    """One step of Zhao et al. (2023) from ``points``, corrected with a value at ``t`` if given."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = scales(s), scales(t)
    hh, shrink, out = t - s, alpha_t / alpha_s, sigma_t
    if form == "data":
        hh, shrink, out = s - t, sigma_t / sigma_s, alpha_t
    (_, m0), *older = points
    nodes = [((λ - s) / (t - s), m) for λ, m in older] + ([] if new is None else [(1.0, new)])
    base, n = shrink * x - out * np.expm1(hh) * m0, len(nodes)
    if n == 0:
        return base
    r, powers = np.array([r for r, _ in nodes]), np.arange(n)
    factorials = np.cumprod(powers + 1.0)
    terms = [np.expm1(hh) / hh - 1]  # hh^(1 - k) of the integrals of r^k / k!
    for factorial in factorials[:-1] * (powers[:-1] + 2):
        terms.append(terms[-1] / hh - 1 / factorial)
    terms = np.array(terms)
    if variant == "vary":
        inverse = np.linalg.inv(r[:, None] ** powers / factorials)
        weights = terms @ inverse
        if new is not None and n > 1:
            weights = np.array([*(terms[:-1] @ inverse[:-1, :-1]), terms[-1] * inverse[-2, -1]])
    else:
        B = hh if variant == "bh1" else np.expm1(hh)
        rhos = np.linalg.solve(r ** powers[:, None], terms * factorials / B) if n > 1 else [0.5]
        weights = B * np.array(rhos)
    differences = np.array([(m - m0) / r for r, m in nodes])
    return base - out * np.tensordot(weights, differences, 1)


def published_unipc(order, variant, form, clock):
    """UniPC as its authors run it; "vary" with their corrector."""
    x = start = START
    points, found, num = [], [], 0
    for i, (s, t) in enumerate(zip(clock[:-1], clock[1:], strict=True)):
        found.append(x)
        (alpha, sigma), value = scales(s), mixture(x, s)
        value = value if form == "data" else (x - alpha * value) / sigma
        if i:
            start = published_step(variant, form, start, clock[i - 1], s, points[:num], value)
        points.insert(0, (s, value))
        num = min(order, i + 1, len(clock) - 1 - i)
        x = published_step(variant, form, start, s, t, points[:num], None)
    return np.array([*found, x])


@pytest.mark.parametrize("form", ["data", "noise"])
@pytest.mark.parametrize("variant", ["bh1", "bh2", "vary"])
def test_unipc_is_the_published_algorithm(variant, form):
    for order in (1, 2, 3):
        solver = unipc(order, variant, form=form, compat="upstream")
        found = positions(solver, uneven, 9, final=True)
        expected = published_unipc(order, variant, form, uneven(9))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


def test_special_cases_are_other_solvers():
    run = lambda solver, final=False: positions(solver, uneven, 12, final=final)
    pairs = [
        (deis(3), Multistep("noise", 3)),
        (ghvb(4, 1.0), plms(4)),
        (plms(3), deis(3)),
        (heavy_ball(4, 1.0), plms(4)),
        (heavy_ball(2, 1.0, form="data"), dpm_solver_pp(2)),
        (heavy_ball(3, 1.0, compat="upstream"), plms(3, compat="upstream")),
        (unipc(3, "vary", corrector=False), dpm_solver_pp(3, variant="taylor")),
        (taylor(1, "raw"), Multistep("data", 1)),
    ]
    for solver, other in pairs:
        for final in (False, True):
            np.testing.assert_allclose(run(solver, final), run(other, final), rtol=0, atol=1e-12)


def test_momentum_of_dpm_solver_pp_begins_where_its_order_is_reached():
    plain, heavy = (
        positions(solver, uneven, 6)
        for solver in (dpm_solver_pp(2), heavy_ball(2, 0.5, form="data"))
    )
    np.testing.assert_allclose(heavy[:3], plain[:3], atol=1e-14)
    assert np.abs(heavy[3] - plain[3]).max() > 1e-3


STABLE = {
    # How long a step may be for dx̄/ds = -x̄.
    "ghvb": (ghvb, lambda b: (2 - b) * np.array([2 / b, 1, 6 / (12 - b), 3 / (11 - b)])),
    "heavy ball": (heavy_ball, lambda b: np.array([2, 1, 6 / 11, 3 / 10]) * (2 - b) / b),
}  # fmt: skip


@pytest.mark.parametrize("name", STABLE)
def test_stability_ends_where_theory_says(name):
    solver, interval = STABLE[name]
    steps = lambda num: -np.log(1.0 + np.arange(num, -1.0, -1.0))
    for beta in (0.5, 1.0):
        for k in (1, 2, 3, 4):
            for share, is_stable in ((0.97, True), (1.03, False)):
                rate = share * interval(beta)[k - 1]
                data = lambda x, λ, rate=rate: x * (1 - np.exp(-λ) * rate) / scales(λ)[0]
                x = positions(solver(k, beta, compat="upstream"), steps, 160, data)
                sizes = np.abs(x / scales(steps(160))[0][:, None, None]).max((1, 2))
                assert (sizes[-20:].max() < sizes[80:100].max()) == is_stable, (beta, k, share)


INFINITE = [
    unipc(3), unipc(2, "vary", form="noise"), deis(3), deis(2, "rho"), plms(4), ghvb(3, 0.5),
    heavy_ball(2, 0.7), heavy_ball(2, 0.7, form="data"),
]  # fmt: skip


@pytest.mark.parametrize("solver", INFINITE)
def test_infinite_ends_of_the_clock_are_finite_steps(solver):
    """With x_0 = 0.7 all the way, the end without noise is there."""
    steps = lambda num: np.array([-np.inf, *np.linspace(-3, 3, num - 1), np.inf])
    for final in (False, True):
        x = positions(solver, steps, 7, lambda x, λ: np.full_like(x, 0.7), final=final)
        assert np.isfinite(x).all()
        np.testing.assert_allclose(x[-1], 0.7, rtol=1e-12)
