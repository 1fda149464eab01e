"""The uniform law on a square by particles: mirrored, they fill it; projected, they crowd its edge.

    python examples/uniform_square.py

There is no score on the square [-1, 1]²: what moves the particles is their repulsion and, in the
dual space of the mirror map, the volume it leaves behind. Projected SVGD knows neither edge nor
volume: it pushes outward for ever, and the projection piles up on the boundary what it cuts off.
The numbers checked are energy distances to the uniform law.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from shoal.inference.run import run
from shoal.sampling import stein
from shoal.sampling.core import mirror

SQUARE = mirror.box(-1.0, jnp.ones(2))
RATE = optax.rmsprop(0.02)
SAMPLERS = {
    "SVMD": stein.svmd(SQUARE, None, RATE, bandwidth=0.1, truncation=0.998),
    "MSVGD": stein.msvgd(SQUARE, None, RATE, bandwidth=0.1),
    "projected SVGD": stein.svgd(
        None, RATE, bandwidth=0.1, project=lambda x: jnp.clip(x, -1.0, 1.0)
    ),
}


def flat(x: jax.Array) -> jax.Array:
    """Log density of the uniform law inside."""
    return 0.0 * jnp.sum(x)


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return 2 E|X - Y| - E|X - X'| - E|Y - Y'|, all pairs counted."""
    mean = lambda a, b: np.linalg.norm(a[:, None] - b, axis=-1).mean()
    return float(2 * mean(x, y) - mean(x, x) - mean(y, y))


def draw_figure(particles: dict[str, np.ndarray], distances: dict[str, float]) -> Figure:
    figure = Figure(figsize=(10, 3.7), dpi=120, layout="constrained")
    for axes, (name, x) in zip(figure.subplots(1, 3), particles.items(), strict=True):
        axes.plot(*x.T, ".", markersize=4)
        axes.set(xlim=(-1.06, 1.06), ylim=(-1.06, 1.06), aspect="equal")
        axes.set_title(f"{name}\nenergy distance {distances[name]:.4f}", fontsize=10)
    return figure


def main(num_particles: int = 300, num_steps: int = 1000, folder: Path = Path()) -> Any:
    """Write ``uniform_square.png``; return the energy distance of each sampler."""
    start = jax.random.uniform(jax.random.key(0), (num_particles, 2), minval=-0.5, maxval=0.5)
    # The midpoints of a grid are more uniform than draws.
    side = (np.arange(40) + 0.5) / 20 - 1
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    particles, distances = {}, {}
    for name, sampler in SAMPLERS.items():
        algorithm = sampler(flat)
        state = run(jax.random.key(1), algorithm, algorithm.init(start), num_steps).state
        particles[name] = np.asarray(state.position)
        distances[name] = energy_distance(particles[name], grid)
    draw_figure(particles, distances).savefig(folder / "uniform_square.png")
    return distances


if __name__ == "__main__":
    for sampler, value in main().items():
        print(f"energy distance to the uniform law, {sampler}: {value:.4f}")
