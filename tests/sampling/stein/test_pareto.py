"""Pareto sets: hypervolume by counting cells, surrogate by scikit-learn's, the update by hand."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from shoal.sampling.stein import _pareto_network as networks, _pareto_surrogate as surrogates
from shoal.sampling.stein._pareto_front import choose_greedily
from shoal.sampling.stein.pareto import hypervolume, nondominated, pareto_search, pareto_set

pytestmark = pytest.mark.quick_compiler

SMALL = dict(
    num_initial=8, batch_size=3, num_steps=300, width=16, num_candidates=100, num_fit_iterations=30
)
BOX = ([-1.0, 0.0], [2.0, 1.0])


def bowls(x):
    """Squared distances to (0, 0.5) and (1, 0.5): the front is √y_1 + √y_2 = 1."""
    assert type(x) is np.ndarray
    assert x.dtype == np.float64
    rest = (x[:, 1] - 0.5) ** 2
    return np.stack([x[:, 0] ** 2 + rest, (x[:, 0] - 1) ** 2 + rest], 1)


def search_with(**options):
    return pareto_set(jax.random.key(3), bowls, BOX, **(SMALL | {"num_iterations": 2} | options))


@pytest.fixture(scope="module")
def found():
    return search_with()


@pytest.mark.parametrize("num_objectives", [2, 3])
def test_hypervolume_counts_cells(num_objectives):
    """With whole coordinates it is a number of unit cells; some points are beyond the reference."""
    rng = np.random.default_rng(num_objectives)
    sets = rng.integers(0, 9, (20, 6, num_objectives)).astype(np.float32)
    reference = np.array([7, 6, 8])[:num_objectives]
    cells = np.array(list(itertools.product(*map(range, reference))))
    counts = [(points[:, None] <= cells).all(2).any(0).sum() for points in sets]
    assert [float(hypervolume(points, reference)) for points in sets] == counts


def test_hypervolume_of_nothing_is_zero_and_its_gradient_is_the_exposed_side():
    reference = jnp.array([2.0, 3.0])
    assert float(hypervolume(jnp.empty((0, 2)), reference)) == 0
    slope = jax.grad(hypervolume)(jnp.array([[0.0, 1.0], [1.0, 0.5]]), reference)
    # Sides that face away from the reference point, of lengths 2 and 1, 0.5 and 1.
    np.testing.assert_allclose(slope, [[-2.0, -1.0], [-0.5, -1.0]])


def test_nondominated_is_the_definition():
    points = np.random.default_rng(0).integers(0, 9, (40, 3)).astype(float)
    points[::7, 1], points[5, 0], points[3:5] = np.nan, -np.inf, [-1, 9, 9]
    below = lambda a, b: np.isfinite(a).all() and (a <= b).all() and (a < b).any()
    wanted = [np.isfinite(p).all() and not any(below(q, p) for q in points) for p in points]
    assert nondominated(points).tolist() == wanted
    assert 1 < sum(wanted) < 40


@pytest.mark.parametrize("num_objectives", [2, 3])
def test_greedy_choice_adds_most(num_objectives):
    rng = np.random.default_rng(1)
    values, front = (rng.random((num, num_objectives)).astype(np.float32) for num in (12, 3))
    reference = np.ones(num_objectives, np.float32)
    padded = np.concatenate([front, np.full_like(front, np.inf)])
    chosen = np.asarray(choose_greedily(values, padded, reference, 4)).tolist()
    wanted = []
    for _ in range(4):
        volumes = [float(hypervolume(np.vstack([front, v]), reference)) for v in values]
        best = int(np.argmax([-1 if i in wanted else v for i, v in enumerate(volumes)]))
        wanted.append(best)
        front = np.vstack([front, values[best]])
    assert chosen == wanted


@pytest.mark.usefixtures("x64")
def test_surrogate_is_a_gaussian_process():
    """Likelihood, mean and deviation are scikit-learn's, and padding changes none."""
    rng = np.random.default_rng(2)
    x, new = rng.random((9, 2)), rng.random((5, 2))
    y = np.stack([np.sin(3 * x[:, 0]), x[:, 1] ** 2], 1)
    found = surrogates.fit(x, y, 1)
    mean, deviation = surrogates.predict(found, jnp.asarray(new))
    outputs = np.zeros((len(found.inputs), 2))
    outputs[:9] = y
    for i, parameters in enumerate(np.asarray(found.parameters)):
        *lengths, variance, noise = np.exp(parameters)
        kernel = ConstantKernel(variance) * Matern(lengths, nu=2.5) + WhiteKernel(noise + 1e-6)
        peer = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None).fit(x, y[:, i])
        loss = surrogates.negative_log_likelihood(parameters, found.inputs, outputs[:, i])
        assert float(loss) == pytest.approx(-peer.log_marginal_likelihood(), rel=1e-9)
        wanted, spread = peer.predict(new, return_std=True)
        np.testing.assert_allclose(mean[:, i], wanted, rtol=1e-7, atol=1e-9)
        # scikit-learn's deviation is that of an observation, with its noise.
        np.testing.assert_allclose(deviation[:, i] ** 2, spread**2 - noise - 1e-6, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_surrogate_finds_what_matters():
    x = np.random.default_rng(3).random((24, 3))
    found = surrogates.fit(x, np.sin(5 * x[:, :1]), 60)
    lengths = np.exp(np.asarray(found.parameters))[0, :3]
    assert lengths[0] < 0.2 * lengths[1:].min()
    mean, _ = surrogates.predict(found, jnp.full((1, 3), 0.5))
    assert float(mean[0, 0]) == pytest.approx(math.sin(2.5), abs=0.02)


def test_local_kernel_compares_the_active_objective():
    values = jnp.array([[0.0, 5.0], [2.0, 1.0], [6.0, 1.0]])
    active = jnp.array([0, 1, 0])
    # Squared differences 4, 16, 36 and 16, 16, 0, each twice, beside three zeros.
    kernel = networks.local_kernel(values, active, 2.0, "median")
    h, of_second = 2 * 4 / math.log(3), networks._SMALLEST_BANDWIDTH  # medians 4 and 0
    rows = [
        [1, math.exp(-16 / of_second), math.exp(-36 / h)],
        [math.exp(-4 / h), 1, math.exp(-16 / h)],
    ]
    np.testing.assert_allclose(kernel[:2], rows, rtol=1e-6)
    squared = networks.local_kernel(values, active, 2.0, "squared_median")
    np.testing.assert_allclose(squared[0, 2], math.exp(-36 / (4 * h)), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_direction_is_the_sum_over_preferences():
    """For three objectives, with the gradient of each preference by itself."""
    sizes = networks.Sizes(5, 1, 1, 1, 4, "median")
    rates = networks.Rates(0.1, 0.1, 0.3, 1.0)
    network = networks.initialise(jax.random.key(1), 3, 2, 4)
    network = jax.tree.map(lambda leaf: leaf.astype(float), network)
    preferences = networks.draw_preferences(jax.random.key(2), 5, 3).astype(float)
    ideal = jnp.array([-0.5, -0.3, -0.4])
    values_of = lambda x: jnp.sum((x[:, None] - jnp.eye(3, 2)) ** 2, 2)
    values = lambda network: values_of(networks.forward(network, preferences)[0])

    def by_hand(network):
        losses = lambda network: jnp.max(preferences * (values(network) - ideal), 1)
        active = jnp.argmax(preferences * (values(network) - ideal), 1)
        squares = lambda v: (v[:, None] - v) ** 2
        h = jnp.median(squares(values(network)).reshape(25, 3), 0) / math.log(5)
        kernel = lambda network: jnp.exp(
            -squares(values(network))[:, jnp.arange(5), active] / h[active]
        )
        each = jax.jacrev(losses)(network)
        unit = jax.tree.map(lambda g: g / jnp.linalg.norm(g, axis=0).clip(1e-12), each)
        apart = jax.jacrev(lambda network: kernel(network).sum(1))(network)
        rows = lambda g, r: jnp.tensordot(kernel(network), g, 1) + 0.3 * r
        return jax.tree.map(lambda g, r: jnp.sum(rows(g, r), 0) / 5, unit, apart)

    both = lambda network: (
        networks.direction(network, values_of, preferences, ideal, preferences, sizes, rates)[0],
        by_hand(network),
    )
    ours, wanted = jax.jit(both)(network)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def z_of_preferences(key):
    """Mean and mean square of a coordinate uniform on the simplex of three: 1/3 and 1/6."""
    first = networks.draw_preferences(key, 20_000, 3)[:, 0] - networks._OFFSET
    # Variances 1/18 of it and 1/15 - 1/36 of its square.
    spreads = jnp.array([(1 / 18) ** 0.5, (1 / 15 - 1 / 36) ** 0.5])
    means = jnp.array([jnp.mean(first) - 1 / 3, jnp.mean(first**2) - 1 / 6])
    return means / spreads * 20_000**0.5


def test_preferences_are_uniform():
    assert np.abs(z_of_preferences(jax.random.key(5))).max() < 5.2


@pytest.mark.parametrize(("num_objectives", "num"), [(2, 200), (3, 300)])
def test_even_preferences_are_a_lattice(num_objectives, num):
    lattice = networks.even_preferences(num_objectives)
    assert len(np.unique(lattice.round(9), axis=0)) == len(lattice) == num
    np.testing.assert_allclose(lattice.sum(1), 1)
    assert lattice.min() == 0


def test_a_small_search_finds_the_front(found):
    assert found.x.shape == (14, 2)
    np.testing.assert_array_equal(found.y, bowls(found.x))
    np.testing.assert_array_equal(found.is_nondominated, nondominated(found.y))
    # The front is at 1; points of the initial design are at 1.1 to 3.
    roots = np.sqrt(found.y[8:]).sum(1)
    assert np.median(roots) < 1.05
    map_roots = np.sqrt(bowls(found.solution([[0.7, 0.3], [0.5, 0.5], [0.3, 0.7]]))).sum(1)
    assert map_roots.max() < 1.1


def test_the_map_trades_one_objective_for_the_other(found):
    weights = np.linspace(0.1, 0.9, 9)
    x = found.solution(np.stack([weights, 1 - weights], 1))
    assert (np.diff(bowls(x)[:, 0]) < 0).all()
    assert (found.bounds[0] <= x).all()
    assert (x <= found.bounds[1]).all()
    np.testing.assert_array_equal(found.solution([3.0, 9.0]), found.solution([0.25, 0.75]))


def test_the_initial_design_is_a_latin_hypercube():
    search = pareto_search(BOX, num_initial=10)
    x, _ = search.ask(search.init(jax.random.key(0)))
    unit = (x - BOX[0]) / (np.array(BOX[1]) - BOX[0])
    assert (np.sort(np.floor(10 * unit), 0) == np.arange(10)[:, None]).all()
    other, _ = search.ask(search.init(jax.random.key(1)))
    assert not np.isin(other, x).any()


@pytest.mark.parametrize("num_known", [8, 11])
def test_a_search_goes_on_from_what_was_evaluated(found, num_known):
    known, left = found.x[:num_known], (14 - num_known) // 3
    again = search_with(x_initial=known, y_initial=bowls(known), num_iterations=left)
    np.testing.assert_array_equal(again.x, found.x)
    for one, other in zip(*map(jax.tree.leaves, (again.network, found.network)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("last", [1, 2])
def test_an_interruption_loses_no_evaluation(found, last):
    calls, seen = [], []

    def objectives(x):
        if len(calls) == last:
            raise KeyboardInterrupt
        calls.append(x)
        return bowls(x)

    result = pareto_set(
        jax.random.key(3), objectives, BOX, num_iterations=2, on_iteration=seen.append, **SMALL
    )
    assert result.is_interrupted
    assert not found.is_interrupted
    assert [len(one.x) for one in seen] == [8, 11][:last]
    np.testing.assert_array_equal(result.x, found.x[: 5 + 3 * last])
    np.testing.assert_array_equal(seen[-1].y, result.y)


def test_an_interruption_before_any_evaluation_passes():
    def objectives(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pareto_set(jax.random.key(3), objectives, BOX, **SMALL)


def test_failed_evaluations_count_nowhere(found):
    """And to the surrogate they are as bad as the worst."""
    search = pareto_search(BOX, **SMALL)
    y = found.y.copy()
    y[[2, 9]] = [[np.nan, 0.0], [-np.inf, 1.0]]
    state = search.init(jax.random.key(3), found.x, y)
    result = search.result(state)
    rest = np.delete(found.y, [2, 9], 0)
    assert result.num_invalid == 2
    assert not result.is_nondominated[[2, 9]].any()
    reference = rest.max(0) + 0.1 * np.ptp(rest[nondominated(rest)], axis=0)
    np.testing.assert_allclose(result.reference_point, reference)
    assert result.hypervolume == pytest.approx(float(hypervolume(rest, reference)), rel=1e-6)
    told = []
    search._task(state, lambda x, y, _: told.append(y) or surrogates.Surrogate(0, x, 0, 0))
    np.testing.assert_allclose(told[0].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(told[0][[2, 9]], [told[0].max(0)] * 2)
    with pytest.raises(ValueError, match="finite somewhere"):
        search.learn(search.init(jax.random.key(0), found.x, np.full((14, 2), np.nan)))


def test_a_given_reference_point_is_used(found):
    search = pareto_search(BOX, reference_point=[2.0, 3.0])
    result = search.result(search.init(jax.random.key(0), found.x, found.y))
    np.testing.assert_array_equal(result.reference_point, [2.0, 3.0])
    assert result.hypervolume == pytest.approx(
        float(hypervolume(found.y, np.array([2.0, 3.0]))), rel=1e-6
    )
    with pytest.raises(ValueError, match="trained network"):
        result.solution([0.5, 0.5])
