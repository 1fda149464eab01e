"""Posteriors with their data: the data, the log joint against SciPy, and known posterior means."""

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.util import log_density, potential_energy, unconstrain_fn
from scipy import stats

from shoal.models import posteriors
from shoal.models.posteriors import Posterior
from shoal.models.posteriors.volatility import autoregression

pytestmark = pytest.mark.quick_compiler

EFFECTS = np.array([28, 8, -3, 7, -1, 1, 18, 12.0])
STANDARD_ERRORS = np.array([15, 10, 16, 11, 9, 11, 10, 18.0])

CASES: dict[str, tuple[Callable[[], Posterior], dict[str, tuple[int, ...]]]] = {
    "centred schools": (
        functools.partial(posteriors.eight_schools, centred=True),
        {"mu": (), "tau": (), "theta": (8,), "obs": (8,)},
    ),
    "schools": (
        posteriors.eight_schools,
        {"mu": (), "tau": (), "z": (8,), "theta": (8,), "obs": (8,)},
    ),
    "logistic": (
        posteriors.breast_cancer,
        {"intercept": (), "coefficients": (30,), "obs": (569,)},
    ),
    "volatility": (
        posteriors.stochastic_volatility,
        {"mu": (), "phi": (), "sigma": (), "z": (1046,), "log_variance": (1046,), "obs": (1046,)},
    ),
    "brownian": (
        posteriors.brownian_motion,
        {"innovation": (), "observation": (), "x": (30,), "obs": (30,)},
    ),
    "item response": (
        posteriors.item_response,
        {"ability_mean": (), "ability": (400,), "difficulty": (100,), "obs": (400, 100)},
    ),
    "horseshoe": (
        posteriors.horseshoe_regression,
        {
            "intercept": (),
            "sigma": (),
            "tau": (),
            "c2": (),
            "lambda": (10,),
            "z": (10,),
            "coefficients": (10,),
            "obs": (442,),
        },
    ),
}
every_case = pytest.mark.parametrize("name", CASES)


@every_case
def test_prior_draws_have_a_finite_log_joint_and_gradient(name: str) -> None:
    make, shapes = CASES[name]
    posterior = make()

    @jax.jit
    @jax.vmap
    def at_a_prior_draw(key: jax.Array) -> Any:
        sites = handlers.trace(handlers.seed(posterior.model, key)).get_trace(*posterior.args)
        values = {
            n: s["value"] for n, s in sites.items() if s["type"] in ("sample", "deterministic")
        }
        free = {n for n, s in sites.items() if s["type"] == "sample" and n != "obs"}
        point = {n: values[n] for n in free}
        given = posterior.model, posterior.args, posterior.kwargs
        value, score = jax.value_and_grad(lambda u: potential_energy(*given, u))(
            unconstrain_fn(*given, point)
        )
        return values, value, score

    values, value, score = at_a_prior_draw(jax.random.split(jax.random.key(0), 20))
    assert {n: v.shape[1:] for n, v in values.items()} == shapes
    assert values["obs"].dtype == posterior.kwargs["y"].dtype
    for leaf in jax.tree.leaves((values, value, score)):
        assert jnp.all(jnp.isfinite(leaf))


@every_case
def test_data_are_arrays_and_the_model_is_the_same_object_each_time(name: str) -> None:
    first, second = CASES[name][0](), CASES[name][0]()
    assert first.model is second.model
    assert getattr(sys.modules[first.model.__module__], first.model.__name__) is first.model
    assert first.description
    assert first.source
    for array in (*first.args, *first.kwargs.values()):
        assert isinstance(array, np.ndarray)
        assert array.dtype in (np.float32, np.int32)
    with jax.enable_x64(True):
        assert all(array.dtype == np.float64 for array in CASES[name][0]().args)
    # A caller who writes into the data does not change the next caller's.
    first.kwargs["y"][:] = 0
    assert CASES[name][0]().kwargs["y"].any()


