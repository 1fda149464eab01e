"""What tests of Stein samplers share: a Gaussian, runs in one program, the plain double loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core.algorithm import Status

MEAN = np.array([1.0, -0.5])
PRECISION = np.array([[1.5, -0.6], [-0.6, 1.0]])
COVARIANCE = np.linalg.inv(PRECISION)


def correlated(x: jax.Array) -> jax.Array:
    """Log density of N(MEAN, COVARIANCE) in the plane."""
    shifted = x - jnp.asarray(MEAN, x.dtype)
    return -0.5 * shifted @ jnp.asarray(PRECISION, x.dtype) @ shifted


def correlated_score(x: Any) -> np.ndarray:
    return -(np.asarray(x, np.float64) - MEAN) @ PRECISION


def steps(algorithm: Any, state: Any, num: int, seed: int = 0) -> Any:
    """Return the state after ``num`` steps and the infos, from one compiled program."""
    keys = jax.random.split(jax.random.key(seed), num)
    return jax.jit(lambda s: jax.lax.scan(lambda s, k: algorithm.step(k, s), s, keys))(state)


def double_loop(
    k: Callable[[np.ndarray, np.ndarray], Any], x: np.ndarray, s: np.ndarray, h: float = 1.0
) -> np.ndarray:
    """(1/n) Σ_j k(x_j, x_i) s_j + ∇_{x_j} k(x_j, x_i), pair by pair, with k at x/√h.

    Gradients by central differences in float64, good to nine digits.
    """
    x, s = np.asarray(x, np.float64), np.asarray(s, np.float64)
    scaled = lambda a, b: k(a / np.sqrt(h), b / np.sqrt(h))
    phi, e = np.zeros_like(x), 1e-5 * np.eye(x.shape[1])
    for i in range(len(x)):
        for j in range(len(x)):
            slope = [(scaled(x[j] + d, x[i]) - scaled(x[j] - d, x[i])) / 2e-5 for d in e]
            phi[i] += (scaled(x[j], x[i]) * s[j] + np.array(slope)) / len(x)
    return phi


def dead_do_not_count(
    samplers: dict[str, Any], log_density: Callable[[jax.Array], Any], x: jax.Array
) -> None:
    """Assert that after two steps the living are where they would be without the third."""
    alive = jnp.arange(len(x)) != 2

    def go(x: jax.Array, is_alive: jax.Array) -> dict[str, Any]:
        after = {}
        for name, sampler in samplers.items():
            algorithm = sampler(log_density)
            state = algorithm.init(x)._replace(alive=is_alive)
            state = state._replace(position=jnp.where(is_alive[:, None], x, jnp.inf))
            step = lambda s, k, step=algorithm.step: step(k, s)
            after[name] = jax.lax.scan(step, state, jax.random.split(jax.random.key(0), 2))
        return after

    with_dead = jax.jit(go)(x, alive)
    without = jax.jit(go)(x[np.asarray(alive)], jnp.ones(len(x) - 1, bool))
    for name, (state, info) in with_dead.items():
        alone, alone_info = without[name]
        np.testing.assert_allclose(
            state.position[alive], alone.position, rtol=1e-4, atol=1e-5, err_msg=name
        )
        np.testing.assert_allclose(info.bandwidth, alone_info.bandwidth, rtol=1e-5, err_msg=name)
        assert (np.abs(state.position - x)[alive].max(1) > 1e-3).all(), name
        assert info.status[-1].tolist() == [int(Status.FROZEN) * (i == 2) for i in range(len(x))]
        assert state.alive.tolist() == alive.tolist(), name
