"""Stein samplers: ensembles of particles moved by a kernel, towards a density or its best fit."""

from shoal.sampling.stein._ensemble import SteinInfo, SteinState
from shoal.sampling.stein.annealed import annealed_svgd
from shoal.sampling.stein.coin import coin_betting, coin_svgd
from shoal.sampling.stein.message_passing import message_passing_svgd
from shoal.sampling.stein.mitosis import split
from shoal.sampling.stein.msvgd import msvgd
from shoal.sampling.stein.random_batch import random_batch_svgd
from shoal.sampling.stein.stochastic import stochastic_svgd
from shoal.sampling.stein.svgd import svgd
from shoal.sampling.stein.svmd import svmd
from shoal.sampling.stein.svng import gauss_newton, svng

__all__ = [
    "SteinInfo",
    "SteinState",
    "annealed_svgd",
    "coin_betting",
    "coin_svgd",
    "gauss_newton",
    "message_passing_svgd",
    "msvgd",
    "random_batch_svgd",
    "split",
    "stochastic_svgd",
    "svgd",
    "svmd",
    "svng",
]
