"""Microcanonical dynamics: the maps against their equations, the samplers against their laws.

Statistical checks have fixed keys and a threshold of 5.2 standard errors (two-sided p 2e-7); on
correct code the whole file, of about 40 statistics, would alarm with probability 1e-5. The bugs
that the checks find are rows of ``tests/mutants/microcanonical.py``.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from shoal.inference import sample
from shoal.inference.diagnostics import invariance_test
from shoal.inference.gradients import gradient_cost
from shoal.sampling import langevin
from shoal.sampling.core.algorithm import Status
from shoal.sampling.langevin import microcanonical
from shoal.sampling.langevin.mams import MAX_NUM_STEPS, draw_number
from shoal.sampling.langevin.metric import as_metric
from shoal.sampling.langevin.microcanonical import INTEGRATORS, MicrocanonicalState

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
METRIC = jnp.array([[1.2, 0.7], [0.7, 0.9]])


def gaussian(x: jax.Array) -> jax.Array:
    return -0.5 * jnp.sum(x**2)


def mixture(x: jax.Array) -> jax.Array:
    """Two correlated peaks of unequal weight: a law without symmetry."""
    peaks = x - jnp.array([[1.5, 0.0], [-1.5, 0.0]], x.dtype)
    white = jnp.stack([peaks[:, 0], (peaks[:, 1] - 0.8 * peaks[:, 0]) / 0.6])
    return jax.nn.logsumexp(-0.5 * jnp.sum(white**2, 0), b=jnp.array([0.7, 0.3], x.dtype))


def mixture_draws(num: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    draws = rng.normal(size=(num, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    draws[:, 0] += np.where(rng.random(num) < 0.7, 1.5, -1.5)
    # The second coordinate leans on the offset from the peak, not on the peak.
    return draws.astype(np.float32)


def unit(vector: Any) -> np.ndarray:
    return np.asarray(vector, float) / np.linalg.norm(vector)


@pytest.mark.parametrize("dim", [2, 5])
@pytest.mark.parametrize("size", [0.3, 9.0])
@pytest.mark.usefixtures("x64")
def test_a_turn_solves_its_differential_equation(dim: int, size: float) -> None:
    """dv/dt = (I - v vᵀ) k / (d - 1), and dK/dt = k·v."""
    rng = np.random.default_rng(dim)
    kick, direction = size * unit(rng.normal(size=dim)), unit(rng.normal(size=dim))

    def slope(_: float, state: np.ndarray) -> np.ndarray:
        v = state[:-1]
        return np.append((kick - v * (v @ kick)) / (dim - 1), kick @ v)

    end = solve_ivp(slope, (0, 1), np.append(direction, 0.0), "DOP853", rtol=1e-12, atol=1e-12)
    turned, gain = jax.jit(microcanonical.turn)(direction, kick)
    np.testing.assert_allclose(turned, end.y[:-1, -1], atol=1e-9)
    np.testing.assert_allclose(gain, end.y[-1, -1], atol=1e-9)


@pytest.mark.usual_compiler
@pytest.mark.parametrize("dim", [2, 50])
def test_kicks_of_any_length_turn_without_overflow(dim: int) -> None:
    """In float32, from no kick at all to one whose square overflows, along, across, against it."""
    rng = np.random.default_rng(0)
    axis, across = np.linalg.qr(rng.normal(size=(dim, 2)))[0].T
    angles = np.array([0.0, 1e-3, 0.5, 1.5, 3.0, 3.1])
    sizes = np.array([0.0, 1e-30, 1e-8, 1e-3, 1.0, 30.0, 1e4, 1e19, 1e30])
    starts = np.cos(angles)[:, None] * axis + np.sin(angles)[:, None] * across
    grid = jax.jit(jax.vmap(jax.vmap(microcanonical.turn, (None, 0)), (0, None)))
    kicks = jnp.asarray(sizes[:, None] * axis, jnp.float32)
    ends, gains = grid(jnp.asarray(starts, jnp.float32), kicks)
    np.testing.assert_allclose(np.linalg.norm(ends, axis=-1), 1, atol=2e-5)

    # Half the angle to the kick shrinks: tan(angle / 2) falls by the factor e^(-δ).
    delta = sizes / (dim - 1)
    with np.errstate(over="ignore"):
        halves = np.arctan(np.tan(angles[:, None] / 2) * np.exp(-delta))
    np.testing.assert_allclose(ends @ axis, np.cos(2 * halves), atol=3e-5)
    ratio = np.cos(angles[:, None] / 2) ** 2 + np.exp(-2 * delta) * np.sin(angles[:, None] / 2) ** 2
    wanted = (dim - 1) * (delta + np.log(ratio))
    np.testing.assert_allclose(gains, wanted, rtol=1e-4, atol=1e-6 * dim)
    assert (np.asarray(gains)[:, 0] == 0).all()
    # Straight against the kick, where the direction after it hangs on rounding.
    opposite, gain = grid(jnp.asarray([-axis], jnp.float32), kicks)
    assert np.isfinite(opposite).all()
    assert np.isfinite(gain).all()


@pytest.mark.parametrize("integrator", ["minimal_norm"])
@pytest.mark.usefixtures("x64")
def test_a_word_is_reversible_and_its_volume_factor_is_the_energy_gained(integrator: str) -> None:
    """With the direction reversed it runs back; log |det| = -ΔK on points times the sphere."""
    metric = as_metric(np.array([[1.2, 0.7, 0.1], [0.7, 0.9, 0.0], [0.1, 0.0, 0.6]]))
    density = lambda x: -jnp.sum(x**4) / 4 - x[0] * x[1] + jnp.sin(x[2])
    value_and_score = jax.value_and_grad(density)

    def run(x: jax.Array, v: jax.Array) -> Any:
        state = MicrocanonicalState(x, v, *value_and_score(x))
        return microcanonical.run_word(INTEGRATORS[integrator], 0.7, metric, value_and_score, state)

    def on_all_space(z: jax.Array) -> tuple[jax.Array, Any]:
        """Carry the length of the vector along: the determinant is that on the sphere."""
        x, u = z[:3], z[3:]
        length = jnp.linalg.norm(u)
        end, work = run(x, u / length)
        return jnp.concatenate([end.position, length * end.direction]), (end, work)

    begin = jnp.concatenate([jnp.array([0.4, -0.9, 0.7]), unit([1.0, 2.0, -0.5])])
    jacobian, (end, work) = jax.jit(jax.jacfwd(on_all_space, has_aux=True))(begin)
    back, lost = jax.jit(run)(end.position, -end.direction)
    np.testing.assert_allclose(back.position, begin[:3], atol=1e-12)
    np.testing.assert_allclose(-back.direction, begin[3:], atol=1e-12)
    np.testing.assert_allclose(
        [work + lost, jnp.linalg.slogdet(jacobian)[1]], [0, -work], atol=1e-11
    )
    assert abs(work) > 0.1


@functools.cache
def energy_errors(integrator: str) -> np.ndarray:
    """Root mean square energy error over paths of length 4, at steps h and h / 2 per gradient."""
    word = INTEGRATORS[integrator]
    gradients = len(word) // 2
    density = lambda x: -0.5 * (x[0] ** 2 + 4 * x[1] ** 2 + 9 * x[2] ** 2) - x[0] ** 4 / 8
    value_and_score = jax.value_and_grad(density)
    metric = as_metric(None)

    @jax.jit
    def error(x: jax.Array, v: jax.Array, num: jax.Array) -> jax.Array:
        def body(_: Any, carry: Any) -> Any:
            state, work = carry
            state, more = microcanonical.run_word(word, 4 / num, metric, value_and_score, state)
            return state, work + more

        begin = MicrocanonicalState(x, v, *value_and_score(x))
        end, work = jax.lax.fori_loop(0, num, body, (begin, jnp.zeros(())))
        return work - (end.log_density - begin.log_density)

    rng = np.random.default_rng(1)
    points = rng.normal(size=(64, 3)) / np.array([1.0, 2.0, 3.0])
    directions = rng.normal(size=(64, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    sizes = [240 // gradients, 480 // gradients]
    errors = [jax.vmap(error, (0, 0, None))(points, directions, n) for n in sizes]
    return np.sqrt(np.mean(np.square(errors), axis=1))


@pytest.mark.parametrize(
    ("integrator", "order", "gain"),
    [("leapfrog", 2, 1.0), ("minimal_norm", 2, 2.0), ("three_stage", 2, 3.0), ("omelyan", 4, 30.0)],
)
@pytest.mark.usefixtures("x64")
def test_the_energy_error_has_its_order_and_falls_below_leapfrogs(
    integrator: str, order: int, gain: float
) -> None:
    """At equal numbers of gradients; ``gain`` is a lower bound of what was measured."""
    errors = energy_errors(integrator)
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.1
    assert energy_errors("leapfrog")[0] >= gain * errors[0]


def test_the_minimal_norm_coefficient_is_mclachlans() -> None:
    root = (2 * np.sqrt(326) + 36) ** (1 / 3)
    np.testing.assert_allclose(
        INTEGRATORS["minimal_norm"][0], 0.5 - root / 12 + 1 / (6 * root), rtol=1e-15
    )


@functools.cache
def sampler(name: str) -> Any:
    """MAMS with about half of its paths accepted; MCLMC where its bias is too small to be seen."""
    if name == "mams":
        return langevin.mams(1.7, 3.0, METRIC, "leapfrog")(mixture)
    return langevin.mclmc(0.35, 1.5, METRIC, "omelyan")(mixture)


def z_law(key: jax.Array, name: str) -> np.ndarray:
    result = invariance_test(
        key, sampler(name), mixture_draws(25_000), log_density=mixture,
        reversible=name == "mams",
    )  # fmt: skip
    print(f"{name}: {result}")
    assert result.num_moved > 0.3 * result.num_particles
    assert not result.num_nonfinite
    return result.z


@pytest.mark.parametrize("name", ["mams", "mclmc"])
def test_the_law_is_invariant(name: str) -> None:
    assert np.abs(z_law(jax.random.key(3), name)).max() < 5.2


def test_the_bias_falls_with_the_square_of_the_step() -> None:
    """Mean of |x|²/d on a normal law of two coordinates, from exact starts, by leapfrog."""
    num_chains, num_steps = 20_000, 24

    @jax.jit
    def excess(step_size: jax.Array) -> jax.Array:
        algorithm = langevin.mclmc(step_size, 1.5, integrator="leapfrog")(gaussian)
        keys = jax.random.split(jax.random.key(2), num_chains)
        starts = jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
        begin = jax.vmap(algorithm.init)(starts, jax.random.split(jax.random.key(3), num_chains))

        def step(states: Any, key: jax.Array) -> Any:
            keys = jax.random.split(key, num_chains)
            return jax.vmap(algorithm.step)(keys, states)[0], jnp.mean(states.position**2)

        _, means = jax.lax.scan(step, begin, jax.random.split(jax.random.key(4), num_steps))
        return jnp.mean(means[num_steps // 2 :]) - jnp.mean(starts**2)

    coarse, fine = float(excess(1.2)), float(excess(0.6))
    # A mean over 20 000 chains has a standard error of 0.007, less with twelve steps of each.
    assert 0.05 < coarse < 0.2
    assert abs(fine - coarse / 4) < 0.02


def test_the_direction_is_forgotten_over_the_decoherence_length() -> None:
    """On a flat density E[v·v'] is e^(-h/ℓ), up to the 1 / √d of one vector."""
    dim, h, length = 10_000, 0.7, 1.9
    algorithm = langevin.mclmc(h, length)(lambda x: 0.0 * jnp.sum(x))
    state = algorithm.init(jnp.zeros(dim), jax.random.key(0))
    new, info = jax.jit(algorithm.step)(jax.random.key(1), state)
    assert abs(new.direction @ state.direction - np.exp(-h / length)) < 0.04
    np.testing.assert_allclose(jnp.linalg.norm(new.position), h, rtol=1e-5)
    assert info.energy_error == 0


def test_lengths_not_given_are_the_root_of_the_dimension() -> None:
    read = microcanonical.length_or_default
    x = jnp.zeros(3)
    for sampler, name in (
        (langevin.mclmc(), "decoherence_length"),
        (langevin.mams(), "path_length"),
    ):
        assert read(sampler.parameters[name], x) == jnp.sqrt(3.0)
        changed = sampler.replace(**{name: 2.5})
        assert read(changed.parameters[name], x) == 2.5
        assert jax.tree.structure(changed) == jax.tree.structure(sampler)


def test_numbers_of_steps_have_the_mean_asked_for() -> None:
    keys = jax.random.split(jax.random.key(6), 20_000)
    draw = jax.jit(lambda mean: jax.vmap(draw_number, (0, None))(keys, mean))
    for mean in (0.3, 1.0, 1.3, 2.5, 7.7, 512.0):
        numbers = np.asarray(draw(mean))
        error = numbers.std() / np.sqrt(numbers.size)
        assert abs(numbers.mean() - max(mean, 1)) <= 5.2 * error
        assert numbers.min() == 1 or mean == 512
        assert numbers.max() == max(1, np.ceil(2 * mean - 1))


def test_a_path_that_needs_too_many_steps_is_cut_and_says_so() -> None:
    algorithm = langevin.mams(1e-4, 1.0, integrator="leapfrog")(gaussian)
    state = algorithm.init(jnp.array([0.3, -0.2]))
    _, info = jax.jit(algorithm.step)(jax.random.key(0), state)
    assert info.status == Status.MAX_ITERATIONS
    assert info.num_integration_steps < MAX_NUM_STEPS
    assert info.is_accepted


@pytest.mark.parametrize(
    ("name", "beyond", "status"),
    [
        ("mams", jnp.nan, Status.NONFINITE_LOG_DENSITY),
        ("mclmc", -jnp.inf, Status.OUTSIDE_SUPPORT),
    ],
)
def test_points_without_a_finite_density_are_never_entered(name, beyond, status) -> None:
    density = lambda x: jnp.where(x[0] > 0, -0.5 * jnp.sum(x**2), beyond)
    algorithm = getattr(langevin, name)(0.5)(density)

    def step(state: Any, key: jax.Array) -> Any:
        new, info = algorithm.step(key, state)
        return new, (new.position[0], info)

    state = algorithm.init(jnp.array([0.1, 0.0]), jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 300)
    state, (path, info) = jax.lax.scan(step, state, keys)
    assert (path > 0).all()
    assert (info.status == status).sum() > 10
    assert not info.is_accepted[info.status == status].any()
    assert (info.acceptance_rate[info.status == status] == 0).all()
    assert len(np.unique(path)) > 100
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_a_direction_turns_back_where_the_way_is_barred() -> None:
    density = lambda x: jnp.where(x[0] > 0, 0.0, jnp.nan)
    algorithm = langevin.mclmc(0.5, 100.0)(density)
    state = algorithm.init(jnp.array([0.1, 0.0]), jax.random.key(0))
    state = state._replace(direction=jnp.array([-1.0, 0.0]))
    new, info = jax.jit(algorithm.step)(jax.random.key(1), state)
    assert info.status == Status.NONFINITE_LOG_DENSITY
    np.testing.assert_array_equal(new.direction, [1.0, 0.0])


@pytest.mark.parametrize("name", ["mams", "mclmc"])
def test_a_steep_fall_is_a_divergence(name: str) -> None:
    algorithm = getattr(langevin, name)(2.0, 2.0, integrator="leapfrog")(lambda x: -1e4 * x @ x)
    state = algorithm.init(jnp.array([0.01, 0.0]), jax.random.key(0))
    _, info = jax.jit(algorithm.step)(jax.random.key(1), state)
    assert info.status == Status.DIVERGENCE
    assert info.energy_error > 1000
    assert info.is_accepted == (name == "mclmc")


@pytest.mark.parametrize(("integrator", "gradients"), [("leapfrog", 1), ("minimal_norm", 2)])
def test_gradients_are_those_of_the_word(integrator: str, gradients: int) -> None:
    for factory, cost in ((langevin.mclmc, (gradients, 0)), (langevin.mams, (0, gradients))):
        made = factory(integrator=integrator)
        state = made(gaussian).init(jnp.ones(3), jax.random.key(0))
        assert gradient_cost(made, gaussian, state) == cost


@pytest.mark.parametrize("name", ["mams", "mclmc"])
def test_structure_and_dtype_of_the_position_survive(name: str) -> None:
    with jax.enable_x64(True):
        position = {"a": jnp.ones((2, 2), jnp.float32), "b": jnp.zeros((), jnp.float32)}
        density = lambda p: -0.5 * (jnp.sum(p["a"] ** 2) + p["b"] ** 2)
        algorithm = getattr(langevin, name)()(density)
        state = algorithm.init(position, jax.random.key(0))
        new, info = jax.eval_shape(algorithm.step, jax.random.key(1), state)
        shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
        assert shapes(new) == shapes(state)
        assert info.status.dtype == jnp.int8


@pytest.mark.parametrize("name", ["mams", "mclmc"])
def test_wrong_arguments_are_refused(name: str) -> None:
    factory = getattr(langevin, name)
    with pytest.raises(ValueError, match="position has 1 coordinate"):
        factory()(gaussian).init(jnp.ones(1), jax.random.key(0))
    with pytest.raises(ValueError, match=r"integrator.*minimal_norm.*'verlet'"):
        factory(integrator="verlet")
    with pytest.raises(ValueError, match="length.*positive.*-1"):
        factory(0.5, -1.0)
    if name == "mclmc":
        with pytest.raises(ValueError, match="key is None"):
            factory()(gaussian).init(jnp.ones(2))


def test_sample_warms_up_and_draws() -> None:
    result = sample(
        jax.random.key(8), gaussian, langevin.mams(integrator="leapfrog"), init=jnp.zeros(3),
        num_chains=16, num_warmup=300, num_samples=300, progress=False,
    )  # fmt: skip
    draws = np.asarray(result.posterior["position"])
    # 4 800 draws, most of them as good as independent: a standard error of about 0.02.
    assert abs(draws.var() - 1) < 0.1
    assert abs(result.sample_stats["acceptance_rate"].mean() - 0.9) < 0.08
    assert result.num_gradients == result.sample_stats["n_steps"].sum()
