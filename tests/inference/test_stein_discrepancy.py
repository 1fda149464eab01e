"""Stein discrepancies have the values of theory, of automatic derivatives and of the reference."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from shoal.inference import Result, Target, _stein_weights, discrepancy
from shoal.sampling.core import kernels, pairwise

# Laws and identities hold however the compiler rounds.
pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(11)
KERNELS = {
    "imq": kernels.IMQ(2.0),
    "general imq": kernels.IMQ(3.0, -0.7, 1.3),
    "rbf": kernels.RBF(2.0),
    "matern": kernels.Matern52(1.5),
    "quadratic": kernels.RationalQuadratic(1.2, 0.8),
    "sum": kernels.RBF(2.0) * kernels.IMQ(1.0) + 0.5 * kernels.IMQ(4.0),
}


def normal(x):
    return -0.5 * jnp.sum(x**2)


def cloud(num, dim=3, seed=0, dtype=np.float32):
    """Return points, and scores that belong to no law in particular."""
    rng = np.random.default_rng([seed, num, dim])
    return rng.normal(size=(2, num, dim)).astype(dtype)


# The kernel and its sums


@jax.jit
def by_definition(kernel, x, s):
    """Return all k_p by applying Stein's operator to both arguments, with JAX's derivatives."""

    def k_p(x, s_x, y, s_y):
        slope_x, slope_y = jax.grad(kernel, (0, 1))(x, y)
        mixed = jax.jacobian(jax.grad(kernel), 1)(x, y)
        return kernel(x, y) * (s_x @ s_y) + s_x @ slope_y + s_y @ slope_x + jnp.trace(mixed)

    over_y = jax.vmap(k_p, in_axes=(None, None, 0, 0))
    return jax.vmap(over_y, in_axes=(0, 0, None, None))(x, s, x, s)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", KERNELS)
def test_the_kernel_is_steins_operator_on_both_arguments(name):
    x, s = cloud(9, dtype=np.float64)
    matrix = np.array(by_definition(KERNELS[name], x, s))
    if name == "matern":  # whose derivatives JAX cannot take where points coincide
        np.fill_diagonal(matrix, np.sum(s**2, 1) + 3 * 5 / (3 * 1.5**2))
    w = np.arange(9) / 4
    metric = functools.partial(discrepancy.ksd, x, s, KERNELS[name], block_size=4)
    pairs = np.outer(w, w) * (1 - np.eye(9))
    for weights, v, u in (
        (None, matrix.mean(), (matrix.sum() - np.trace(matrix)) / 72),
        (w, w @ matrix @ w / w.sum() ** 2, np.sum(pairs * matrix) / pairs.sum()),
    ):
        assert metric(weights=weights) == pytest.approx(v, rel=1e-12)
        assert metric(statistic="U", weights=weights) == pytest.approx(u, rel=1e-12)
    assert np.linalg.eigvalsh(matrix)[0] > -1e-12


@pytest.mark.usefixtures("x64")
def test_products_with_the_matrix_are_its_rows_sums():
    x, s = cloud(9, dtype=np.float64)
    kernel, v = KERNELS["imq"], np.arange(9) / 4
    matrix = np.asarray(by_definition(kernel, x, s))
    some = pairwise.stein_kernel_matvec(kernel, x[:5], s[:5], x, s, v, block_size=4)
    np.testing.assert_allclose(some, matrix[:5] @ v, rtol=1e-12)
    others = pairwise.stein_kernel_matvec(kernel, x, s, x, s, v, exclude_diagonal=True)
    np.testing.assert_allclose(others, (matrix - np.diag(matrix.diagonal())) @ v, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_float32_keeps_its_digits_far_from_the_origin():
    x = cloud(50)[0] + 1000
    s = 1000 - x
    exact = discrepancy.ksd(x.astype(np.float64), s.astype(np.float64), KERNELS["imq"])
    found = discrepancy.ksd(x, s, KERNELS["imq"])
    assert found.dtype == np.float32
    assert found == pytest.approx(float(exact), rel=2e-6)


def z_normals(key):
    """U-statistics of N(mu, a^2 I) against N(0, I), with an RBF, average to their closed form."""
    dim, scale, mean, h = 2, 1.5, 0.5, 3.0
    x = mean + scale * jax.random.normal(key, (4000, 8, dim))
    metric = functools.partial(discrepancy.ksd, kernel=kernels.RBF(h), statistic="U")
    found = np.asarray(jax.jit(jax.vmap(lambda x: metric(x, -x)))(x))
    # Both arguments of k_p move as z = x - y and m = (x + y) / 2, which are independent:
    # x.y = m.m - z.z / 4 and (s_x - s_y).(x - y) = -z.z, with z.z = q of variance 2 a^2 each.
    shrink = 1 / (1 + 4 * scale**2 / h)
    mass = shrink ** (dim / 2)  # E exp(-q / h), under which z has variance v
    v = 2 * scale**2 * shrink
    inner = dim * (scale**2 / 2 + mean**2) - dim * v / 4
    expected = mass * (inner + (2 / h) * (dim - dim * v) - 4 * dim * v / h**2)
    return (found.mean() - expected) / (found.std() / len(found) ** 0.5)


def test_of_normals_it_has_its_closed_form():
    # False alarm 2e-7.
    assert abs(z_normals(KEY)) < 5.2


def z_exact_draws(key):
    """Of exact draws U averages to zero and V to E k_p(x, x) / n = (d + 2 d / h) / n."""
    x = jax.random.normal(key, (4000, 6, 3))
    both = lambda x: [discrepancy.ksd(x, normal, kernels.RBF(2.0), statistic=s) for s in "UV"]
    found = np.stack(jax.jit(jax.vmap(both))(x))
    return (found.mean(1) - [0, 6 / 6]) / (found.std(1) / 4000**0.5)


def test_of_exact_draws_it_averages_to_what_is_promised():
    # False alarm 2e-7 each.
    assert np.abs(z_exact_draws(KEY)).max() < 5.2


def test_it_is_the_same_in_tiles_and_any_order_and_has_the_slope_of_differences():
    x, s = cloud(13)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0].astype(np.float32)
    whole = discrepancy.ksd(x, s, KERNELS["matern"])
    for other in ((x[::-1], s[::-1]), (x @ turn, s @ turn), (x.reshape(13, 3, 1), s[..., None])):
        again = discrepancy.ksd(*map(jnp.asarray, other), KERNELS["matern"], block_size=5)
        assert again == pytest.approx(float(whole), rel=1e-5)
    along = lambda t: discrepancy.ksd(x + t * s, normal, KERNELS["matern"], block_size=5)
    slope = jax.jit(jax.grad(along))(0.3)
    assert slope == pytest.approx(float(along(0.31) - along(0.29)) / 0.02, rel=1e-3)


def test_it_is_blind_to_the_weights_of_modes_far_apart():
    """As its documentation says: all samples in one of two modes look as good as half in each."""
    modes = np.array([[-10.0, 0.0], [10.0, 0.0]], np.float32)
    density = lambda x: jax.nn.logsumexp(-0.5 * jnp.sum((x - modes) ** 2, 1))
    x = jax.random.normal(KEY, (400, 2))
    metric = lambda x: discrepancy.ksd(x, density, kernels.IMQ(2.0), statistic="U")
    one, both, off = (metric(x + shift) for shift in (modes[1], jnp.tile(modes, (200, 1)), 11.0))
    assert abs(one - both) < 0.01 < 0.1 * off


def test_the_bandwidth_is_the_median_of_the_samples():
    x, s = cloud(6)
    q = np.sort(np.sum((x[:, None] - x) ** 2, -1).ravel())
    expected = discrepancy.ksd(x, s, kernels.IMQ(float(q[18])))
    assert discrepancy.ksd(x, s) == pytest.approx(float(expected), rel=1e-5)


def test_memory_grows_with_points_not_pairs():
    x = jax.ShapeDtypeStruct((20_000, 10), np.float32)
    total = lambda x, s: discrepancy.ksd(x, s, KERNELS["imq"])
    compiled = jax.jit(jax.value_and_grad(total)).lower(x, x).compile()
    # All pairs would be 1.6 GB.
    assert compiled.memory_analysis().temp_size_in_bytes < 2**26


# Thinning


def reference_thinning(x, s, num, name, standardize=True):
    """Choose as stein-thinning 0.2.0 does: its formulas with its matrix of preconditioning."""
    if standardize:
        scale = np.abs(x - x.mean(0)).mean(0)
        x, s = x / scale, s * scale
    some = x[np.linspace(0, len(x) - 1, 1000, dtype=int)] if len(x) > 1000 else x
    gaps = np.sqrt(np.sum((some[:, None] - some) ** 2, -1))[np.triu_indices(len(some), 1)]
    a = {
        "id": np.eye(x.shape[1]),
        "med": np.eye(x.shape[1]) / np.median(gaps) ** 2,
        "sclmed": np.eye(x.shape[1]) / np.median(gaps) ** 2 * np.log(len(some)),
        "smpcov": np.linalg.inv(np.cov(x, rowvar=False)),
    }[name]

    def column(y, s_y):
        z = x - y
        base = 1 + np.sum(z @ a * z, 1)
        slopes = np.trace(a) + np.sum((s - s_y) @ a * z, 1)
        return (-3 * np.sum(z @ a @ a * z, 1) / base**2.5 + slopes / base**1.5
                + s @ s_y / base**0.5)  # fmt: skip

    objective = np.trace(a) + np.sum(s * s, 1)
    chosen = []
    for _ in range(num):
        chosen.append(np.argmin(objective))
        objective = objective + 2 * column(x[chosen[-1]], s[chosen[-1]])
    return chosen


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["id", "med", "sclmed", "smpcov"])
def test_thinning_chooses_what_the_reference_chooses(name):
    x = cloud(1100, seed=1, dtype=np.float64)[0] * [1, 5, 0.2] + [0, 3, 0]
    s = -(x - [0, 2, 0]) / np.square([1, 5, 0.2])
    # A chain stays where a proposal was rejected: of equals the first is chosen.
    x[500:520], s[500:520] = x[20:40], s[20:40]
    for standardize in (True, False):
        found = discrepancy.stein_thinning(x, s, 60, name, standardize=standardize)
        np.testing.assert_array_equal(found, reference_thinning(x, s, 60, name, standardize))


def test_thinning_takes_any_kernel_and_is_greedy_on_the_ksd():
    x, s = cloud(30)
    kernel = KERNELS["matern"]
    chosen = discrepancy.stein_thinning(x, s, 4, kernel, standardize=False).tolist()
    metric = jax.jit(lambda x, s: discrepancy.ksd(x, s, kernel))
    sets = [[*chosen[:3], j] for j in range(30)]
    assert np.argmin([metric(x[rows], s[rows]) for rows in sets]) == chosen[3]


# Weights, points and descent


def test_weights_are_the_best_there_are():
    x = 1.5 * cloud(60, 2)[0]
    found = discrepancy.stein_weights(x, normal, KERNELS["imq"])
    w = np.asarray(found.weights, np.float64)
    matrix = np.asarray(by_definition(KERNELS["imq"], x, -x), np.float64)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1, rel=1e-5)
    assert found.ksd == pytest.approx(w @ matrix @ w, rel=1e-3)
    # Karush, Kuhn and Tucker: no direction into the simplex goes down by more than the gap.
    slopes = matrix @ w
    assert found.gap == pytest.approx(2 * (w @ slopes - slopes.min()), rel=0.05)
    assert found.gap < 1e-3 * matrix.mean()
    assert found.ksd < 0.2 * matrix.mean()
    assert 5 < found.num_steps < 1000


def test_weights_are_the_same_without_the_matrix(monkeypatch):
    x, s = cloud(60, 2)
    kept = discrepancy.stein_weights(x, s, KERNELS["imq"], num_steps=3)
    monkeypatch.setattr(_stein_weights, "_KEPT", 59)
    _stein_weights._solve.clear_cache()
    tiled = discrepancy.stein_weights(x, s, KERNELS["imq"], num_steps=3)
    _stein_weights._solve.clear_cache()
    np.testing.assert_allclose(tiled.weights, kept.weights, rtol=1e-3, atol=1e-5)


def test_points_are_laid_where_a_grid_finds_the_least():
    kernel, grid = kernels.IMQ(1.0), np.linspace(-3, 3, 601, dtype=np.float32)[:, None]
    shifted = lambda x: normal(x - 0.5)
    points = discrepancy.stein_points(shifted, grid[::50], 4, kernel, num_starts=3, num_steps=10)
    places = np.concatenate([points, grid])
    matrix = np.asarray(by_definition(kernel, places, 0.5 - places))
    own = matrix.diagonal()[4:] / 2
    for t in range(4):
        objective = own + matrix[4:, :t].sum(1)
        reached = matrix[t, t] / 2 + matrix[t, :t].sum()
        assert reached < objective.min() + 1e-4 * np.abs(objective).max()


def test_descent_beats_independent_draws():
    start = 3 + 0.5 * cloud(20, 2)[0]
    end, values = discrepancy.ksd_descent(normal, start, 40, kernels.IMQ(1.0))
    metric = functools.partial(discrepancy.ksd, scores=normal, kernel=kernels.IMQ(1.0))
    assert values.shape == (41,)
    assert values[0] == pytest.approx(float(metric(start)), rel=1e-4)
    assert metric(end) == pytest.approx(float(values.min()), rel=1e-3)
    # Of exact draws E k_p(x, x) / n = (d + d / h) / n = 0.2.
    assert values.min() < 0.02
    np.testing.assert_allclose(np.mean(end, 0), 0, atol=0.05)


# Results


def model(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    loc = numpyro.sample("loc", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    numpyro.deterministic("twice", 2 * loc)
    numpyro.sample("y", dist.Normal(loc, scale).to_event(1), obs=y)


def test_a_results_discrepancy_is_that_of_its_unconstrained_scaled_draws():
    rng = np.random.default_rng(0)
    target = Target.from_numpyro(model, (rng.normal(size=(5, 2)).astype(np.float32),))
    loc = rng.normal(size=(2, 30, 2)).astype(np.float32)
    scale = rng.gamma(3, size=(2, 30)).astype(np.float32)
    log_weights = np.log(rng.dirichlet(np.ones(30), 2)).astype(np.float32)
    posterior = {"scale": scale, "loc": loc, "twice": 2 * loc}
    result = Result(posterior, {"lp": scale}, target=target, log_weights=log_weights)
    found = discrepancy.stein_discrepancy(result, kernels.IMQ(2.0), max_points=20)

    # Every third draw; sites in the order of their names, the half line by its logarithm.
    z = np.concatenate([loc, np.log(scale)[..., None]], 2)
    density = lambda z: target.log_density({"loc": z[:2], "scale": z[2]})
    s = np.asarray(jax.jit(jax.vmap(jax.vmap(jax.grad(density))))(z))
    used = z[:, ::3].reshape(-1, 3)
    spread = np.abs(used - used.mean(0)).mean(0)
    w = np.exp(log_weights[:, ::3])
    w /= w.sum(1, keepdims=True)
    flat = ((z / spread).reshape(-1, 3), (s * spread).reshape(-1, 3))
    matrix = np.asarray(by_definition(kernels.IMQ(2.0), *flat)).reshape(2, 30, 2, 30)
    witness = np.einsum("cidj,dj->ci", matrix[:, :, :, ::3], w / 2)
    np.testing.assert_allclose(found.witness, witness, rtol=2e-3, atol=1e-3)
    own = [w[c] @ matrix[c, ::3, c, ::3] @ w[c] for c in range(2)]
    np.testing.assert_allclose(found.chains, own, rtol=1e-3)
    assert found.pooled == pytest.approx(np.sum(witness[:, ::3] * w / 2), rel=1e-3)
    diagonal = np.einsum("cici->ci", matrix)[:, ::3]
    assert found.independent == pytest.approx(np.sum(diagonal * w**2 / 4), rel=1e-3)


def plain_result(**changes):
    draws = np.random.default_rng(3).normal(size=(2, 40, 2)).astype(np.float32)
    target = Target.from_log_density(normal, init=jnp.zeros(2))
    result = Result({"position": draws}, {"lp": draws[..., 0]}, target=target)
    return dataclasses.replace(result, **changes)


def test_the_witness_goes_to_arviz_and_its_mean_is_the_discrepancy(tmp_path):
    result = discrepancy.with_stein_discrepancy(plain_result())
    witness = result.sample_stats["stein_witness"]
    assert set(result.sample_stats) == {"lp", "stein_witness"}
    assert result.attributes["stein_discrepancy"] == pytest.approx(witness.mean(), rel=1e-4)
    assert len(result.attributes["stein_discrepancy_chains"]) == 2
    np.testing.assert_array_equal(result.to_arviz().sample_stats["stein_witness"], witness)
    again = Result.load(result.save(tmp_path / "run.nc"))
    assert again.attributes == result.attributes


def test_a_draw_that_is_not_finite_counts_for_nothing():
    result = plain_result()
    broken = {"position": result.posterior["position"].copy()}
    broken["position"][1, 5] = np.inf
    found = discrepancy.stein_discrepancy(plain_result(posterior=broken), kernels.IMQ(2.0))
    log_weights = np.zeros((2, 40), np.float32)
    log_weights[1, 5] = -np.inf
    same = discrepancy.stein_discrepancy(plain_result(log_weights=log_weights), kernels.IMQ(2.0))
    assert np.isnan(found.witness).sum() == np.isnan(found.witness[1, 5]) == 1
    # But for the scale of the coordinates, in which the draw counts where it has no weight only.
    assert found.pooled == pytest.approx(same.pooled, rel=0.2)
    assert math.isfinite(found.independent)