def test_posterior_predictive_draws_follow_the_posterior_given() -> None:
    posterior = posteriors.eight_schools()
    at = {"mu": jnp.full(400, 3.0), "tau": jnp.zeros(400), "z": jnp.zeros((400, 8))}
    drawn = Predictive(posterior.model, at)(jax.random.key(1), *posterior.args)
    np.testing.assert_array_equal(drawn["theta"], 3.0)
    z = (drawn["obs"].mean(0) - 3.0) / (STANDARD_ERRORS / 20)
    # Eight normal statistics: false alarm 2e-6.
    assert np.abs(z).max() < 5.2


def test_eight_schools_are_rubins() -> None:
    for centred in (False, True):
        posterior = posteriors.eight_schools(centred=centred)
        np.testing.assert_array_equal(posterior.args[0], STANDARD_ERRORS)
        np.testing.assert_array_equal(posterior.kwargs["y"], EFFECTS)


def test_regression_data_are_whole_and_standardised() -> None:
    cancer, diabetes = posteriors.breast_cancer(), posteriors.horseshoe_regression()
    assert cancer.args[0].shape == (569, 30)
    assert np.bincount(cancer.kwargs["y"]).tolist() == [212, 357]
    assert diabetes.args[0].shape == (442, 10)
    for columns in (cancer.args[0], diabetes.args[0], diabetes.kwargs["y"]):
        np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(columns.std(axis=0), 1, rtol=1e-5)
    # Malignant cells have larger nuclei; progression goes with the body mass index.
    assert np.corrcoef(cancer.args[0][:, 0], cancer.kwargs["y"])[0, 1] < -0.7
    assert np.corrcoef(diabetes.args[0][:, 2], diabetes.kwargs["y"])[0, 1] > 0.5


def test_returns_are_googles_or_your_own() -> None:
    y = posteriors.stochastic_volatility().kwargs["y"]
    assert y.shape == (1046,)
    assert abs(y.mean()) < 1e-5
    # 100.34 and 108.31 dollars at the first two closings, 381.02 and 362.71 at the last two.
    wanted = 100 * (np.log(108.31 / 100.34) - np.log(362.71 / 381.02))
    np.testing.assert_allclose(y[0] - y[-1], wanted, rtol=1e-5)
    own = posteriors.stochastic_volatility([0.5, -1.0, 2.0])
    assert own.kwargs["y"].tolist() == [0.5, -1.0, 2.0]
    assert own.args[0].tolist() == [0.0, 1.0, 2.0]
    assert "Google" not in own.description + own.source
    assert own.model is posteriors.stochastic_volatility().model


@pytest.mark.parametrize("num", [2, 3, 4, 5, 16, 17, 100])
def test_autoregression_is_the_recurrence(num: int) -> None:
    shocks = np.random.default_rng(num).normal(size=num)
    for phi in (0.97, -0.6, 0.0):
        wanted = shocks.copy()
        for t in range(1, num):
            wanted[t] += phi * wanted[t - 1]
        with jax.enable_x64(True):
            ours = autoregression(jnp.float64(phi), jnp.asarray(shocks))
        np.testing.assert_allclose(ours, wanted, rtol=1e-12, atol=1e-13)


def check_log_joint(posterior: Posterior, point: dict[str, Any], wanted: float) -> None:
    ours, _ = log_density(posterior.model, posterior.args, posterior.kwargs, point)
    np.testing.assert_allclose(float(ours), wanted, rtol=1e-9)


def test_log_joint_of_the_schools_is_scipys() -> None:
    rng = np.random.default_rng(0)
    mu, tau, theta, z = 2.5, 4.0, rng.normal(3, 5, 8), rng.normal(size=8)
    prior = stats.norm.logpdf(mu, 0, 5) + stats.halfcauchy.logpdf(tau, scale=5)

    def fit(theta: np.ndarray) -> float:
        return stats.norm.logpdf(EFFECTS, theta, STANDARD_ERRORS).sum()

    with jax.enable_x64(True):
        check_log_joint(
            posteriors.eight_schools(centred=True),
            {"mu": mu, "tau": tau, "theta": theta},
            prior + stats.norm.logpdf(theta, mu, tau).sum() + fit(theta),
        )
        check_log_joint(
            posteriors.eight_schools(),
            {"mu": mu, "tau": tau, "z": z},
            prior + stats.norm.logpdf(z).sum() + fit(mu + tau * z),
        )


