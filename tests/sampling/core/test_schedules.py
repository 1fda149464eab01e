"""Schedules: closed forms, inverses, and what is read where λ has no bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core import schedules
from shoal.sampling.core.schedules import edm, flow, ve, vp_cosine, vp_discrete, vp_linear

pytestmark = pytest.mark.quick_compiler
SQUARES = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
ALL = {
    "vp_linear": vp_linear(),
    "vp_cosine": vp_cosine(),
    "vp_discrete": vp_discrete(SQUARES),
    "ve": ve(),
    "edm": edm(),
    "flow": flow(3.0),
}


def closed_form(name, t):
    """Return alpha and sigma as their sources write them."""
    if name == "vp_linear":
        alpha = np.exp(-(t**2) * 19.9 / 4 - t * 0.1 / 2)
    elif name == "vp_cosine":
        alpha = np.cos((t + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)
    elif name == "vp_discrete":
        steps = np.arange(1, 1001) / 1000
        alpha = np.exp(np.interp(t, steps, 0.5 * np.log(SQUARES)))
    elif name == "ve":
        return np.ones_like(t), 0.01 * 5000**t
    elif name == "edm":
        return np.ones_like(t), t
    else:
        return 1 - t, t
    return alpha, np.sqrt(1 - alpha**2)


@pytest.mark.parametrize("name", ALL)
def test_schedule_is_its_source_and_has_an_exact_inverse(name):
    schedule = ALL[name]
    t = np.linspace(schedule.t_min, schedule.t_max, 101)
    alpha, sigma = closed_form(name, t)
    np.testing.assert_allclose(schedule.alpha(t), alpha, rtol=1e-11)
    np.testing.assert_allclose(schedule.sigma(t), sigma, rtol=1e-11)
    clock = schedule.half_log_snr(t)
    np.testing.assert_allclose(clock, np.log(alpha / sigma), atol=1e-11)
    assert (np.diff(clock) < 0).all()
    np.testing.assert_allclose(schedule.time(clock), t, rtol=1e-10)
    np.testing.assert_allclose(schedule.half_log_snr(schedule.time(clock)), clock, atol=1e-10)
    # What a compiled program reads is the same, and as wide as what it is given.
    with jax.enable_x64(True):
        for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 3e-5)):
            narrow = jnp.asarray(clock, dtype)
            time, scales = jax.jit(lambda x: (schedule.time(x), schedule.scales(x)))(narrow)
            back = jax.jit(schedule.half_log_snr)(jnp.asarray(t, dtype))
            assert {leaf.dtype for leaf in (time, *scales, back)} == {np.dtype(dtype)}
            np.testing.assert_allclose(time, t, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(scales, (alpha, sigma), rtol=tolerance)


def test_scales_where_the_noise_or_the_data_are_all():
    ends = np.array([-np.inf, np.inf])
    for xp in (np, jnp):
        for scales in (flow().scales, vp_linear().scales, schedules.unit_scales):
            np.testing.assert_array_equal(scales(xp.asarray(ends)), [[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(flow(t_min=0.0, t_max=1.0).time(ends), [1.0, 0.0])


def test_unit_scales_keep_their_digits_far_out():
    alpha, sigma = schedules.unit_scales(np.array([-40.0, 40.0]))
    np.testing.assert_allclose(alpha, np.exp([-40.0, 0.0]), rtol=1e-14)
    np.testing.assert_allclose(sigma, np.exp([0.0, -40.0]), rtol=1e-14)


def test_shift_moves_points_and_keeps_the_ends():
    u = np.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(flow(3.0).warp(u), [0.0, 0.75, 1.0])
    np.testing.assert_array_equal(flow().warp(u), u)
    np.testing.assert_array_equal(vp_linear().warp(u), u)
