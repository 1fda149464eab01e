"""How far samples are from what they should be.

=========================  =====================================================================
`rmse`, `median_rmse`      samples against the true end points of the same starts
`frechet_distance`         first two moments against known ones (squared; exact)
`sliced_wasserstein`       two sets of points, along random lines (exact along each)
`mmd`                      two sets, by a kernel (squared; biased or unbiased)
`energy_distance`          two sets, by distances alone (biased or unbiased)
`ksd`                      samples against a law known by its scores alone (squared; V or U)
`stein_discrepancy`        that of a run's draws from its target; `with_stein_discrepancy` puts it
                           on record, for ArviZ too
`stein_thinning`           the few of many samples that stand best for a law
`stein_weights`            weights by which samples stand best for a law
`stein_points`             points laid one by one where the KSD is then least
`ksd_descent`              particles moved downhill on their KSD
`nearest_neighbours`       the nearest point of a data set for each sample
`memorisation`             whether samples are training data over again
`class_accuracy`           whether a classifier sees the class that was asked for
`digits_classifier`        a classifier of scikit-learn's digits
=========================  =====================================================================

A set of points has shape ``(n, ...)``, float32 or float64, and stands for n points of d numbers,
all axes but the first taken together. No distance between two finite sets is zero because the laws
are equal: compare with that of a second set of exact draws of the same size. Distances are in the
space of the points themselves; none uses the features of a network.

Examples
--------
>>> import jax
>>> from shoal.inference import discrepancy
>>> draws, more, key = *jax.random.normal(jax.random.key(0), (2, 1000, 8)), jax.random.key(1)
>>> distances = {}
>>> for name, samples in {"exact": more, "too wide": 1.5 * more}.items():
...     distances[name] = float(discrepancy.sliced_wasserstein(key, samples, draws))
>>> distances["too wide"] > 5 * distances["exact"]
True
"""

from shoal.inference._classification import class_accuracy, digits_classifier
from shoal.inference._kernel_discrepancy import energy_distance, mmd
from shoal.inference._memorisation import (
    Memorisation,
    Neighbours,
    memorisation,
    nearest_neighbours,
)
from shoal.inference._paired_error import median_rmse, rmse
from shoal.inference._stein_discrepancy import ksd
from shoal.inference._stein_points import KSDDescent, ksd_descent, stein_points
from shoal.inference._stein_result import (
    SteinDiscrepancy,
    stein_discrepancy,
    with_stein_discrepancy,
)
from shoal.inference._stein_thinning import stein_thinning
from shoal.inference._stein_weights import SteinWeights, stein_weights
from shoal.inference._transport import frechet_distance, sliced_wasserstein

__all__ = [
    "KSDDescent",
    "Memorisation",
    "Neighbours",
    "SteinDiscrepancy",
    "SteinWeights",
    "class_accuracy",
    "digits_classifier",
    "energy_distance",
    "frechet_distance",
    "ksd",
    "ksd_descent",
    "median_rmse",
    "memorisation",
    "mmd",
    "nearest_neighbours",
    "rmse",
    "sliced_wasserstein",
    "stein_discrepancy",
    "stein_points",
    "stein_thinning",
    "stein_weights",
    "with_stein_discrepancy",
]
