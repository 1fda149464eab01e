"""Guided denoisers against exact conditional ones, and projection against its own equations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.models.denoisers import gaussian, gaussian_mixture
from shoal.sampling.core.denoiser import Denoiser, convert
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion import (
    ddim,
    dpm_solver_pp,
    edm,
    flow,
    guidance,
    manifold_projected,
    solve,
    vp_linear,
)

pytestmark = [pytest.mark.quick_compiler, pytest.mark.usefixtures("x64")]
MEANS = np.array([[1.0, 0.5], [-1.0, 0.0], [0.0, -2.0]])
VARIANCE, NO_LABEL = 0.3, 3
LABELS, SCALES = np.array([0, 1, 2, 3]), np.array([3.0, 0.5, 1.0, 4.0])
LAMBDA = 0.4


def log_parts(x, sigma):
    """Log densities of the classes, up to a common term."""
    return -0.5 * jnp.sum((x[:, None] - MEANS) ** 2, -1) / (VARIANCE + sigma**2)


def network(x, sigma, labels):
    """Exact data prediction of one of three Gaussians; of all of them without a label."""
    is_open = (labels[:, None] == np.arange(3)) | (labels[:, None] == NO_LABEL)
    share = jax.nn.softmax(jnp.where(is_open, log_parts(x, sigma), -jnp.inf))
    moved = MEANS + VARIANCE / (VARIANCE + sigma**2) * (x[:, None] - MEANS)
    return jnp.sum(share[:, :, None] * moved, 1)


def denoiser_of(labels, schedule=None, prediction="data", num_calls=1):
    """Return the network at fixed labels, as if trained on a schedule for a prediction."""
    schedule = schedule or edm()

    def fn(x, t):
        alpha, sigma = schedule.scales(schedule.half_log_snr(jnp.asarray(t)))
        data = network(x / alpha, sigma / alpha, jnp.broadcast_to(labels, len(x)))
        return convert(data, x, alpha, sigma, "data", prediction)

    return Denoiser(fn, prediction, schedule, num_calls)


def points(seed=0, num=4):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(num, 2)))


def predictions(denoiser, half_log_snr=LAMBDA):
    return eqx.filter_jit(denoiser.data)(points(), jnp.asarray(half_log_snr))


def guided(scale=SCALES, labels=LABELS, model=network):
    return guidance.classifier_free(model, labels, NO_LABEL, scale, schedule=edm())


def expected(scale=SCALES):
    conditional = predictions(denoiser_of(LABELS))
    unconditional = predictions(denoiser_of(NO_LABEL))
    return unconditional + np.reshape(scale, (-1, 1)) * (conditional - unconditional)


def test_classifier_free_is_one_call_on_both_halves():
    shapes = []

    def seen(x, sigma, labels):
        shapes.append((x.shape, labels.shape))
        return network(x, sigma, labels)

    np.testing.assert_allclose(predictions(guided(model=seen)), expected(), rtol=1e-12)
    assert shapes == [((8, 2), (8,))]
    conditional, unconditional = (
        predictions(part) for part in (denoiser_of(1), denoiser_of(NO_LABEL))
    )
    genie = (1 + 8.0) * conditional - 8.0 * unconditional
    np.testing.assert_allclose(predictions(guided(1 + 8.0, 1)), genie, rtol=1e-12)


def test_two_denoisers_of_any_form_are_combined():
    parts = (
        denoiser_of(LABELS, flow(), "flow"),
        denoiser_of(NO_LABEL, vp_linear(), "noise", 3),
    )
    pair = guidance.combine(*parts, SCALES)
    assert (pair.num_calls, pair.schedule) == (4, flow())
    np.testing.assert_allclose(predictions(pair), expected(), rtol=1e-10)
    assert guidance.branches(pair) == parts


def test_branches_are_the_two_predictions():
    with_label, without = guidance.branches(guided())
    np.testing.assert_allclose(predictions(with_label), expected(np.ones(4)), rtol=1e-12)
    np.testing.assert_allclose(predictions(without), expected(np.zeros(4)), rtol=1e-12)


def test_exact_classifier_is_classifier_free_guidance():
    """The difference of both predictions is the gradient of log p(c | x), sigma² / alpha times."""
    schedule = flow()

    def log_probability(x, t):
        alpha, sigma = 1 - t, t
        log_p = jax.nn.log_softmax(log_parts(x / alpha, sigma / alpha))
        return jnp.where(LABELS == NO_LABEL, 0.0, log_p[np.arange(4), LABELS % 3])

    denoiser = denoiser_of(NO_LABEL, schedule, "noise")
    found = predictions(guidance.classifier(denoiser, log_probability, SCALES))
    np.testing.assert_allclose(found, expected(), rtol=1e-10)


@pytest.mark.parametrize("schedule", [flow(), vp_linear()], ids=["flow", "vp"])
def test_reconstruction_is_exact_for_gaussian_data(schedule):
    """Data from N(m, v), of which one number was measured with the variance s²."""
    mean, variance, noise_variance, measured = np.array([1.0, -1.0]), 0.5, 0.2, 2.0
    gain = variance / (variance + noise_variance)
    posterior = gaussian(
        mean + np.array([gain * (measured - mean[0]), 0]), variance * np.array([1 - gain, 1])
    )

    def log_likelihood(data, noise):
        spread = variance * noise**2 / (variance + noise**2)
        return -0.5 * (measured - data[:, 0]) ** 2 / (noise_variance + spread)

    def fn(x, t):
        alpha, sigma = schedule.scales(schedule.half_log_snr(jnp.asarray(t)))
        data = gaussian(mean, variance).fn(x / alpha, sigma / alpha)
        return convert(data, x, alpha, sigma, "data", "noise")

    denoiser = guidance.reconstruction(Denoiser(fn, "noise", schedule), log_likelihood)
    assert denoiser.num_calls == 2
    for half_log_snr in (-3.0, 0.0, 2.0):
        wanted = predictions(posterior, half_log_snr)
        np.testing.assert_allclose(predictions(denoiser, half_log_snr), wanted, rtol=1e-9)


def test_threshold_is_per_sample_and_keeps_small_predictions():
    data = (
        np.random.default_rng(1).normal(size=(4, 2, 50)) * np.array([0.1, 1, 5, 20])[:, None, None]
    )

    def fn(x, t):
        return (x - (1 - t) * data) / t

    denoiser = guidance.dynamic_threshold(Denoiser(fn, "noise", flow()), 0.9, 1.5)
    found = eqx.filter_jit(denoiser.data)(jnp.ones_like(data), jnp.asarray(LAMBDA))
    bounds = np.maximum(np.quantile(np.abs(data), 0.9, axis=(1, 2)), 1.5)[:, None, None]
    np.testing.assert_allclose(found, 1.5 * np.clip(data / bounds, -1, 1), rtol=1e-11, atol=1e-13)
    assert np.array_equal(bounds.ravel() == 1.5, [True, False, False, False])


def test_derivative_is_along_the_guided_flow():
    """That of the sum of both predictions along the sum's flow, not of each along its own."""
    denoiser, x, at, h = guided(9.0, 1), 0.3 * points(), jnp.asarray(LAMBDA), 1e-4
    alpha, _ = unit_scales(LAMBDA)
    data, derivative = eqx.filter_jit(denoiser.derivative)(x, at)
    slope = alpha * (data - alpha * x)
    predict = eqx.filter_jit(denoiser.data)
    difference = (predict(x + h * slope, at + h) - predict(x - h * slope, at - h)) / (2 * h)
    np.testing.assert_allclose(derivative, difference, rtol=1e-5, atol=1e-5)
    slopes = eqx.filter_jit(lambda parts: [part.derivative(x, at)[1] for part in parts])
    c, u = slopes(guidance.branches(denoiser))
    assert np.max(np.abs(u + 9.0 * (c - u) - difference)) > 0.5 * np.max(np.abs(difference))


