"""Guidance and manifold projection, with a kind of bad input for each argument."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.diffusion import edm, guidance, manifold_projected

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry

_function = kind.Slot(
    lambda *arguments: arguments[0], {"number": bad(3, "int"), "None": bad(None, "None")}
)
_scale = kind.nonnegative(2.0, one=False).without("negative").plus(
    matrix=(np.ones((2, 2)), r"\(2, 2\)"), NaN_in_one_entry=(jnp.array([1.0, jnp.nan]), r"\[1\]"),
)  # fmt: skip
_label = {
    "fraction": bad(1.5, "float"), "text": bad("three", "three"), "None": bad(None, "None"),
    "matrix": bad(np.zeros((2, 2), int), r"\(2, 2\)"), "none at all": bad(np.zeros(0, int), "(0,)"),
    "array of floats": bad(np.ones(3), "float64"),
}  # fmt: skip
_denoiser = kind.Slot(Denoiser(lambda x, t: x, "data", edm()), {
    "function": bad(lambda x, t: x, "function"), "None": bad(None, "None"),
    "without schedule": bad(Denoiser(lambda x, t: x), "schedule.*None"),
})  # fmt: skip
ENTRIES = {
    "guidance.classifier_free": entry(
        guidance.classifier_free, network=_function, labels=kind.Slot(3, _label),
        no_label=kind.Slot(10, {**_label, "vector": bad(np.arange(3), r"\(3,\)")}), scale=_scale,
        prediction=kind.choice("data", "epsilon"),
        schedule=kind.Slot(edm(), {"text": bad("edm", "str")}),
    ),
    "guidance.combine": entry(
        guidance.combine, conditional=_denoiser, unconditional=_denoiser, scale=_scale
    ),
    "guidance.branches": entry(
        guidance.branches,
        denoiser=kind.Slot(guidance.combine(_denoiser.good, _denoiser.good, 2.0), {
            "not guided": bad(_denoiser.good, "Denoiser of function"), "None": bad(None, "None"),
        }),
    ),
    "guidance.classifier": entry(
        guidance.classifier, denoiser=_denoiser, log_probability=_function, scale=_scale
    ),
    "guidance.reconstruction": entry(
        guidance.reconstruction, denoiser=_denoiser, log_likelihood=_function, scale=_scale
    ),
    "guidance.dynamic_threshold": entry(
        guidance.dynamic_threshold, denoiser=_denoiser, quantile=kind.fraction(),
        minimum=kind.positive(),
    ),
    "diffusion.manifold_projected": entry(
        manifold_projected, num_iterations=kind.count(),
        accelerate=kind.Slot(True, {"number": bad(1), "None": bad(None)}),
        fraction=kind.nonnegative().plus(above_one=(1.5, "1.5")), ridge=kind.nonnegative(),
    ),
}  # fmt: skip
