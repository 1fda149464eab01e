"""Generation, encoding, likelihoods and pictures, with a kind of bad input for each argument."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference import Checkpoint, generate
from shoal.inference.pictures import image_grid
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.diffusion import ddim, edm, encode, flow, interpolate, log_likelihood
from shoal.sampling.diffusion.encoding import arc

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry


def _mean(x, t):
    return x / (1 + t**2)


def _lost(x, t):
    return jnp.nan * x


_denoiser = kind.Slot(Denoiser(_mean, "data"), {
    "function": bad(_mean, "function"), "None": bad(None, "None"),
    "another shape": bad(Denoiser(lambda x, t: x[:, 0], "data"), r"\(2,\)|\(3,\)|\(4,\)"),
})  # fmt: skip
_schedule = kind.Slot(edm(0.1, 10.0), {"text": bad("edm", "str"), "None": bad(None, "None")})
_solver = kind.Slot(ddim(), {"function": bad(ddim, "function"), "text": bad("ddim", "str")})
_flag = kind.Slot(True, {"number": bad(1), "text": bad("yes"), "None": bad(None)})
_grids = {
    "unknown": bad("cubic"), "too few times": bad([1.0], r"\[1.0\]|\(1,\)"),
    "a time twice": bad([5.0, 1.0, 1.0], "monotone|1.0"),
    "negative time": bad([5.0, 1.0, -1.0], r"-1\.|nan"),
    "text": bad(["now", "then"], "now|<U4|shape"),
}  # fmt: skip
_way = dict(
    denoiser=_denoiser, schedule=_schedule, solver=_solver,
    num_steps=kind.count(2).called("num_steps", "grid"), grid=kind.Slot("logsnr", _grids),
    lower_order_final=_flag,
)  # fmt: skip
# Of two points; a point of more axes is still one.
_points = kind.points(jnp.array([[0.5, 0.0], [1.0, -1.0]])).without(
    "NaN in one entry", "inf in one entry", "further axis"
)
_ends = {"NaN in one entry": kind.points(jnp.ones((2, 2))).bad["NaN in one entry"]}
_generate = lambda **options: generate(**{"progress": False, **options})

ENTRIES = {
    "generate": entry(
        _generate,
        **{**_way, "grid": kind.Slot("logsnr", {
            **_grids, "rises": bad([1.0, 2.0, 5.0], "fall from noise to data")
        })},
        key=kind.key(), num_samples=kind.count(3), batch_size=kind.count(2),
        shape=kind.Slot((2,), {
            "number": bad(2), "negative": bad((2, -1), "-1"), "zero": bad((0,), "0"),
            "fraction": bad((1.5,), "1.5"),
        }),
        dtype=kind.Slot(np.float32, {
            "integer": bad(np.int32, "int32"), "half": bad(np.float16, "float16"),
            "double": bad(np.float64, "float64"), "text": bad("small", "small"),
        }),
        trajectory=_flag,
        condition=kind.Slot(None, {
            "without a function": bad(np.zeros(3), "denoiser.*condition"),
        }),
        on_failure=kind.choice("raise", "shrug"),
        checkpoint=kind.Slot(None, {
            "number": bad(3), "a file": bad(__file__, "is a file"),
            "negative pause": bad(Checkpoint("run", every=-1.0), "every.*-1"),
        }),
        mesh=kind.Slot(None, {
            "number": bad(8, "int"),
            "two axes": bad(jax.make_mesh((1, 1), ("a", "b")), "one axis.*'b'"),
        }),
    ),
    "sample(generate, condition)": entry(
        lambda denoiser, condition: generate(
            kind.KEY, denoiser, edm(), ddim(), 2, (2,), num_samples=3, condition=condition,
            progress=False, on_failure="raise",
        ),
        denoiser=kind.Slot(lambda labels: Denoiser(_mean, "data"), {
            "number": bad(3, "int"), "a function that returns none": bad(lambda c: c, "Denoiser"),
        }),
        condition=kind.Slot(np.arange(3), {
            "too few": bad(np.arange(2), r"\(2,\)"), "number": bad(3, r"\(\)"),
            "empty": bad({}, r"\{\}"),
            "one too long": bad([np.arange(3), np.arange(4)], r"\(4,\)"),
        }),
    ),
    "sample(generate, lost)": entry(
        lambda denoiser: generate(
            kind.KEY, denoiser, edm(), ddim(), 2, (2,), num_samples=3, progress=False,
            on_failure="raise",
        ),
        denoiser=kind.Slot(Denoiser(_mean, "data"), {
            "NaN": bad(Denoiser(_lost, "data"), "3 of 3 samples.*step 0")._replace(is_own=True),
        }),
    ),
    "diffusion.encode": entry(encode, **_way, samples=_points),
    "diffusion.interpolate": entry(
        interpolate, **_way, first=kind.shorter(_points).called("first", "second"),
        second=kind.shorter(_points), num_points=kind.count(2).plus(one=(1, "1")),
    ),
    "encoding.arc": entry(
        arc, first=kind.Slot(jnp.ones((2, 2)), {
            "NaN": _ends["NaN in one entry"]._replace(propagates=True),
        }),
        second=kind.Slot(-jnp.ones((2, 2)), {}), weights=kind.Slot(jnp.array([0.5]), {}),
    ),
    "diffusion.log_likelihood": entry(
        log_likelihood, key=kind.key(), denoiser=_denoiser, samples=_points,
        schedule=_schedule.plus(
            without_a_finite_end=(flow(t_min=0.0, t_max=1.0), "t_min > 0")
        ).called("schedule", "grid"),
        num_steps=_way["num_steps"], num_probes=kind.count(1),
        trace=kind.choice("hutchinson", "sum"),
        grid=_way["grid"].plus(rises=([1.0, 2.0, 5.0], "noise to data")),
        ids=kind.Slot(jnp.arange(2), {
            "too few": bad(jnp.arange(1), r"\(1,\)"),
            "floats": bad(jnp.ones(2), "float32"),
        }).called("ids", "particle_ids"),
    ),
    "pictures.image_grid": entry(
        image_grid,
        images=kind.numbers(np.zeros((3, 4))).without(
            "NaN in one entry", "inf in one entry", "further axis"
        ).plus(one_image=(np.zeros(4), r"\(4,\)"), no_square=(np.zeros((3, 5)), "5")).called(
            "images", "shape"
        ),
        columns=kind.count(2), shape=kind.Slot((2, 2), {
            "wrong": bad((2, 3), r"\(2, 3\)"), "negative": bad((-2, -2), "-2"),
            "three": bad((2, 2, 1), r"\(2, 2, 1\)"),
        }),
        low=kind.positive(0.5).without("zero", "negative").plus(above=(3.0, "3.0")),
        high=kind.positive(2.0).without("zero", "negative").plus(below=(0.1, "0.1")),
        headings=kind.Slot(["a", "b"], {"too few": bad(["a"], r"\['a'\]")}),
    ),
}  # fmt: skip
