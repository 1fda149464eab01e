"""Networks, their training, and files of them and of images: a kind of bad input for each."""

import gzip
import io
import math
import runpy
import struct
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from shoal.models import denoisers

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry

NETWORK = denoisers.PreconditionedNetwork(lambda x, noise, labels: 0.1 * x, 1.0, 3)
SMALL = denoisers.residual_mlp(kind.KEY, 2, sigma_data=1.0, width=2, num_blocks=1)
IMAGES = np.ones((3, 2), np.float32)
WIDTHS = dict(width=kind.count(2), num_blocks=kind.count(1))
_network = kind.Slot(NETWORK, {
    "function": bad(lambda x, sigma, labels: x, "function"), "text": bad("digits", "digits|str"),
    "None": bad(None, "None"),
})  # fmt: skip
_label = kind.Slot(1, {
    "no class": bad(4), "negative": bad(-1), "fraction": bad(0.5, "float|0.5"),
    "text": bad("cat", "cat"), "matrix": bad([[1, 2]], r"\(1, 2\)"), "empty": bad([], r"float|\(0"),
    "one of many": bad(np.array([0, 1, 9]), r"\[2\].*9"), "bool": bad(True, "True|bool"),
})  # fmt: skip
_labels = kind.Slot(None, {
    "no class": bad([0, 1, 4], r"\[2\].*4"), "too few": bad([0, 1], r"\(2,\)"),
    "floats": bad([0.0, 1.0, 2.0], "float"), "scalar": bad(1, r"\(\)"), "text": bad("all"),
})  # fmt: skip
_images = (
    kind.points(IMAGES).without("further axis").plus(vector=(np.ones(3, np.float32), r"\(3,\)"))
)
_data = dict(network=_network, images=_images, labels=_labels)
_law = dict(
    loss=kind.choice("flow"),
    log_sigma=kind.Slot((0.0, 1.0), {
        "number": bad(1.0), "three": bad((0.0, 1.0, 2.0)), "text": bad("normal"),
        "NaN": bad((math.nan, 1.0), "nan"), "no spread": bad((0.0, 0.0), r"0\.0"),
    }),
)  # fmt: skip
_share = kind.fraction(0.1).without("zero")
_function = {"number": bad(3.0), "text": bad("mean")}
FOLDER = tempfile.TemporaryDirectory()
for part in ("train", "t10k"):
    for name, axes in (("images-idx3", (2, 2, 2)), ("labels-idx1", (2,))):
        header = bytes([0, 0, 8, len(axes)]) + struct.pack(f">{len(axes)}I", *axes)
        path = Path(FOLDER.name, f"{part}-{name}-ubyte.gz")
        path.write_bytes(gzip.compress(header + bytes(math.prod(axes))))


def residual(x: Any) -> Any:
    return x[:, :1]


ENTRIES = {
    "denoisers.PreconditionedNetwork": entry(
        denoisers.PreconditionedNetwork, inner=kind.Slot(NETWORK.inner, _function),
        sigma_data=kind.positive(), num_labels=kind.count(lowest=0),
    ),
    "denoisers.PreconditionedNetwork.as_denoiser": entry(NETWORK.as_denoiser, label=_label),
    "denoisers.residual_mlp call": entry(
        SMALL, x=kind.points(jnp.ones((3, 2))).propagating("NaN in one entry").without(
            "complex array", "array of text", "array of objects", "text", "None", "empty array",
            "further axis", "integer array",
        ), sigma=kind.Slot(1.0, {"too few": bad(jnp.ones(2), r"\(2,\)|shape")}),
        labels=kind.Slot(jnp.zeros(3, int), {
            "no class": bad(jnp.array([0, 0, 7]), "")._replace(propagates=True),
        }),
    ),
    "denoisers.residual_mlp": entry(
        denoisers.residual_mlp, key=kind.key(), dim=kind.count(2), sigma_data=kind.positive(),
        num_labels=kind.count(lowest=0), **WIDTHS,
    ),
    "denoisers.digits": entry(
        denoisers.digits, label=_label.without("no class", "one of many").plus(no_digit=(11, "11"))
    ),
    "denoisers.train": entry(
        denoisers.train, key=kind.key(), **_data, num_steps=kind.count(2), **_law,
        batch_size=kind.count(4), label_dropout=_share, ema_decay=_share,
        chunk_size=kind.count(2), residual_weight=kind.nonnegative(),
        residual=kind.Slot(residual, {
            **_function, "one axis": bad(lambda x: x[:, 0], r"\(4,\)"),
            "of the batch": bad(lambda x: x[:1], r"\(1, 2\)"),
        }),
        residual_estimate=kind.choice("sample"), callback=kind.Slot(None, _function),
        optimizer=kind.Slot(optax.sgd(0.1), {
            "rate": bad(0.1, "float"), "text": bad("adam", "str"), "class": bad(dict, "type"),
        }),
    ),
    "denoisers.held_out_loss": entry(
        denoisers.held_out_loss, key=kind.key(), **_data, **_law, num_draws=kind.count()
    ),
    "denoisers.default_optimizer": entry(
        denoisers.default_optimizer, num_steps=kind.count(), learning_rate=kind.positive(),
        weight_decay=kind.nonnegative(),
    ),
    "denoisers.save_network": entry(
        lambda network, dtype: denoisers.save_network(io.BytesIO(), network, dtype),
        network=_network._replace(good=SMALL).plus(other_inner=(NETWORK, "residual_mlp")),
        dtype=kind.Slot("float16", {"integer": bad("int8", "int8"), "text": bad("small")}),
    ),
    "denoisers.load_network": entry(
        denoisers.load_network,
        file=kind.Slot(Path(denoisers.__file__).with_name("digits.npz"), {
            "text file": bad(Path(__file__), "no network"),
            "no file": bad(Path(__file__).with_name("none.npz"), "No such file"),
        }),
    ),
    "denoisers.fashion_mnist": entry(
        denoisers.fashion_mnist,
        folder=kind.Slot(FOLDER.name, {"no folder": bad("/nowhere", "apt-get install")}),
    ),
}  # fmt: skip
