"""Taylor and GENIE solvers through the driver's scan, and the head's training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion import ddim, distill_head, edm, genie, solve, taylor
from shoal.sampling.diffusion.genie import Head, loss

pytestmark = pytest.mark.quick_compiler
VARIANCE = 0.25
SCHEDULE = edm(0.02, 20.0)
NORMAL = Denoiser(lambda x, t: x * VARIANCE / (VARIANCE + t**2), "data", SCHEDULE)
ENDS = np.sqrt((VARIANCE + 0.02**2) / (VARIANCE + 20.0**2))


def start(num=200):
    return 20.0 * jax.random.normal(jax.random.key(5), (num, 2))


def slope(position, noise, half_log_snr):
    """Exact dε/dγ of normal data: it is proportional to the predicted noise."""
    gamma = jnp.exp(-half_log_snr)
    return VARIANCE * noise / (gamma * (VARIANCE + gamma**2)).reshape(-1, *[1] * (noise.ndim - 1))


def by_hand(form, num_steps):
    """Steps of GENIE's equation 9 and its exponential forms for x̄' = γ x̄ / (v + γ²)."""
    grid = np.linspace(20 ** (1 / 7), 0.02 ** (1 / 7), num_steps + 1) ** 7
    x = 1.0
    for γ, γ_new in zip(grid[:-1], grid[1:], strict=True):
        h, d = np.log(γ / γ_new), γ_new - γ
        total = VARIANCE + γ**2
        noise, derivative, data = x * γ / total, x * VARIANCE / total**2, x * VARIANCE / total
        if form == "raw":
            x = x + d * noise + d**2 / 2 * derivative
        elif form == "noise":
            x = x + d * noise + γ**2 * (1 - (1 + h) * np.exp(-h)) * derivative
        else:
            bend = (np.exp(h) * (h - 1) + 1) * γ**2 * derivative
            x = γ_new / γ * (x + np.expm1(h) * data + bend)
    return x


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["data", "noise", "raw"])
def test_steps_are_the_papers_with_exact_derivative_and_with_exact_head(form):
    x_T = start(3)
    x, record = solve(NORMAL, SCHEDULE, taylor(2, form), x_T, 9, "karras")
    np.testing.assert_allclose(x, x_T * by_hand(form, 9), rtol=1e-10)
    assert record.num_calls.tolist() == [18, 18, 18]
    x, record = solve(NORMAL, SCHEDULE, genie(slope, form), x_T, 9, "karras")
    np.testing.assert_allclose(x, x_T * by_hand(form, 9), rtol=1e-10)
    assert record.num_calls.tolist() == [9, 9, 9]


@pytest.mark.usefixtures("x64")
def test_head_is_fed_the_networks_own_prediction():
    """A head that knows the derivative as a function of the predicted noise has no loss."""
    samples = 0.5 * jax.random.normal(jax.random.key(0), (50, 2))
    ends = jnp.array([-3.0, 4.0])
    zero = lambda *_: jnp.zeros((64, 2))
    both = lambda key: [loss(head, NORMAL, key, samples, ends, 64) for head in (slope, zero)]
    own, none = jax.jit(both)(jax.random.key(1))
    assert own < 1e-20 < 1e-3 < none


@pytest.mark.usefixtures("x64")
def test_head_mixes_its_outputs_as_published():
    head = Head(eqx.nn.MLP(2 * 1 + 8, 3, 4, 1, key=jax.random.key(0)), jnp.array(0.5))
    last = lambda head: (head.network.layers[-1].weight, head.network.layers[-1].bias)
    k = jnp.array([0.3, -1.2, 2.0])
    head = eqx.tree_at(last, head, (jnp.zeros((3, 4)), k))
    for gamma in (0.1, 3.0):
        total = gamma**2 + 0.25
        expected = -k[0] / gamma + gamma / total * k[1] + 0.25 / (gamma * total) * k[2]
        found = eqx.filter_jit(head)(jnp.ones((2, 1)), jnp.ones((2, 1)), -jnp.log(gamma))
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_distilled_head_recovers_the_derivative_and_beats_ddim():
    """Measured: relative errors 0.03, 0.015 and 0.01; RMSE 0.0158 where DDIM has 0.088."""
    samples = 0.5 * jax.random.normal(jax.random.key(0), (2000, 2))
    head, losses = distill_head(
        jax.random.key(1), NORMAL, SCHEDULE, samples, 500, batch_size=128, width=64, depth=2
    )
    assert losses.shape == (500,)
    assert losses[-50:].mean() < 1e-2 * losses[0]
    for half_log_snr in jnp.array([-0.5, 0.5, 1.5]):
        alpha, sigma = unit_scales(half_log_snr)
        x = alpha * samples + sigma * jax.random.normal(jax.random.key(3), samples.shape)
        noise = (x - alpha * NORMAL.data(x, half_log_snr)) / sigma
        exact = slope(x, noise, half_log_snr)
        error = head(x, noise, half_log_snr) - exact
        assert jnp.sqrt(jnp.mean(error**2) / jnp.mean(exact**2)) < 0.1
    rmse = lambda solver: jnp.sqrt(
        jnp.mean((solve(NORMAL, SCHEDULE, solver, start(), 10, "karras")[0] - ENDS * start()) ** 2)
    )
    assert rmse(genie(head)) < 0.3 * rmse(ddim())
