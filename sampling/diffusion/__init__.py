"""Diffusion: noise schedules, solvers that carry noise to data, guidance, search over solvers."""

from shoal.sampling.core.schedules import edm, flow, ve, vp_cosine, vp_discrete, vp_linear
from shoal.sampling.diffusion.exponential import ddim
from shoal.sampling.diffusion.solver import Record, solve

__all__ = [
    "Record",
    "ddim",
    "edm",
    "flow",
    "solve",
    "ve",
    "vp_cosine",
    "vp_discrete",
    "vp_linear",
]
