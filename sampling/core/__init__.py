"""The ground floor shared by every method: protocol, randomness, particles, kernels, pair sums."""

from typing import TYPE_CHECKING

from shoal._lazy import attach

if TYPE_CHECKING:
    from shoal.sampling.core import (
        algorithm as algorithm,
        bandwidth as bandwidth,
        denoiser as denoiser,
        kernels as kernels,
        minibatches as minibatches,
        mirror as mirror,
        pairwise as pairwise,
        particles as particles,
        random as random,
        schedules as schedules,
    )
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "shoal.sampling.core": [
                "algorithm",
                "bandwidth",
                "denoiser",
                "kernels",
                "minibatches",
                "mirror",
                "pairwise",
                "particles",
                "random",
                "schedules",
            ]
        },
    )
