"""What a step size costs: the stationary variance of unadjusted Langevin samplers on N(0, 1).

    python examples/langevin_bias.py

The variances that the samplers reach are known in closed form: 1 / (1 - h/2) for ULA,
1 / (1 - h^2/4) for OBABO, and 1 for BAOAB whatever the step size h. The draws are checked against
them; MALA, which accepts or rejects, would be at 1 too.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from shoal.inference import sample
from shoal.sampling import langevin

EXACT = {
    "ula": lambda h: 1 / (1 - h / 2),
    "obabo": lambda h: 1 / (1 - h**2 / 4),
    "baoab": lambda h: np.ones_like(h),
}
STEP_SIZES = np.array([0.2, 0.5, 0.8, 1.1, 1.4])


def log_density(x: jax.Array) -> jax.Array:
    return -0.5 * jnp.sum(x**2)


def variance(name: str, step_size: float, num_samples: int) -> float:
    """Measure the variance over 4 x 1000 independent coordinates, after 100 steps are forgotten."""
    sampler = getattr(langevin, name)(step_size=float(step_size))
    result = sample(
        jax.random.key(0), log_density, sampler, init=jnp.zeros(1000), num_warmup=0,
        num_samples=num_samples + 100, progress=False,
    )  # fmt: skip
    return float(np.mean(result.posterior["position"][:, 100:] ** 2))


def main(num_samples: int = 2000, folder: Path = Path()) -> float:
    """Write ``langevin_bias.png``; return the largest relative deviation from the formulas."""
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    ax = figure.subplots()
    fine, worst = np.linspace(0, 1.5, 200), 0.0
    for name, exact in EXACT.items():
        measured = np.array([variance(name, h, num_samples) for h in STEP_SIZES])
        worst = max(worst, float(np.max(np.abs(measured / exact(STEP_SIZES) - 1))))
        (line,) = ax.plot(fine, exact(fine), label=f"{name}: formula")
        ax.plot(STEP_SIZES, measured, "o", color=line.get_color(), label=f"{name}: measured")
    ax.set(xlabel="step size", ylabel="stationary variance", ylim=(0.8, 4.2))
    ax.set_title("Samplers without an accept step, on N(0, 1)")
    ax.legend(frameon=False)
    figure.savefig(folder / "langevin_bias.png")
    return worst


if __name__ == "__main__":
    print(f"largest relative deviation from the exact variances: {main():.4f}")
