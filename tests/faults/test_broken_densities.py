"""A density that is finite where a chain starts and breaks on its way: counted, never returned.

Of an ensemble the particle that meets it dies, and the others go on.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference import sample
from shoal.inference.run import run
from shoal.sampling import stein
from shoal.sampling.core.algorithm import Status

pytestmark = pytest.mark.quick_compiler


def cliff(x):
    """Finite where the chain starts; beyond one the logarithm is NaN."""
    return -0.5 * jnp.sum(x**2) + 0.0 * jnp.sum(jnp.log(1.0 - x))


@pytest.mark.parametrize("sampler", ["ula", "mala", "baoab", "obabo", "nuts"])
def test_a_density_that_breaks_on_the_way_is_counted_not_returned(sampler):
    result = sample(
        jax.random.key(0), cliff, sampler, init=jnp.zeros(2), num_warmup=100, num_samples=300,
        progress=False, on_failure="ignore",
    )  # fmt: skip
    assert (result.posterior["position"] < 1.0).all()
    assert np.isfinite(result.sample_stats["lp"]).all()
    broken = result.status["nonfinite_log_density"] + result.status["divergence"]
    assert broken > 0
    assert result.report()


ENSEMBLES = {
    "svgd": stein.svgd(),
    "stochastic": stein.stochastic_svgd(None, 0.3, langevin=0.3),
    "random batch": stein.random_batch_svgd(batch_size=4),
}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_particles_die_where_a_density_breaks_and_the_others_go_on(name):
    algorithm = ENSEMBLES[name](cliff)
    start = 0.5 - jnp.abs(jax.random.normal(jax.random.key(1), (40, 2)))
    finished = run(jax.random.key(2), algorithm, algorithm.init(start), 40, on_failure="ignore")
    state = finished.state
    assert 0 < (~state.alive).sum() < 20
    assert (state.position < 1.0).all()
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in (state.log_density, state.score))
    assert finished.failures.count[Status.NONFINITE_LOG_DENSITY] == (~state.alive).sum()
