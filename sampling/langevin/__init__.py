"""Langevin dynamics: overdamped (`ula`, `mala`) and kinetic (`baoab`, `obabo`)."""

from shoal.sampling.langevin.adaptive import (
    adaptive_align,
    adaptive_quicsort,
    adaptive_should,
    adaptive_ubu,
)
from shoal.sampling.langevin.adjusted_kinetic import ghmc, malt
from shoal.sampling.langevin.auto import auto
from shoal.sampling.langevin.barker import barker
from shoal.sampling.langevin.exponential import align, quicsort, should, ubu
from shoal.sampling.langevin.kinetic import aboba, baoab, obabo
from shoal.sampling.langevin.mams import mams
from shoal.sampling.langevin.microcanonical import mclmc
from shoal.sampling.langevin.mirrored import mirror_langevin, mirrored
from shoal.sampling.langevin.overdamped import mala, ula
from shoal.sampling.langevin.proximal import myula, prox_mala
from shoal.sampling.langevin.spherical import spherical
from shoal.sampling.langevin.stochastic import sgld
from shoal.sampling.langevin.stochastic_kinetic import sghmc, sgnht

__all__ = [
    "aboba",
    "adaptive_align",
    "adaptive_quicsort",
    "adaptive_should",
    "adaptive_ubu",
    "align",
    "auto",
    "baoab",
    "barker",
    "ghmc",
    "mala",
    "malt",
    "mams",
    "mclmc",
    "mirror_langevin",
    "mirrored",
    "myula",
    "obabo",
    "prox_mala",
    "quicsort",
    "sghmc",
    "sgld",
    "sgnht",
    "should",
    "spherical",
    "ubu",
    "ula",
]
