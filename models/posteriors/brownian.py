"""Brownian motion seen through noise, with a gap: scales unknown, the path between them too.

    x_1 ~ N(0, innovation),   x_t ~ N(x_{t-1}, innovation),   y_t ~ N(x_t, observation),

with innovation and observation ~ LogNormal(0, 2), at 30 times of which the ten in the middle were
not observed. The path is wide in the gap and narrow elsewhere, and its width moves with the scales.
"""

import functools

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from shoal.models.posteriors.posterior import Posterior, as_data

_NUM_TIMES, _GAP = 30, slice(10, 20)
_INNOVATION, _OBSERVATION = 0.1, 0.15


def noisy_walk(is_observed: jax.Array, y: jax.Array | None = None) -> None:
    """Sample ``innovation``, ``observation`` and the path ``x``; observe ``obs``.

    Parameters
    ----------
    is_observed
        1 at the times when the path was observed, 0 at the others, shape ``(T,)``.
    y
        Observations, shape ``(T,)``; what stands at the other times does not matter.
    """
    num = is_observed.shape[0]
    innovation = numpyro.sample("innovation", dist.LogNormal(0, 2))
    observation = numpyro.sample("observation", dist.LogNormal(0, 2))
    x = numpyro.sample("x", dist.GaussianRandomWalk(innovation, num_steps=num))
    with numpyro.plate("time", num), numpyro.handlers.mask(mask=is_observed > 0):
        numpyro.sample("obs", dist.Normal(x, observation), obs=y)


@functools.cache
def _simulate() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(40)
    path = np.cumsum(_INNOVATION * rng.standard_normal(_NUM_TIMES))
    is_observed = np.ones(_NUM_TIMES)
    is_observed[_GAP] = 0.0
    observations = path + _OBSERVATION * rng.standard_normal(_NUM_TIMES)
    return is_observed, np.where(is_observed > 0, observations, 0.0)


def brownian_motion() -> Posterior:
    """Return a noisy Brownian path at 30 times, unobserved in the middle third.

    Examples
    --------
    >>> posterior = brownian_motion()
    >>> posterior.kwargs["y"].shape, int(posterior.args[0].sum())
    ((30,), 20)
    """
    is_observed, observations = _simulate()
    return Posterior(
        model=noisy_walk,
        args=(as_data(is_observed, "is_observed", 1),),
        kwargs={"y": as_data(observations, "y", 1)},
        description=(
            "Brownian motion with unknown innovation scale, observed with noise of unknown scale "
            "at 20 of 30 times."
        ),
        source=(
            "Data: simulated with innovation scale 0.1 and observation scale 0.15. Model and "
            "sizes: 'Brownian motion unknown scales missing middle observations' of the Inference "
            "Gym (TensorFlow Probability), whose own data are other draws of the same law."
        ),
    )
