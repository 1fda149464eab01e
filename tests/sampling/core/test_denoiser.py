"""Denoisers of Gaussian data in every form on every schedule, against the closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core.denoiser import PREDICTIONS, Denoiser, convert
from shoal.sampling.core.schedules import VariancePreserving, edm, flow, ve, vp_cosine, vp_linear

pytestmark = pytest.mark.quick_compiler
SCHEDULES = {"vp": vp_linear(), "cosine": vp_cosine(), "ve": ve(), "edm": edm(), "flow": flow()}
MEAN, VARIANCE = np.array([1.0, -0.5]), np.array([0.3, 2.0])
POSITION = np.array([[0.3, -1.2], [2.0, 0.7], [-1.0, 0.1]])


def data_mean(x, alpha, sigma):
    return MEAN + alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * (x - alpha * MEAN)


def in_form(prediction, x, alpha, sigma):
    """Return what a perfect network of this form predicts, by the form's definition."""
    data = data_mean(x, alpha, sigma)
    noise = (x - alpha * data) / sigma
    marginal = alpha**2 * VARIANCE + sigma**2
    return {
        "data": data,
        "noise": noise,
        "velocity": alpha * noise - sigma * data,
        "flow": noise - data,
        "score": -(x - alpha * MEAN) / marginal,
    }[prediction]


def network(prediction, schedule):
    def fn(x, t):
        return in_form(prediction, x, schedule.alpha(t), schedule.sigma(t))

    return Denoiser(fn, prediction, schedule)


@pytest.mark.usefixtures("x64")
def test_every_form_on_every_schedule_is_the_same_denoiser():
    position = jnp.asarray(POSITION)
    for clock in (-3.0, 0.4, 2.5):
        alpha, sigma = 1 / np.sqrt(1 + np.exp([-2 * clock, 2 * clock]))
        expected = data_mean(POSITION, alpha, sigma)
        for schedule in SCHEDULES.values():
            for prediction in PREDICTIONS:
                if prediction == "velocity" and not isinstance(schedule, VariancePreserving):
                    continue
                data = network(prediction, schedule).data(position, jnp.asarray(clock))
                np.testing.assert_allclose(data, expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_conversions_from_each_form_to_each_form():
    for alpha, sigma in ((0.6, 0.8), (0.3, 0.7), (1.0, 5.0)):
        # The velocity is defined at unit variance only.
        forms = [form for form in PREDICTIONS if form != "velocity" or alpha == 0.6]
        for given in forms:
            value = jnp.asarray(in_form(given, POSITION, alpha, sigma))
            for wanted in forms:
                out = convert(value, jnp.asarray(POSITION), alpha, sigma, given, wanted)
                expected = in_form(wanted, POSITION, alpha, sigma)
                np.testing.assert_allclose(out, expected, atol=1e-12, err_msg=f"{given} {wanted}")


@pytest.mark.usefixtures("x64")
def test_derivative_is_the_slope_along_the_flow():
    """Of Gaussian data the flow is known: (x - alpha mean) / sqrt(variance of x) is constant."""

    def along(clock):
        alpha, sigma = 1 / np.sqrt(1 + np.exp([-2 * clock, 2 * clock]))
        return alpha * MEAN + np.sqrt(alpha**2 * VARIANCE + sigma**2) * POSITION

    clock, step = 0.4, 1e-5
    denoiser = network("noise", flow())
    compiled = jax.jit(denoiser.data)
    data = lambda at: np.asarray(compiled(along(at), at))
    value, slope = jax.jit(denoiser.derivative)(along(clock), jnp.asarray(clock))
    np.testing.assert_allclose(value, data(clock), atol=1e-14)
    expected = (data(clock + step) - data(clock - step)) / (2 * step)
    np.testing.assert_allclose(slope, expected, atol=1e-9)


def test_derivative_calls_the_network_once():
    calls = []

    def fn(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return x * t

    jax.block_until_ready(Denoiser(fn, "data", edm()).derivative(jnp.ones((1, 2)), jnp.zeros(())))
    jax.effects_barrier()
    assert len(calls) == 1


def test_use_on_a_schedule_keeps_the_one_of_training():
    denoiser = Denoiser(lambda x, t: x, "data", num_calls=2)
    with pytest.raises(ValueError, match="no schedule"):
        denoiser.data(jnp.ones((1, 1)), jnp.zeros(()))
    used = denoiser.on(flow())
    assert (used.schedule, used.num_calls) == (flow(), 2)
    assert used.on(edm()) is used
    with pytest.raises(ValueError, match=r"shape of x, \(1, 3\); got \(1,\)"):
        Denoiser(lambda x, t: x[:, 0], "data", edm()).data(jnp.ones((1, 3)), jnp.zeros(()))
