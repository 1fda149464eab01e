"""The front door: right draws, tuned warm-up, counts, reuse of compiled programs."""

import functools

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from shoal.inference import SamplingError, SamplingWarning, Target, _chunk, _work, sample
from shoal.inference.arviz import import_arviz
from shoal.sampling import langevin

pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(11)
PRECISION = np.array([1.0, 100.0, 0.01], np.float32)
# A compiled program belongs to its numbers of steps: tests with the same ones share it.
LONG = dict(num_samples=2000, progress=False)
SHORT = dict(num_warmup=60, num_samples=40, progress=False)


def log_density(x):
    return -0.5 * jnp.sum(PRECISION * (x - 1) ** 2)


def _z_scores(draws, mean, variance):
    """Error of mean and second moment over their Monte Carlo standard errors, by ArviZ."""
    arviz = import_arviz()
    mcse = lambda values: np.array([float(arviz.mcse(v)) for v in np.moveaxis(values, -1, 0)])
    draws = np.asarray(draws, np.float64)
    square = (draws - mean) ** 2
    first = (draws.mean((0, 1)) - mean) / mcse(draws)
    second = (square.mean((0, 1)) - variance) / mcse(square)
    return np.concatenate([first, second])


EXACT = {
    "mala": "mala",
    "nuts": "nuts",
    "mala, dense": "mala",
    "blackjax.hmc": functools.partial(
        blackjax.hmc, step_size=0.1, inverse_mass_matrix=jnp.ones(3), num_integration_steps=6
    ),
    "baoab": "baoab",  # exact in position on a Gaussian
}


@pytest.mark.parametrize("name", EXACT)
def test_draws_of_a_badly_scaled_gaussian_are_right(name):
    result = sample(
        KEY,
        log_density,
        EXACT[name],
        init=lambda key: jax.random.normal(key, (3,)),
        tune_metric="dense" if "dense" in name else "diagonal",
        **LONG,
    )
    z = _z_scores(result.posterior["position"], 1.0, 1 / PRECISION)
    # Six statistics with an estimated standard error; 5.2 leaves a wide margin over 2e-7 each.
    assert np.abs(z).max() < 5.2
    assert result.status["ok"] == 8000


def test_warm_up_finds_scales_and_acceptance():
    result = sample(KEY, log_density, "mala", init=jnp.zeros(3), num_warmup=2000, **LONG)
    factor = result.parameters["metric"].factor
    assert factor.shape == (4, 3)
    # Standard deviations to within 25 %: estimated from a thousand correlated draws.
    np.testing.assert_allclose(factor.mean(0) * np.sqrt(PRECISION), 1, atol=0.25)
    assert abs(result.sample_stats["acceptance_rate"].mean() - 0.574) < 0.06
    assert (result.sample_stats["step_size"] == result.parameters["step_size"][:, None]).all()


def test_target_acceptance_can_be_chosen():
    result = sample(KEY, log_density, "mala", init=jnp.zeros(3), target_acceptance=0.8, **LONG)
    assert abs(result.sample_stats["acceptance_rate"].mean() - 0.8) < 0.06


