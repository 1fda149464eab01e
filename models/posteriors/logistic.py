"""Bayesian logistic regression on the Wisconsin breast cancer data.

    intercept ~ N(0, 5),   β_j ~ N(0, 1),   y_i ~ Bernoulli(logit⁻¹(intercept + x_i · β)).

The columns of x are standardised, so that a coefficient is the change of log odds over one
standard deviation of its feature. Several features are nearly the same (radius, perimeter, area)
and the classes can nearly be separated, so a proper prior is what keeps the posterior in place.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from sklearn.datasets import load_breast_cancer

from shoal.models.posteriors.posterior import Posterior, as_data, standardize


def logistic_regression(x: jax.Array, y: jax.Array | None = None) -> None:
    """Sample ``intercept`` and ``coefficients``; observe ``obs``, the classes ``y``.

    Parameters
    ----------
    x
        Standardised features, shape ``(n, p)``, without a column of ones.
    y
        Classes 0 and 1, integers of shape ``(n,)``.
    """
    num, num_features = x.shape
    intercept = numpyro.sample("intercept", dist.Normal(0, 5))
    with numpyro.plate("feature", num_features):
        coefficients = numpyro.sample("coefficients", dist.Normal(0, 1))
    logits = intercept + jnp.matmul(x, coefficients)
    with numpyro.plate("patient", num):
        numpyro.sample("obs", dist.Bernoulli(logits=logits), obs=y)


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    data = load_breast_cancer()
    return standardize(data.data), np.asarray(data.target, np.int32)


def breast_cancer() -> Posterior:
    """Return logistic regression of 569 tumours on 30 standardised features.

    Class 1 is benign (357) and 0 malignant (212), as scikit-learn codes them. The matrix has no
    column of ones; the model adds the intercept.

    Examples
    --------
    >>> posterior = breast_cancer()
    >>> posterior.args[0].shape, int(posterior.kwargs["y"].sum())
    ((569, 30), 357)
    """
    features, classes = _load()
    return Posterior(
        model=logistic_regression,
        args=(as_data(features, "x", 2),),
        kwargs={"y": classes.copy()},
        description=(
            "Logistic regression of benign (1) against malignant (0) breast tumours on 30 "
            "standardised measurements of cell nuclei."
        ),
        source=(
            "Data: Street, Wolberg and Mangasarian, 'Nuclear feature extraction for breast tumor "
            "diagnosis', SPIE 1905 (1993), as shipped with scikit-learn (load_breast_cancer). "
            "Priors: N(0, 5) for the intercept and N(0, 1) for each coefficient."
        ),
    )
