"""Langevin dynamics: overdamped (`ula`, `mala`) and kinetic (`baoab`, `obabo`)."""

from shoal.sampling.langevin.exponential import align, quicsort, should, ubu
from shoal.sampling.langevin.kinetic import baoab, obabo
from shoal.sampling.langevin.mams import mams
from shoal.sampling.langevin.microcanonical import mclmc
from shoal.sampling.langevin.overdamped import mala, ula

__all__ = ["align", "baoab", "mala", "mams", "mclmc", "obabo", "quicsort", "should", "ubu", "ula"]
