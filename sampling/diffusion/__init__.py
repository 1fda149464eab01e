"""Diffusion: noise schedules, solvers that carry noise to data, guidance, search over solvers."""

from shoal.sampling.core.schedules import edm, flow, ve, vp_cosine, vp_discrete, vp_linear
from shoal.sampling.diffusion.dpm_solver import ddim, dpm_solver, dpm_solver_pp
from shoal.sampling.diffusion.solver import Record, solve
from shoal.sampling.diffusion.unipc import unipc

__all__ = [
    "Record",
    "ddim",
    "dpm_solver",
    "dpm_solver_pp",
    "edm",
    "flow",
    "solve",
    "unipc",
    "ve",
    "vp_cosine",
    "vp_discrete",
    "vp_linear",
]
