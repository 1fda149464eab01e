"""Bad input: each row raises early, naming argument and value, or is counted. None is silent.

Each row is a call that peers answer with NaN draws, a chain that never moves or an empty result.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from shoal.inference import Target, sample
from shoal.sampling import langevin

KEY = jax.random.key(0)
QUIET = dict(num_warmup=2, num_samples=3, progress=False)


def normal(x):
    return -0.5 * jnp.sum(x**2)


def model(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(mu, scale), obs=y)


def discrete():
    numpyro.sample("k", dist.Poisson(3.0))


def nothing_latent(y):
    numpyro.sample("y", dist.Normal(0, 1), obs=y)


def subsampled(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("rows", 10, subsample_size=5):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y[:5])


Y = np.linspace(-1, 1, 10).astype(np.float32)
BROKEN_Y = np.where(np.arange(10) == 4, np.nan, Y).astype(np.float32)

ANY = (TypeError, ValueError)


def row(error, match, model=normal, *, key=KEY, sampler="mala", **options):
    """Describe a call of `sample` that must raise."""
    if model is normal and "init" not in options:
        options["init"] = jnp.zeros(2)
    return error, match, (key, model, sampler), {**QUIET, **options}


ROWS = {
    # keys and counts
    "old-style key": row(TypeError, "typed key", key=jax.random.PRNGKey(0)),
    "integer as key": row(TypeError, "typed key", key=0),
    "many keys": row(TypeError, "shape", key=jax.random.split(KEY, 4)),
    "no chains": row(ValueError, "num_chains.*0", num_chains=0),
    "no draws": row(ValueError, "num_samples.*0", num_samples=0),
    "negative draws": row(ValueError, "num_samples.*-5", num_samples=-5),
    "half a draw": row(TypeError, "num_samples.*2.5", num_samples=2.5),
    "true draws": row(TypeError, "num_samples.*True", num_samples=True),
    "negative warm-up": row(ValueError, "num_warmup.*-1", num_warmup=-1),
    "thin by zero": row(ValueError, "thin.*0", thin=0),
    "acceptance beyond one": row(ValueError, "target_acceptance.*1.5", target_acceptance=1.5),
    "unknown metric": row(ValueError, "tune_metric.*'full'", tune_metric="full"),
    "unknown failure policy": row(ValueError, "on_failure.*'shrug'", on_failure="shrug"),
    # samplers
    "unknown sampler": row(ValueError, "'hmcmc'", sampler="hmcmc"),
    "no sampler": row(TypeError, "sampler.*3", sampler=3),
    "positional partial": row(
        TypeError, "positional", sampler=functools.partial(langevin.mala, 0.1)
    ),
    "metric of the wrong size": row(
        ValueError, "2 coordinates", sampler=langevin.mala(0.1, np.ones(3))
    ),
    # starts of log densities
    "integer start": row(TypeError, "init.*float.*int32", init=jnp.zeros(2, int)),
    "complex start": row(TypeError, "init.*complex64", init=jnp.zeros(2, complex)),
    "empty start": row(ValueError, "init", init={}),
    "NaN start": row(ValueError, "nan", init=jnp.array([0.0, jnp.nan])),
    "infinite start": row(ValueError, "inf", init=jnp.array([0.0, jnp.inf])),
    "start of the wrong shape": row(
        ValueError, r"\(3, 2\)", lambda x: -x @ jnp.eye(2) @ x, init=jnp.zeros((3, 2))
    ),
    "one chain starts badly": row(
        ValueError,
        "2 .*-3",
        lambda x: jnp.sum(jnp.log(x)),
        init=jnp.array([[1.0], [2.0], [-3.0], [1.0]]),
    ),
    # log densities
    "density without init": row(ANY, "init|model", lambda x: -0.5 * x @ x),
    "density NaN": row(ValueError, "nan", lambda x: jnp.nan * x @ x, init=jnp.zeros(2)),
    "density -inf at the start": row(
        ValueError, "-inf", lambda x: jnp.where(x[0] > 5, 0.0, -jnp.inf), init=jnp.zeros(2)
    ),
    "density +inf at the start": row(
        ValueError, "inf", lambda x: 1 / jnp.sum(x**2), init=jnp.zeros(2)
    ),
    "gradient NaN at the start": row(
        ValueError, "gradient", lambda x: -jnp.linalg.norm(x), init=jnp.zeros(2)
    ),
    "density a vector": row(
        ValueError, r"\(2,\)|scalar", lambda x: -0.5 * x**2, init=jnp.zeros((4, 2))
    ),
    "density an integer": row(ANY, "int32", lambda x: jnp.int32(1), init=jnp.zeros(2)),
    "model no function": row(TypeError, "model", "normal"),
    # NumPyro models
    "missing model argument": row(TypeError, "model_args", nothing_latent),
    "unknown model argument": row(TypeError, "'z'", model, model_kwargs={"z": Y}),
    "discrete site": row(ValueError, "'k'.*discrete", discrete),
    "no latent site": row(ValueError, "no latent site", nothing_latent, model_args=(Y,)),
    "subsampling plate": row(ValueError, "'rows'", subsampled, model_args=(Y,)),
    "NaN in the data": row(ValueError, "nan|non-finite", model, model_args=(BROKEN_Y,)),
    "text in the data": row(TypeError, "model_args", model, model_args=(np.array(["a"]),)),
    "start outside the support": row(
        ValueError, "'scale'.*-1", model, model_args=(Y,), init={"scale": np.float32(-1.0)}
    ),
    "start of an unknown site": row(
        ValueError, "'sigma'", model, model_args=(Y,), init={"sigma": np.float32(1.0)}
    ),
    "start of a site in the wrong shape": row(
        ValueError, r"\(3,\)", model, model_args=(Y,), init={"mu": np.zeros(3, np.float32)}
    ),
    "data for a target that has its own": row(
        TypeError,
        "Target",
        Target.from_log_density(normal),
        init=jnp.zeros(2),
        model_args=(Y,),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_bad_input_raises_early_and_names_it(name):
    error, match, arguments, options = ROWS[name]
    with pytest.raises(error, match=match):
        sample(*arguments, **options)


def cliff(x):
    """Finite where the chain starts; beyond one the logarithm is NaN."""
    return -0.5 * jnp.sum(x**2) + 0.0 * jnp.sum(jnp.log(1.0 - x))


@pytest.mark.parametrize("sampler", ["ula", "mala", "baoab", "obabo", "nuts"])
def test_a_density_that_breaks_on_the_way_is_counted_not_returned(sampler):
    result = sample(
        KEY, cliff, sampler, init=jnp.zeros(2), num_warmup=100, num_samples=300, progress=False,
        on_failure="ignore",
    )  # fmt: skip
    assert (result.posterior["position"] < 1.0).all()
    assert np.isfinite(result.sample_stats["lp"]).all()
    broken = result.status["nonfinite_log_density"] + result.status["divergence"]
    assert broken > 0
    assert result.report()
