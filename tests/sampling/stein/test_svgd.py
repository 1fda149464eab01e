"""SVGD: single updates, fixed points, symmetries, memory, the dead, minibatches, resumption."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stein_targets import COVARIANCE, MEAN, correlated, correlated_score, double_loop, steps

from shoal.inference.run import run
from shoal.sampling import stein
from shoal.sampling.core import bandwidth as bandwidths, kernels, minibatches
from shoal.sampling.core.algorithm import Status

pytestmark = pytest.mark.quick_compiler

_square = lambda x, y: np.sum((x - y) ** 2)
_length = lambda x, y: np.sqrt(_square(x, y))
_matern = lambda p: lambda x, y: p(_length(x, y)) * np.exp(-_length(x, y))
# Kernels of length scales chosen so that the plain formulas have no constants.
KERNELS: dict[str, tuple[Any, Any]] = {
    "RBF": (kernels.RBF(2.0), lambda x, y: np.exp(-_square(x, y) / 2)),
    "IMQ": (kernels.IMQ(1.0), lambda x, y: (1 + _square(x, y)) ** -0.5),
    "IMQ of a power": (kernels.IMQ(2.0, -0.7, 1.5), lambda x, y: (
        2.25 + _square(x, y) / 2) ** -0.7),
    "Matern32": (kernels.Matern32(3**0.5), _matern(lambda r: 1 + r)),
    "Matern52": (kernels.Matern52(5**0.5), _matern(lambda r: 1 + r + r**2 / 3)),
    "rational quadratic": (kernels.RationalQuadratic(1.0, 2.0), lambda x, y: (
        1 + _square(x, y) / 4) ** -2),
    "linear": (kernels.Linear(1.0), lambda x, y: x @ y + 1),
    "sum and product": (kernels.RBF(2.0) * kernels.IMQ(1.0) + 0.5 * kernels.Linear(2.0),
        lambda x, y: np.exp(-_square(x, y) / 2) * (1 + _square(x, y)) ** -0.5 + (x @ y + 2) / 2),
    "a function": (lambda x, y: jnp.exp(-jnp.sum((x - y) ** 2)) * (1 + x[0] * y[0]),
        lambda x, y: np.exp(-_square(x, y)) * (1 + x[0] * y[0])),
}  # fmt: skip
SGD = optax.sgd(1.0)
X = jax.random.normal(jax.random.key(0), (6, 2))


def updates(samplers: dict[str, Any], x: jax.Array, log_density: Any = correlated) -> Any:
    """Return by name what one step adds to the particles, and the bandwidth it used."""

    def all_updates(x: jax.Array) -> dict[str, Any]:
        made = {}
        for name, sampler in samplers.items():
            algorithm = sampler(log_density)
            state, info = algorithm.step(jax.random.key(0), algorithm.init(x))
            made[name] = state.position - x, info.bandwidth
        return made

    return jax.jit(all_updates)(x)


def test_one_update_is_the_double_loop_for_every_kernel():
    found = updates(
        {name: stein.svgd(k, SGD, bandwidth=1.7) for name, (k, _) in KERNELS.items()}, X
    )
    for name, (_, plain) in KERNELS.items():
        expected = double_loop(plain, X, correlated_score(X), 1.7)
        np.testing.assert_allclose(found[name][0], expected, rtol=2e-5, atol=2e-6, err_msg=name)


def test_one_update_uses_the_bandwidth_of_every_rule():
    exact = [rule for rule in bandwidths.RULES if rule != "fixed"]
    rules = [*exact, "tracked", "tracked_log"]
    found = updates({rule: stein.svgd(kernels.RBF(1.0), SGD, bandwidth=rule) for rule in rules}, X)
    for rule, (moved, h) in found.items():
        plain = lambda x, y: np.exp(-_square(x, y))
        expected = double_loop(plain, X, correlated_score(X), float(h))
        np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-5, err_msg=rule)
    every = np.sort([_square(a, b) for a in np.asarray(X) for b in np.asarray(X)])
    pairs = every[len(X) :: 2]
    h = {rule: float(found[rule][1]) for rule in rules}
    root = np.median(np.sqrt(every))
    np.testing.assert_allclose(h["median_offdiag_log"], pairs[7] / np.log(6), rtol=1e-5)
    np.testing.assert_allclose(h["median_all_log"], root**2 / np.log(6), rtol=1e-5)
    np.testing.assert_allclose(h["median_all_log1p"], np.median(every) / np.log(7), rtol=1e-5)
    np.testing.assert_allclose(h["median_all"], every[-18], rtol=1e-5)
    assert pairs[6] <= h["tracked"] <= pairs[8]
    np.testing.assert_allclose(h["tracked_log"], h["tracked"] / np.log(6), rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_a_linear_kernel_ends_with_the_exact_mean_and_covariance():
    algorithm = stein.svgd(kernels.Linear(), optax.sgd(0.1), bandwidth=1.0)(correlated)
    state, info = steps(algorithm, algorithm.init(X.astype(float)), 800)
    np.testing.assert_allclose(state.position.mean(0), MEAN, atol=1e-9)
    np.testing.assert_allclose(np.cov(state.position.T, bias=True), COVARIANCE, atol=1e-9)
    assert info.direction_norm[-1] < 1e-9 < 1e-2 < info.direction_norm[0]


@pytest.mark.usefixtures("x64")
def test_moves_follow_permutations_rotations_and_translations():
    def go(x, rotation, shift):
        algorithm = stein.svgd(None, SGD)(lambda y: correlated(rotation.T @ (y - shift)))
        state = algorithm.init(x)
        for seed in range(3):
            state, _ = algorithm.step(jax.random.key(seed), state)
        return state.position

    go, x = jax.jit(go), np.asarray(X, np.float64)
    here = go(x, np.eye(2), np.zeros(2))
    assert np.abs(here - x).max() > 0.1
    np.testing.assert_allclose(go(x[::-1], np.eye(2), np.zeros(2)), here[::-1], atol=1e-12)
    rotation, shift = np.array([[0.6, -0.8], [0.8, 0.6]]), np.array([3.0, -50.0])
    there = go(x @ rotation.T + shift, rotation, shift)
    np.testing.assert_allclose(there, here @ rotation.T + shift, atol=1e-11)


def test_one_particle_climbs_to_the_mode():
    algorithm = stein.svgd(None, optax.sgd(0.3))(correlated)
    start = jnp.array([[4.0, 4.0]])
    state, info = steps(algorithm, algorithm.init(start), 100)
    np.testing.assert_allclose(state.position[0], MEAN, atol=1e-5)
    assert (info.bandwidth == 1).all()
    # Plain gradient ascent, step by step.
    x = np.array([4.0, 4.0])
    for norm in info.direction_norm[:20]:
        np.testing.assert_allclose(norm, np.sqrt(np.mean(correlated_score(x) ** 2)), rtol=1e-4)
        x += 0.3 * correlated_score(x)


def test_float32_far_from_the_origin_keeps_its_digits():
    """Mean 1000, spread 1: the error would be a tenth without centring."""
    x = jax.random.normal(jax.random.key(1), (20, 3)) + 1000
    # An optimiser that keeps the direction, which x + φ would round away.
    keeping = optax.GradientTransformation(
        jnp.zeros_like, lambda updates, _, params=None: (0 * updates, -updates)
    )
    sampler = stein.svgd(kernels.RBF(1.0), keeping, bandwidth=3.0)
    algorithm = sampler(lambda x: -0.5 * jnp.sum((x - 1000) ** 2))
    state = jax.jit(lambda x: algorithm.step(jax.random.key(0), algorithm.init(x))[0])(x)
    exact = np.asarray(x, np.float64)
    expected = double_loop(lambda x, y: np.exp(-_square(x, y)), exact, 1000 - exact, 3.0)
    assert np.abs(state.optimizer - expected).max() < 1e-4 * np.abs(expected).max()


def _arrays_inside(jaxpr: Any) -> Iterator[Any]:
    """Yield the type of every array that a program names, in loops and calls too."""
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars)
        for value in equation.params.values():
            inner = value if isinstance(value, list | tuple) else [value]
            for item in inner:
                if hasattr(item, "eqns") or hasattr(getattr(item, "jaxpr", None), "eqns"):
                    yield from _arrays_inside(getattr(item, "jaxpr", item))


@pytest.mark.parametrize(
    "sampler",
    [
        stein.svgd(),
        stein.svgd(kernels.RBF(1.0), bandwidth="tracked_log"),
        stein.random_batch_svgd(batch_size=32),
        stein.message_passing_svgd(neighbours=np.eye(10, dtype=bool)),
        stein.stochastic_svgd(langevin=1.0, has_kernel_noise=False),
    ],
    ids=["svgd", "rbf", "random batch", "message passing", "spos"],
)
def test_no_array_grows_with_the_number_of_pairs(sampler: Any) -> None:
    n, d = 4096, 10
    algorithm = sampler(lambda x: -0.5 * jnp.sum(x**2))
    step = lambda x: algorithm.step(jax.random.key(0), algorithm.init(x))
    traced = jax.make_jaxpr(step)(jax.ShapeDtypeStruct((n, d), jnp.float32))
    sizes = [aval.size for aval in _arrays_inside(traced.jaxpr) if hasattr(aval, "size")]
    assert len(sizes) > 100
    assert max(sizes) <= max(2**18, 3 * n * (d + 2)) < n * n / 20


DETERMINISTIC = {
    "svgd": stein.svgd(),
    "annealed": stein.annealed_svgd(None, SGD, num_steps=2, num_cycles=2),
    "message passing": stein.message_passing_svgd(
        neighbours=~np.eye(2, dtype=bool), bandwidth="median_all"
    ),
    "coin": stein.coin_svgd(bandwidth="tracked_log"),
}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_dead_are_as_if_they_were_not_there(name):
    algorithm, living = DETERMINISTIC[name](correlated), np.arange(len(X)) != 2
    state = jax.jit(algorithm.init)(X)
    infinite = jnp.where(living[:, None], X, jnp.inf)
    with_dead = state._replace(position=infinite, alive=jnp.asarray(living))
    rows = lambda tree: jax.tree.map(lambda leaf: leaf[living] if leaf.ndim else leaf, tree)
    without = rows(state)._replace(median=state.median)
    (one, info), (other, info_other) = steps(algorithm, with_dead, 2), steps(algorithm, without, 2)
    np.testing.assert_allclose(one.position[living], other.position, rtol=1e-5, atol=1e-6)
    for found, expected in zip(info[:2], info_other[:2], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (np.abs(one.position - X)[living].max(1) > 1e-3).all()
    assert (info.status == jnp.where(living, Status.OK, Status.FROZEN)).all()
    assert one.alive.tolist() == living.tolist()


def test_particles_that_coincide_are_refused_or_frozen():
    algorithm = stein.svgd()(correlated)
    with pytest.raises(ValueError, match="3 particles in one place"):
        algorithm.init(jnp.ones((3, 2)))
    state = algorithm.init(X)
    state = state._replace(position=jnp.ones_like(X))
    after, info = jax.jit(algorithm.step)(jax.random.key(0), state)
    assert (info.status == Status.FROZEN).all()
    assert not after.alive.any()
    np.testing.assert_array_equal(after.position, state.position)


def test_positions_are_pytrees_and_projections_are_kept():
    project = optax.projections.projection_non_negative
    algorithm = stein.svgd(None, SGD, project=project)(
        lambda p: correlated(jnp.stack([p["a"], p["b"][0]]))
    )
    position = {"a": X[:, 0] ** 2, "b": X[:, 1:] ** 2}
    state, info = jax.jit(algorithm.step)(jax.random.key(0), algorithm.init(position))
    start = X**2
    expected = double_loop(KERNELS["IMQ"][1], start, correlated_score(start), info.bandwidth)
    free = start + expected
    assert (free < 0).any()
    np.testing.assert_allclose(state.position["a"], np.maximum(free[:, 0], 0), atol=1e-5)
    np.testing.assert_allclose(state.position["b"][:, 0], np.maximum(free[:, 1], 0), atol=1e-5)


DATA = np.random.default_rng(3).normal(2.0, 1.0, size=40).astype(np.float32)


def conjugate(batch_size: int, num: int = 40) -> Any:
    """Observations of variance one with a standard normal prior."""
    return minibatches.from_arrays(
        lambda x: -0.5 * jnp.sum(x**2),
        lambda x, y: -0.5 * (y - x[0]) ** 2,
        DATA[:num],
        batch_size,
    )


def test_the_mean_update_over_minibatches_is_that_of_all_data():
    x = X[:, :1]

    def moved(log_density: Any, key: jax.Array) -> jax.Array:
        algorithm = stein.svgd(None, SGD, bandwidth=1.0)(log_density)
        return algorithm.step(key, algorithm.init(x, key))[0].position - x

    batch = jax.jit(jax.vmap(lambda key: moved(conjugate(2, 4), key)))
    found = np.asarray(batch(jax.random.split(jax.random.key(0), 100)))[..., 0]
    different = [found[0]]
    for row in found:
        if min(np.abs(row - other).max() for other in different) > 1e-4:
            different.append(row)
    assert len(different) == 6
    full = moved(conjugate(4, 4), jax.random.key(0))[:, 0]
    np.testing.assert_allclose(np.mean(different, 0), full, rtol=1e-5, atol=1e-5)


def test_minibatches_lead_to_the_posterior():
    optimizer = optax.sgd(optax.exponential_decay(0.03, 100, 0.4))
    algorithm = stein.svgd(None, optimizer)(conjugate(10))
    with pytest.raises(TypeError, match="typed key"):
        algorithm.init(jnp.eye(3, 1))
    start = algorithm.init(jax.random.normal(jax.random.key(1), (30, 1)), jax.random.key(2))
    state, _ = steps(algorithm, start, 500)
    variance = 1 / (len(DATA) + 1)
    assert abs(state.position.mean() - DATA.sum() * variance) < 0.3 * variance**0.5
    np.testing.assert_allclose(state.position.var(), variance, rtol=0.15)


@pytest.mark.usual_compiler
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path):
    algorithm = stein.svgd()(correlated)
    start, key = algorithm.init(X), jax.random.key(4)
    whole = run(key, algorithm, start, 6)
    run(key, algorithm, start, 4, checkpoint=tmp_path / "run")
    resumed = run(key, algorithm, start, 6, checkpoint=tmp_path / "run")
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert resumed.state.num_steps == 6
