"""Stein samplers: ensembles of particles moved by a kernel, towards a density or its best fit."""

from shoal.sampling.stein._ensemble import SteinInfo, SteinState
from shoal.sampling.stein.svgd import svgd

__all__ = [
    "SteinInfo",
    "SteinState",
    "svgd",
]
