"""Shoal: move particles towards a distribution, on JAX.

``import shoal`` loads nothing heavy: each name below is imported when it is first used.
"""

from typing import TYPE_CHECKING

from shoal._canary import version_is_known_wrong, warn_if_wrong
from shoal._lazy import attach
from shoal._version import __version__ as __version__

if TYPE_CHECKING:
    from shoal import inference as inference, models as models, sampling as sampling
    from shoal.inference import (
        Result as Result,
        Target as Target,
        enable_compilation_cache as enable_compilation_cache,
        generate as generate,
        sample as sample,
    )
    from shoal.sampling import (
        core as core,
        diffusion as diffusion,
        langevin as langevin,
        stein as stein,
    )
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "shoal": ["inference", "models", "sampling"],
            "shoal.inference": [
                "Result",
                "Target",
                "enable_compilation_cache",
                "generate",
                "sample",
            ],
            "shoal.sampling": ["core", "diffusion", "langevin", "stein"],
        },
    )
    __all__ += ["__version__"]

if version_is_known_wrong():
    warn_if_wrong()