def test_without_warm_up_the_parameters_are_used_as_they_are():
    result = sample(
        KEY, log_density, langevin.mala(0.005), init=jnp.zeros(3), num_warmup=0, num_samples=50,
        progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(result.parameters["step_size"], 0.005)
    assert result.num_gradients_warmup == 4  # one for each start
    assert result.num_gradients == 200


def test_mclmc_by_name_is_tuned_and_counted():
    result = sample(KEY, log_density, "mclmc", init=jnp.zeros(3), num_samples=4000, progress=False)
    z = _z_scores(result.posterior["position"], 1.0, 1 / PRECISION)
    # MCLMC is not exact: a bias of a few standard errors is its nature, a wrong law is not.
    assert np.abs(z).max() < 15
    assert result.num_gradients == 2 * 4 * 4000
    assert 0.9 * 8000 < result.num_gradients_warmup < 1.1 * 8000


def test_nuts_gradients_are_its_leapfrog_steps():
    result = sample(KEY, log_density, "nuts", init=jnp.zeros(3), **LONG)
    assert result.num_gradients == result.sample_stats["n_steps"].sum()
    assert result.num_gradients_warmup > 4 * 1000


@pytest.mark.usual_compiler
@pytest.mark.parametrize("sampler", ["mala", "nuts"])
def test_the_same_key_gives_the_same_bits_and_another_key_others(sampler):
    arguments = dict(init=jnp.zeros(3), **LONG)
    first = sample(KEY, log_density, sampler, **arguments).posterior["position"]
    again = sample(KEY, log_density, sampler, **arguments).posterior["position"]
    other = sample(jax.random.key(12), log_density, sampler, **arguments).posterior["position"]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.usual_compiler
def test_draws_depend_neither_on_chunks_nor_beyond_rounding_on_other_chains(monkeypatch):
    start = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
    four = sample(KEY, log_density, "mala", init=start[:4], **SHORT).posterior["position"]
    six = sample(KEY, log_density, "mala", init=start, num_chains=6, **SHORT)
    # Vector instructions round differently at the end of an array; nothing else may differ.
    np.testing.assert_allclose(six.posterior["position"][:4], four, rtol=0.02, atol=0.02)
    monkeypatch.setattr(_work, "CHUNK_SECONDS", 0.0)
    again = sample(KEY, log_density, "mala", init=start[:4], **SHORT).posterior["position"]
    np.testing.assert_array_equal(again, four)


@pytest.mark.usual_compiler
def test_thinning_keeps_later_draws_of_the_same_chain():
    arguments = SHORT | dict(init=jnp.zeros(3))
    every = sample(KEY, log_density, "mala", **arguments)
    third = sample(KEY, log_density, "mala", **arguments | dict(num_samples=13, thin=3))
    np.testing.assert_array_equal(third.posterior["position"], every.posterior["position"][:, 2::3])
    assert every.num_gradients == 4 * 40
    assert third.num_gradients == 4 * 39


def regression(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0, 2).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    mean = numpyro.deterministic("mean", x @ slope)
    numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def _data(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 2)).astype(np.float32)
    return x, (x @ np.array([1.0, -0.5]) + 0.3 * rng.normal(size=30)).astype(np.float32)


def test_a_numpyro_model_agrees_with_numpyros_own_nuts():
    x, y = _data(0)
    ours = sample(KEY, regression, "mala", model_args=(x, y), num_samples=4000, progress=False)
    assert {name: v.shape for name, v in ours.posterior.items()} == {
        "slope": (4, 4000, 2),
        "sigma": (4, 4000),
        "mean": (4, 4000, 30),
    }
    mean = np.einsum("nd,csd->csn", x, ours.posterior["slope"])
    np.testing.assert_allclose(ours.posterior["mean"], mean, rtol=1e-3, atol=1e-4)
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(regression), num_warmup=1000, num_samples=4000, num_chains=2,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(1), x, y)
    theirs = mcmc.get_samples(group_by_chain=True)
    arviz = import_arviz()
    for site in ("slope", "sigma"):
        for power in (1, 2):
            a = np.asarray(ours.posterior[site], np.float64).reshape(4, 4000, -1) ** power
            b = np.asarray(theirs[site], np.float64).reshape(2, 4000, -1) ** power
            for i in range(a.shape[-1]):
                error = np.hypot(float(arviz.mcse(a[..., i])), float(arviz.mcse(b[..., i])))
                # Six statistics at |z| < 5.2.
                assert abs(a[..., i].mean() - b[..., i].mean()) < 5.2 * error


