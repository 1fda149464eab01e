"""Logistic regression on many rows by minibatches: SVGD, and two that know the metric.

    python examples/logistic_natural.py

Rows of 55 features like those of the forest cover types: ten correlated numbers of unequal scales,
one of four areas and of forty soils, most of them rare. Twenty particles see 256 rows an update.
SVNG moves with Fisher's information of each, matrix-valued SVGD with the mean curvature. Pictured
and checked is the log likelihood of a test set: the updates to within 0.01 of that at the mode.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from shoal.sampling import stein
from shoal.sampling.core.minibatches import from_arrays

BATCH = 256
LOG_PRIOR = lambda w: -0.5 * jnp.sum(w**2)


def cover_types(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features ``(num, 55)``, the last of them one, and labels."""
    rng = np.random.default_rng(0)
    scales, mixing = np.geomspace(0.1, 1, 10), np.eye(10) + rng.normal(size=(10, 10)) / 10**0.5
    weights = rng.normal(size=55) * np.concatenate([0.4 / scales, np.full(45, 0.7)])
    numbers = rng.normal(size=(num, 10)) @ mixing * scales
    groups = [np.array([45, 5, 44, 6]), np.arange(1, 41.0) ** -1.5]
    indicators = [np.eye(p.size)[rng.choice(p.size, num, p=p / p.sum())] for p in groups]
    features = np.concatenate([numbers, *indicators, np.ones((num, 1))], 1)
    labels = rng.uniform(size=num) < 1 / (1 + np.exp(-features @ weights))
    return features.astype(np.float32), labels.astype(np.float32)


def log_likelihood(w: jax.Array, rows: Any) -> jax.Array:
    return -jax.nn.softplus((1 - 2 * rows[1]) * (rows[0] @ w))


def samplers(num_rows: int) -> dict[str, Any]:
    """Return the samplers, SVGD with the best rate of several."""
    variance = lambda f: jax.nn.sigmoid(f) * jax.nn.sigmoid(-f)
    fisher = stein.gauss_newton(lambda w, rows: rows[0] @ w, variance, num_rows / BATCH)
    damping, rate = 0.01 * num_rows, optax.sgd(0.1)
    return {
        "SVNG": stein.svng(fisher, damping=damping),
        "matrix-valued SVGD": stein.matrix_svgd(None, rate, decay=0.95, damping=damping),
        "SVGD": stein.svgd(None, optax.sgd(6 / num_rows)),
        "SVGD, Adam": stein.svgd(),
    }


def mode(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mode of the posterior, by Newton's method."""
    w = np.zeros(x.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ w))
        w += np.linalg.solve((x.T * p * (1 - p)) @ x + np.eye(len(w)), x.T @ (labels - p) - w)
    return w.astype(np.float32)


def trace(algorithm: Any, test: Any, num_updates: int) -> np.ndarray:
    """Return the log likelihood of the test set, a mean by row, after each update."""
    keys = jax.random.split(jax.random.key(1), num_updates)

    def step(state: Any, key: jax.Array) -> Any:
        state, _ = algorithm.step(key, state)
        logs = jax.vmap(lambda w: log_likelihood(w, test))(state.position)
        return state, jnp.mean(jax.nn.logsumexp(logs, 0) - np.log(len(logs)))

    start = 0.1 * jax.random.normal(jax.random.key(0), (20, test[0].shape[1]))
    return jax.jit(lambda x: jax.lax.scan(step, algorithm.init(x, keys[0]), keys)[1])(start)


def main(num_rows: int = 40_000, num_updates: int = 300, folder: Path = Path()) -> dict[str, int]:
    """Write ``logistic_natural.png``; return the updates to within 0.01 of the mode."""
    data = cover_types(num_rows + num_rows // 4)
    rows, test = [part[:num_rows] for part in data], [jnp.asarray(part[num_rows:]) for part in data]
    best = mode(*rows)
    axes, updates = (figure := Figure(dpi=120, layout="constrained")).subplots(), {}
    for name, sampler in samplers(num_rows).items():
        density = from_arrays(LOG_PRIOR, log_likelihood, rows, BATCH)
        values = trace(sampler(density), test, num_updates) - log_likelihood(best, test).mean()
        axes.plot(np.arange(1, num_updates + 1), values, label=name)
        updates[name] = 1 + int(np.argmax(np.append(values, 0.0) > -0.01))
    axes.axhline(-0.01, color="gray", linestyle=":")
    axes.set(ylim=(-0.1, 0.01), xlabel="updates", ylabel="log likelihood, less that of the mode")
    axes.legend(frameon=False)
    figure.savefig(folder / "logistic_natural.png")
    return updates


if __name__ == "__main__":
    for sampler, number in main().items():
        print(f"updates to within 0.01, {sampler}: {number}")
