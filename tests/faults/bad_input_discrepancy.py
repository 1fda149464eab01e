"""Discrepancies: two sets of points, known moments, data sets, a classifier."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from shoal.inference import discrepancy

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry

_flag = kind.Slot(False, {"number": bad(3.0), "text": bad("yes"), "None": bad(None)})
_flat = {"one axis": (jnp.ones(4), r"\(4,\)"), "no coordinate": (jnp.ones((4, 0)), r"\(4, 0\)")}
_wide = {"wide points": (jnp.ones((4, 7)), r"\(4, 7\)")}


def _points(num: int, **more: tuple) -> kind.Slot:
    """Return the slot of points ``(num, 2)``; some faults show against the other sets."""
    good = jnp.asarray(np.random.default_rng(num).normal(size=(num, 2)), jnp.float32)
    rows = {name.replace(" ", "_"): row for name, row in {**_flat, **_wide, **more}.items()}
    return kind.points(good).plus(**rows)


def _sets(**numbers: int) -> dict[str, kind.Slot]:
    """Return slots of sets that must fit each other, whose message may call any of them."""
    slots = {name: _points(num) for name, num in numbers.items()}
    # One set of more axes is one of wider points.
    return {name: slot.called(*slots) for name, slot in slots.items()}


_paired = {name: kind.shorter(slot) for name, slot in _sets(samples=5, reference=5).items()}
_moments = dict(
    samples=_points(5, one=(jnp.ones((1, 2)), r"\(1, 2\)")).called("samples", "mean"),
    mean=kind.shorter(kind.numbers(np.zeros(2))),
    covariance=kind.shorter(kind.numbers(np.eye(2))).plus(
        asymmetric=(np.array([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        indefinite=(np.array([[1.0, 2.0], [2.0, 1.0]]), "eigenvalue -1"),
        negative=(-np.eye(2), "eigenvalue -1"), variances=(np.ones(2), r"\(2,\)"),
    ),
)  # fmt: skip
_block = kind.count(2).without("bool")
_kernel = kind.Slot(None, {"number": bad(1.0), "text": bad("rbf")})
_labels = kind.shorter(kind.Slot(np.array([0, 1, 1, 0]), {
    "floats": bad(np.ones(4), "float64"), "text": bad("digits", "digits|str|<U6"),
    "further axis": bad(np.ones((4, 1), int), r"\(4, 1\)"), "None": bad(None, "None|object"),
}))  # fmt: skip

ENTRIES = {
    "discrepancy.rmse": entry(discrepancy.rmse, **_paired),
    "discrepancy.median_rmse": entry(discrepancy.median_rmse, **_paired),
    "discrepancy.frechet_distance": entry(discrepancy.frechet_distance, **_moments),
    "discrepancy.sliced_wasserstein": entry(
        discrepancy.sliced_wasserstein, key=kind.key(), **_sets(samples=5, reference=4),
        num_projections=kind.count(),
        order=kind.positive(2.0).plus(below_one=(0.5, "0.5")),
    ),
    "discrepancy.mmd": entry(
        discrepancy.mmd, **_sets(samples=5, reference=4), kernel=_kernel, unbiased=_flag,
        block_size=_block,
    ),
    "discrepancy.energy_distance": entry(
        discrepancy.energy_distance, **_sets(samples=5, reference=4), unbiased=_flag,
        block_size=_block,
    ),
    "discrepancy.mmd of one point": entry(
        lambda samples: discrepancy.mmd(samples, jnp.ones((3, 2)), unbiased=True),
        samples=kind.Slot(jnp.eye(2), {"one point": bad(jnp.ones((1, 2)), "at least 2 .*got 1")}),
    ),
    "discrepancy.nearest_neighbours": entry(
        discrepancy.nearest_neighbours, **_sets(samples=5, data=4), block_size=_block
    ),
    "discrepancy.memorisation": entry(
        discrepancy.memorisation, **_sets(samples=5, train=6, held_out=4)
    ),
    "discrepancy.memorisation of its data": entry(
        lambda held_out: discrepancy.memorisation(jnp.eye(2), 2 * jnp.eye(2), held_out),
        held_out=kind.Slot(jnp.eye(2), {"train": bad(2 * jnp.eye(2), "fresh")}),
    ),
    "discrepancy.class_accuracy": entry(
        discrepancy.class_accuracy,
        samples=_points(4).without("wide points", "further axis").called("samples", "labels"),
        labels=_labels,
        classifier=kind.Slot(lambda x: np.zeros(len(x), int), {
            "number": bad(3, "3"), "probabilities": bad(lambda x: x, "float32"),
            "one label": bad(lambda x: np.zeros(1, int), r"\(1,\)"),
        }),
    ),
}  # fmt: skip
