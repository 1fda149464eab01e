"""Langevin dynamics: overdamped (`ula`, `mala`) and kinetic (`baoab`, `obabo`)."""

from shoal.sampling.langevin.kinetic import baoab, obabo
from shoal.sampling.langevin.overdamped import mala, ula

__all__ = ["baoab", "mala", "obabo", "ula"]
