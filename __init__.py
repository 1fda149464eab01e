"""Shoal: move particles towards a distribution, on JAX.

``import shoal`` loads nothing heavy: each name below is imported when it is first used.
"""

from typing import TYPE_CHECKING

from shoal._lazy import attach
from shoal._version import __version__

if __name__ != "shoal":
    raise ImportError(f"import this package as 'shoal', not as {__name__!r}")

if TYPE_CHECKING:
    from shoal import inference, models, sampling
    from shoal.inference import Result, Target, sample
    from shoal.sampling import core, langevin

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "shoal": ["inference", "models", "sampling"],
        "shoal.inference": ["Result", "Target", "sample"],
        "shoal.sampling": ["core", "langevin"],
    },
)
__all__ += ["__version__"]
