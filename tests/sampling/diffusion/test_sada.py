"""SADA: what it does against the paper's loop for one sample, and what it costs each sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import unit_scales, vp_linear
from shoal.sampling.diffusion import dpm_solver_pp, sada, solve
from shoal.sampling.diffusion.grids import half_log_snrs
from shoal.sampling.diffusion.sada import WEIGHTS, _lagrange

MEANS = np.array([[1.0, 0.3], [-0.8, 0.6], [0.2, -1.1]])
SCHEDULE = vp_linear()
NUM = 24
CLOCK = half_log_snrs(SCHEDULE, "uniform", NUM)
START = np.random.default_rng(1).normal(size=(5, 2))


def mixture(x, λ, xp=jnp):
    """Return the data predicted at unit variance, of three normals of variance 0.09."""
    γ = xp.exp(-λ)
    x = x[:, None] * xp.sqrt(1 + γ**2)
    logits = -((x - MEANS) ** 2).sum(-1) / (2 * (0.09 + γ**2))
    weights = xp.exp(logits - logits.max(1, keepdims=True))
    weights = weights / weights.sum(1, keepdims=True)
    return (weights[..., None] * (MEANS * γ**2 + x * 0.09) / (0.09 + γ**2)).sum(1)


def run(solver, x, fn=mixture, num=NUM):
    denoiser = Denoiser(lambda x, t: fn(x, SCHEDULE.half_log_snr(t)), "data", SCHEDULE)
    return jax.jit(lambda x: solve(denoiser, SCHEDULE, solver, x, num, "uniform"))(x)


def paper(x, weights, between, max_skips, lagrange):
    """Return the end and the number of calls of one sample, time running backwards as published."""
    Δ, calls, skip, skips = 1 / NUM, 0, False, 0
    ys, datas, kept, xhat, ε = [], [], {}, None, None
    dλ = np.gradient(CLOCK[:-1])
    for i in range(NUM):
        s, t = CLOCK[i : i + 2]
        (α, σ), (α_t, σ_t) = unit_scales(s), unit_scales(t)
        phase = lagrange is not None and i >= lagrange[0] * NUM
        if phase and i % lagrange[1]:
            nodes = sorted(kept)[-lagrange[2] :]
            data = sum(
                kept[a] * np.prod([(i - b) / (a - b) for b in nodes if b != a]) for a in nodes
            )
            ε = (x - α * data) / σ
            skips += 1
        elif skip:
            data = (xhat - σ * ε) / α
            skips += 1
        else:
            data = mixture(x[None], s, np)[0]
            ε, skips, calls = (x - α * data) / σ, 0, calls + 1
        if lagrange is not None and i % lagrange[1] == 0:
            kept[i] = data
        ys.insert(0, -dλ[i] / Δ * (σ**2 * x - σ * ε))
        datas.insert(0, data)
        h = t - s
        slope = 0.0
        if 0 < i < NUM - 1:
            slope = 0.5 * (datas[0] - datas[1]) / ((s - CLOCK[i - 1]) / h)
        x_t = σ_t / σ * x - α_t * np.expm1(-h) * (data + slope)
        skip = False
        if i >= 2:
            xhat = x - Δ * sum(w * y for w, y in zip(weights, ys, strict=False))
            criterion = np.mean((x_t - xhat) * (ys[0] - 2 * ys[1] + ys[2]))
            inside = max(3, between[0] * NUM) <= i + 1 < between[1] * NUM
            begins = lagrange is not None and i + 1 >= lagrange[0] * NUM
            skip = criterion <= 0 and inside and not begins and skips < max_skips
        x = x_t
    return x, calls


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("weights", "lagrange"), [("paper", None), ("adams-bashforth", (0.5, 4, 3))]
)
def test_every_sample_is_solved_as_published(weights, lagrange):
    solver = sada(weights, between=(0.2, 0.9), max_skips=3, lagrange=lagrange)
    end, record = run(solver, jnp.asarray(START))
    expected = [paper(x, WEIGHTS[weights], (0.2, 0.9), 3, lagrange) for x in START]
    np.testing.assert_array_equal(record.num_calls, [calls for _, calls in expected])
    np.testing.assert_allclose(end, [x for x, _ in expected], 0, 1e-10)
    assert NUM / 4 < np.mean(record.num_calls) < NUM - 2


def test_without_skipping_it_is_2m():
    x = jnp.asarray(START, jnp.float32)
    expected, _ = run(dpm_solver_pp(2), x)
    end, record = run(sada(between=(1.0, 1.0), lagrange=None), x)
    np.testing.assert_allclose(end, expected, 0, 1e-5)
    assert record.num_calls.tolist() == [NUM] * 5
    assert record.failed_at.tolist() == [-1] * 5


def test_a_call_that_nobody_needs_is_not_made():
    made = []

    def counted(x, λ):
        jax.debug.callback(made.append, λ)
        return mixture(x, λ)

    solver = sada("paper", lagrange=(0.5, 4, 3))
    _, record = run(solver, jnp.asarray(START[:1], jnp.float32), counted)
    jax.effects_barrier()
    assert len(made) == int(record.num_calls[0]) < NUM


def test_extrapolations_are_of_the_order_said():
    """∫_0^1 of y through y(0), y(-1), y(-2): of constants, lines and parabolas."""
    at = np.array([0.0, -1.0, -2.0])
    error = lambda name, k: np.dot(WEIGHTS[name], at**k) - 1 / (k + 1)
    for name, exact in {"released": 1, "paper": 2, "adams-bashforth": 3}.items():
        errors = [error(name, k) for k in range(exact + 1)]
        np.testing.assert_allclose(errors[:-1], 0, atol=1e-12)
        assert abs(errors[-1]) > 0.3
    np.testing.assert_allclose(error("released", 1), -0.5)


def test_lagrange_weights_reproduce_polynomials():
    weights = _lagrange(14, 4, 4)
    nodes = np.array([12, 8, 4, 0])
    for k in range(4):
        assert weights @ nodes**k == pytest.approx(14**k)
