"""Multistep, momentum, Taylor and GENIE solvers, with a kind of bad input for each argument."""

import functools
import runpy
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.diffusion import (
    deis,
    distill_head,
    edm,
    flow,
    genie,
    ghvb,
    heavy_ball,
    plms,
    solve,
    taylor,
    unipc,
)  # fmt: skip

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry

_order = kind.count(2)
_low_order = _order.plus(six=(6, "6"))
_beta = kind.positive(0.5).plus(above_one=(1.5, "1.5"))
_variable = kind.choice("log_rho", "lambda")
_start = kind.choice("growing", "euler")
_compat = kind.Slot(None, {"text": bad("downstream"), "number": bad(3), "flag": bad(True)})
_flag = kind.Slot(True, {"number": bad(1), "None": bad(None), "text": bad("yes")})
_normal = Denoiser(lambda x, t: x / (1 + t**2), "data", edm())


def _solved(solver, num_steps=8, schedule=None, denoiser=_normal):
    return solve(denoiser, schedule or edm(), solver, jnp.ones((2, 3)), num_steps, grid="uniform")


ENTRIES = {
    "diffusion.unipc": entry(
        unipc, order=_order, variant=kind.choice("bh2", "bh3"), corrector=_flag,
        form=kind.choice("data", "raw"), start=_start, compat=_compat,
    ),
    "diffusion.deis": entry(deis, order=_order, variable=_variable, start=_start),
    "diffusion.plms": entry(
        plms, order=_low_order, variable=_variable, start=_start, compat=_compat
    ),
    "diffusion.ghvb": entry(
        ghvb, order=_low_order, beta=_beta, variable=_variable, start=_start, compat=_compat
    ),
    "diffusion.ghvb's published weights": entry(
        functools.partial(ghvb, compat="upstream"),
        start=kind.Slot("growing", {"sweeps": bad("sweeps", "sweeps")}),
    ),
    "diffusion.heavy_ball": entry(
        heavy_ball, order=_low_order, beta=_beta, form=kind.choice("noise", "raw"), compat=_compat
    ),
    "diffusion.taylor": entry(
        taylor, form=kind.choice("data", "velocity"),
        order=_order.plus(three=(3, "3"), text=("2", "'2'")),
    ),
    "diffusion.genie": entry(
        genie, head=kind.Slot(lambda x, noise, λ: noise, {"None": bad(None), "number": bad(3)}),
        form=kind.choice("data", "velocity"),
    ),
    "diffusion.genie's head": entry(
        lambda head: _solved(genie(head)),
        head=kind.Slot(
            lambda x, noise, λ: noise, {"of another shape": bad(lambda x, e, λ: x[0], r"\(3,\)")}
        ),
    ),
    "diffusion: sweeps on a grid": entry(
        lambda num_steps: _solved(unipc(3, start="sweeps"), num_steps),
        num_steps=kind.Slot(8, {"too few": bad(6)}),
    ),
    "diffusion: solvers on grids from pure noise": entry(
        lambda grid: _solved(grid, schedule=flow(t_max=1.0), denoiser=Denoiser(_normal.fn, "flow")),
        grid=kind.Slot(unipc(), {
            "Taylor": bad(taylor(), "log"), "sweeps": bad(plms(3, start="sweeps"), "log"),
        }),
    ),
    "diffusion.distill_head": entry(
        functools.partial(distill_head, batch_size=2), key=kind.key(),
        denoiser=kind.Slot(_normal, {"function": bad(lambda x, t: x, "function")}),
        schedule=kind.Slot(edm(), {
            "text": bad("edm", "str"), "from pure noise": bad(flow(t_max=1.0), "-inf"),
        }),
        samples=kind.points(np.ones((4, 2), np.float32)).without("further axis"),
        num_steps=kind.count(2), learning_rate=kind.positive(), width=kind.count(),
        depth=kind.count(),
    ),
}  # fmt: skip