def test_new_data_and_new_step_sizes_compile_nothing():
    arguments = dict(num_warmup=30, num_samples=20, progress=False)
    sample(KEY, regression, langevin.mala(0.1), model_args=_data(0), **arguments)
    programs = _chunk.compiled_chunk._cache_size()
    first = sample(KEY, regression, langevin.mala(0.1), model_args=_data(1), **arguments)
    second = sample(KEY, regression, langevin.mala(0.2), model_args=_data(1), **arguments)
    assert _chunk.compiled_chunk._cache_size() == programs
    assert not np.array_equal(first.posterior["sigma"], second.posterior["sigma"])


def test_starts_may_be_one_point_one_for_each_chain_or_a_function():
    def shapes(init, density=log_density, **options):
        draws = sample(KEY, density, "mala", init=init, **SHORT | options).posterior
        return {name: values.shape for name, values in draws.items()}

    assert shapes(jnp.zeros(3)) == {"position": (4, 40, 3)}
    assert shapes(jnp.zeros((4, 3))) == {"position": (4, 40, 3)}
    assert shapes(lambda key: jax.random.normal(key, (3,))) == {"position": (4, 40, 3)}
    tree = {"a": jnp.zeros((4, 2)), "b": jnp.zeros(4)}
    density = lambda p: -0.5 * (jnp.sum(p["a"] ** 2) + p["b"] ** 2)
    assert shapes(tree, density) == {"a": (4, 40, 2), "b": (4, 40)}


def test_a_point_with_as_many_coordinates_as_chains_is_one_point():
    def shape(init):
        density = lambda x: -0.5 * jnp.sum(x**2)  # takes any shape
        arguments = SHORT | dict(num_warmup=0)
        return (
            sample(KEY, density, langevin.ula(0.1), init=init, **arguments)
            .posterior["position"]
            .shape
        )

    assert shape(jnp.zeros(4)) == (4, 40, 4)
    assert shape(jnp.zeros((4, 2))) == (4, 40, 2)


def test_numpyro_starts_are_given_on_the_constrained_space():
    x, y = _data(0)
    arguments = dict(model_args=(x, y), num_warmup=0, num_samples=1, progress=False)
    start = {"sigma": np.float32(0.25)}
    tiny = langevin.ula(1e-12)
    result = sample(KEY, regression, tiny, init=start, **arguments)
    np.testing.assert_allclose(result.posterior["sigma"], 0.25, rtol=1e-3)
    each = {
        "sigma": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        "slope": np.zeros((4, 2), np.float32),
    }
    result = sample(KEY, regression, tiny, init=each, **arguments)
    np.testing.assert_allclose(result.posterior["sigma"][:, 0], each["sigma"], rtol=1e-3)
    np.testing.assert_allclose(result.posterior["slope"], 0, atol=1e-4)


def test_float64_runs_stay_float64():
    with jax.enable_x64(True):
        key = jax.random.key(0)
        density = lambda x: -0.5 * jnp.sum(x**2)
        result = sample(
            key, density, "mala", init=jnp.zeros(2, jnp.float64), num_warmup=60, num_samples=20,
            tune_metric="dense", progress=False,
        )  # fmt: skip
        assert result.posterior["position"].dtype == np.float64
        assert result.sample_stats["lp"].dtype == np.float64


def test_a_user_algorithm_without_status_or_density_runs():
    class Walk(eqx.Module):
        position: jax.Array

    class Algorithm:
        def __init__(self, log_density):
            self.log_density = log_density

        def init(self, position, key=None):
            return Walk(position)

        def step(self, key, state):
            return Walk(state.position + 0.1 * jax.random.normal(key, state.position.shape)), ()

    result = sample(
        KEY, log_density, Algorithm.__call__ if False else (lambda d: Algorithm(d)),
        init=jnp.zeros(3), num_warmup=3, num_samples=5, progress=False,
    )  # fmt: skip
    assert result.posterior["position"].shape == (4, 5, 3)
    assert result.num_gradients == 0
    assert np.isnan(result.sample_stats["lp"]).all()


