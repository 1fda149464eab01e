"""What is sampled: analytic densities with known answers, and NumPyro models with real data."""

from typing import TYPE_CHECKING

from shoal._lazy import attach

if __name__ != "shoal.models":
    raise ImportError(f"import this package as 'shoal.models', not as {__name__!r}")

if TYPE_CHECKING:
    from shoal.models import (
        denoisers as denoisers,
        densities as densities,
        multi_objective as multi_objective,
        posteriors as posteriors,
        selective as selective,
        spiked as spiked,
    )
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "shoal.models": [
                "denoisers",
                "densities",
                "multi_objective",
                "posteriors",
                "selective",
                "spiked",
            ]
        },
    )
