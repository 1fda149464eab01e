"""Log densities against those of noised mixtures; encodings that give the data back."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import Schedule
from shoal.sampling.diffusion import (
    ddim,
    dpm_solver_pp,
    edm,
    encode,
    flow,
    interpolate,
    log_likelihood,
    solve,
)
from shoal.sampling.diffusion.encoding import arc

pytestmark = pytest.mark.quick_compiler
MEANS = np.array([[-1.0, 0.5], [1.5, 0.0]])
COV = np.array([[0.5, 0.3], [0.3, 0.4]])


def density(x: jax.Array, alpha: Any, sigma: Any) -> jax.Array:
    """Log density of alpha x_0 + sigma z for x_0 of a mixture of two equal parts."""
    cov = alpha**2 * COV + sigma**2 * jnp.eye(2)
    logpdf = jax.scipy.stats.multivariate_normal.logpdf
    both = jnp.stack([logpdf(x, alpha * mean, cov) for mean in MEANS])
    return jax.scipy.special.logsumexp(both, axis=0) - np.log(2)


def mixture() -> Denoiser:
    """Return the score of the mixture at time sigma of EDM."""
    score = jax.grad(lambda x, t: density(x, 1.0, t).sum())
    return Denoiser(score, "score", edm())


def points(schedule: Schedule, num: int = 8) -> tuple[jax.Array, jax.Array]:
    """Return points at t_min and their log densities."""
    alpha, sigma = schedule.alpha(schedule.t_min), schedule.sigma(schedule.t_min)
    x = jnp.asarray(alpha * np.random.default_rng(0).normal(size=(num, 2)))
    return x, density(x, alpha, sigma)


@pytest.mark.usefixtures("x64")
def test_exact_log_density_is_that_of_the_noised_data() -> None:
    schedule = edm(0.1, 1e5)
    x, expected = points(schedule)
    found = log_likelihood(None, mixture(), schedule, x, trace="exact", num_steps=60)
    # What is left of the data at t_max moves the density by alpha / sigma, 1e-5, of a few.
    np.testing.assert_allclose(found.log_density, expected, atol=5e-5)


@pytest.mark.usefixtures("x64")
def test_a_gaussian_to_five_digits_and_the_encoding_is_its_noise() -> None:
    schedule = flow(t_min=0.2, t_max=0.99)
    denoiser = Denoiser(lambda x, t: 0 * x, "data", schedule)
    x = jnp.array([[0.1, -0.2], [0.0, 0.3]])
    found = log_likelihood(None, denoiser, schedule, x, trace="exact", num_steps=40)
    expected = jax.scipy.stats.norm.logpdf(x, scale=0.2).sum(1)
    np.testing.assert_allclose(found.log_density, expected, atol=1e-5)
    np.testing.assert_allclose(found.noise, x / 0.2 * 0.99, rtol=1e-6)


def z_hutchinson(key: jax.Array) -> np.ndarray:
    """Return the z-score of the mean of estimates, against the exact log density."""
    num = 2000
    schedule, gain = edm(0.1, 1e3), jnp.linalg.inv(COV)
    fn = lambda x, t: x @ jnp.linalg.inv(jnp.eye(2) + t**2 * gain)
    x = jnp.broadcast_to(jnp.array([0.3, -0.7]), (num, 2))
    found = log_likelihood(
        key, Denoiser(fn, "data", edm()), schedule, x, num_steps=20, num_probes=2
    ).log_density
    exact = jax.scipy.stats.multivariate_normal.logpdf(x[0], np.zeros(2), COV + 0.01 * np.eye(2))
    errors = np.asarray(found, np.float64) - float(exact)
    # With two probes of two signs the estimate has three values.
    assert np.unique(errors.round(2)).size == 3
    return errors.mean(keepdims=True) / errors.std() * num**0.5


def test_hutchinson_is_unbiased() -> None:
    assert np.abs(z_hutchinson(jax.random.key(2))).max() < 5.2


@pytest.mark.usefixtures("x64")
def test_encodings_are_those_of_the_flow_and_give_the_data_back() -> None:
    schedule = edm(0.05, 100.0)
    x = points(schedule)[0]
    flow_to_noise = log_likelihood(None, mixture(), schedule, x, trace="exact", num_steps=60).noise
    solver = dpm_solver_pp(2)
    noise, record = encode(mixture(), schedule, solver, x, 200)
    np.testing.assert_allclose(noise, flow_to_noise, atol=0.1)
    np.testing.assert_allclose(record.times[np.array([0, -1])], [0.05, 100])
    back, _ = solve(mixture(), schedule, solver, noise, 200)
    np.testing.assert_allclose(back, x, atol=5e-3)


def test_arcs_keep_their_length() -> None:
    rng = np.random.default_rng(1)
    first, second = jnp.asarray(rng.normal(size=(2, 3, 40)), jnp.float32)
    first = first / jnp.linalg.norm(first, axis=1, keepdims=True)
    second = second / jnp.linalg.norm(second, axis=1, keepdims=True)
    found = arc(first, second, jnp.linspace(0, 1, 5))
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=2), 1, rtol=1e-5)
    angles = jnp.sum(found[1:] * found[:-1], axis=2)
    np.testing.assert_allclose(angles, jnp.broadcast_to(angles[0], angles.shape), rtol=1e-5)
    np.testing.assert_allclose(found[-1], second, atol=1e-6)
    opposite = arc(first, -first, jnp.array([0.25]))
    np.testing.assert_allclose(opposite[0], first / 2, atol=1e-6)


def test_interpolation_keeps_its_ends_and_goes_along_the_arc() -> None:
    denoiser = Denoiser(lambda x, t: x * 0.25 / (0.25 + t**2), "data")
    ends = jnp.array([[[1.0, 0.0]], [[0.0, -1.0]]])
    walk = interpolate(denoiser, edm(0.1, 10.0), ddim(), *ends, 3, 100)
    np.testing.assert_allclose(walk[::2], ends, atol=0.05)
    np.testing.assert_allclose(walk[1, 0], [0.5**0.5, -(0.5**0.5)], atol=0.05)
