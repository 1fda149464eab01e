"""Seeded bugs in the Langevin samplers: every one is found, and the correct samplers pass.

Each test compares about 20 statistics with a threshold of 5.2 standard errors (two-sided p 2e-7).
A correct sampler therefore fails one of the cases below with probability 5e-6, had the keys not
been fixed. Run with ``-rP`` to see every mutant's largest statistic.
"""

import functools
import types
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

OVERDAMPED = "shoal.sampling.langevin.overdamped"
KINETIC = "shoal.sampling.langevin.kinetic"
METRIC = "shoal.sampling.langevin.metric"

METRICS = {
    "identity": None,
    "diagonal": jnp.array([0.5, 1.6]),
    "dense": jnp.array([[1.2, 0.7], [0.7, 0.9]]),
}

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


def factor(metric: str) -> np.ndarray:
    """L of the inverse mass matrix M = L Lᵀ."""
    value = METRICS[metric]
    if value is None:
        return np.eye(2)
    value = np.asarray(value, np.float64)
    return np.diag(np.sqrt(value)) if value.ndim == 1 else np.linalg.cholesky(value)


def check_mala(module: Any, metric: str) -> MomentTest:
    """At 39 to 50 % acceptance and five steps: cached values need a rejection and then a move."""
    return invariance_test(
        jax.random.key(3),
        module.mala(1.0 if metric == "dense" else 0.5, METRICS[metric])(mixture_log_density),
        exact_draws(),
        log_density=mixture_log_density,
        reversible=True,
    )


@functools.cache
def exact_draws() -> jax.Array:
    return skewed_mixture().sample(jax.random.key(2), 200_000)


def check_ula(module: Any, metric: str) -> MomentTest:
    """x' = x - h M Λ (x - m) + √(2h) L ξ."""
    h, mass = 0.4, factor(metric) @ factor(metric).T
    return linear_gaussian_test(
        jax.random.key(4),
        module.ula(h, METRICS[metric])(log_density),
        MEAN,
        np.eye(2) - h * mass @ PRECISION,
        2 * h * mass,
        num_particles=NUM_PARTICLES,
    )


def check_kinetic(module: Any, word: str, metric: str) -> MomentTest:
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
    algorithm = getattr(module, word.lower())(h, FRICTION, METRICS[metric])(log_density)

    def start(key: jax.Array, z: jax.Array) -> Any:
        state = algorithm.init(z[:2], key)
        # OBABO's momentum is N(0, I) independently of the point: what init draws is exact.
        return state if word == "OBABO" else state._replace(momentum=z[2:])

    return linear_gaussian_test(
        jax.random.key(5),
        algorithm,
        np.concatenate([MEAN, np.zeros(2)]),
        transition,
        noise,
        num_particles=NUM_PARTICLES,
        start=start,
        observe=lambda state: (state.position, state.momentum),
    )


CHECKS: dict[str, Callable[[Any, str], MomentTest]] = {
    "mala": check_mala,
    "ula": check_ula,
    "baoab": lambda module, metric: check_kinetic(module, "BAOAB", metric),
    "obabo": lambda module, metric: check_kinetic(module, "OBABO", metric),
}


class Bug(NamedTuple):
    sampler: str
    metric: str
    name: str
    module: str
    old: str
    new: str


def bugs(samplers: str, metric: str, module: str, *rows: tuple[str, str, str]) -> list[Bug]:
    return [
        Bug(sampler, metric, *_row(row, module)) for sampler in samplers.split() for row in rows
    ]


def _row(row: tuple[str, str, str], module: str) -> tuple[str, str, str, str]:
    return row[0], module, row[1], row[2]


