"""An interacting ensemble for tests of the driver: Stein variational gradient descent with noise.

Every particle x_i moves by

    x_i <- x_i + (h / n) sum_j (k(x_i, x_j) s_j + grad_{x_j} k(x_i, x_j)) + a xi_i

over the n particles that are alive, with s the scores of a Gaussian mixture and xi normal numbers
by (key, particle id). Tests and the scripts that they run in other processes import this file by
its path::

    spec = importlib.util.spec_from_file_location("algorithms", path)
    algorithms = importlib.util.module_from_spec(spec)
    sys.modules["algorithms"] = algorithms
    spec.loader.exec_module(algorithms)
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.sampling.core import bandwidth, kernels, pairwise
from shoal.sampling.core.particles import keep_finite, park_dead, to_matrix
from shoal.sampling.core.random import particle_keys


class EnsembleState(NamedTuple):
    """Particles, which of them count, and the median squared distance that they are at."""

    position: Any
    alive: jax.Array
    median: bandwidth.TrackedMedian


class EnsembleInfo(NamedTuple):
    """Status ``(n,)`` and the bandwidth that was used."""

    status: jax.Array
    bandwidth: jax.Array


class SteinEnsemble(eqx.Module):
    """SVGD towards an equal mixture of unit Gaussians.

    Attributes
    ----------
    means
        Centres of the mixture, ``(k, d)``.
    step_size, noise
        The numbers h and a.
    bandwidth
        Of the RBF kernel; None follows the median.
    ring
        Devices to share the sums over pairs.
    """

    means: jax.Array
    step_size: float = 0.2
    noise: float = 1e-3
    bandwidth: float | None = None
    ring: pairwise.Ring | None = eqx.field(static=True, default=None)

    def init(self, position: Any, key: jax.Array | None = None) -> EnsembleState:
        """Start with every particle alive."""
        x, _ = to_matrix(position)
        return EnsembleState(position, jnp.ones(len(x), bool), bandwidth.track(x))

    def step(self, key: jax.Array, state: EnsembleState) -> tuple[EnsembleState, EnsembleInfo]:
        """Move all particles; one whose score is not finite stays and leaves the sums."""
        x, from_matrix = to_matrix(state.position)
        score = jax.vmap(jax.grad(self.log_density))(x)
        works = state.alive & jnp.isfinite(score).all(axis=1)
        count, weights = works.sum(), works.astype(x.dtype)
        h = state.median.bandwidth(count) if self.bandwidth is None else self.bandwidth
        parked = park_dead(x, works)
        sums = pairwise.kernel_matvec_plus_grad_sum(
            kernels.RBF(h),
            parked,
            parked,
            jnp.where(works[:, None], score, 0),
            weights,
            threshold=state.median.threshold,
            ring=self.ring,
        )
        ids = jnp.arange(len(x))
        noise = jax.vmap(lambda k: jax.random.normal(k, x.shape[1:]))(particle_keys(key, ids))
        move = self.step_size * sums.total / jnp.maximum(count, 1) + self.noise * noise
        new = from_matrix(jnp.where(works[:, None], x + move, jnp.nan))
        position, alive, status = keep_finite(state.position, new, state.alive)
        median = bandwidth.update(state.median, sums.near, works)
        return EnsembleState(position, alive, median), EnsembleInfo(status, jnp.asarray(h))

    def log_density(self, x: jax.Array) -> jax.Array:
        """Return the log density of the mixture, up to a constant, at one point ``(d,)``."""
        return jax.nn.logsumexp(-0.5 * jnp.sum((x - self.means) ** 2, axis=1))
