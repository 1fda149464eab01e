"""Adaptive kinetic samplers: on one path, of their order, with the right law, and safe."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference.gradients import gradient_cost
from shoal.sampling import langevin
from shoal.sampling.core.algorithm import Status
from shoal.sampling.langevin import brownian
from shoal.sampling.langevin._exponential_schemes import SCHEMES, Increment, Phase
from shoal.sampling.langevin.metric import as_metric

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
METRIC = np.array([[1.2, 0.3], [0.3, 0.5]])
FRICTION, INTERVAL, NUM_CHAINS = 1.5, 2.0, 40


def double_well(x: jax.Array) -> jax.Array:
    return -jnp.sum((x**2 - 1) ** 2) - 0.5 * x[0] * x[1]


def adaptive(scheme: str, tolerance: Any, **options: Any) -> Any:
    return getattr(langevin, f"adaptive_{scheme}")(
        INTERVAL, tolerance, options.get("friction", FRICTION), options.get("metric", METRIC)
    )


def fixed_steps(algorithm: Any, scheme: str, key: Any, state: Any, num_steps: int) -> Phase:
    """The interval in equal steps of the scheme along ``brownian.path`` of the same key.

    The work is that of all steps.
    """
    method, h = SCHEMES[scheme], jnp.asarray(INTERVAL / num_steps)
    path = brownian.path(key, 0.0, INTERVAL, (2,), method.levy, tol=INTERVAL / 2**10)
    value_and_score = jax.value_and_grad(double_well)
    arguments = value_and_score, as_metric(METRIC), jnp.asarray(FRICTION), h

    def step(carry: Any, i: jax.Array) -> Any:
        phase, cursor = carry
        increment, cursor = path.advance(cursor, (i + 1) * h)
        new, _ = method.step(*arguments, Increment(*increment), phase)
        return (new._replace(work=phase.work + new.work), cursor), None

    phase = Phase(state.position, state.momentum, state.evaluated, jnp.zeros(()))
    (phase, _), _ = jax.lax.scan(step, (phase, path.start()), jnp.arange(num_steps))
    return phase


def starts(algorithm: Any) -> tuple[jax.Array, Any]:
    keys = jax.random.split(jax.random.key(3), NUM_CHAINS)
    x = np.random.default_rng(5).normal(size=(NUM_CHAINS, 2))
    return keys, jax.jit(jax.vmap(algorithm.init))(x, keys)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scheme", ["quicsort", "align"])
def test_error_falls_with_the_number_of_pieces_at_the_order_of_the_scheme(scheme: str) -> None:
    """Towards the solution that 512 even steps find on the path, which no rejection changes."""
    algorithm = adaptive(scheme, 1.0)(double_well)
    keys, states = starts(algorithm)
    reference = jax.jit(
        jax.vmap(lambda key, state: fixed_steps(algorithm, scheme, key, state, 512))
    )(keys, states)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def run(tolerance, key, state):
        new, info = adaptive(scheme, tolerance)(double_well).step(key, state)
        return new.position, info

    # A piece is two steps of the scheme.
    sizes, errors = [], []
    for tolerance in (1e-2, 1e-3, 1e-4):
        position, info = run(jnp.asarray(tolerance), keys, states)
        assert (info.status == Status.OK).all()
        assert (info.num_integration_steps > info.num_pieces).any()
        sizes.append(float(info.num_pieces.mean()))
        errors.append(float(jnp.sqrt(jnp.mean((position - reference.position) ** 2))))
    print(scheme, sizes, errors)
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope < {"quicsort": -2.5, "align": -1.6}[scheme]
    assert errors[-1] < 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scheme", ["should", "ubu"])
def test_with_a_large_tolerance_a_step_is_two_halves_on_the_path(scheme: str) -> None:
    algorithm = adaptive(scheme, 1e9)(double_well)

    @jax.jit
    def run(start, key):
        state = algorithm.init(start, jax.random.key(0))
        return state, *algorithm.step(key, state), fixed_steps(algorithm, scheme, key, state, 2)

    state, new, info, phase = run(np.array([0.5, -0.2]), jax.random.key(1))
    assert (int(info.num_pieces), int(info.num_integration_steps)) == (1, 1)
    np.testing.assert_allclose(new.position, phase.position, rtol=1e-12)
    np.testing.assert_allclose(new.momentum, phase.momentum, rtol=1e-12)
    change = phase.evaluated.log_density - state.evaluated.log_density
    np.testing.assert_allclose(info.energy_error, phase.work - change, rtol=1e-9)


def z_gaussian_law(key: jax.Array, scheme: str) -> np.ndarray:
    """Variances and correlation of position and momentum, started exactly."""
    deviations, num = np.array([0.3, 1.0, 1.0, 1.0], np.float32), 2500
    sampler = getattr(langevin, f"adaptive_{scheme}")(1.5, 0.01, 1.0, [1.0, 1.0, 1.0, 0.5])
    algorithm = sampler(lambda x: -0.5 * jnp.sum((x / deviations) ** 2))

    def step(states, keys):
        states, info = jax.vmap(algorithm.step)(keys, states)
        return states, info.is_accepted.all()

    @jax.jit
    def run(key):
        keys = jax.random.split(key, (3, num))
        x = deviations * jax.random.normal(jax.random.fold_in(key, 1), (num, 4))
        return jax.lax.scan(step, jax.vmap(algorithm.init)(x, keys[0]), keys[1:])

    states, moved = run(key)
    assert moved.all()
    parts = np.float64(states.position) / deviations, np.float64(states.momentum)
    variances = [(np.mean(part**2, 0) - 1) * np.sqrt(num / 2) for part in parts]
    return np.concatenate([*variances, np.mean(parts[0] * parts[1], 0) * np.sqrt(num)])


@pytest.mark.parametrize("scheme", ["quicsort"])
def test_law_on_a_gaussian(scheme: str) -> None:
    # 12 statistics at 5.2 standard errors, 2e-6; the bias is below one.
    assert np.abs(z_gaussian_law(jax.random.key(2), scheme)).max() < 5.2


def test_small_pieces_are_taken_where_the_force_is_strong() -> None:
    """From far out on a quartic, where a step of the whole interval leaves the floats."""
    algorithm = langevin.adaptive_quicsort(1.0)(lambda x: -jnp.sum(x**4) / 4)
    step = jax.jit(algorithm.step)
    start = jax.jit(algorithm.init)(np.array([20.0, -9.0], np.float32), jax.random.key(0))
    state, info = step(jax.random.key(1), start)
    assert (int(info.status), bool(info.is_accepted)) == (Status.OK, True)
    assert info.num_pieces > 16
    assert np.isfinite(state.position).all()
    for i in range(3):
        state, later = step(jax.random.key(2 + i), state)
    assert later.num_pieces < info.num_pieces


def test_what_cannot_be_done_is_reported() -> None:
    @jax.jit
    def step(tolerance, edge):
        density = lambda x: jnp.where(x[0] < edge, -0.5 * jnp.sum(x**2), jnp.nan)
        algorithm = langevin.adaptive_should(1.0, tolerance)(density)
        state = algorithm.init(jnp.zeros(2), jax.random.key(0))
        return state, *algorithm.step(jax.random.key(4), state)

    _, _, info = step(1e-9, jnp.inf)
    assert int(info.status) == Status.MAX_ITERATIONS
    assert info.is_accepted
    # Rounding makes some errors zero.
    assert 400 < int(info.num_pieces) <= 512
    state, new, info = step(1e-2, 0.05)
    assert int(info.status) == Status.NONFINITE_LOG_DENSITY
    assert not info.is_accepted
    np.testing.assert_array_equal(new.position, state.position)
    np.testing.assert_array_equal(new.momentum, -state.momentum)
    assert float(info.acceptance_rate) == 0


def test_gradients_are_counted_by_attempts_and_positions_may_be_trees() -> None:
    """Three steps of two gradients each: of a whole piece and of its halves."""
    density = lambda x: -0.5 * (jnp.sum(x["a"] ** 2) + 4 * x["b"] ** 2)
    sampler = langevin.adaptive_quicsort()
    position = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    state = jax.eval_shape(sampler(density).init, position, jax.random.key(0))
    assert gradient_cost(sampler, density, state) == (0, 6)
    new, _ = jax.eval_shape(sampler(density).step, jax.random.key(1), state)
    assert jax.tree.structure(new.position) == jax.tree.structure(position)
