"""The laws of the Langevin samplers against all that is known of them, started exactly.

Each check compares about 20 statistics with a threshold of 5.2 standard errors (two-sided p 2e-7).
A correct sampler therefore fails one of the 15 cases with probability 7e-5, had the keys not
been fixed. The bugs that the same checks find are rows of ``tests/mutants/langevin.py`` and
``tests/mutants/kinetic.py``.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import block_diag

from shoal.inference.diagnostics import MomentTest, invariance_test, linear_gaussian_test
from shoal.models.densities import skewed_mixture
from shoal.sampling import langevin

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
METRICS = {
    "identity": None,
    "diagonal": jnp.array([0.5, 1.6]),
    "dense": jnp.array([[1.2, 0.7], [0.7, 0.9]]),
}
SAMPLERS = ("mala", "ula", "baoab", "obabo", "aboba")

# The Gaussian target of the unadjusted samplers: off the origin and correlated.
MEAN = np.array([1.0, -0.5])
PRECISION = np.array([[1.5, -0.6], [-0.6, 1.0]])
FRICTION = 0.7
NUM_PARTICLES = 40_000


def log_density(x: jax.Array) -> jax.Array:
    centred = x - MEAN
    return -0.5 * centred @ jnp.asarray(PRECISION, x.dtype) @ centred


def mixture_log_density(x: jax.Array) -> jax.Array:
    """That of `skewed_mixture`, written out for its one shape: several times faster."""
    peaks = x - jnp.array([[1.5, 0.0], [-1.5, 0.0]])
    white = jnp.stack([peaks[:, 0], (peaks[:, 1] - 0.8 * peaks[:, 0]) / 0.6])
    return jax.nn.logsumexp(-0.5 * jnp.sum(white**2, 0), b=jnp.array([0.7, 0.3]))


def mixture_draws(key: jax.Array, num: int) -> np.ndarray:
    """Exact draws of the same, by NumPy: nothing to compile."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    white = rng.normal(size=(num, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    white[:, 0] += np.where(rng.random(num) < 0.7, 1.5, -1.5)
    return white.astype(np.float32)


class Linear(NamedTuple):
    """A sampler on the Gaussian target and the law that it must have."""

    algorithm: Any
    mean: np.ndarray
    transition: np.ndarray
    noise: np.ndarray
    start: Callable[[jax.Array, jax.Array], Any] | None = None
    observe: Callable[[Any], Any] | None = None


def factor(metric: str) -> np.ndarray:
    """L of the inverse mass matrix M = L Lᵀ."""
    value = METRICS[metric]
    if value is None:
        return np.eye(2)
    value = np.asarray(value, np.float64)
    return np.diag(np.sqrt(value)) if value.ndim == 1 else np.linalg.cholesky(value)


# Made once: a new function object would compile anew.
@functools.cache
def adjusted(metric: str) -> Any:
    """MALA at 39 to 50 % acceptance."""
    return langevin.mala(1.0 if metric == "dense" else 0.5, METRICS[metric])(mixture_log_density)


@functools.cache
def overdamped(metric: str) -> Linear:
    """x' = x - h M Λ (x - m) + √(2h) L ξ."""
    h, mass = 0.4, factor(metric) @ factor(metric).T
    algorithm = langevin.ula(h, METRICS[metric])(log_density)
    return Linear(algorithm, MEAN, np.eye(2) - h * mass @ PRECISION, 2 * h * mass)


@functools.cache
def kinetic(word: str, metric: str) -> Linear:
    """Point and momentum together, z = (x, w), against the product of the word's linear maps."""
    h, ell, one = 0.8, factor(metric), np.eye(2)
    transition, noise = np.eye(4), np.zeros((4, 4))
    for letter in word:
        t = h / word.count(letter)
        decay = np.exp(-FRICTION * t)
        linear, added = {
            "A": (np.block([[one, t * ell], [0 * one, one]]), 0.0),
            "B": (np.block([[one, 0 * one], [-t * ell.T @ PRECISION, one]]), 0.0),
            "O": (block_diag(one, decay * one), 1 - decay**2),
        }[letter]
        transition = linear @ transition
        noise = linear @ noise @ linear.T + block_diag(0 * one, added * one)
    algorithm = getattr(langevin, word.lower())(h, FRICTION, METRICS[metric])(log_density)

    def start(key: jax.Array, z: jax.Array) -> Any:
        state = algorithm.init(z[:2], key)
        # OBABO's momentum is N(0, I) independently of the point: what init draws is exact.
        return state if word == "OBABO" else state._replace(momentum=z[2:])

    mean = np.concatenate([MEAN, np.zeros(2)])
    return Linear(algorithm, mean, transition, noise, start, observe)


def observe(state: Any) -> Any:
    return state.position, state.momentum


def z_law(key: jax.Array, sampler: str, metric: str) -> np.ndarray:
    result = law_test(key, sampler, metric)
    print(f"{sampler}, {metric}: {result}")
    assert result.num_moved > 0.3 * result.num_particles
    assert not result.num_nonfinite
    return result.z


def law_test(key: jax.Array, sampler: str, metric: str) -> MomentTest:
    if sampler == "mala":
        # Five steps: cached values need a rejection and then a move.
        draws = mixture_draws(jax.random.fold_in(key, 1), 100_000)
        density = skewed_mixture().log_density
        return invariance_test(key, adjusted(metric), draws, log_density=density, reversible=True)
    case = overdamped(metric) if sampler == "ula" else kinetic(sampler.upper(), metric)
    algorithm, mean, transition, noise, start, view = case
    return linear_gaussian_test(
        key, algorithm, mean, transition, noise, num_particles=NUM_PARTICLES, start=start,
        observe=view,
    )  # fmt: skip


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_law_is_the_known_one(sampler: str, metric: str) -> None:
    assert np.abs(z_law(jax.random.key(3), sampler, metric)).max() < 5.2
