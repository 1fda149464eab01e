"""Parallel tempering against the laws of its exchanges, and as a sampler of separated modes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import betainc

from shoal.inference import sample
from shoal.inference.diagnostics import invariance_test
from shoal.sampling import langevin
from shoal.sampling.core.algorithm import Algorithm, Sampler, Status
from shoal.sampling.langevin import tempering
from shoal.sampling.langevin.overdamped import OverdampedInfo, OverdampedState

# Laws and identities hold however the compiler rounds.
pytestmark = pytest.mark.quick_compiler

DIM = 3
LADDER = np.array([1.0, 0.4, 0.2, 0.08])


def normal(x):
    return -0.5 * jnp.sum(x**2)


def modes(x):
    """Weights 0.3 and 0.7, sixteen standard deviations apart."""
    peaks = x - jnp.array([[-8.0, 0.0], [8.0, 0.0]])
    return jax.nn.logsumexp(-0.5 * jnp.sum(peaks**2, 1), b=jnp.array([0.3, 0.7]))


def independent_draws() -> Sampler:
    """A kernel that forgets everything in one step, for powers of the standard normal law."""

    def build(log_density: Any, step_size: Any) -> Algorithm:
        def init(x: Any, key: Any = None) -> OverdampedState:
            return OverdampedState(x, *jax.value_and_grad(log_density)(x))

        def step(key: Any, state: Any) -> Any:
            beta = -2 * log_density(jnp.eye(DIM)[0])
            new = init(jax.random.normal(key, (DIM,)) / jnp.sqrt(beta))
            one = jnp.asarray(1.0)
            return new, OverdampedInfo(one, one > 0, jnp.int8(Status.OK))

        return Algorithm(init, step)

    return Sampler(build, {"step_size": 0.1})


def acceptances(ladder: np.ndarray) -> np.ndarray:
    """Mean swap acceptances of N(0, I / β) and N(0, I / β')."""
    return 2 * betainc(DIM / 2, DIM / 2, 1 / (1 + ladder[:-1] / ladder[1:]))


def z_ladder(key):
    """Acceptances, exchanges and round trips of replicas that draw independently."""
    num_chains, num_steps = 64, 1000
    algorithm = tempering.parallel(independent_draws(), LADDER)(normal)

    @jax.jit
    def run(keys):
        def step(state, key):
            state, info = algorithm.step(key, state)
            return state, (info.swap_acceptance_rate, info.is_swapped, state.round_trips)

        start = algorithm.init(jnp.zeros(DIM))
        return jax.vmap(lambda k: jax.lax.scan(step, start, jax.random.split(k, num_steps)))(keys)

    state, (rates, swapped, trips) = run(jax.random.split(key, num_chains))
    rates, swapped = np.asarray(rates, np.float64), np.asarray(swapped)
    # Even pairs in even steps, odd pairs in odd ones, and never one in vain.
    assert not swapped[:, 0::2, 1].any()
    assert not swapped[:, 1::2, [0, 2]].any()
    assert (np.sort(state.walker, 1) == np.arange(4)).all()
    accepted = acceptances(LADDER)
    z_rates = (rates.mean((0, 1)) - accepted) / (rates.std((0, 1)) / np.sqrt(rates[..., 0].size))
    num_proposed = num_chains * num_steps / 2
    spread = np.sqrt(accepted * (1 - accepted) / num_proposed)
    z_swaps = (swapped.sum((0, 1)) / num_proposed - accepted) / spread
    # The first tenth is left out: walkers have to spread over the ladder.
    counts = np.asarray(trips[:, -1] - trips[:, num_steps // 10], np.float64)
    assert counts.min() > 0
    expected = float(tempering.round_trip_rate(jnp.asarray(1 - accepted))) * 0.9 * num_steps
    z_trips = (counts.mean() - expected) / (counts.std(ddof=1) / np.sqrt(num_chains))
    print(z_rates, z_swaps, z_trips, counts.mean(), expected)
    return np.concatenate([z_rates, z_swaps, [z_trips]])


def test_exchanges_and_round_trips_are_those_of_the_theory():
    assert np.abs(z_ladder(jax.random.key(0))).max() < 5.2


class Path(NamedTuple):
    """Laws on the line, on a grid, and what makes the algorithm sample them."""

    reference: Any
    ladder: np.ndarray


def skewed(x):
    peaks = (x[0] - jnp.array([-1.5, 1.0])) / jnp.array([0.5, 1.0])
    return jax.nn.logsumexp(-0.5 * peaks**2, b=jnp.array([0.6, 0.4]))


def broad(x):
    return -0.5 * jnp.sum((x - 1) ** 2) / 4


PATHS = {
    "power": Path(None, np.array([1.0, 0.5, 0.2], np.float32)),
    "reference": Path(broad, np.array([1.0, 0.4, 0.0], np.float32)),
}


def on_path(path, beta):
    if path.reference is None:
        return lambda x: beta * skewed(x)
    return lambda x: (1 - beta) * path.reference(x) + beta * skewed(x)


def on_rungs(path, x):
    """The state of replicas at points ``(K, 1)``, from nothing but the definition of the path."""
    one = lambda beta, x: OverdampedState(x, *jax.value_and_grad(on_path(path, beta))(x))
    return jax.vmap(one)(jnp.asarray(path.ladder), x)


def z_law(key, name):
    """All replicas start exactly, each in its law, and must stay there."""
    path, num = PATHS[name], 20_000
    grid = np.linspace(-14, 14, 4001)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    draws = []
    for beta in path.ladder:
        density = np.exp(jax.vmap(on_path(path, beta))(grid[:, None].astype(np.float32)))
        cdf = np.cumsum(density, dtype=np.float64)
        draws.append(np.interp(rng.random(num), cdf / cdf[-1], grid))
    sampler = tempering.parallel(
        langevin.mala(), path.ladder, reference=path.reference, step_size=0.6,
        step_scale=np.array([1.0, 1.5, 2.0]),
    )  # fmt: skip
    algorithm = sampler(skewed)

    def start(key, x):
        return algorithm.init(x[0])._replace(replicas=on_rungs(path, x))

    draws = np.stack(draws, 1)[..., None].astype(np.float32)
    result = invariance_test(
        key, algorithm, draws, start=start, observe=lambda s: s.replicas.position[:, 0],
        features=lambda x: (x, x**2, jnp.sin(x), x > 0, x[0] * x[1], x[1] * x[2]), num_steps=6,
    )  # fmt: skip
    print(result)
    assert result.num_moved > 0.9 * num
    return result.z


@pytest.mark.parametrize("name", PATHS)
def test_the_laws_of_all_replicas_are_kept(name):
    assert np.abs(z_law(jax.random.key(1), name)).max() < 5.2


def test_what_replicas_cache_is_that_of_their_rung():
    """A kinetic kernel, several moves between exchanges, a tree as the position."""
    path = PATHS["power"]
    sampler = tempering.parallel(langevin.ghmc(0.3), path.ladder, steps_per_swap=2)
    algorithm = sampler(lambda p: skewed(p["x"]))

    @jax.jit
    def run(key):
        def step(state, key):
            state, info = algorithm.step(key, state)
            return state, (state, info, on_rungs(path, state.replicas.position["x"]))

        state = algorithm.init({"x": jnp.array([0.3])}, key)
        return jax.lax.scan(step, state, jax.random.split(key, 40))[1]

    state, info, wanted = run(jax.random.key(2))
    assert info.is_swapped.sum() > 10
    assert (info.status == Status.OK).all()
    np.testing.assert_array_equal(state.position["x"], state.replicas.position["x"][:, 0])
    np.testing.assert_array_equal(state.log_density, state.replicas.log_density[:, 0])
    np.testing.assert_allclose(state.replicas.log_density, wanted.log_density, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.replicas.score, wanted.score, rtol=1e-3, atol=1e-4)


def test_separated_modes_through_the_front_door():
    """The weight of a mode, by tempering; alone the kernel would never have left its start."""
    ladder = tempering.geometric_ladder(6, 0.01)
    found = sample(
        jax.random.key(3), modes, tempering.parallel(langevin.mala(), ladder), num_chains=8,
        init=jnp.array([8.0, 0.0]), num_warmup=100, num_samples=1000,
        tune_metric=None, progress=False,
    )  # fmt: skip
    share = (found.posterior["position"][..., 0] < 0).mean(1)
    print(share)
    # Chains differ by their round trips, of which each makes about 85: 0.3 to 0.07.
    assert abs(share.mean() - 0.3) < 5.2 * share.std(ddof=1) / np.sqrt(8)
    assert share.std(ddof=1) < 0.1
    assert 0.4 < found.sample_stats["acceptance_rate"].mean() < 0.75
    algorithm = langevin.mala(1.0)(modes)
    walk = lambda key: jax.lax.scan(
        lambda s, k: (algorithm.step(k, s)[0], s.position[0]),
        algorithm.init(jnp.array([8.0, 0.0])), jax.random.split(key, 20_000),
    )[1]  # fmt: skip
    alone = jax.jit(walk)(jax.random.key(4))
    assert (alone > 0).all()


def test_tuning_shares_out_the_rejections():
    start = tempering.parallel(langevin.mala(3.0), jnp.array([1.0, 0.95, 0.9, 0.2]))
    tuned = tempering.tune(jax.random.key(5), start, normal, jnp.zeros(DIM), num_steps=8000)
    ladder = np.asarray(tuned.sampler.parameters["inverse_temperatures"])
    # Of a Gaussian the geometric ladder has equal rates.
    np.testing.assert_allclose(np.log(ladder), np.linspace(0, np.log(0.2), 4), atol=0.1)
    wanted = 1 - acceptances(np.asarray(tempering.geometric_ladder(4, 0.2)))
    np.testing.assert_allclose(tuned.rejection_rates, wanted, atol=0.03)
    np.testing.assert_allclose(tuned.barrier, wanted.sum(), atol=0.05)
    # The metric M / β already makes all replicas accept alike.
    np.testing.assert_allclose(tuned.sampler.parameters["step_scale"], 1, atol=0.25)


def test_the_ladder_of_equal_rejections():
    """A barrier that is linear in β is cut into equal parts in one go; equal rates stay."""
    ladder = np.array([1.0, 0.9, 0.5, 0.2, 0.0], np.float32)
    rates = -np.diff(ladder)
    new = tempering.adapt_ladder(ladder, rates)
    np.testing.assert_allclose(new, [1, 0.75, 0.5, 0.25, 0], atol=2e-3)
    equal = np.full(4, 0.3, np.float32)
    np.testing.assert_allclose(tempering.adapt_ladder(ladder, equal), ladder, atol=1e-6)
    none = np.zeros(4, np.float32)
    np.testing.assert_allclose(tempering.adapt_ladder(ladder, none), ladder, atol=1e-6)
    assert tempering.round_trip_rate(none) == 0.5
    assert tempering.round_trip_rate(np.ones(4, np.float32)) == 0


def test_a_point_outside_the_support_of_either_density_is_refused():
    """At β = 0 the target has no weight, but a replica there could never become cold."""
    target = lambda x: jnp.where(x[0] > 0, -x[0], -jnp.inf)
    sampler = tempering.parallel(langevin.mala(4.0), np.array([1.0, 0.0]), reference=broad)
    algorithm = sampler(target)
    run = lambda key: jax.lax.scan(
        lambda s, k: (lambda new, info: (new, (new.replicas, info.status)))(*algorithm.step(k, s)),
        algorithm.init(jnp.ones(1)), jax.random.split(key, 200),
    )  # fmt: skip
    replicas, status = jax.jit(run)(jax.random.key(6))[1]
    assert (replicas.position > 0).all()
    assert jnp.isfinite(replicas.log_density).all()
    assert jnp.isfinite(replicas.score).all()
    assert set(np.unique(status)) == {Status.OK, Status.OUTSIDE_SUPPORT}


def test_samplers_and_ladders_that_do_not_fit():
    with pytest.raises(TypeError, match=r"log_density and score.*MidpointState"):
        tempering.parallel(langevin.ubu())(normal).init(jnp.zeros(2), jax.random.key(0))
    with pytest.raises(ValueError, match=r"step_scale has shape \(3,\), but there are 8"):
        tempering.parallel(step_scale=np.ones(3))(normal)
    with pytest.raises(ValueError, match=r"falling from 1.*\[2\] is 0.5"):
        tempering.parallel(inverse_temperatures=np.array([1.0, 0.4, 0.5]))
    with pytest.raises(ValueError, match=r"falling from 1.*\[0\] is 0.9"):
        tempering.parallel(inverse_temperatures=np.array([0.9, 0.4]))
    with pytest.raises(ValueError, match="reference at the start.*nan"):
        tempering.parallel(reference=lambda x: jnp.sum(jnp.log(x)))(normal).init(-jnp.ones(2))
    with pytest.raises(TypeError, match="what tempering.parallel returned"):
        tempering.tune(jax.random.key(0), langevin.mala(), normal, jnp.zeros(2))
