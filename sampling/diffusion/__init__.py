"""Diffusion: noise schedules, solvers that carry noise to data, guidance, search over solvers."""

from shoal.sampling.core.schedules import edm, flow, ve, vp_cosine, vp_discrete, vp_linear
from shoal.sampling.diffusion import grids, guidance
from shoal.sampling.diffusion._decisions import (
    SolverSchedule,
    Step,
    Update,
    multistep_schedule,
    singlestep_schedule,
)
from shoal.sampling.diffusion.adams import deis, plms
from shoal.sampling.diffusion.adaptive import adaptive
from shoal.sampling.diffusion.dpm_solver import ddim, dpm_solver, dpm_solver_pp
from shoal.sampling.diffusion.dpm_solver_v3 import dpm_solver_v3
from shoal.sampling.diffusion.encoding import encode, interpolate
from shoal.sampling.diffusion.genie import distill_head, genie
from shoal.sampling.diffusion.heun import heun
from shoal.sampling.diffusion.likelihood import Likelihood, log_likelihood
from shoal.sampling.diffusion.manifold import manifold_projected
from shoal.sampling.diffusion.momentum import ghvb, heavy_ball
from shoal.sampling.diffusion.sada import sada
from shoal.sampling.diffusion.search import SearchResult, search_schedule
from shoal.sampling.diffusion.solver import Record, solve
from shoal.sampling.diffusion.statistics import (
    Statistics,
    estimate_statistics,
    load_statistics,
)
from shoal.sampling.diffusion.taylor import taylor
from shoal.sampling.diffusion.unipc import unipc
from shoal.sampling.diffusion.usf import usf

__all__ = [
    "Likelihood",
    "Record",
    "SearchResult",
    "SolverSchedule",
    "Statistics",
    "Step",
    "Update",
    "adaptive",
    "ddim",
    "deis",
    "distill_head",
    "dpm_solver",
    "dpm_solver_pp",
    "dpm_solver_v3",
    "edm",
    "encode",
    "estimate_statistics",
    "flow",
    "genie",
    "ghvb",
    "grids",
    "guidance",
    "heavy_ball",
    "heun",
    "interpolate",
    "load_statistics",
    "log_likelihood",
    "manifold_projected",
    "multistep_schedule",
    "plms",
    "sada",
    "search_schedule",
    "singlestep_schedule",
    "solve",
    "taylor",
    "unipc",
    "usf",
    "ve",
    "vp_cosine",
    "vp_discrete",
    "vp_linear",
]
