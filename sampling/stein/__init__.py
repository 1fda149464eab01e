"""Stein samplers: ensembles of particles moved by a kernel, towards a density or its best fit."""

from shoal.sampling.stein._ensemble import SteinInfo, SteinState
from shoal.sampling.stein.annealed import annealed_svgd
from shoal.sampling.stein.coin import coin_betting, coin_svgd
from shoal.sampling.stein.grassmann import GrassmannMemory, grassmann_svgd
from shoal.sampling.stein.matrix import matrix_svgd
from shoal.sampling.stein.message_passing import message_passing_svgd
from shoal.sampling.stein.mitosis import split
from shoal.sampling.stein.msvgd import msvgd
from shoal.sampling.stein.newton import svn
from shoal.sampling.stein.pareto import (
    ParetoSearch,
    ParetoSet,
    ParetoState,
    hypervolume,
    nondominated,
    pareto_search,
    pareto_set,
)
from shoal.sampling.stein.projected import ProjectedMemory, projected_svgd
from shoal.sampling.stein.random_batch import random_batch_svgd
from shoal.sampling.stein.stochastic import stochastic_svgd
from shoal.sampling.stein.svgd import svgd
from shoal.sampling.stein.svmd import svmd
from shoal.sampling.stein.svng import gauss_newton, svng

__all__ = [
    "GrassmannMemory",
    "ParetoSearch",
    "ParetoSet",
    "ParetoState",
    "ProjectedMemory",
    "SteinInfo",
    "SteinState",
    "annealed_svgd",
    "coin_betting",
    "coin_svgd",
    "gauss_newton",
    "grassmann_svgd",
    "hypervolume",
    "matrix_svgd",
    "message_passing_svgd",
    "msvgd",
    "nondominated",
    "pareto_search",
    "pareto_set",
    "projected_svgd",
    "random_batch_svgd",
    "split",
    "stochastic_svgd",
    "svgd",
    "svmd",
    "svn",
    "svng",
]
