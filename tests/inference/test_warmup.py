"""The warm-up against Stan's formulas written out in NumPy, on a sampler whose moves are known."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference.chains import Chains, broadcast
from shoal.inference.warmup import Warmup, make_warmup
from shoal.sampling import langevin
from shoal.sampling.core.algorithm import Algorithm, Sampler, Status

pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(4)
# Slow from step 3 to 20, in two windows.
IS_SLOW = np.isin(np.arange(24), np.arange(3, 21))
IS_END = np.isin(np.arange(24), [9, 20])
STARTS, TARGET = np.array([0.1, 0.5, 2.0]), 0.6


class Flat:
    """A target on which every algorithm is right."""

    def log_density(self, position: Any) -> jax.Array:
        return jnp.zeros(())


class State(NamedTuple):
    position: jax.Array
    log_density: jax.Array


class Info(NamedTuple):
    acceptance_rate: jax.Array
    status: jax.Array


def draw(key: jax.Array) -> jax.Array:
    return jnp.array([1.0, 10.0]) * jax.random.normal(key, (2,))


def known(log_density: Any, step_size: jax.Array, inverse_mass_matrix: jax.Array) -> Algorithm:
    """Jump to `draw` and accept with probability exp(-step size)."""

    def step(key: jax.Array, state: State) -> tuple[State, Info]:
        info = Info(jnp.exp(-step_size), jnp.asarray(Status.OK, jnp.int8))
        return State(draw(key), jnp.zeros(())), info

    return Algorithm(lambda position, key: State(position, jnp.zeros(())), step)


class DualAveraging:
    """Hoffman and Gelman (2014), section 3.2: t0 = 10, gamma = 0.05, kappa = 0.75.

    As in BlackJAX it is the step size used that enters the average, not the next one.
    """

    def __init__(self, start: float) -> None:
        self.mu, self.log_step, self.average = np.log(10 * start), np.log(start), 0.0
        self.error, self.t = 0.0, 1

    def update(self, rate: float) -> None:
        weight = self.t**-0.75
        self.average = weight * self.log_step + (1 - weight) * self.average
        self.error += (TARGET - rate - self.error) / (self.t + 10)
        self.log_step = self.mu - np.sqrt(self.t) / 0.05 * self.error
        self.t += 1


def by_hand(start: float, draws: np.ndarray, is_dense: bool) -> tuple[float, float, np.ndarray]:
    """Return the last step size, the averaged one and the metric of one chain."""
    tuner, window, metric = DualAveraging(start), [], None
    for point, is_slow, is_end in zip(draws, IS_SLOW, IS_END, strict=True):
        tuner.update(np.exp(-np.exp(tuner.log_step)))
        if is_slow:
            window.append(point)
        if is_end:
            # Stan shrinks the covariance of a window of n draws towards 1e-3.
            n, covariance = len(window), np.cov(np.array(window).T)
            full = n / (n + 5) * covariance + 1e-3 * 5 / (n + 5) * np.eye(2)
            metric, window = full if is_dense else np.diag(full), []
            tuner = DualAveraging(np.exp(tuner.average))
    return np.exp(tuner.log_step), np.exp(tuner.average), metric


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["diagonal", "dense"])
def test_step_sizes_and_metric_are_those_of_stan_s_formulas(kind: str) -> None:
    sampler = broadcast(Sampler(known, {"step_size": 0.0, "inverse_mass_matrix": 1.0}), 3)
    metric = jnp.ones((3, 2)) if kind == "diagonal" else jnp.stack([jnp.eye(2)] * 3)
    sampler = sampler.replace(step_size=jnp.asarray(STARTS), inverse_mass_matrix=metric)
    chains = Chains(sampler, Flat(), jnp.array([4, 0, 7]))
    schedule = jnp.asarray(IS_SLOW), jnp.asarray(IS_END)
    warmup = Warmup(chains, jnp.asarray(TARGET), *schedule, kind)
    keys = jax.random.split(KEY, len(IS_SLOW))

    @jax.jit
    def tune() -> Any:
        start = warmup.init(chains.init(jnp.zeros((3, 2)), KEY))
        return jax.lax.scan(lambda s, key: (warmup.step(key, s)[0], None), start, keys)[0]

    state = tune()
    tuned = warmup.final_sampler(state).parameters
    for chain, number in enumerate((4, 0, 7)):
        draws = np.array([draw(jax.random.fold_in(key, number)) for key in keys])
        last, average, metric = by_hand(STARTS[chain], draws, kind == "dense")
        found = state.sampler.parameters["step_size"][chain]
        np.testing.assert_allclose(found, last, rtol=1e-10)
        np.testing.assert_allclose(tuned["step_size"][chain], average, rtol=1e-10)
        np.testing.assert_allclose(tuned["inverse_mass_matrix"][chain], metric, rtol=1e-9)


def test_the_schedule_is_stan_s_and_a_short_one_tunes_the_step_size_alone() -> None:
    chains = Chains(broadcast(langevin.mala(0.1), 2), Flat(), jnp.arange(2))
    warmup = make_warmup(chains, 1000, 0.6, "dense")
    # Initial 75, windows of 25, 50, 100, 200 and 500, final 50: Stan reference manual.
    np.testing.assert_array_equal(np.flatnonzero(warmup.is_slow)[[0, -1]], [75, 949])
    np.testing.assert_array_equal(np.flatnonzero(warmup.is_window_end), [99, 149, 249, 449, 949])
    assert warmup.metric == "dense"
    assert not make_warmup(chains, 19, 0.6, "dense").is_slow.any()
    bare = Chains(broadcast(Sampler(known, {"step_size": 0.1}), 2), Flat(), jnp.arange(2))
    assert make_warmup(bare, 100, 0.6, "diagonal").metric is None


def test_a_given_metric_is_where_tuning_starts() -> None:
    variances = np.array([0.5, 4.0], np.float32)
    for given, wanted in ((variances, variances), (np.diag(variances) + 0.3, variances + 0.3)):
        sampler = broadcast(langevin.mala(0.1, jnp.asarray(given)), 3)
        chains = Chains(sampler, Flat(), jnp.arange(3))
        warmup = make_warmup(chains, 50, 0.6, "diagonal")
        state = warmup.init(chains.init(jnp.zeros((3, 2)), KEY))
        found = state.metric.inverse_mass_matrix
        np.testing.assert_allclose(found, np.tile(wanted, (3, 1)), rtol=1e-6)


def z_borrowed_acceptance(key: jax.Array) -> np.ndarray:
    """Who moves in a step of an unadjusted sampler: with the given probability, independently."""
    num, rate = 20_000, 0.4
    parameters = {"step_size": jnp.asarray(-np.log(rate)), "inverse_mass_matrix": jnp.ones(2)}
    sampler = broadcast(Sampler(known, parameters, is_adjusted=False), num)
    chains = Chains(sampler, Flat(), jnp.arange(num))
    warmup = make_warmup(chains, 10, 0.6, None)
    state = warmup.init(chains.init(jnp.zeros((num, 2)), key))
    moved = (warmup.step(key, state)[0].chains.position[:, 0] != 0) - rate
    moved = np.asarray(moved, np.float64)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num))
    proposal = np.asarray(jax.vmap(draw)(keys)[:, 0], np.float64)
    variance = rate * (1 - rate)
    sums = (
        moved,
        moved[1:] * moved[:-1] / variance**0.5,
        moved * proposal,
        moved * (proposal**2 - 1),
    )
    scales = 1.0, 1.0, 1.0, 2**0.5
    return np.array(
        [a.mean() * np.sqrt(a.size / variance) / b for a, b in zip(sums, scales, strict=True)]
    )


def test_a_sampler_that_never_rejects_borrows_an_accept_reject_step() -> None:
    # Four statistics: a false alarm in 1e-6 of all keys.
    assert np.abs(z_borrowed_acceptance(KEY)).max() < 5.2
