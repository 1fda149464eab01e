"""Step sizes that follow the solution double the strong order near a singularity.

    python examples/cir_orders.py

The Cox-Ingersoll-Ross process dy = a (b - y) dt + s √y dW touches zero, where √y is not smooth: for
strong noise s, every method with even steps converges slowly. Here the splitting HOStS, which reads
increment W and space-time Lévy area H of each step, runs once with even steps and once with steps
h = (c y)^(2/3), on the same Brownian paths. A step is taken only if it is right for the smaller of
the values at its ends; otherwise a smaller one is tried *on the same path*, which needs increments
at any times from one seed. Reference: the adaptive run with far smaller steps.

Source: Jelinčič, Foster and Kidger, "Single-seed generation of Brownian paths and integrals for
adaptive and high order SDE solvers", arXiv:2405.06464, section 5. Its orders, even and adaptive:
0.78 and 1.82 for s = 1.5, 0.39 and 0.81 for s = 2.2.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from shoal.sampling.langevin import brownian

A, B, END = 1.0, 1.0, 4.0
SMALLEST, LARGEST = 2.0**-15, 1.0
NOISES = (1.5, 2.2)


def hosts(y: jax.Array, h: jax.Array, W: jax.Array, H: jax.Array, s: float) -> jax.Array:
    """One step of the splitting: exact drift, √y moved by the noise, thrice and twice."""
    mean = B - s**2 / (4 * A)
    outer = jnp.exp(A * h * (np.sqrt(3) - 3) / 6)
    inner = jnp.exp(-A * h / np.sqrt(3))
    drift = lambda y, decay: decay * y + (1 - decay) * mean
    kick = lambda y, noise: (jnp.sqrt(jnp.maximum(y, 0)) + s / 2 * noise) ** 2
    y = kick(drift(y, outer), W / 2 + np.sqrt(3) * H)
    y = kick(drift(y, inner), W / 2 - np.sqrt(3) * H)
    return drift(y, outer)


def path_of(key: jax.Array) -> brownian.BrownianPath:
    return brownian.path(key, 0.0, END, (), "WH", tol=SMALLEST / 2)


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None))
def even(key: jax.Array, s: float, num_steps: int) -> jax.Array:
    """Return y at the end after even steps, for each key."""
    path, h = path_of(key), END / num_steps

    def step(i, carry):
        y, cursor = carry
        found, cursor = path.advance(cursor, (i + 1) * h)
        return hosts(y, h, found.W, found.H, s), cursor

    return jax.lax.fori_loop(0, num_steps, step, (jnp.ones(()), path.start()))[0]


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None))
def adaptive(key: jax.Array, s: float, c: float) -> tuple[jax.Array, jax.Array]:
    """Return y at the end and the number of steps, with those tried in vain, for each key."""
    path = path_of(key)
    size = lambda y: jnp.clip((c * jnp.maximum(y, 0)) ** (2 / 3), SMALLEST, LARGEST)

    def step(carry):
        t, y, h, cursor, num = carry
        end = jnp.minimum(t + h, END)
        found, ahead = path.advance(cursor, end)
        new = hosts(y, end - t, found.W, found.H, s)
        limit = size(jnp.minimum(y, new))
        is_taken = end - t < 1.1 * limit
        choose = lambda a, b: jax.tree.map(lambda x, z: jnp.where(is_taken, x, z), a, b)
        t, y, cursor = choose((end, new, ahead), (t, y, cursor))
        return t, y, jnp.where(is_taken, size(new), limit), cursor, num + 1

    y = jnp.ones(())
    start = jnp.zeros(()), y, size(y), path.start(), 0
    _, y, _, _, num = jax.lax.while_loop(lambda carry: carry[0] < END, step, start)
    return y, num


def errors(
    s: float, num_paths: int, even_steps: list[int], factors: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Measure root mean square errors by mean number of steps, for both kinds of steps."""
    keys = jax.random.split(jax.random.key(7), num_paths)
    reference, _ = adaptive(keys, s, factors[-1] / 8)
    error = lambda y: float(jnp.sqrt(jnp.mean((y - reference) ** 2)))
    runs = [adaptive(keys, s, c) for c in factors]
    counts = np.array([float(num.mean()) for _, num in runs])
    return {
        "even steps": (
            np.array(even_steps, float),
            np.array([error(even(keys, s, n)) for n in even_steps]),
        ),
        "adaptive steps": (counts, np.array([error(y) for y, _ in runs])),
    }


def order(steps: np.ndarray, error: np.ndarray) -> float:
    return -float(np.polyfit(np.log(steps), np.log(error), 1)[0])


def main(num_paths: int = 400, num_points: int = 5, folder: Path = Path()) -> dict[float, tuple]:
    """Write ``cir_orders.png``; return the orders (even, adaptive) by s."""
    figure = Figure(figsize=(8, 3.6), dpi=120, layout="constrained")
    orders = {}
    for ax, s in zip(figure.subplots(1, 2, sharey=True), NOISES, strict=True):
        even_steps = [2**k for k in range(5, 5 + num_points)]
        factors = 0.1 * 2.0 ** -np.arange(num_points)
        measured = errors(s, num_paths, even_steps, factors)
        orders[s] = tuple(order(*points) for points in measured.values())
        for (name, points), slope in zip(measured.items(), orders[s], strict=True):
            ax.loglog(*points, "o-", label=f"{name}: order {slope:.2f}")
        ax.set(xlabel="mean number of steps", title=f"Cox-Ingersoll-Ross, s = {s}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.legend(frameon=False)
    figure.axes[0].set(ylabel="root mean square error at t = 4")
    figure.savefig(folder / "cir_orders.png")
    return orders


if __name__ == "__main__":
    for s, (slope_even, slope_adaptive) in main().items():
        print(f"s = {s}: order {slope_even:.2f} with even steps, {slope_adaptive:.2f} adaptive")
