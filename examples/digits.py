"""Handwritten digits: train a diffusion model, draw a thousand images in 20 calls, and judge them.

    python examples/digits.py

A small network learns to remove noise from the 1437 training images, knowing which digit each one
is. Samples start as noise and are carried to images of the digits asked for. A classifier that has
seen real digits alone reads them, and their distances to the training images are compared with
those of real images held out: a model that repeats its training data would be much nearer. The
number checked is the fraction that the classifier reads as what was asked for.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from shoal.inference import discrepancy, generate
from shoal.inference.pictures import image_grid
from shoal.models.denoisers import digits_data
from shoal.models.denoisers.train_digits import train_digits
from shoal.sampling import diffusion

CLASSES = 10
NUM_CALLS = 20
# Nothing is left of the data above, and nothing to be seen of the noise below.
SCHEDULE = diffusion.edm(0.02, 40.0)


def report(step: int, network: Any, loss: float) -> None:
    """Print how the training goes."""
    print(f"step {step}: loss {loss:.3f}")


def main(
    num_steps: int = 4000, num_samples: int = 1000, folder: Path = Path()
) -> tuple[float, discrepancy.Memorisation]:
    """Write ``digits.png``; return the class accuracy and how near the training data is."""
    key_training, key_samples = jax.random.split(jax.random.key(0))
    network = train_digits(key_training, num_steps, report).network
    labels = np.arange(num_samples, dtype=np.int32) % CLASSES
    generated = generate(
        key_samples,
        network.as_denoiser,
        SCHEDULE,
        diffusion.dpm_solver_pp(3),
        NUM_CALLS,
        (64,),
        num_samples=num_samples,
        condition=labels,
        progress=False,
    )
    samples = generated.samples
    train, _, held_out, held_out_labels = digits_data()
    classifier = discrepancy.digits_classifier()
    accuracy = discrepancy.class_accuracy(samples, labels, classifier)
    real = discrepancy.class_accuracy(held_out, held_out_labels, classifier)
    near = discrepancy.memorisation(samples, train, held_out)
    print(f"{num_samples} images in {generated.seconds:.1f} s, {NUM_CALLS} calls each")
    print(f"read as asked: {accuracy:.1%}, real images {real:.1%}")
    print(near)
    headings = [str(digit) for digit in range(CLASSES)]
    title = f"Trained for {num_steps} steps, {NUM_CALLS} calls of the network"
    image_grid(samples[:100], headings=headings, title=title).savefig(folder / "digits.png")
    return accuracy, near


if __name__ == "__main__":
    print(f"class accuracy: {main()[0]:.3f}")