def test_log_joint_of_the_logistic_regression_is_scipys() -> None:
    intercept, coefficients = 0.7, np.random.default_rng(1).normal(size=30)
    with jax.enable_x64(True):
        posterior = posteriors.breast_cancer()
        x, y = posterior.args[0], posterior.kwargs["y"]
        probability = 1 / (1 + np.exp(-(intercept + x @ coefficients)))
        wanted = (
            stats.norm.logpdf(intercept, 0, 5)
            + stats.norm.logpdf(coefficients).sum()
            + np.log(np.where(y == 1, probability, 1 - probability)).sum()
        )
        check_log_joint(posterior, {"intercept": intercept, "coefficients": coefficients}, wanted)


def test_log_joint_of_the_volatility_is_scipys() -> None:
    returns = np.array([0.3, -1.2, 2.0, 0.1, -0.4])
    z = np.random.default_rng(2).normal(size=5)
    mu, phi, sigma = 0.4, 0.9, 0.3
    h = np.empty(5)
    h[0] = mu + sigma / np.sqrt(1 - phi**2) * z[0]
    for t in range(1, 5):
        h[t] = mu + phi * (h[t - 1] - mu) + sigma * z[t]
    wanted = (
        stats.norm.logpdf(mu, 0, 10)
        + stats.beta.logpdf((phi + 1) / 2, 5, 1.5)
        - np.log(2)
        + stats.halfnorm.logpdf(sigma)
        + stats.norm.logpdf(z).sum()
        + stats.norm.logpdf(returns, 0, np.exp(h / 2)).sum()
    )
    with jax.enable_x64(True):
        point = {"mu": mu, "phi": phi, "sigma": sigma, "z": z}
        check_log_joint(posteriors.stochastic_volatility(returns), point, wanted)


def test_log_joint_of_the_brownian_motion_is_scipys() -> None:
    innovation, observation = 0.2, 0.1
    x = np.cumsum(np.random.default_rng(4).normal(size=30))
    with jax.enable_x64(True):
        posterior = posteriors.brownian_motion()
        seen = np.r_[:10, 20:30]
        np.testing.assert_array_equal(np.flatnonzero(posterior.args[0]), seen)
        wanted = (
            stats.lognorm.logpdf([innovation, observation], 2).sum()
            + stats.norm.logpdf(np.diff(x, prepend=0), 0, innovation).sum()
            + stats.norm.logpdf(posterior.kwargs["y"][seen], x[seen], observation).sum()
        )
        point = {"innovation": innovation, "observation": observation, "x": x}
        check_log_joint(posterior, point, wanted)


def test_log_joint_of_the_item_response_is_scipys() -> None:
    rng = np.random.default_rng(5)
    mean, ability, difficulty = 0.4, rng.normal(size=400), rng.normal(size=100)
    with jax.enable_x64(True):
        posterior = posteriors.item_response()
        is_asked, y = posterior.args[0] > 0, posterior.kwargs["y"]
        assert 0.73 < is_asked.mean() < 0.77
        right = 1 / (1 + np.exp(difficulty - mean - ability[:, None]))
        wanted = (
            stats.norm.logpdf(mean, 0.75)
            + stats.norm.logpdf(ability).sum()
            + stats.norm.logpdf(difficulty).sum()
            + np.log(np.where(y == 1, right, 1 - right))[is_asked].sum()
        )
        point = {"ability_mean": mean, "ability": ability, "difficulty": difficulty}
        check_log_joint(posterior, point, wanted)


