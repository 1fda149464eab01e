"""Targets with minibatches: unbiased, with exact Jacobians, and sampled with the known bias.

The statistical test compares two numbers with a threshold of 5.2 standard errors (p 2e-7 each).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from shoal.inference import Target, _recipe, minibatch, sample
from shoal.sampling import langevin

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
Y = np.array([0.3, -1.0, 2.2, 0.7, 1.9])
T = np.array([0.0, 1.0, 2.0, 0.5, -1.0])


def regression(t, y, subsample_size=None):
    slope = numpyro.sample("slope", dist.Normal(0, 2))
    scale = numpyro.sample("scale", dist.HalfNormal(1.5))
    numpyro.deterministic("twice", 2 * slope)
    with numpyro.plate("rows", len(Y), subsample_size=subsample_size) as rows:
        numpyro.sample("y", dist.StudentT(4.0, slope * t[rows], scale), obs=y[rows])


def taking_rows(t, y):
    """The same, by `numpyro.subsample`."""
    slope = numpyro.sample("slope", dist.Normal(0, 2))
    scale = numpyro.sample("scale", dist.HalfNormal(1.5))
    with numpyro.plate("rows", len(Y), subsample_size=2):
        t, y = numpyro.subsample(t, event_dim=0), numpyro.subsample(y, event_dim=0)
        numpyro.sample("y", dist.StudentT(4.0, slope * t, scale), obs=y)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["indexed", "subsampled"])
def test_the_mean_over_all_batches_is_the_model_without_subsampling(name):
    """To 1e-12, values and scores; the scale's Jacobian counts once in each."""
    model, sizes = (regression, (2,)) if name == "indexed" else (taking_rows, ())
    target = minibatch.from_numpyro(model, (T, Y, *sizes))
    position = {"slope": jnp.array(0.4), "scale": jnp.array(-0.3)}
    batches = target.log_density.minibatches
    rows = jnp.array(list(itertools.combinations(range(5), 2)))
    one = jax.value_and_grad(lambda x, rows: batches.estimate(x, {"rows": rows}))
    every = jax.jit(jax.vmap(one, (None, 0)))(position, rows)
    whole = Target.from_numpyro(regression, (T, Y))
    exact = jax.value_and_grad(whole.log_density)(position)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    jax.tree.map(lambda leaf, truth: close(leaf.mean(0), truth), every, exact)
    close(target.log_density(position), exact[0])
    assert np.std(every[0]) > 0.1


def test_what_a_subsampling_model_keeps_of_all_its_data():
    target = minibatch.from_numpyro(regression, (T, Y, 2))
    assert (target.names, target.plates) == (("slope", "scale"), (("rows", 5, 2),))
    draws = {"slope": jnp.ones(3), "scale": jnp.ones(3)}
    assert target.log_likelihood(draws, batch_ndims=1)["y"].shape == (3, 5)
    np.testing.assert_allclose(target.observed_data()["y"], Y, rtol=1e-6)
    position = target.unconstrain({"slope": 0.5, "scale": 2.0})
    assert target.constrain(position)["twice"] == 1.0


def normal_mean(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    with numpyro.plate("rows", len(y), subsample_size=10) as rows:
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])


