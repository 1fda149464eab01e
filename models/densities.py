"""Analytic densities: unnormalised log density, exact normaliser, moments and draws.

Each is an immutable pytree with ``log_density(x)`` of one point ``(d,)``, ``log_normalizer``,
``mean``, ``covariance``, ``sample(key, num)`` and ``dim``; its ``log_density`` goes where a sampler
asks for one. `exp(log_density(x) - log_normalizer)` integrates to one.

Examples
--------
>>> import jax
>>> density = Banana(dim=3)
>>> draws = density.sample(jax.random.key(0), 100)
>>> jax.vmap(jax.grad(density.log_density))(draws).shape
(100, 3)
"""

from shoal.models._curved import Banana, Funnel
from shoal.models._density import Density
from shoal.models._dirichlet import Dirichlet, UnconstrainedDirichlet
from shoal.models._gaussian import (
    Gaussian,
    GaussianMixture,
    ill_conditioned_gaussian,
    skewed_mixture,
)
from shoal.models._student_t import StudentT

__all__ = [
    "Banana",
    "Density",
    "Dirichlet",
    "Funnel",
    "Gaussian",
    "GaussianMixture",
    "StudentT",
    "UnconstrainedDirichlet",
    "ill_conditioned_gaussian",
    "skewed_mixture",
]
