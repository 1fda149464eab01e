"""A direction hidden in a noisy tensor: the average of a Langevin run finds it, its end does not.

    python examples/tensor_pca.py

T = λ v ⊗ v ⊗ v + noise in 40 dimensions. Chains on the sphere at a high temperature wander, seldom
close to v, but they lean towards it: their average over all chains and steps does point along it.
To first order in the inverse temperature that average is the tensor's partial trace; the run is
hot, and better. The number checked is the overlap of the average with v where the signal is
strongest.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from shoal.inference import Target
from shoal.inference.chains import Chains
from shoal.inference.run import run
from shoal.models.spiked import spiked_tensor
from shoal.sampling import langevin
from shoal.sampling.langevin.spherical import estimate

DIM, NUM_CHAINS = 40, 4
SIGNALS = np.array([0.1, 0.2, 0.3, 0.4, 0.5]) * DIM
LABELS = ("average", "last iterate", "partial trace")


def mean_of_averages(state: Any, info: Any) -> jax.Array:
    """Return what the run keeps: the average so far."""
    return jnp.mean(state.mean, 0)


def overlaps(key: jax.Array, signal: float, num_steps: int) -> tuple[list[float], np.ndarray]:
    """Run on one tensor; return the overlaps of `LABELS` and that of the average over time."""
    problem, direction = spiked_tensor(key, DIM, 3, signal)
    sampler = langevin.spherical(0.2 / DIM, 0.5 * DIM**0.5)
    samplers = jax.tree.map(lambda leaf: jnp.full(NUM_CHAINS, leaf), sampler)
    target = Target.from_log_density(problem.objective)
    chains = Chains(samplers, target, jnp.arange(NUM_CHAINS))
    starts = jax.random.normal(jax.random.fold_in(key, 1), (NUM_CHAINS, DIM))
    done = run(
        jax.random.fold_in(key, 2), chains, chains.init(starts, key), num_steps,
        keep=mean_of_averages, thin=20,
    )  # fmt: skip
    last = float(jnp.mean(done.state.position @ direction))
    found = [float(estimate(done.state) @ direction), last]
    path = np.asarray(done.kept) @ np.asarray(direction)
    return [*found, float(problem.partial_trace() @ direction)], path / np.linalg.norm(
        done.kept, axis=1
    )


def main(num_steps: int = 8000, num_tensors: int = 8, folder: Path = Path()) -> np.ndarray:
    """Write ``tensor_pca.png``; return the mean overlaps of `LABELS` for the strongest signal."""
    keys = jax.random.split(jax.random.key(0), num_tensors)
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    table = np.empty((len(SIGNALS), num_tensors, len(LABELS)))
    for i, signal in enumerate(SIGNALS):
        for j, key in enumerate(keys):
            table[i, j], path = overlaps(key, float(signal), num_steps)
        left.plot(20 * np.arange(1, len(path) + 1), path, label=f"λ = {signal / DIM:.1f} d")
    means = table.mean(1)
    errors = table.std(1) / max(num_tensors - 1, 1) ** 0.5
    for mean, error, label in zip(means.T, errors.T, LABELS, strict=True):
        right.errorbar(SIGNALS / DIM, mean, error, marker="o", capsize=3, label=label)
    left.set(xlabel="step", ylabel="overlap with the hidden direction", ylim=(-0.3, 1.05))
    left.set_title("Average so far, of 4 chains on one tensor")
    right.set(xlabel="signal λ / d")
    right.set_title(f"After {num_steps} steps, {num_tensors} tensors")
    for ax in (left, right):
        ax.legend(frameon=False, loc="lower right")
    figure.savefig(folder / "tensor_pca.png")
    return means[-1]


if __name__ == "__main__":
    average, last, _ = main()
    print(f"overlap at λ = 0.5 d: {average:.3f} of the average, {last:.3f} of the last iterate")
