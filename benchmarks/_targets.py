"""Posteriors and densities on which samplers are compared, with the moments they should find.

The moments of the posteriors are in ``references.npz``, made by ``python benchmarks/_references.py
--data DIR``: long runs of NUTS. Those of the Gaussians are known.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from shoal.inference import Target
from shoal.models import posteriors
from shoal.models.densities import ill_conditioned_gaussian
from shoal.models.posteriors.logistic import logistic_regression

REFERENCES = Path(__file__).with_name("references.npz")
WHERE = (
    "give --data DIR or SHOAL_BENCH_DATA, a folder with posteriors/german_credit_numeric.csv (UCI "
    "Statlog German credit, numeric, class in the last column) and posteriors/sp500_returns.csv "
    "(daily returns of the S&P 500 in per cent, as in the Inference Gym)"
)


class Moments(NamedTuple):
    """Mean and variance of every coordinate x, and of its square."""

    mean: np.ndarray
    variance: np.ndarray
    square: np.ndarray
    square_variance: np.ndarray


class Problem(NamedTuple):
    """A log density over R^d, of flat float32 vectors, with its moments.

    Attributes
    ----------
    log_density
        ``log_density(x)`` for ``x`` of shape ``(d,)``.
    start
        ``start(key) -> x``: as NumPyro starts, uniform on (-2, 2), or standard normal.
    dim
        d.
    moments
        None before there are references.
    """

    name: str
    log_density: Callable[[jax.Array], jax.Array]
    start: Callable[[jax.Array], jax.Array]
    dim: int
    moments: Moments | None


def problems(data: Path | None) -> dict[str, Callable[[], Problem]]:
    """Return makers of all problems by name; those that need files are left out without them."""
    found = {
        "breast cancer": lambda: _posterior("breast cancer", posteriors.breast_cancer()),
        "eight schools": lambda: _posterior("eight schools", posteriors.eight_schools()),
        "Gaussian, condition 100": lambda: _gaussian("Gaussian, condition 100", 100.0),
        "Gaussian, condition 10,000": lambda: _gaussian("Gaussian, condition 10,000", 1e4),
        "Brownian motion": lambda: _posterior("Brownian motion", posteriors.brownian_motion()),
        "item response": lambda: _posterior("item response", posteriors.item_response()),
    }
    if data is not None:
        folder = data / "posteriors"
        found["German credit"] = lambda: _posterior("German credit", german_credit(folder))
        found["stochastic volatility"] = lambda: _posterior(
            "stochastic volatility", volatility(folder)
        )
    return found


def funnels() -> dict[str, Callable[[], Problem]]:
    """Return makers of targets that no sampler with one step size gets right."""
    centred = posteriors.eight_schools(centred=True)
    return {
        "funnel": _funnel,
        "eight schools, centred": lambda: _posterior("eight schools, centred", centred),
    }


def german_credit(folder: Path) -> posteriors.Posterior:
    """Logistic regression of the German credit data, columns standardised."""
    table = np.loadtxt(folder / "german_credit_numeric.csv", delimiter=",", skiprows=1)
    features = (table[:, :-1] - table[:, :-1].mean(0)) / table[:, :-1].std(0)
    classes = (table[:, -1] == table[:, -1].max()).astype(np.int32)
    return posteriors.Posterior(
        logistic_regression, (features.astype(np.float32),), {"y": classes}, "", ""
    )


def volatility(folder: Path) -> posteriors.Posterior:
    """Stochastic volatility of the first hundred returns of the S&P 500."""
    returns = np.loadtxt(folder / "sp500_returns.csv")[:100]
    return posteriors.stochastic_volatility(returns - returns.mean())


def _posterior(name: str, posterior: posteriors.Posterior) -> Problem:
    target = Target.from_numpyro(posterior.model, posterior.args, posterior.kwargs)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), target.position_shape)
    flat, unravel = ravel_pytree(zeros)
    start = lambda key: jax.random.uniform(key, flat.shape, minval=-2.0, maxval=2.0)
    log_density = lambda x: target.log_density(unravel(x))
    return Problem(name, log_density, start, flat.size, _stored(name))


def _gaussian(name: str, condition: float) -> Problem:
    gaussian = ill_conditioned_gaussian(100, condition, jax.random.key(3))
    variance = np.diag(np.asarray(gaussian.covariance, np.float64))
    moments = Moments(0 * variance, variance, variance, 2 * variance**2)
    start = lambda key: jax.random.normal(key, (100,))
    return Problem(name, gaussian.log_density, start, 100, moments)


def _funnel() -> Problem:
    def log_density(x: jax.Array) -> jax.Array:
        v, z = x[0], x[1:]
        return -0.5 * (v / 3) ** 2 - 0.5 * jnp.sum(z**2) * jnp.exp(-v) - v * z.size / 2

    return Problem("funnel", log_density, lambda key: jax.random.normal(key, (10,)), 10, None)


def _stored(name: str) -> Moments | None:
    if not REFERENCES.exists():
        return None
    with np.load(REFERENCES) as stored:
        return Moments(*stored[name]) if name in stored else None


def as_target(problem: Problem) -> Any:
    """Return what `shoal.inference.sample` takes."""
    return Target.from_log_density(problem.log_density)
