"""Ensemble methods through the front door: particles as draws, counts, failures, continuation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from shoal.inference import SamplingWarning, resume, sample
from shoal.sampling import stein
from shoal.sampling.langevin import ensemble

pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(5)
QUIET = dict(num_chains=2, num_samples=30, progress=False)


def log_density(x):
    return -0.5 * jnp.sum((x - 1.0) ** 2)


def start(key):
    return jax.random.normal(key, (2,))


def test_particles_are_the_draws_and_gradients_are_counted():
    result = sample(KEY, log_density, stein.svgd(), init=start, num_warmup=400, **QUIET)
    draws = result.posterior["position"]
    assert draws.shape == (2, 30, 2)
    # Converged ensembles of SVGD have the mean of a Gaussian exactly.
    np.testing.assert_allclose(draws.mean(1), 1.0, atol=0.01)
    np.testing.assert_allclose(draws.var(1), 1.0, atol=0.15)
    assert not np.array_equal(draws[0], draws[1])
    np.testing.assert_allclose(
        result.sample_stats["lp"], -0.5 * ((draws - 1) ** 2).sum(-1), rtol=1e-4, atol=1e-5
    )
    assert (result.num_gradients, result.num_gradients_warmup) == (2 * 30 * 400, 2 * 30)
    assert result.status["ok"] == 2 * 30 * 400
    assert result.attributes["sampler"] == "svgd"
    assert result.log_weights is None
    assert result.sample_stats["alive"].all()


def test_a_constrained_model_keeps_its_jacobian():
    def model():
        numpyro.sample("rate", dist.Gamma(3.0, 1.0))

    result = sample(KEY, model, stein.svgd(), num_warmup=600, **QUIET | dict(num_samples=100))
    # Without it the law would be Gamma(2, 1).
    assert abs(result.posterior["rate"].mean() - 3.0) < 0.1


def test_replicates_do_not_depend_on_their_company():
    both = sample(KEY, log_density, stein.svgd(), init=start, num_warmup=3, **QUIET)
    one = sample(
        KEY, log_density, stein.svgd(), init=start, num_warmup=3, **QUIET | dict(num_chains=1)
    )
    np.testing.assert_allclose(one.posterior["position"][0], both.posterior["position"][0], 1e-5)


def test_another_family_of_ensembles_runs_too():
    result = sample(KEY, log_density, ensemble.aldi(0.05), init=start, num_warmup=100, **QUIET)
    draws = result.posterior["position"]
    assert draws.shape == (2, 30, 2)
    assert abs(draws.mean() - 1.0) < 0.5


def test_dead_particles_are_told_and_weigh_nothing():
    def cliff(x):
        return jnp.where(x[0] > 2.7, jnp.nan, log_density(x))

    near = lambda key: 0.3 * start(key)
    with pytest.warns(SamplingWarning, match="NaN"):
        result = sample(
            KEY, cliff, stein.svgd(), init=near, num_warmup=100, **QUIET | dict(num_samples=100)
        )
    alive = result.sample_stats["alive"]
    assert 0 < (~alive).sum() < 20
    assert np.isfinite(result.posterior["position"]).all()
    assert result.log_weights is not None
    np.testing.assert_array_equal(np.isfinite(result.log_weights), alive)
    np.testing.assert_allclose(np.exp(result.log_weights).sum(1), 1.0, rtol=1e-5)
    assert result.status["nonfinite_log_density"] == (~alive).sum()


@pytest.mark.usual_compiler
def test_a_stopped_run_continues_bit_for_bit(tmp_path):
    whole = sample(KEY, log_density, stein.svgd(), init=start, num_warmup=40, **QUIET)
    calls = []

    def stop_early(progress):
        calls.append(progress)
        raise KeyboardInterrupt

    settings = dict(init=start, num_warmup=40, checkpoint=tmp_path, **QUIET)
    with pytest.raises(KeyboardInterrupt):
        sample(KEY, log_density, stein.svgd(), **settings | dict(progress=stop_early))
    assert calls
    again = resume(tmp_path, log_density, stein.svgd(), progress=False)
    np.testing.assert_array_equal(again.posterior["position"], whole.posterior["position"])
    with pytest.raises(ValueError, match="num_samples=40"):
        resume(tmp_path, log_density, stein.svgd(), num_samples=40, progress=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(init=jnp.zeros(2)), "30 particles of chain 0 in one place"),
        (dict(thin=2), "thin must be 1"),
        (dict(bad_starts="drop"), "resample"),
    ],
)
def test_what_makes_no_ensemble_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        sample(KEY, log_density, stein.svgd(), **dict(init=start, num_warmup=2) | changes, **QUIET)


def test_positions_of_all_particles_may_be_given():
    points = jax.random.normal(KEY, (2, 30, 2))
    result = sample(KEY, log_density, stein.svgd(), init=points, num_warmup=0, **QUIET)
    np.testing.assert_array_equal(result.posterior["position"], points)
