"""The bias of unadjusted runs: right where it is known, calibrated, and in every result."""

import dataclasses
import functools

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference import Result, resume, sample
from shoal.inference.arviz import import_arviz
from shoal.inference.bias import Bias, estimate, has_scores, rms, scores
from shoal.inference.chains import Chains, broadcast
from shoal.inference.samplers import as_sampler
from shoal.inference.summary import facts
from shoal.inference.target import Target
from shoal.sampling import langevin

# Laws and identities hold however the compiler rounds.
pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(5)
# By leaf, as positions are raveled.
PRECISION = {"a": np.array([1.0, 4.0], np.float32), "b": np.float32(2)}
LAMBDA = np.array([1.0, 4.0, 2.0])
STEP = 0.2
SHORT = dict(num_warmup=0, num_samples=1000, thin=2, progress=False)


def log_density(x):
    return -0.5 * sum(jnp.sum(p * (x[name] - 1) ** 2) for name, p in PRECISION.items())


def start(key):
    return {"a": jax.random.normal(key, (2,)), "b": jnp.float32(1)}


def autoregression(rho, num_draws, dim, seed=0, num_chains=4):
    """Return stationary N(0, 1) chains ``(draw, chain, dim)`` with autocorrelation rho ** lag."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_draws, num_chains, dim))
    for t in range(1, num_draws):
        x[t] = rho * x[t - 1] + np.sqrt(1 - rho**2) * x[t]
    return x


@pytest.fixture(scope="module")
def biased() -> Result:
    return sample(KEY, log_density, langevin.ula(STEP), init=start, **SHORT)


def test_the_bias_of_ula_on_a_gaussian(biased):
    bias = biased.bias
    true = STEP * LAMBDA / 2 / (1 - STEP * LAMBDA / 2)
    # 5.2 standard errors: false alarm 2e-7 each, more with errors of twenty batches.
    assert (np.abs(bias.variance - true) < 5.2 * bias.variance_error).all()
    assert (np.abs(bias.mean) < 5.2 * bias.mean_error).all()
    assert (bias.variance[1:] > 5.2 * bias.variance_error[1:]).all()
    draws = np.concatenate([biased.posterior["a"], biased.posterior["b"][..., None]], -1)
    shift = (draws.mean((0, 1)) - 1) * LAMBDA**0.5
    # On a normal law what is found is the error of these draws.
    np.testing.assert_allclose(bias.mean, shift, atol=0.3 * bias.mean_error.max())
    assert str(bias) in facts(biased)


def test_baoab_with_a_large_step_has_no_bias_on_a_gaussian():
    result = sample(KEY, log_density, langevin.baoab(0.7), init=start, **SHORT)
    assert (np.abs(result.bias.variance) < 5.2 * result.bias.variance_error).all()
    assert (result.bias.variance_error < 0.1).all()


def test_a_resumed_run_a_file_and_arviz_have_the_same_bias(biased, tmp_path):
    half = SHORT | {"num_samples": 500}
    folder = tmp_path / "run"
    sample(KEY, log_density, langevin.ula(STEP), init=start, checkpoint=folder, **half)
    resumed = resume(folder, log_density, num_samples=1000, progress=False)
    loaded = Result.load(biased.save(tmp_path / "run.nc"))
    for other in (resumed, loaded):
        for one, again in zip(biased.bias, other.bias, strict=True):
            np.testing.assert_array_equal(again, one)
    assert loaded.to_arviz().attrs["estimated_bias"] == str(biased.bias)
    assert import_arviz().from_netcdf(str(tmp_path / "run.nc")) is not None
    without = dataclasses.replace(biased, bias=None).save(tmp_path / "none.nc")
    assert Result.load(without).bias is None


STATED = {
    "ula": (langevin.ula(0.1), True),
    "align": (langevin.align(0.1), True),
    "langevin.mclmc": (langevin.mclmc(), True),
    "auto": (langevin.auto(), True),
    "blackjax.mclmc": ("mclmc", True),
    "mala": ("mala", False),
    "hmc": (
        functools.partial(
            blackjax.hmc, step_size=0.1, inverse_mass_matrix=jnp.ones(3), num_integration_steps=2
        ),
        False,
    ),
    "aboba": (langevin.aboba(0.1), False),
    "sgld": (langevin.sgld(0.1), False),
    "myula": (langevin.myula(lambda x, _: jax.tree.map(jnp.zeros_like, x)), False),
    "spherical": (langevin.spherical(0.1), False),
}


@pytest.mark.parametrize("name", STATED)
def test_scores_are_those_of_the_target_where_the_chain_is(name):
    given, expected = STATED[name]
    positions = jax.vmap(start)(jax.random.split(KEY, 2))
    sampler, _ = as_sampler(given, positions)
    chains = Chains(broadcast(sampler, 2), Target.from_log_density(log_density), jnp.arange(2))
    if not expected:
        assert not has_scores(sampler, jax.eval_shape(chains.init, positions, KEY))
        return
    states = chains.init(positions, KEY)
    assert has_scores(sampler, states)
    moved, _ = eqx.filter_jit(chains.step)(KEY, states)
    point = np.concatenate([moved.position["a"], moved.position["b"][:, None]], axis=1)
    assert np.abs(point[:, :2] - positions["a"]).min() > 0
    np.testing.assert_allclose(scores(moved), -LAMBDA * (point - 1), rtol=1e-4, atol=1e-5)


def test_an_adjusted_run_and_a_short_one_have_none():
    draws = autoregression(0, 49, 2)
    assert estimate(draws, -draws) is None
    assert estimate(np.concatenate([draws, draws]), -np.concatenate([draws, draws])) is not None
    quick = dict(num_warmup=0, num_samples=60, progress=False, on_failure="ignore")
    assert sample(KEY, log_density, langevin.mala(0.5), init=start, **quick).bias is None


@pytest.mark.parametrize(("rho", "num_chains"), [(0.0, 4), (0.5, 1)])
def test_standard_errors_are_calibrated(rho, num_chains):
    draws = autoregression(rho, 1000, 1000, num_chains=num_chains)
    bias = estimate(draws, -draws)
    for value, error in ((bias.variance, bias.variance_error), (bias.mean, bias.mean_error)):
        z = value / error
        # Student's law of 19 degrees of freedom has standard deviation 1.06.
        assert 0.92 < z.std() < 1.2
        assert abs(value.mean()) < 5.2 * value.std() / value.size**0.5
        assert rms(value, error) < 0.3 * value.std()


def test_correlation_adds_no_bias_and_hides_none():
    dim = 60
    rng = np.random.default_rng(2)
    # Narrow and wide directions at random angles; the wide half is 20 % too wide.
    map_ = np.linalg.qr(rng.normal(size=(dim, dim)))[0] * np.geomspace(1, 30, dim)
    z = autoregression(0.8, 1500, dim)
    z[..., dim // 2 :] *= 1.2**0.5
    bias = estimate(z @ map_.T, -z @ np.linalg.inv(map_))
    true = (map_[:, dim // 2 :] ** 2).sum(1) / (map_**2).sum(1) * 0.2
    assert abs(np.mean(bias.variance - true)) < 0.02
    assert (np.abs(bias.variance - true) < 5.2 * bias.variance_error).all()


# Draws of a law, its score, how much its variance is off and its mean in true deviations.
LAWS = {
    "too wide": (lambda rng, shape: 1.1 * rng.normal(size=shape), lambda x: -x, 0.21, 0.0),
    "shifted": (lambda rng, shape: rng.normal(size=shape) - 0.2, lambda x: -x, 0.0, -0.2),
    "Gumbel, shifted": (
        lambda rng, shape: rng.gumbel(size=shape) + 0.1, lambda x: np.exp(-x) - 1,
        0.0, 0.1 * np.sqrt(6) / np.pi,
    ),
    "logistic, too narrow": (
        lambda rng, shape: 0.95 * rng.logistic(size=shape), lambda x: -np.tanh(x / 2),
        0.95**2 - 1, 0.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
def test_known_errors_are_found(name):
    draw, score, variance, mean = LAWS[name]
    x = draw(np.random.default_rng(3), (4000, 4, 20))
    bias = estimate({"x": x.astype(np.float32)}, score(x).astype(np.float32))
    assert abs(bias.variance.mean() - variance) < 0.01
    assert abs(bias.mean.mean() - mean) < 0.01
    assert (np.abs(bias.variance - variance) < 5.2 * bias.variance_error + 0.01).all()
    assert (np.abs(bias.mean - mean) < 5.2 * bias.mean_error + 0.01).all()


def test_pieces_of_a_batch_change_nothing(monkeypatch):
    draws = autoregression(0.3, 503, 4)
    whole = estimate(draws, -draws)
    monkeypatch.setattr("shoal.inference.bias._PIECE", 7 * 16)
    for one, other in zip(whole, estimate(draws, -draws), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_sentence():
    bias = Bias(
        np.array([0.03, -0.05]), np.array([0.01, 0.01]), np.array([0.1]), np.array([0.2])
    )  # fmt: skip
    assert rms(bias.variance, bias.variance_error) == pytest.approx(0.04)
    assert str(bias) == (
        "estimated bias of variances: 4.0 % rms over 2 coordinates (noise removed), "
        "largest -5.0 % ± 1.0 %; of means: 0.000 sd rms, largest +0.100 ± 0.200 sd"
    )