def test_log_joint_of_the_horseshoe_is_scipys() -> None:
    rng = np.random.default_rng(3)
    intercept, sigma, tau, c2 = 0.1, 0.8, 0.05, 3.0
    local, z = np.abs(rng.standard_cauchy(10)), rng.normal(size=10)
    with jax.enable_x64(True):
        posterior = posteriors.horseshoe_regression(expected_nonzero=4)
        x, y = posterior.args[0], posterior.kwargs["y"]
        variances = c2 * (tau * local) ** 2 / (c2 + (tau * local) ** 2)
        fitted = intercept + x @ (z * np.sqrt(variances))
        wanted = (
            stats.norm.logpdf(intercept)
            + stats.halfnorm.logpdf(sigma)
            + stats.halfcauchy.logpdf(tau, scale=4 / 6 * sigma / np.sqrt(442))
            + stats.invgamma.logpdf(c2, 2, scale=8)
            + stats.halfcauchy.logpdf(local).sum()
            + stats.norm.logpdf(z).sum()
            + stats.norm.logpdf(y, fitted, sigma).sum()
        )
        point = {"intercept": intercept, "sigma": sigma, "tau": tau, "c2": c2}
        check_log_joint(posterior, point | {"lambda": local, "z": z}, wanted)


def schools_means(log_prior: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Posterior means of mu, tau and log tau by quadrature, theta integrated out.

    ``log_prior`` is the joint log prior density of mu and log tau.
    """
    mu, log_tau = np.linspace(-60, 80, 701)[:, None], np.linspace(-9, 9, 901)
    logs = log_prior(mu, log_tau)
    for effect, error in zip(EFFECTS, STANDARD_ERRORS, strict=True):
        logs = logs + stats.norm.logpdf(effect, mu, np.hypot(error, np.exp(log_tau)))
    weights = np.exp(logs - logs.max())
    means = [(weights * value).sum() for value in (mu, np.exp(log_tau), log_tau)]
    return np.array(means) / weights.sum()


def test_quadrature_of_the_schools_agrees_with_published_means() -> None:
    # Posterior means and their standard errors from the ground truth of TensorFlow Probability's
    # Inference Gym (EightSchools), whose priors are mu ~ N(0, 10) and log tau ~ N(5, 1).
    means = schools_means(lambda mu, t: stats.norm.logpdf(mu, 0, 10) + stats.norm.logpdf(t, 5, 1))
    assert abs(means[0] - 5.75975) < 5.2 * 0.01787
    assert abs(means[2] - 2.45327) < 5.2 * 0.00191


def test_nuts_finds_the_exact_means_of_the_schools() -> None:
    posterior = posteriors.eight_schools()
    exact = schools_means(
        lambda mu, t: stats.norm.logpdf(mu, 0, 5) + stats.halfcauchy.logpdf(np.exp(t), scale=5) + t
    )
    # The values known for this example, to their digits.
    np.testing.assert_allclose(exact[:2], [4.4, 3.6], atol=0.05)
    mcmc = MCMC(
        NUTS(posterior.model, target_accept_prob=0.95),
        num_warmup=300,
        num_samples=500,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(2), *posterior.args, **posterior.kwargs)
    draws = mcmc.get_samples(group_by_chain=True)
    for name, mean in zip(("mu", "tau"), exact, strict=False):
        values = np.asarray(draws[name])
        size = effective_sample_size(values)
        assert size > 400
        # False alarm about 2e-7 each, were the effective size exact.
        assert abs(values.mean() - mean) < 5.2 * values.std() / np.sqrt(size)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: posteriors.horseshoe_regression(0), ValueError, "expected_nonzero must be above"),
        (lambda: posteriors.horseshoe_regression(10), ValueError, "below 10"),
        (lambda: posteriors.stochastic_volatility([1.0]), ValueError, "at least 2 entries"),
        (lambda: posteriors.stochastic_volatility([[1.0]]), ValueError, "must have 1 axes"),
        (
            lambda: posteriors.stochastic_volatility([1.0, np.nan]),
            ValueError,
            r"returns must be finite, but entry \[1\] is nan",
        ),
        (lambda: posteriors.stochastic_volatility(["a"]), TypeError, "must hold real numbers"),
    ],
)
def test_impossible_arguments_raise(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


def test_numpyro_is_imported_only_when_a_posterior_is_used() -> None:
    code = (
        "import sys; from shoal.models import posteriors; assert dir(posteriors); "
        "assert not {'numpyro', 'sklearn', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nine_schools'"):
        _ = posteriors.nine_schools
