"""Intervals after a LASSO has picked the variables, by Stein variational mirror descent.

    python examples/post_selection.py

On pure noise (100 observations, 40 correlated predictors, no effect at all) a randomised LASSO
picks some variables. Classical intervals for the picked ones are too narrow: they do not know that
these variables were picked because they looked good. Intervals that condition on the selection
need draws of the LASSO's own magnitudes, a Gaussian on the positive orthant, which SVMD makes with
50 particles and a few ensembles for each data set, all data sets at once. The picture shows how
often intervals contain the truth; the number checked is the largest difference from the nominal
coverage between 0.8 and 0.95.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy.stats import norm

from shoal.models import selective
from shoal.sampling import stein
from shoal.sampling.core import mirror

LEVELS = np.array([0.8, 0.85, 0.9, 0.95])
NUM_PARTICLES = 50
SAMPLER = stein.svmd(mirror.orthant(), optimizer=optax.rmsprop(0.03, 0.9, 1e-7), jitter=1e-5)


def data_set(key: jax.Array, n: int = 100, p: int = 40, correlation: float = 0.3) -> Any:
    """Return predictors of one correlation, standardised, and a response that is noise."""
    one, common, response = jax.random.split(key, 3)
    X = jnp.sqrt(1 - correlation) * jax.random.normal(one, (n, p))
    X = X + jnp.sqrt(correlation) * jax.random.normal(common, (n, 1))
    X = (X - X.mean(0)) / X.std(0, ddof=1) / jnp.sqrt(n)
    return X, jax.random.normal(response, (n,))


def draws(key: jax.Array, selection: selective.Selection, num_steps: int, num: int) -> jax.Array:
    """Return ``num`` ensembles of particles on the magnitudes of one selection."""
    algorithm = SAMPLER(selection.log_density)

    def ensemble(key: jax.Array) -> jax.Array:
        spread = jax.random.normal(key, (NUM_PARTICLES, selection.magnitude.size))
        state = algorithm.init(selection.magnitude * jnp.exp(spread))
        step = lambda state, key: (algorithm.step(key, state)[0], None)
        return jax.lax.scan(step, state, jax.random.split(key, num_steps))[0].position

    return jnp.concatenate(jax.lax.map(ensemble, jax.random.split(key, num)))


def intervals(key: jax.Array, selection: selective.Selection, num_steps: int, num: int) -> Any:
    """Return intervals that know of the selection, and classical ones, ``(levels, k, 2)``."""
    key, errors = jax.random.split(key)
    # Each draw meets twenty errors of the estimate: with few the weights end intervals too early.
    found = jnp.tile(draws(key, selection, num_steps, num), (20, 1))
    ends = selective.confidence_intervals(errors, selection, found, jnp.asarray(LEVELS))
    width = jnp.asarray(norm.ppf((1 + LEVELS) / 2))[:, None]
    half = width * jnp.sqrt(jnp.diag(selection.covariance))
    classical = jnp.stack([selection.estimate - half, selection.estimate + half], -1)
    return ends, classical


def draw_figure(coverage: dict[str, np.ndarray], num: int) -> Figure:
    figure = Figure(figsize=(5.5, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(LEVELS, LEVELS, color="0.6", label="nominal")
    for name, row in coverage.items():
        error = 2 * np.sqrt(row * (1 - row) / num)
        axes.errorbar(LEVELS, row, error, fmt="o-", capsize=3, label=name)
    axes.set(xlabel="nominal coverage", ylabel="share of intervals that contain the truth")
    axes.set(title=f"{num} intervals for variables that a LASSO picked from noise")
    axes.legend(frameon=False)
    return figure


def main(
    num_data_sets: int = 400, num_steps: int = 300, num_ensembles: int = 8, folder: Path = Path()
) -> float:
    """Write ``post_selection.png``; return the largest error of the coverage."""
    by_size = defaultdict(list)
    for key in jax.random.split(jax.random.key(0), num_data_sets):
        try:
            data, noise = jax.random.split(key)
            found = selective.randomized_lasso(noise, *data_set(data))
        except ValueError:  # nothing was picked: there is nothing to say
            continue
        by_size[found.active.size].append(found)
    hits: dict[str, list[np.ndarray]] = {"knows of the selection (SVMD)": [], "classical": []}
    run = jax.jit(jax.vmap(lambda k, s: intervals(k, s, num_steps, num_ensembles)))
    for size, same in sorted(by_size.items()):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *same)
        keys = jax.random.split(jax.random.key(size), len(same))
        for name, ends in zip(hits, run(keys, stacked), strict=True):
            inside = (ends[..., 0] <= 0) & (ends[..., 1] >= 0)
            hits[name].append(np.moveaxis(np.asarray(inside), 1, 0).reshape(len(LEVELS), -1))
    shares = {name: np.concatenate(rows, 1) for name, rows in hits.items()}
    coverage = {name: rows.mean(1) for name, rows in shares.items()}
    num = shares["classical"].shape[1]
    for name, row in {"nominal": LEVELS, **coverage}.items():
        print(f"{name:30}" + "".join(f"{value:8.3f}" for value in row))
    draw_figure(coverage, num).savefig(folder / "post_selection.png")
    return float(np.abs(coverage["knows of the selection (SVMD)"] - LEVELS).max())


if __name__ == "__main__":
    print(f"largest difference from the nominal coverage: {main():.3f}")
