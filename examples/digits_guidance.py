"""Classifier-free guidance on digits: what the scale buys, what it costs, which solver bears it.

    python examples/digits_guidance.py

The trained network of the package, with scales w from 0 (the label is not used) over 1 (used, not
guided) to 8; each column starts from the same noise. With the scale samples become surer of their
class, less varied (deviation within a class, of pixels clipped to the range of ink) and, where it
is large, leave the range of ink. And the equation becomes stiff: at scale 8, with 8 evaluations,
solvers of high order lose to DDIM, which is of the first, and momentum (GHVB of order 2, beta 0.5)
does not. The numbers checked are their errors over that of DDIM.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from shoal.inference.discrepancy import class_accuracy, digits_classifier, rmse
from shoal.models.denoisers import digits_data, digits_network
from shoal.sampling import diffusion

SCALES = np.arange(9)
SCHEDULE = diffusion.edm(0.02, 20.0)
SOLVERS = {
    "DDIM": diffusion.ddim(),
    "DPM-Solver++(2M)": diffusion.dpm_solver_pp(2),
    "DPM-Solver++(3M)": diffusion.dpm_solver_pp(3),
    "GHVB, 2, 0.5": diffusion.ghvb(2, 0.5, "rho"),
}


def sample(solver: Any, labels: jax.Array, scale: np.ndarray, num_steps: int) -> jax.Array:
    """Carry the same noise at each scale to digits, ``(scales, n, 64)``."""
    network, noise = digits_network(), jax.random.normal(jax.random.key(0), (labels.size, 64))
    # All scales in one batch: each sample has its own.
    scales, every = np.repeat(scale, labels.size), jnp.tile(labels, scale.size)
    denoiser = diffusion.guidance.classifier_free(
        network, every, network.no_label, scales, schedule=SCHEDULE
    )
    x_T = SCHEDULE.t_max * jnp.tile(noise, (scale.size, 1))
    solve = lambda model, x: diffusion.solve(model, SCHEDULE, solver, x, num_steps, "karras")
    return jax.jit(solve)(denoiser, x_T)[0].reshape(scale.size, labels.size, 64)


def spread(samples: np.ndarray, labels: np.ndarray) -> float:
    """Return the deviation within a class, root mean square over classes and clipped pixels."""
    samples = samples.clip(-1, 1)
    return float(np.mean([samples[labels == digit].var(0).mean() for digit in range(10)]) ** 0.5)


def draw_figure(samples: np.ndarray, calls: Any, curves: Any, errors: Any) -> Figure:
    figure = Figure(figsize=(11, 5), dpi=120, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(10, 9, 9))
    frame = ((0, 0), (0, 0), (1, 1), (1, 1))
    images = np.pad(samples[:, :10].reshape(-1, 10, 8, 8), frame, constant_values=-1)
    images, extent = images.swapaxes(1, 2).reshape(-1, 100), (0, 10, SCALES[-1] + 0.5, -0.5)
    left.imshow(images, "gray_r", vmin=-1, vmax=1, extent=extent, aspect="auto")
    left.set(xticks=[], yticks=SCALES, ylabel="guidance scale", title="Same noise, other scales")
    for label, curve in curves.items():
        middle.plot(SCALES, curve, "o-", label=label)
    middle.set(xlabel="guidance scale", title="What the scale does")
    for name, row in errors.items():
        right.loglog(calls, row, "o-", label=name)
    right.set(xlabel="evaluations (two calls each)", ylabel="RMSE to the exact flow")
    right.set(xticks=calls, xticklabels=calls, title=f"Solvers at guidance scale {SCALES[-1]}")
    right.minorticks_off()
    middle.legend(frameon=False, loc=(0.1, 0.3))
    right.legend(frameon=False)
    return figure


def main(num_samples: int = 200, calls: Any = (8, 12, 18), folder: Path = Path()) -> Any:
    """Write ``digits_guidance.png``; return errors at the first of ``calls`` over that of DDIM."""
    labels = np.arange(num_samples) % 10
    run = lambda solver, scales, num: sample(solver, jnp.asarray(labels), scales * 1.0, num)
    exact = np.asarray(run(diffusion.dpm_solver_pp(2), SCALES, 60))
    images, digits = map(np.asarray, digits_data()[:2])
    curves = {
        "in the class asked for": [class_accuracy(x, labels, digits_classifier()) for x in exact],
        "spread / real": [spread(x, labels) / spread(images, digits) for x in exact],
        "pixels 5 % beyond the range": [np.mean(np.abs(x) > 1.1) for x in exact],
    }
    errors = {
        name: [float(rmse(run(solver, SCALES[-1:], num)[0], exact[-1])) for num in calls]
        for name, solver in SOLVERS.items()
    }
    table = {"scale": SCALES, **curves, "RMSE at scale 8, evaluations": calls, **errors}
    for name, row in table.items():
        print(f"{name:28}" + "".join(f"{value:7.3g}" for value in row))
    draw_figure(exact, calls, curves, errors).savefig(folder / "digits_guidance.png")
    return {name: row[0] / errors["DDIM"][0] for name, row in errors.items()}


if __name__ == "__main__":
    for solver, ratio in main().items():
        print(f"error over that of DDIM, {solver}: {ratio:.2f}")