def test_scale_one_is_solved_as_the_conditional_denoiser():
    run = lambda denoiser: solve(denoiser, vp_linear(), dpm_solver_pp(2), points(), 6)
    (found, record), (wanted, _) = run(guided(1.0)), run(denoiser_of(LABELS))
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    assert record.num_calls.tolist() == [12] * 4


def test_impossible_uses_are_refused():
    with pytest.raises(ValueError, match=r"labels.*4 samples.*\(3,\)"):
        predictions(guided(2.0, LABELS[:3]))
    with pytest.raises(ValueError, match=r"scale.*4 samples.*\(3,\)"):
        predictions(guided(SCALES[:3]))
    with pytest.raises(ValueError, match=r"network must return.*\(8, 2\).*\(8,\)"):
        predictions(guided(model=lambda x, t, labels: x[:, 0]))
    for make in (guidance.classifier, guidance.reconstruction):
        with pytest.raises(ValueError, match=r"log_\w+ must return one value.*\(4,\).*\(4, 2\)"):
            predictions(make(denoiser_of(0), lambda x, t: x))
    for solver, steps, grid, words in (
        (manifold_projected(2), 2, "logsnr", "num_steps must be at least 3"),
        (manifold_projected(2), 3, [0.1, 0.9], "noise to data"),
    ):
        with pytest.raises(ValueError, match=words):
            solve(guided(), flow(), solver, points(), steps, grid)
    with pytest.raises(TypeError, match=r"denoiser must be made by guidance.*Denoiser of function"):
        solve(denoiser_of(0), flow(), manifold_projected(), points(), 9)