BUGS = [
    *bugs(
        "mala",
        "identity",
        OVERDAMPED,
        (
            "no accept step",
            "(jnp.log(uniform) <= log_acceptance) & (status == Status.OK)",
            "status == Status.OK",
        ),
        (
            "symmetric ratio",
            "value - state.log_density - change",
            "value - state.log_density",
        ),
        (
            "forward and reverse swapped",
            "value - state.log_density - change",
            "value - state.log_density + change",
        ),
        (
            "old gradient in the reverse move",
            "(y - x) * (state.score + score) / 2 + h / 4 * norms",
            "(y - x) * state.score",
        ),
        ("acceptance to the power 0.9", "<= log_acceptance)", "<= 0.9 * log_acceptance)"),
        (
            "one key for noise and acceptance",
            "key_noise, key_accept = jax.random.split(key)",
            "key_noise = key_accept = key",
        ),
        (
            "gradient of the rejected point kept",
            "jnp.where(accept, a, b), new, old)",
            "jnp.where(accept, a, b), new, old)._replace(score=new.score)",
        ),
        (
            "log density of the rejected point kept",
            "jnp.where(accept, a, b), new, old)",
            "jnp.where(accept, a, b), new, old)._replace(log_density=new.log_density)",
        ),
        (
            "gradient never renewed",
            "OverdampedState(unravel(y), value, score), log_acceptance",
            "OverdampedState(unravel(y), value, state.score), log_acceptance",
        ),
        ("noise too small", "jnp.sqrt(2 * h) * noise", "jnp.sqrt(h) * noise"),
    ),
    *bugs(
        "mala",
        "diagonal",
        OVERDAMPED,
        (
            "metric missing in the norms",
            "metric.whiten(score) ** 2 - pull**2",
            "score**2 - state.score**2",
        ),
    ),
    *bugs(
        "mala",
        "dense",
        OVERDAMPED,
        (
            "metric missing in the noise",
            "metric.color(h * pull + jnp.sqrt(2 * h) * noise)",
            "metric.color(h * pull) + jnp.sqrt(2 * h) * noise",
        ),
    ),
    *bugs(
        "mala",
        "dense",
        METRIC,
        ("factor for its transpose in Lᵀs", "covector @ self.factor", "self.factor @ covector"),
    ),
    *bugs(
        "ula",
        "diagonal",
        OVERDAMPED,
        ("drift halved", "color(h * pull", "color(h / 2 * pull"),
        ("drift away from the mode", "color(h * pull", "color(-0.2 * h * pull"),
        ("noise too small", "jnp.sqrt(2 * h) * noise", "jnp.sqrt(h) * noise"),
        (
            "gradient never renewed",
            "OverdampedState(unravel(y), value, score), log_acceptance",
            "OverdampedState(unravel(y), value, state.score), log_acceptance",
        ),
        ("metric missing in the drift", "pull = metric.whiten(state.score)", "pull = state.score"),
        (
            "one noise for all coordinates",
            "jax.random.normal(key, x.shape, x.dtype)",
            "jax.random.normal(key, (), x.dtype)",
        ),
        (
            "one noise for all particles and steps",
            "jax.random.normal(key, x.shape, x.dtype)",
            "jax.random.normal(jax.random.key(0), x.shape, x.dtype)",
        ),
        (
            "noise not normal",
            "jax.random.normal(key, x.shape, x.dtype)",
            "jax.random.rademacher(key, x.shape, x.dtype)",
        ),
    ),
    *bugs(
        "ula",
        "dense",
        OVERDAMPED,
        (
            "metric missing in the noise",
            "metric.color(h * pull + jnp.sqrt(2 * h) * noise)",
            "metric.color(h * pull) + jnp.sqrt(2 * h) * noise",
        ),
    ),
    *bugs(
        "ula",
        "dense",
        METRIC,
        ("factor for its transpose in L ξ", "self.factor @ white", "white @ self.factor"),
    ),
    *bugs(
        "baoab obabo",
        "diagonal",
        KINETIC,
        ("kick twice as strong", "kick = t * metric", "kick = 2 * t * metric"),
        ("half a step of friction", "* h / word.count", "* (h / 2) / word.count"),
        ("noise of half the friction", "jnp.expm1(-2 * decay)", "jnp.expm1(-decay)"),
        (
            "gradient of the last step kept",
            "KineticState(x, w, value, score)",
            "KineticState(x, w, value, state.score)",
        ),
        ("metric missing in the kick", "metric.whiten(score)", "score"),
    ),
    *bugs(
        "baoab",
        "diagonal",
        KINETIC,
        (
            "second drift missing",
            "x = x + t * metric.color(w)",
            "x = x + (0 if score_is_stale else t) * metric.color(w)",
        ),
        ("metric missing in the drift", "metric.color(w)", "w"),
        ("momentum reversed after the step", "(x, w, value, score)", "(x, -w, value, score)"),
        (
            "damping and noise swapped",
            "jnp.exp(-decay) * w + jnp.sqrt(-jnp.expm1(-2 * decay)) * next(draws)",
            "jnp.sqrt(-jnp.expm1(-2 * decay)) * w + jnp.exp(-decay) * next(draws)",
        ),
        ("another word", '_sampler("BAOAB"', '_sampler("ABOBA"'),
    ),
    *bugs(
        "baoab",
        "dense",
        METRIC,
        ("factor for its transpose in L w", "self.factor @ white", "white @ self.factor"),
    ),
    *bugs(
        "obabo",
        "diagonal",
        KINETIC,
        ("drift against the momentum", "x = x + t * metric", "x = x - t * metric"),
        ("gradient never renewed", "            if score_is_stale:", "            if False:"),
        (
            "one noise for all coordinates",
            '(word.count("O"), *x.shape), x.dtype)',
            '(word.count("O"), 1), x.dtype)',
        ),
        ("one noise for both halves", "* next(draws)", "* noise[0]"),
        ("another word", '_sampler("OBABO"', '_sampler("OABAO"'),
        (
            "momentum too cold at the start",
            "jax.random.normal(key, x.shape, x.dtype), value, score",
            "0.9 * jax.random.normal(key, x.shape, x.dtype), value, score",
        ),
    ),
    *bugs(
        "obabo",
        "dense",
        METRIC,
        ("factor for its transpose in Lᵀs", "covector @ self.factor", "self.factor @ covector"),
    ),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.sampler}: {bug.name}")
def test_a_seeded_bug_is_found(bug: Bug, mutant: Callable[..., types.ModuleType]) -> None:
    home = OVERDAMPED if bug.sampler in ("mala", "ula") else KINETIC
    result = CHECKS[bug.sampler](mutant(home, (bug.module, bug.old, bug.new)), bug.metric)
    print(f"MUTANT {bug.sampler:6} {bug.metric:9} {bug.name:42} max |z| {result.max_z:8.1f}")
    assert result.max_z > result.threshold


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("sampler", CHECKS)
def test_the_sampler_passes(sampler: str, metric: str) -> None:
    result = CHECKS[sampler](langevin, metric)
    print(f"MUTANT {sampler:6} {metric:9} {'(correct)':42} max |z| {result.max_z:8.1f}")
    assert result.passed, str(result)
    assert result.num_moved > 0.3 * result.num_particles


def test_a_mutation_that_matches_nothing_is_an_error(
    mutant: Callable[..., types.ModuleType],
) -> None:
    with pytest.raises(ValueError, match="occurs 0 times"):
        mutant(KINETIC, (KINETIC, "no such text", ""))
    with pytest.raises(ValueError, match="occurs"):
        mutant(KINETIC, (KINETIC, "return", ""))
