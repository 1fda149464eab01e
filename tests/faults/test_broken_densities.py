"""A density that is finite where a chain starts and breaks on its way: counted, never returned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference import sample

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
