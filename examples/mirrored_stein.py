"""Two laws on the simplex of twenty probabilities: mirrored Stein samplers and a projected one.

    python examples/mirrored_stein.py

A sparse Dirichlet law, whose mass lies at a face of the simplex, and a quadratic form that is tiny
along some directions. SVMD and MSVGD move in the dual space and never leave the simplex; SVGD does,
and is projected back. The picture shows energy distances over iterations, and what as many
independent draws would have. The numbers checked are those at the end.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from shoal.sampling import langevin, stein
from shoal.sampling.core import mirror

DIM, NUM = 20, 50
SIMPLEX = mirror.simplex()
ALPHA = 0.1 + np.array([90.0, 5.0, 5.0, *[0.0] * 17])
HALF = np.random.default_rng(0).uniform(-1, 1, (DIM - 1, DIM - 1))
FORM = HALF @ HALF.T / np.abs(HALF @ HALF.T).max()
TARGETS = {
    "sparse Dirichlet": lambda p: jnp.sum((ALPHA - 1) * jnp.log(p)),
    "quadratic": lambda p: -p[:-1] @ jnp.asarray(FORM) @ p[:-1] / 2e-4,
}


def samplers(num_steps: int, truncation: float) -> dict[str, Any]:
    """Return the samplers; rates fall as the particles come to rest."""
    rate = optax.rmsprop(optax.cosine_decay_schedule(0.1, num_steps, 0.02))
    project = optax.projections.projection_simplex
    return {
        "SVMD": stein.svmd(SIMPLEX, None, rate, truncation=truncation),
        "MSVGD": stein.msvgd(SIMPLEX, None, rate),
        "projected SVGD": stein.svgd(None, optax.rmsprop(1e-4), project=project),
    }


def trace(sampler: Any, target: Any, start: jax.Array, num_steps: int, every: int) -> np.ndarray:
    """Return the particles every few iterations, ``(times, n, 20)``."""
    algorithm = sampler(target)
    step = lambda _, state: algorithm.step(jax.random.key(0), state)[0]

    def some(state: Any, _: None) -> Any:
        return jax.lax.fori_loop(0, every, step, state), state.position

    run = jax.jit(lambda x: jax.lax.scan(some, algorithm.init(x), length=num_steps // every + 1)[1])
    return np.asarray(run(start), np.float64)


def quadratic_draws(num: int) -> np.ndarray:
    """Return draws of the quadratic law, by MALA in the dual space."""
    algorithm = langevin.mirrored(SIMPLEX, step_size=0.1)(TARGETS["quadratic"])
    start = algorithm.init(jnp.full(DIM, 0.005).at[-1].set(0.905))
    step = lambda state, key: (algorithm.step(key, state)[0], None)
    chain = lambda keys: jax.lax.scan(step, start, keys)[0].position
    return np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(3), (num, 2000))))


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return 2 E|X - Y| - E|X - X'| - E|Y - Y'|, all pairs counted."""
    mean = lambda a, b: np.linalg.norm(a[:, None] - b, axis=-1).mean()
    return float(2 * mean(x, y) - mean(x, x) - mean(y, y))


def main(num_steps: int = 500, num_draws: int = 1000, folder: Path = Path()) -> Any:
    """Write ``mirrored_stein.png``; return the last energy distances by target and sampler."""
    rng, every, ends = np.random.default_rng(1), max(1, num_steps // 50), {}
    start = jnp.asarray(rng.dirichlet(np.full(DIM, 5.0), NUM), jnp.float32)
    draws = {
        "sparse Dirichlet": rng.dirichlet(ALPHA, num_draws),
        "quadratic": quadratic_draws(num_draws),
    }
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    for axes, (name, target) in zip(figure.subplots(1, 2), TARGETS.items(), strict=True):
        some = energy_distance(draws[name][:NUM], draws[name][NUM:])
        axes.axhline(some, color="gray", linestyle=":", label=f"{NUM} draws")
        for sampler, made in samplers(num_steps, 0.998 if "sparse" in name else 0.98).items():
            path = trace(made, target, start, num_steps, every)
            curve = [energy_distance(x[:, :-1], draws[name][:, :-1]) for x in path]
            axes.semilogy(every * np.arange(len(curve)), curve, label=sampler)
            ends[name, sampler] = curve[-1]
        axes.set(title=name, xlabel="iterations", ylabel="energy distance")
    axes.legend(frameon=False)
    figure.savefig(folder / "mirrored_stein.png")
    return ends


if __name__ == "__main__":
    for (law, sampler), distance in main().items():
        print(f"energy distance, {law}, {sampler}: {distance:.5f}")
