"""How far apart are two samples? The maximum mean discrepancy (MMD), without a matrix of pairs.

    python examples/kernel_mmd.py

`pairwise.kernel_sum` streams over all pairs of points in tiles. For the kernel exp(-|x - y|^2 / b)
and two normal laws in d dimensions whose means are m apart, the squared MMD is
2 (1 + 4/b)^(-d/2) (1 - exp(-m^2 / (b + 4))): the estimates are checked against that.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from shoal.sampling.core import kernels, pairwise

DIM, BANDWIDTH = 10, 20.0
SHIFTS = np.linspace(0, 2, 9)


@jax.jit
def mmd2(x: jax.Array, y: jax.Array) -> jax.Array:
    """Estimate the squared MMD without bias: no point is paired with itself."""
    kernel = kernels.RBF(BANDWIDTH)
    n, m = len(x), len(y)
    within_x = pairwise.kernel_sum(kernel, x, x, exclude_diagonal=True) / (n * (n - 1))
    within_y = pairwise.kernel_sum(kernel, y, y, exclude_diagonal=True) / (m * (m - 1))
    return within_x + within_y - 2 * pairwise.kernel_sum(kernel, x, y) / (n * m)


def exact(shift: np.ndarray) -> np.ndarray:
    scale = 2 * (1 + 4 / BANDWIDTH) ** (-DIM / 2)
    return scale * (1 - np.exp(-(shift**2) / (BANDWIDTH + 4)))


def main(num_samples: int = 4000, folder: Path = Path()) -> float:
    """Write ``kernel_mmd.png``; return the largest absolute error of the estimates."""
    key_x, key_y = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, (num_samples, DIM))
    y = jax.random.normal(key_y, (num_samples, DIM))
    direction = jnp.ones(DIM) / jnp.sqrt(DIM)
    estimates = np.array([mmd2(x, y + shift * direction) for shift in SHIFTS])

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    ax = figure.subplots()
    fine = np.linspace(0, 2, 200)
    ax.plot(fine, exact(fine), label="exact")
    ax.plot(SHIFTS, estimates, "o", label=f"estimated from 2 x {num_samples} points")
    ax.set(xlabel="distance of the means", ylabel="squared MMD")
    ax.set_title(f"Two normal laws in {DIM} dimensions")
    ax.legend(frameon=False)
    figure.savefig(folder / "kernel_mmd.png")
    return float(np.max(np.abs(estimates - exact(SHIFTS))))


if __name__ == "__main__":
    print(f"largest error of the squared MMD: {main():.5f}")
