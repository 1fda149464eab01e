"""Train the network of digits that comes with the package.

python -m shoal.models.denoisers.train_digits --out digits.npz
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from shoal.models.denoisers.data import digits_data
from shoal.models.denoisers.network import residual_mlp
from shoal.models.denoisers.pretrained import save_network
from shoal.models.denoisers.training import TrainResult, default_optimizer, held_out_loss, train

NUM_STEPS = 5000
_WEIGHT_DECAY = 0.1


def train_digits(
    key: jax.Array,
    num_steps: int = NUM_STEPS,
    callback: Callable[..., Any] | None = None,
) -> TrainResult:
    """Train a class-conditional denoiser on the 1437 training digits.

    Parameters
    ----------
    key
        A typed key.
    num_steps
        Steps of 256 images.
    callback
        As for `train`.

    Returns
    -------
    TrainResult
    """
    images, labels, _, _ = digits_data()
    key_network, key_training = jax.random.split(key)
    network = residual_mlp(key_network, 64, 10, sigma_data=float(images.std()))
    return train(
        key_training,
        network,
        images,
        labels,
        num_steps=num_steps,
        optimizer=default_optimizer(num_steps, weight_decay=_WEIGHT_DECAY),
        callback=callback,
    )


def main(arguments: list[str] | None = None) -> None:
    """Train, report the loss on held-out digits, and write the weights as float16."""
    parser = argparse.ArgumentParser(description="Train the network of digits.")
    parser.add_argument("--out", default="digits.npz", help="file to write")
    parser.add_argument("--steps", type=int, default=NUM_STEPS, help="steps of 256 images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run")
    chosen = parser.parse_args(arguments)
    start = time.process_time()

    def report(step: int, network: Any, loss: float) -> None:
        print(f"step {step}: loss {loss:.4f}, {time.process_time() - start:.0f} CPU-seconds")

    result = train_digits(jax.random.key(chosen.seed), chosen.steps, report)
    _, _, images, labels = digits_data()
    loss = held_out_loss(jax.random.key(1), result.network, images, labels)
    print(f"loss on held-out digits: {loss:.4f}")
    save_network(chosen.out, result.network, np.float16)


if __name__ == "__main__":
    main()
