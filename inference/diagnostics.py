"""Statistical tests that bite, for anyone who writes or changes a sampler.

All start from exact draws of a law that is known, so that neither burn-in nor autocorrelation
blurs them, and run many independent particles at once.

================================  ==============================================================
`invariance_test`                 the kernel keeps the law (and is reversible)
`transition_test`                 means over (start, end) have their known values
`linear_gaussian_test`            a linear kernel, biased or not, has its complete known law
`rank_test`                       exact test of a reversible kernel
`sequential_test`                 repeats any of them until clear, with a bound on false alarms
================================  ==============================================================

Examples
--------
Does MALA leave a bimodal density invariant, and would we notice if it did not?

>>> import jax
>>> from shoal.inference import diagnostics
>>> from shoal.models import densities
>>> from shoal.sampling import langevin
>>> target = densities.skewed_mixture()
>>> exact, biased = (kind(0.5)(target.log_density) for kind in (langevin.mala, langevin.ula))
>>> diagnostics.invariance_test(
...     jax.random.key(0), exact, target.sample, num_particles=4000, reversible=True).passed
True
>>> diagnostics.invariance_test(
...     jax.random.key(0), biased, target.sample, num_particles=4000).passed
False
"""

from shoal.inference._linear_gaussian import linear_gaussian_test
from shoal.inference._moment_tests import MomentTest, invariance_test, transition_test
from shoal.inference._rank_test import RankTest, rank_test
from shoal.inference._sequential_test import SequentialTest, sequential_test

__all__ = [
    "MomentTest",
    "RankTest",
    "SequentialTest",
    "invariance_test",
    "linear_gaussian_test",
    "rank_test",
    "sequential_test",
    "transition_test",
]
