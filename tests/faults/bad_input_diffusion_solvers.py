"""Diffusion solvers, `solve` and its grids."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.diffusion import (
    adaptive,
    ddim,
    dpm_solver,
    dpm_solver_pp,
    edm,
    flow,
    grids,
    heun,
    solve,
)

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry, Slot = kind.bad, kind.entry, kind.Slot

_order = kind.count(2).plus(four=(4, "4"))
_flag = Slot(False, {"number": bad(3.0), "text": bad("yes"), "None": bad(None)})
_variant = Slot("midpoint", {"unknown": bad("heun"), "None": bad(None), "number": bad(1.0)})
_start = kind.points(jnp.ones((3, 2))).without(
    "NaN in one entry", "inf in one entry", "further axis"
)
_data = Denoiser(lambda x, t: 0.5 * x, "data")
_times = np.array([5.0, 3.0, 2.0, 1.0])


def _grid(good, **rows):
    return Slot(good, {name.replace("_", " "): bad(*row) for name, row in rows.items()})


def _solved(solver, schedule, num_steps, grid="uniform"):
    return solve(_data, schedule, solver, jnp.ones((3, 2)), num_steps, grid, key=kind.KEY)


_open = flow(t_min=0.0, t_max=1.0)
ENTRIES = {
    "diffusion.ddim": entry(ddim, eta=kind.nonnegative(0.5).plus(above_one=(1.5, "1.5"))),
    "diffusion.dpm_solver": entry(dpm_solver, order=_order, variant=_variant),
    "diffusion.dpm_solver_pp": entry(
        dpm_solver_pp,
        order=_order,
        sde=_flag,
        variant=_variant,
        eta=kind.nonnegative(0.5),
        multistep=_flag._replace(good=True),
        compat=Slot(None, {"unknown": bad("diffusers"), "number": bad(2), "flag": bad(True)}),
    ),
    "diffusion.dpm_solver_pp, stochastic single steps": entry(
        lambda sde: dpm_solver_pp(2, False, sde), sde=Slot(False, {"both": bad(True)})
    ),
    "diffusion.heun": entry(
        heun,
        churn=kind.nonnegative(1.0),
        noise_scale=kind.nonnegative(1.0),
        churn_min=kind.nonnegative(0.5).plus(above_the_greatest=(3.0, "3 and 2")),
        churn_max=kind.nonnegative(2.0).without("inf"),
    ),
    "diffusion.adaptive": entry(
        adaptive,
        order=_order.plus(one=(1, "1")),
        form=Slot("noise", {"unknown": bad("score")}),
        rtol=kind.positive(),
        atol=kind.positive(),
        initial_step=kind.positive(),
        safety=kind.positive(0.5).plus(one=(1.0, "1.0")),
        per_sample=_flag,
    ),
    "diffusion.solve": entry(
        solve,
        denoiser=Slot(_data, {"function": bad(_data.fn, "function")}),
        schedule=Slot(edm(), {"text": bad("edm", "str"), "None": bad(None, "None")}),
        solver=Slot(ddim(), {"text": bad("ddim", "str"), "factory": bad(ddim, "function")}),
        x_T=_start,
        num_steps=kind.count(),
        lower_order_final=_flag,
        key=kind.key().without("None"),
        grid=_grid(
            "logsnr",
            unknown=("linear",),
            few=(_times[1:], r"\(3,\)"),
            matrix=(np.ones((2, 2)), r"\(2, 2\)"),
            unordered=(_times[[0, 2, 1, 3]], "monotone"),
            repeated=(_times[[0, 1, 1, 3]], "monotone"),
            NaN=(_times * np.nan, "nan"),
            negative=(_times - 4, "does not have"),
            infinite_inside=(np.array([5.0, 3.0, 0.0, 1.0]), "monotone"),
        ),
    ),
    "diffusion.solve, a stochastic solver": entry(
        lambda key: solve(_data, edm(), ddim(1.0), jnp.ones((3, 2)), 2, key=key),
        key=kind.key(),
    ),
    "diffusion.solve, denoisers": entry(
        lambda denoiser: solve(denoiser, _open, ddim(), jnp.ones((3, 2)), 3, "uniform"),
        denoiser=Slot(
            _data,
            {
                "other shape": bad(Denoiser(lambda x, t: x[:1], "data"), r"\(1, 2\)"),
                "scores without data": bad(Denoiser(_data.fn, "score"), "'score'"),
                "noise without data": bad(Denoiser(_data.fn, "noise"), "'noise'"),
            },
        ),
    ),
    "diffusion.solve, infinite grids": entry(
        lambda grid: _solved(dpm_solver_pp(2), _open, 3, grid),
        grid=_grid(
            "uniform",
            logsnr=("logsnr", "finite"),
            karras=("karras", "finite"),
            encoding=(np.array([0.0, 0.3, 0.6, 0.9]), "no noise"),
        ),
    ),
    "diffusion.heun, number of calls": entry(
        lambda num_steps: _solved(heun(), flow(t_min=0.0), num_steps),
        num_steps=Slot(5, {"even to no noise": bad(4)}),
    ),
    "diffusion.heun, grids": entry(
        lambda grid: _solved(heun(churn=1.0), _open, 4, grid),
        grid=_grid(
            np.array([0.9, 0.5, 0.1]),
            infinite=("uniform", "-inf"),
            encoding=(np.array([0.1, 0.5, 0.9]), "cannot encode"),
        ),
    ),
    "diffusion.ddim, stochastic, grids": entry(
        lambda grid: _solved(ddim(0.5), _open, 2, grid),
        grid=_grid("uniform", encoding=(np.array([0.1, 0.5, 0.9]), "cannot encode")),
    ),
    "diffusion.adaptive, run": entry(
        lambda num_steps, grid, trajectory: solve(
            _data, _open, adaptive(3), jnp.ones((3, 2)), num_steps, grid, trajectory=trajectory
        ),
        num_steps=Slot(60, {"less than a step": bad(2)}),
        grid=_grid(np.array([0.9, 0.1]), infinite=("uniform", "inf")),
        trajectory=Slot(False, {"asked for": bad(True, "False")}),
    ),
    "diffusion.grids.power": entry(grids.power, exponent=kind.positive()),
    "diffusion.grids.karras": entry(grids.karras, rho=kind.positive()),
    "diffusion.grids.polynomial": entry(grids.polynomial, exponent=kind.positive()),
}
