"""Denoisers to solve: exact ones, and how to convert between the forms of a prediction."""

from typing import TYPE_CHECKING

from shoal._lazy import attach

if TYPE_CHECKING:
    from shoal.models.denoisers._empirical import empirical as empirical
    from shoal.models.denoisers._mixture import (
        gaussian as gaussian,
        gaussian_mixture as gaussian_mixture,
    )
    from shoal.models.denoisers._problems import (
        digits_mixture as digits_mixture,
        ring_mixture as ring_mixture,
    )
    from shoal.sampling.core.denoiser import Denoiser as Denoiser, convert as convert
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "shoal.models.denoisers._empirical": ["empirical"],
            "shoal.models.denoisers._mixture": ["gaussian", "gaussian_mixture"],
            "shoal.models.denoisers._problems": ["digits_mixture", "ring_mixture"],
            "shoal.sampling.core.denoiser": ["Denoiser", "convert"],
        },
    )