def half_broken(x):
    return jnp.where(x[0] > 1.0, jnp.nan, -0.5 * jnp.sum(x**2))


def test_steps_into_nan_are_counted_and_reported():
    arguments = dict(init=jnp.zeros(2), num_warmup=0, num_samples=500, progress=False)
    with pytest.warns(SamplingWarning, match="log density was NaN"):
        result = sample(KEY, half_broken, langevin.mala(0.5), **arguments)
    count = result.status["nonfinite_log_density"]
    assert count == (result.sample_stats["status"] == 1).sum() > 10
    assert (result.posterior["position"][..., 0] <= 1).all()
    assert f"in {count} of 2000 steps the log density was NaN" in result.report()
    with pytest.raises(SamplingError, match="NaN") as error:
        sample(KEY, half_broken, langevin.mala(0.5), on_failure="raise", **arguments)
    assert error.value.result.posterior["position"].shape == (4, 500, 2)
    sample(KEY, half_broken, langevin.mala(0.5), on_failure="ignore", **arguments)


def test_blackjax_kernels_that_accept_nan_are_guarded():
    class Unguarded:
        """Unadjusted steps as BlackJAX users write them: nothing is ever checked."""

        def __init__(self, log_density):
            self.log_density = log_density

        def init(self, position, key=None):
            return blackjax.mcmc.mala.init(position, self.log_density)

        def step(self, key, state):
            move = jnp.sqrt(0.5) * jax.random.normal(key, state.position.shape)
            return self.init(state.position + 0.25 * state.logdensity_grad + move), ()

    with pytest.warns(SamplingWarning, match="NaN"):
        result = sample(
            KEY, half_broken, lambda density: Unguarded(density), init=jnp.zeros(2), num_warmup=0,
            num_samples=300, progress=False,
        )  # fmt: skip
    assert np.isfinite(result.posterior["position"]).all()
    assert result.status["nonfinite_log_density"] > 10


def test_stuck_chains_are_named():
    spike = lambda x: -1e6 * jnp.sum(x**2)
    with pytest.warns(SamplingWarning, match=r"chains \[0, 1, 2, 3\] never moved"):
        sample(
            KEY, spike, langevin.mala(10.0), init=jnp.zeros(2), num_warmup=0, num_samples=20,
            progress=False,
        )  # fmt: skip


def test_a_target_can_be_made_once_and_used_again():
    target = Target.from_numpyro(regression, _data(0))
    result = sample(KEY, target, "mala", num_warmup=20, num_samples=5, progress=False)
    assert set(result.posterior) == {"slope", "sigma", "mean"}


def half(x):
    """Finite where the first coordinate is positive."""
    return jnp.where(x[0] > 0, -0.5 * jnp.sum(x**2), -jnp.inf)


STARTS = jnp.array([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0]])


@pytest.mark.parametrize("bad_starts", ["drop", "resample"])
def test_bad_starts_are_dropped_or_replaced_and_told_of(bad_starts):
    told = {"drop": r"chains \[1\].*were dropped", "resample": r"chains \[1\].*copies of those of"}
    with pytest.warns(SamplingWarning, match=told[bad_starts]):
        result = sample(
            KEY, half, "ula", init=STARTS, num_chains=3, num_warmup=0, num_samples=1,
            bad_starts=bad_starts, progress=False,
        )  # fmt: skip
    draws = result.posterior["position"]
    assert len(draws) == {"drop": 2, "resample": 3}[bad_starts]
    assert (draws[..., 0] > 0).all()


def test_bad_starts_raise_by_default_or_when_there_is_no_other():
    with pytest.raises(ValueError, match="particle 1 cannot start"):
        sample(KEY, half, "ula", init=STARTS, num_chains=3, progress=False)
    with pytest.raises(ValueError, match="particle 0 cannot start"):
        sample(KEY, half, "ula", init=-STARTS[:1], num_chains=1, bad_starts="drop", progress=False)