def test_sgld_on_a_conjugate_model_has_the_posterior_with_the_known_bias():
    """The noise of the score is that of a mean of 10 of 100 rows, whatever the point."""
    y = np.random.default_rng(0).normal(1.0, size=100)
    precision, noise = 100 + 0.25, 100**2 / 10 * y.var(ddof=1) * (1 - 10 / 100)
    h = 0.3 / precision
    variance = (1 + h * noise / 2) / (precision * (1 - h * precision / 2))
    target = minibatch.from_numpyro(normal_mean, (y,))
    chains, steps = 16, 2000
    result = sample(
        jax.random.key(0), target, langevin.sgld(h), num_chains=chains, num_warmup=100,
        num_samples=steps, progress=False,
    )  # fmt: skip
    draws = np.asarray(result.posterior["mean"], np.float64)
    # Autocorrelations r^k of the draws, r^2k of their squares.
    r = 1 - h * precision
    error = np.sqrt(variance / draws.size * (1 + r) / (1 - r))
    spread = variance * np.sqrt(2 / draws.size * (1 + r**2) / (1 - r**2))
    centre = y.sum() / precision
    print(f"variance {draws.var():.5f}, known {variance:.5f} +- {spread:.5f}, 1/λ {1 / precision}")
    assert abs(draws.mean() - centre) < 5.2 * error
    assert abs(np.mean((draws - centre) ** 2) - variance) < 5.2 * spread
    # Which rows a chain takes is its own affair: nothing is shared, nothing is counted wrongly.
    assert np.unique(draws[:, -1]).size == chains
    assert result.num_gradients is None


def test_differences_of_scores_have_no_noise_here():
    """The estimates of `normal_mean` that are relative to a point are exact."""
    y = np.random.default_rng(0).normal(1.0, size=100)
    target = minibatch.from_numpyro(normal_mean, (y,))
    position = {"mean": jnp.array(0.3)}
    exact = y.sum() - 100.25 * 0.3
    for better in (target.control_variates({"mean": jnp.array(1.0)}), target.svrg(7)):
        density = better.log_density
        memory = density.init({"mean": jnp.array(-0.5)})
        batch = {"rows": jnp.arange(10)}
        (_, gradient), _ = density.estimate(position, batch, memory)
        np.testing.assert_allclose(gradient["mean"], exact, rtol=1e-4)


def test_arrays_make_a_target_that_finds_its_start():
    target = minibatch.from_arrays(
        lambda x: -0.5 * x["m"] ** 2,
        lambda x, y: -0.5 * (y - x["m"]) ** 2,
        np.float32(Y), batch_size=2, init=lambda key: {"m": jax.random.normal(key)},
    )  # fmt: skip
    assert (target.names, target.dim) == (("m",), 1)
    start = target.init(jax.random.key(0))
    value = -0.5 * start["m"] ** 2 - 0.5 * jnp.sum((Y - start["m"]) ** 2)
    np.testing.assert_allclose(target.log_density(start), value, rtol=1e-5)
    gradient = target.control_variates(start).log_density.estimator.anchor.gradient
    np.testing.assert_allclose(gradient["m"], Y.sum() - 6 * start["m"], rtol=1e-5)


@pytest.mark.parametrize("sampler", ["sgld", "sghmc", "sgnht"])
def test_a_saved_run_knows_its_sampler(sampler):
    mine = getattr(langevin, sampler)(0.02, temperature=0.5)
    stored = _recipe._sampler_to_json(mine, arrays := [])
    assert stored["factory"] == sampler
    found = _recipe._sampler_from_json(stored, arrays)
    assert jax.tree.all(jax.tree.map(np.allclose, found.parameters, mine.parameters))
    schedule = getattr(langevin, sampler)(lambda step: 0.02)
    assert _recipe._sampler_to_json(schedule, []) is None


def local_latent(y):
    with numpyro.plate("rows", 5, subsample_size=2) as rows:
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(z, 1), obs=y[rows])


def not_indexed(y):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    with numpyro.plate("rows", 5, subsample_size=1):
        numpyro.sample("y", dist.Normal(mean, 1), obs=y)


@pytest.mark.parametrize(
    ("model", "args", "says"),
    [
        (regression, (T, Y), "regression has no plate with a subsample_size"),
        (local_latent, (Y,), "latent site 'z' lies in plate 'rows'"),
        (not_indexed, (Y,), r"'y' holds values of shape \(5,\) in plate 'rows', which takes 1"),
        (normal_mean, (), "do not fit normal_mean"),
    ],
)
def test_a_model_that_cannot_be_estimated_is_refused(model, args, says):
    with pytest.raises((TypeError, ValueError), match=says):
        minibatch.from_numpyro(model, args)
