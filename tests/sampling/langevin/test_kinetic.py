"""The splittings: exact stationary covariances and stability limits, by their linear maps."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

from shoal.inference.gradients import gradient_cost
from shoal.sampling import langevin
from shoal.sampling.core.algorithm import Status
from shoal.sampling.langevin import kinetic
from shoal.sampling.langevin.metric import as_metric

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
WORDS = ("BAOAB", "OBABO", "ABOBA")


def linear_map(word: str, cases: list[tuple[float, float, float]]) -> tuple[Any, Any]:
    """Transitions and noise factors of a step on the Gaussian with precision λ, of (h, γ, λ)."""
    rows = [*cases, *cases[:1] * (12 - len(cases))]  # of one shape, for one program
    transitions, noises = compiled_map(word)(*jnp.asarray(rows).T)
    count = len(cases)
    return np.asarray(transitions)[:count], np.asarray(noises).reshape(12, 2, -1)[:count]


@functools.cache
def compiled_map(word: str) -> Any:
    metric = as_metric(None)

    def maps(h: jax.Array, friction: jax.Array, precision: jax.Array) -> Any:
        def step(z: jax.Array, noise: jax.Array) -> jax.Array:
            x, w = z[:1], z[1:]
            score = lambda x: (-0.5 * precision * jnp.sum(x**2), -precision * x)
            start = kinetic.KineticState(x, w, *score(x))
            end, _, _ = kinetic._run_word(word, h, friction, metric, noise, score, start)
            return jnp.concatenate([end.position, end.momentum])

        return jax.jacobian(step, (0, 1))(jnp.zeros(2), jnp.zeros((word.count("O"), 1)))

    return jax.jit(jax.vmap(maps))


def stationary(word: str, h: float, precision: float) -> tuple[float, float]:
    """Variances of x and w, for the known covariance of the word."""
    r = h**2 * precision / 4
    return {
        "BAOAB": (1 / precision, 1 - r),
        "ABOBA": (1 / precision, 1 / (1 - r)),
        "OBABO": (1 / (precision * (1 - r)), 1.0),
    }[word]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("word", WORDS)
def test_stationary_covariance_on_a_gaussian_is_the_exact_one(word: str) -> None:
    cases = [(h, c, 2.0) for h in (0.05, 0.4, 0.9, 1.4) for c in (0.1, 1.0, 5.0)]
    for (h, _, precision), a, b in zip(cases, *linear_map(word, cases), strict=True):
        covariance = solve_discrete_lyapunov(a, b @ b.T)
        np.testing.assert_allclose(
            covariance, np.diag(stationary(word, h, precision)), rtol=1e-9, atol=1e-9
        )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("word", WORDS)
def test_stable_up_to_two_over_the_root_of_the_precision(word: str) -> None:
    below, above = 1.999 / np.sqrt(2.0), 2.001 / np.sqrt(2.0)
    # Zero friction too: there the limit is a rotation.
    cases = [(h, c, 2.0) for h in (below, above) for c in (0.0, 0.5, 5.0)]
    radius = np.abs(np.linalg.eigvals(linear_map(word, cases)[0])).max(1).reshape(2, 3)
    assert (radius[0] < 1 + 1e-9).all()
    assert (radius[0, 1:] < 1).all()
    assert (radius[1] > 1).all()


@pytest.mark.usefixtures("x64")
def test_aboba_reports_the_energy_error_from_middle_to_middle() -> None:
    density = lambda x: -jnp.sum(x**4) / 4 - x[0] * x[1]
    metric = np.array([[0.6, -0.3], [-0.3, 1.2]])
    h, algorithm = 0.4, langevin.aboba(0.4, 0.0, metric)(density)
    step = jax.jit(algorithm.step)
    state = algorithm.init(jnp.array([0.5, -0.8]), jax.random.key(0))
    energies, errors = [], []
    for i in range(4):
        state, info = step(jax.random.key(i), state)
        errors.append(info.energy_error)
        # Without friction, half a kick lies between the middle and the end.
        pull = np.linalg.cholesky(metric).T @ state.evaluated.score
        middle = state.momentum - h / 2 * pull
        energies.append(0.5 * middle @ middle - density(state.evaluated.position))
    np.testing.assert_allclose(errors[1:], np.diff(energies), rtol=1e-10, atol=1e-13)
    assert np.abs(errors).max() > 1e-3


def test_aboba_costs_one_gradient_and_knows_no_density_of_its_position() -> None:
    density = lambda x: -0.5 * jnp.sum(x**2)
    state = langevin.aboba()(density).init(jnp.ones(2), jax.random.key(0))
    assert gradient_cost(langevin.aboba(), density, state) == (1, 0)
    assert not hasattr(state, "log_density")


def test_aboba_turns_back_where_the_density_is_not_finite() -> None:
    density = lambda x: jnp.where(x[0] > 0, -0.5 * jnp.sum(x**2), jnp.nan)
    algorithm = langevin.aboba(0.5)(density)

    @jax.jit
    def run(state: Any) -> Any:
        def step(state: Any, key: jax.Array) -> Any:
            state, info = algorithm.step(key, state)
            return state, (state, info)

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 300))[1]

    states, info = run(algorithm.init(jnp.array([0.1, 0.0]), jax.random.key(0)))
    bad = np.asarray(info.status) == Status.NONFINITE_LOG_DENSITY
    assert bad.sum() > 10
    assert not info.is_accepted[bad].any()
    assert (states.evaluated.position[:, 0] > 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states))
    assert len(np.unique(states.position[:, 0])) > 50
