"""Models with plates, masks, scans and handlers, and what a model predicts."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.infer import reparam
from numpyro.infer.util import log_density, potential_energy

from shoal.inference import Target

pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(5)


def regression(x, y, group=None):
    """Cover what sites meet: plates, dynamic supports, deterministic sites, a factor."""
    top = numpyro.sample("top", dist.HalfNormal(2.0))
    with numpyro.plate("columns", x.shape[1]):
        slope = numpyro.sample("slope", dist.Uniform(0.0, top))
    mean = numpyro.deterministic("mean", x @ slope)
    numpyro.factor("penalty", -jnp.sum(slope))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(mean, 0.5), obs=y)


def _data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(7, 2)).astype(np.float32)
    return x, (x.sum(1) + rng.normal(size=7)).astype(np.float32)


def _agrees_with_numpyro(target, model, args, rtol=1e-5):
    position = target.init(KEY)
    theirs = -potential_energy(model, tuple(map(jnp.asarray, args)), {}, position)
    np.testing.assert_allclose(target.log_density(position), theirs, rtol=rtol)
    back = target.unconstrain(target.constrain(position))
    for name in target.names:
        np.testing.assert_allclose(back[name], position[name], rtol=1e-3, atol=1e-4)
    return position


def test_plates_and_supports_that_depend_on_other_sites():
    target = Target.from_numpyro(regression, _data())
    assert (target.names, target.deterministic) == (("top", "slope"), ("mean",))
    assert (target.observed, target.dim) == (("y",), 3)
    position = _agrees_with_numpyro(target, regression, _data())
    values = target.constrain(position)
    assert set(values) == {"top", "slope", "mean"}
    np.testing.assert_allclose(values["mean"], _data()[0] @ values["slope"], rtol=1e-5)
    assert (values["slope"] < values["top"]).all()


def test_starts_are_uniform_finite_and_map_over_keys():
    target = Target.from_numpyro(regression, _data())
    starts = jax.vmap(target.init)(jax.random.split(KEY, 200))
    assert starts["slope"].shape == (200, 2)
    assert jnp.abs(starts["slope"]).max() < 2 < 2.1 * jnp.abs(starts["slope"]).max()
    assert jnp.isfinite(jax.vmap(target.log_density)(starts)).all()


def test_starts_avoid_where_the_density_is_not_finite():
    def model():
        x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.factor("half", jnp.where(x > 0, 0.0, -jnp.inf))

    starts = jax.vmap(Target.from_numpyro(model).init)(jax.random.split(KEY, 50))
    assert (starts["x"] > 0).all()


@pytest.mark.parametrize("handler", [handlers.scale(scale=0.3), handlers.mask(mask=False)])
def test_scale_and_mask_act_on_the_density_and_not_on_the_jacobian(handler):
    def model():
        with handler:
            numpyro.sample("x", dist.Beta(2.0, 5.0))

    target = Target.from_numpyro(model)
    z = jnp.float32(0.7)
    x = target.constrain({"x": z})
    log_det = jnp.log(jax.grad(lambda z: target.constrain({"x": z})["x"])(z))
    exact = log_density(model, (), {}, x)[0] + log_det
    np.testing.assert_allclose(target.log_density({"x": z}), exact, rtol=1e-5)


def chain(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))

    def step(x, y):
        x = numpyro.sample("x", dist.Normal(x, scale))
        numpyro.deterministic("double", 2 * x)
        with numpyro.plate("three", 3):
            width = numpyro.sample("width", dist.Uniform(0.0, 1 + x**2))
        y = numpyro.sample("y", dist.Normal(x, width.sum()), obs=y)
        return x, y

    scan(step, 0.0, y)


def test_scan():
    y = np.arange(5.0, dtype=np.float32)
    target = Target.from_numpyro(chain, (y,))
    assert {site.name: site.shape for site in target.sites} == {
        "scale": (), "x": (5,), "width": (5, 3),
    }  # fmt: skip
    position = _agrees_with_numpyro(target, chain, (y,))
    values = target.constrain(position)
    np.testing.assert_allclose(values["double"], 2 * values["x"])
    bound = 1 + values["x"][:, None] ** 2
    expected = bound / (1 + jnp.exp(-position["width"]))
    np.testing.assert_allclose(values["width"], expected, rtol=1e-5)
    np.testing.assert_array_equal(target.observed_data()["y"], y)


def test_reparametrised_sites():
    def model():
        mean = numpyro.sample("mean", dist.Normal(0, 3))
        numpyro.sample("a", dist.Normal(mean, 2.0))
        base = dist.TransformedDistribution(
            dist.Normal(0, 1), dist.transforms.AffineTransform(mean, 3.0)
        )
        numpyro.sample("b", base)

    config = {"a": reparam.LocScaleReparam(0), "b": reparam.TransformReparam()}
    changed = handlers.reparam(model, config=config)
    target = Target.from_numpyro(changed)
    assert target.names == ("mean", "a_decentered", "b_base")
    position = _agrees_with_numpyro(target, changed, ())
    values = target.constrain(position)
    np.testing.assert_allclose(values["a"], values["mean"] + 2 * values["a_decentered"], rtol=1e-5)
    np.testing.assert_allclose(values["b"], values["mean"] + 3 * values["b_base"], rtol=1e-5)


def test_scopes_params_and_keys_inside_the_model():
    def model():
        shift = numpyro.param("shift", lambda key: 5 + 0 * jax.random.normal(key))
        numpyro.deterministic("noise", jax.random.normal(numpyro.prng_key()))
        with handlers.scope(prefix="inner"):
            numpyro.sample("x", dist.HalfNormal(1.0))
        numpyro.deterministic("shifted", shift + 1)

    target = Target.from_numpyro(model)
    assert target.names == ("inner/x",)
    position = {"inner/x": jnp.float32(0.4)}
    exact = dist.HalfNormal(1.0).log_prob(jnp.exp(0.4)) + 0.4
    np.testing.assert_allclose(target.log_density(position), exact, rtol=1e-5)
    values = target.constrain(position)
    assert values["shifted"] == 6
    np.testing.assert_allclose(target.unconstrain(values)["inner/x"], 0.4, rtol=1e-5)


def test_masked_observations():
    def model(y, seen):
        mean = numpyro.sample("mean", dist.Normal(0, 1))
        with numpyro.plate("rows", len(y)), handlers.mask(mask=seen):
            numpyro.sample("y", dist.Poisson(jnp.exp(mean)), obs=y)

    seen = np.array([True, False, True])
    # What is masked out may be anything: no observation there.
    target = Target.from_numpyro(model, (np.array([2, -1, 3]), seen))
    position = {"mean": jnp.float32(0.3)}
    exact = dist.Normal(0, 1).log_prob(0.3)
    exact += dist.Poisson(jnp.exp(0.3)).log_prob(jnp.array([2, 3])).sum()
    np.testing.assert_allclose(target.log_density(position), exact, rtol=1e-5)


def test_log_likelihood_and_observed_data():
    x, y = _data()
    target = Target.from_numpyro(regression, (x,), {"y": y})
    posterior = {
        "top": np.full((3, 4), 2.0, np.float32),
        "slope": np.random.default_rng(0).uniform(0, 2, (3, 4, 2)).astype(np.float32),
        "mean": np.full((3, 4, 7), np.nan, np.float32),  # deterministic: computed anew
    }
    found = target.log_likelihood(posterior)
    assert set(found) == {"y"}
    exact = dist.Normal(posterior["slope"] @ x.T, 0.5).log_prob(y)
    np.testing.assert_allclose(found["y"], exact, rtol=1e-4, atol=1e-5)
    one = {name: value[0, 0] for name, value in posterior.items()}
    np.testing.assert_allclose(target.log_likelihood(one, 0)["y"], exact[0, 0], rtol=1e-4)
    np.testing.assert_array_equal(target.observed_data()["y"], y)
    with pytest.raises(ValueError, match="lacks the latent site 'slope'"):
        target.log_likelihood({"top": posterior["top"]})
    with pytest.raises(ValueError, match=r"posterior\['top'\] has shape \(3,\); it must be"):
        target.log_likelihood({"top": posterior["top"][:, 0], "slope": posterior["slope"]})


def _predict(key):
    """Draws ``(2, 2000, 7)`` at one slope, and the noise in them in standard deviations."""
    x, y = _data()
    target = Target.from_numpyro(regression, (x, y))
    slope = np.tile(np.array([0.5, 1.5], np.float32), (2, 2000, 1))
    posterior = {"top": np.full((2, 2000), 2.0, np.float32), "slope": slope}
    drawn = np.asarray(target.predictive(key, posterior)["y"], np.float64)
    return drawn, (drawn - x @ slope[0, 0]) / 0.5


def z_predictive(key):
    """Means of the seven observations, their common variance, and products of neighbours."""
    noise = _predict(key)[1].reshape(4000, 7)
    products = [noise[1:] * noise[:-1], noise[:, 1:] * noise[:, :-1], (noise**2 - 1) / 2**0.5]
    pooled = [part.mean() * part.size**0.5 for part in products]
    return np.array([*noise.mean(0) * 4000**0.5, *pooled])


def test_predictive_draws_observed_sites_anew():
    drawn, _ = _predict(KEY)
    assert drawn.shape == (2, 2000, 7)
    # Ten statistics: a false alarm in 2e-6 of all keys.
    assert np.abs(z_predictive(KEY)).max() < 5.2
    np.testing.assert_array_equal(drawn, _predict(KEY)[0])


def z_prior(key):
    """Means of all sites: the slopes are uniform below top, which is half normal."""
    x, y = _data()
    drawn = Target.from_numpyro(regression, (x, y)).prior_predictive(key, 4000)
    top = 2 * np.sqrt(2 / np.pi)
    wanted = {"top": top, "slope": top / 2, "mean": x.sum(1) * top / 2, "y": x.sum(1) * top / 2}
    z = []
    for name, value in drawn.items():
        value = np.asarray(value, np.float64)
        error = np.maximum(value.std(0), 1e-9) / 4000**0.5
        z += np.ravel((value.mean(0) - wanted[name]) / error).tolist()
    return np.array(z)


def test_prior_predictive():
    target = Target.from_numpyro(regression, _data())
    drawn = target.prior_predictive(KEY, 4000)
    shapes = {name: value.shape for name, value in drawn.items()}
    assert shapes == {"top": (4000,), "slope": (4000, 2), "mean": (4000, 7), "y": (4000, 7)}
    # 17 statistics: a false alarm in 4e-6 of all keys.
    assert np.abs(z_prior(KEY)).max() < 5.2
    improper = Target.from_numpyro(_improper)
    assert improper.prior_predictive(KEY, 10) == {}


def _improper():
    numpyro.sample("x", dist.ImproperUniform(constraints.positive, (), ()))
