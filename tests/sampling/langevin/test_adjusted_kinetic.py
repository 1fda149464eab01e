"""GHMC and MALT: their laws, against HMC, the number of steps, and at the edge of the support."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference.diagnostics import invariance_test
from shoal.inference.gradients import gradient_cost
from shoal.models.densities import skewed_mixture
from shoal.sampling import langevin
from shoal.sampling.core.algorithm import Status

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
METRIC = jnp.array([[1.2, 0.7], [0.7, 0.9]])
SAMPLERS = {
    "ghmc": langevin.ghmc(0.9, 0.7, METRIC),
    # 2.5 steps a trajectory in the mean.
    "malt": langevin.malt(0.9, 2.25, 0.7, METRIC),
}


@functools.cache
def algorithm(name: str) -> Any:
    """Made once: a new function object would compile anew."""
    return SAMPLERS[name](skewed_mixture().log_density)


def z_law(key: jax.Array, name: str) -> np.ndarray:
    """Statistics of five steps from exact draws, of the momentum too where a state holds it."""
    num, made = 40_000, algorithm(name)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    white = rng.normal(size=(num, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    white[:, 0] += np.where(rng.random(num) < 0.7, 1.5, -1.5)
    draws = white.astype(np.float32)
    keywords: dict[str, Any] = {"reversible": True}
    if name == "ghmc":
        draws = np.hstack([draws, rng.normal(size=(num, 2)).astype(np.float32)])

        def start(key: jax.Array, z: jax.Array) -> Any:
            return made.init(z[:2], key)._replace(momentum=z[2:])

        observe = lambda state: jnp.concatenate([state.position, state.momentum])
        keywords = {"start": start, "observe": observe}
    result = invariance_test(key, made, draws, **keywords)
    print(f"{name}: {result}")
    assert result.num_moved > 0.5 * result.num_particles
    assert not result.num_nonfinite
    return result.z


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_law_is_invariant(name: str) -> None:
    assert np.abs(z_law(jax.random.key(3), name)).max() < 5.2


def test_malt_without_friction_is_hamiltonian_monte_carlo() -> None:
    """Against leapfrog in NumPy, from the same momentum."""
    h, num_steps, ell = 0.6, 4, np.linalg.cholesky(np.asarray(METRIC, np.float64))
    value = lambda x: -np.sum(x**4) / 4 - x[0] * x[1]
    score = lambda x: -(x**3) - x[::-1]
    made = langevin.malt(h, num_steps * h * 1.00001, 0.0, METRIC)(
        lambda x: -jnp.sum(x**4) / 4 - x[0] * x[1]
    )
    x0 = np.array([0.3, -1.1])
    state = made.init(jnp.asarray(x0, jnp.float32))
    keys = jax.random.split(jax.random.key(3), 40)
    first_noise = lambda key: jax.random.fold_in(jax.random.split(key, 3)[0], 0)
    momenta, (new, info) = jax.jit(
        jax.vmap(lambda key: (jax.random.normal(first_noise(key), (2,)), made.step(key, state)))
    )(keys)
    assert set(np.unique(info.num_integration_steps)) == {num_steps}
    assert 10 < int(info.is_accepted.sum()) < 40
    new, info = jax.tree.map(np.asarray, (new, info))
    for i, w0 in enumerate(np.asarray(momenta, np.float64)):
        x, w = x0, w0
        for _ in range(num_steps):
            half = w + h / 2 * ell.T @ score(x)
            x = x + h * ell @ half
            w = half + h / 2 * ell.T @ score(x)
        error = value(x0) - value(x) + (w @ w - w0 @ w0) / 2
        np.testing.assert_allclose(info.energy_error[i], error, atol=2e-4, rtol=1e-3)
        np.testing.assert_allclose(info.acceptance_rate[i], np.exp(-max(error, 0)), atol=2e-4)
        end = x if info.is_accepted[i] else x0
        np.testing.assert_allclose(new.position[i], end, atol=1e-4)


def test_the_number_of_steps_follows_the_length_and_compiles_nothing() -> None:
    traces = []

    @jax.jit
    def run(length: jax.Array, keys: jax.Array) -> Any:
        traces.append(length)
        made = langevin.malt(0.25).replace(trajectory_length=length)(lambda x: -0.5 * x @ x)
        return jax.vmap(lambda key: made.step(key, made.init(jnp.ones(2)))[1])(keys)

    keys = jax.random.split(jax.random.key(0), 4000)
    for length, numbers in ((0.01, {1}), (2.0, {8}), (0.6, {2, 3}), (300.0, {1024})):
        info = run(length, keys)
        assert set(np.unique(info.num_integration_steps)) == numbers
        cut = int(Status.MAX_ITERATIONS) if length == 300 else int(Status.OK)
        assert (np.asarray(info.status) == cut).all()
    # Mean 2.4, standard deviation 0.49: five standard errors.
    mean = np.mean(run(0.6, keys).num_integration_steps)
    assert abs(mean - 2.4) < 5.2 * 0.49 / np.sqrt(len(keys))
    assert len(traces) == 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_gradients_are_counted(name: str) -> None:
    made = SAMPLERS[name]
    density = skewed_mixture().log_density
    state = made(density).init(jnp.ones(2), jax.random.key(0))
    assert gradient_cost(made, density, state) == ((1, 0) if name == "ghmc" else (0, 1))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("beyond", "status"),
    [(jnp.nan, Status.NONFINITE_LOG_DENSITY), (-jnp.inf, Status.OUTSIDE_SUPPORT)],
)
def test_points_without_a_finite_density_are_never_entered(name, beyond, status) -> None:
    density = lambda x: jnp.where(x[0] > 0, -0.5 * jnp.sum(x**2), beyond)
    made = SAMPLERS[name].replace(metric=1.0, step_size=0.5)(density)
    state = made.init(jnp.array([0.1, 0.0]), jax.random.key(0))

    @jax.jit
    def run(state: Any) -> Any:
        def step(state: Any, key: jax.Array) -> Any:
            state, info = made.step(key, state)
            return state, (state, info)

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 300))[1]

    states, info = run(state)
    codes = np.asarray(info.status)
    assert (states.position[:, 0] > 0).all()
    assert np.isfinite(states.log_density).all()
    assert (codes == status).sum() > 10
    assert not info.is_accepted[codes != Status.OK].any()
    assert (info.acceptance_rate[codes != Status.OK] == 0).all()
    assert len(np.unique(states.position[:, 0])) > 50
    if name == "ghmc":  # turned back, with a momentum that is finite
        assert np.isfinite(states.momentum).all()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_and_structure_of_the_position_survive(name, dtype) -> None:
    with jax.enable_x64(True):
        position = {"a": jnp.ones((2, 2), dtype), "b": jnp.zeros((), dtype)}
        density = lambda p: -0.5 * (jnp.sum(p["a"] ** 2) + p["b"] ** 2)
        made = getattr(langevin, name)(0.1)(density)
        state = made.init(position, jax.random.key(0))
        new, info = jax.eval_shape(made.step, jax.random.key(1), state)
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    assert shapes(new) == shapes(state)
    assert new.position["a"].dtype == dtype
    assert info.status.dtype == jnp.int8
