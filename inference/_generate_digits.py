"""What ``shoal generate digits`` does: images of handwritten digits, a table and a file."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference._classification import class_accuracy, digits_classifier
from shoal.inference._generate import Generated, generate
from shoal.inference.pictures import image_grid
from shoal.models.denoisers import Denoiser, PreconditionedNetwork, digits_data, digits_network
from shoal.sampling import diffusion
from shoal.sampling.diffusion.guidance import classifier_free

NUM_CLASSES = 10
_PICTURES = (".png", ".pdf", ".svg")
# Nothing is left of the data above, and nothing to be seen of the noise below.
_SIGMAS = (0.02, 40.0)
_STATISTICS_POINTS, _STATISTICS_SAMPLES = 60, 512
# At 8 steps half the error of order 3.
_V3_ORDER = 2


class Order(NamedTuple):
    """What the command was asked for; its options by name."""

    solver: str
    steps: int
    num: int
    label: int | None
    guidance: float
    grid: str
    seed: int
    out: Path
    checkpoint: Path | None = None


class _Guided(eqx.Module):
    """A network guided by labels, as the function of labels that `generate` wants."""

    network: PreconditionedNetwork
    scale: float

    def __call__(self, labels: jax.Array) -> Denoiser:
        return classifier_free(
            self.network, labels, self.network.no_label, self.scale, schedule=diffusion.edm()
        )


def can_write(path: Path) -> bool:
    """Say whether the name ends in something that can be written."""
    return path.suffix.lower() in (*_PICTURES, ".npz")


def generate_digits(order: Order, progress: bool | Callable[..., Any] = True) -> str:
    """Generate, print the table, write the file; return ``"completed"`` or ``"interrupted"``."""
    network, key = digits_network(), jax.random.key(order.seed)
    key_samples, key_solver = jax.random.split(key)
    schedule = diffusion.edm(*_SIGMAS)
    labels = np.arange(order.num, dtype=np.int32) % NUM_CLASSES
    if order.label is not None:
        labels = np.full_like(labels, order.label)
    denoiser = network.as_denoiser if order.guidance == 1 else _Guided(network, order.guidance)
    start = time.perf_counter()
    solver = make_solver(order.solver, key_solver, denoiser, schedule, order.label)
    prepared = time.perf_counter() - start
    generated = generate(
        key_samples, denoiser, schedule, solver, order.steps, digits_data()[0].shape[1:],
        num_samples=order.num, condition=labels, grid=order.grid, progress=progress,
        checkpoint=order.checkpoint,
    )  # fmt: skip
    labels = labels[: len(generated.samples)]
    if not len(labels):
        print("Interrupted before the first image: nothing is written")
        return generated.outcome
    _write(order, generated, labels)
    print(_table(order, generated, labels, prepared))
    print(f"\nWrote {order.out}")
    return generated.outcome


def make_solver(
    name: str, key: jax.Array, denoiser: Callable[[Any], Denoiser], schedule: Any, label: int | None
) -> Any:
    """Return a solver by its name on the command line; v3 with statistics of the training data."""
    if name != "dpm-solver-v3":
        return getattr(diffusion, name.replace("-", "_"))()
    images, labels, _, _ = digits_data()
    if label is not None:
        images, labels = images[labels == label], labels[labels == label]
    images, labels = images[:_STATISTICS_SAMPLES], labels[:_STATISTICS_SAMPLES]
    # In one batch, for each image is denoised by its own label: without labels the error is thrice.
    statistics = diffusion.estimate_statistics(
        key, denoiser(jnp.asarray(labels)), schedule, jnp.asarray(images),
        num_points=_STATISTICS_POINTS, batch_size=len(images),
    )  # fmt: skip
    return diffusion.dpm_solver_v3(statistics, order=_V3_ORDER)


def _table(order: Order, generated: Generated, labels: np.ndarray, prepared: float) -> str:
    record = generated.record
    good = record.failed_at < 0
    rows = {
        "solver": f"{order.solver}, grid {order.grid}",
        "images": f"{len(labels)}" + (f" of {order.num}" if len(labels) < order.num else ""),
        "network calls": f"{int(np.max(record.num_calls))} per image",
        "guidance": f"{order.guidance:g}" if order.guidance != 1 else "none",
        "seconds": f"{generated.seconds:.2f}, and {generated.compile_seconds:.1f} to compile",
    }
    if prepared > 0.1:
        rows["statistics"] = f"{prepared:.1f} s, once for a model"
    if order.guidance > 0 and good.any():
        accuracy = class_accuracy(generated.samples[good], labels[good], digits_classifier())
        _, _, images, truth = digits_data()
        held_out = class_accuracy(images, truth, digits_classifier())
        rows["class accuracy"] = f"{accuracy:.1%} (real digits {held_out:.1%})"
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _write(order: Order, generated: Generated, labels: np.ndarray) -> None:
    if order.out.suffix.lower() == ".npz":
        np.savez_compressed(order.out, samples=generated.samples, labels=labels)
        return
    title = f"{order.solver}, {order.steps} steps"
    if order.guidance != 1:
        title += f", guidance {order.guidance:g}"
    headings = [str(k) for k in range(NUM_CLASSES)] if order.label is None else ()
    image_grid(generated.samples, headings=headings, title=title).savefig(order.out)
