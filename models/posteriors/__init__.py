"""NumPyro models with data, each a call away: ``posteriors.eight_schools()``.

Every function here returns a `Posterior`: a model and its data. NumPyro is imported when one of
them is first used.
"""

from typing import TYPE_CHECKING

from shoal._lazy import attach

if __name__ != "shoal.models.posteriors":
    raise ImportError(f"import this package as 'shoal.models.posteriors', not as {__name__!r}")

if TYPE_CHECKING:
    from shoal.models.posteriors.brownian import brownian_motion as brownian_motion
    from shoal.models.posteriors.horseshoe import horseshoe_regression as horseshoe_regression
    from shoal.models.posteriors.items import item_response as item_response
    from shoal.models.posteriors.logistic import breast_cancer as breast_cancer
    from shoal.models.posteriors.posterior import Posterior as Posterior
    from shoal.models.posteriors.schools import eight_schools as eight_schools
    from shoal.models.posteriors.volatility import stochastic_volatility as stochastic_volatility
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "shoal.models.posteriors.brownian": ["brownian_motion"],
            "shoal.models.posteriors.horseshoe": ["horseshoe_regression"],
            "shoal.models.posteriors.items": ["item_response"],
            "shoal.models.posteriors.logistic": ["breast_cancer"],
            "shoal.models.posteriors.posterior": ["Posterior"],
            "shoal.models.posteriors.schools": ["eight_schools"],
            "shoal.models.posteriors.volatility": ["stochastic_volatility"],
        },
    )