def test_projection_without_projected_steps_is_ddim():
    runs = [
        solve(guided(), vp_linear(), solver, points(), 5, trajectory=True)
        for solver in (manifold_projected(fraction=0.0), ddim())
    ]
    for found, wanted in zip(*map(jax.tree.leaves, runs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10)


def by_hand(z, t, h, scale, ridge):
    """One step of CFG-MP+ with two rounds on straight paths, as published but for the ridge."""

    def velocity(z, labels):
        data = network(jnp.asarray(z / t), (1 - t) / t, jnp.broadcast_to(labels, len(z)))
        return (np.asarray(data) - z) / (1 - t)

    def project(z):
        y = z - h / 2 * velocity(z, NO_LABEL)
        return y + h / 2 * velocity(y, LABELS)

    first = project(z)
    second = project(first)
    old, new = first - z, second - first
    size = np.sum((new - old) ** 2, 1) + ridge * np.sum(old**2 + new**2, 1) / 2
    share = (np.sum((new - old) * new, 1) / size)[:, None]
    z = (1 - share) * second + share * first
    u, c = velocity(z, NO_LABEL), velocity(z, LABELS)
    return z + h * (u + scale[:, None] * (c - u))


def test_projected_step_is_its_equations():
    solver = manifold_projected(2, fraction=1.0, ridge=0.1)
    x, record = solve(guided(), flow(), solver, points(), 6, [0.7, 0.5, 0.2], trajectory=True)
    wanted = by_hand(np.asarray(points()), 0.3, 0.2, SCALES, 0.1)
    np.testing.assert_allclose(record.trajectory[3], wanted, rtol=1e-10)
    np.testing.assert_allclose(x, by_hand(wanted, 0.5, 0.3, SCALES, 0.1), rtol=1e-9)
    assert record.num_calls.tolist() == [12] * 4
    np.testing.assert_allclose(record.times, [0.7] * 3 + [0.5] * 3 + [0.2], rtol=1e-12)
    np.testing.assert_array_equal(record.trajectory[0], points())


def test_projection_has_no_units_and_names_what_failed():
    """Of data a thousand times as small the run is a thousand times as small."""

    def run(unit, last=0.0):
        small = lambda x, t, labels: jnp.where(
            t < last, jnp.nan, unit * network(x / unit, t, labels)
        )
        return solve(guided(model=small), vp_linear(), manifold_projected(), unit * points(), 9)

    x, _ = run(1.0)
    np.testing.assert_allclose(run(1e-3)[0], 1e-3 * x, rtol=1e-9)
    assert run(1.0, 5.0)[1].failed_at.tolist() == [6] * 4


def test_projection_makes_the_law_of_a_class_narrow():
    """Exact fields at scale 1: what the docstring says was measured, at fewer samples."""
    angles = np.pi / 2 * np.arange(4)
    out = np.stack([np.cos(angles), np.sin(angles)], 1)
    along = out @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    both = np.stack([2 * out + 0.5 * along, 2 * out - 0.5 * along], 1)
    denoiser = guidance.combine(
        gaussian_mixture(np.ones(2), both[0], 0.25**2),
        gaussian_mixture(np.ones(8), both.reshape(8, 2), 0.25**2),
        1.0,
    )
    start = jax.random.normal(jax.random.key(0), (2000, 2))
    spread = {
        name: float(solve(denoiser, flow(t_min=0.0), solver, start, 22, "uniform")[0][:, 1].std())
        for name, solver in (("ddim", ddim()), ("mp", manifold_projected(accelerate=False)))
    }
    true = np.sqrt(0.5**2 + 0.25**2)
    # 0.96 and 0.75 with 8192 samples; the standard error here is 0.016.
    assert 0.88 * true < spread["ddim"] < 1.04 * true
    assert 0.67 * true < spread["mp"] < 0.83 * true
