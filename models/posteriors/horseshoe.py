"""Linear regression with the regularised horseshoe: a few coefficients large, the rest near zero.

    y_i ~ N(intercept + x_i · β, sigma),         β_j = z_j s_j,   z_j ~ N(0, 1),
    s_j² = c² r_j² / (c² + r_j²),                r_j = tau lambda_j,
    tau ~ HalfCauchy(tau_0 sigma),               lambda_j ~ HalfCauchy(1),
    c² ~ InverseGamma(ν / 2, ν s² / 2),          tau_0 = p_0 / ((p - p_0) √n),

with intercept ~ N(0, 1) and sigma ~ HalfNormal(1) for a standardised response. The global scale
tau pulls all coefficients to zero, the local scales lambda let a few escape, and the slab c keeps
those from running off.

Source: Piironen and Vehtari, "Sparsity information and regularization in the horseshoe and other
shrinkage priors", Electronic Journal of Statistics 11 (2017), sections 2 and 3.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from sklearn.datasets import load_diabetes

from shoal.models.posteriors.posterior import Posterior, as_data, standardize
from shoal.sampling.core._checks import real_parameter


def horseshoe(
    x: jax.Array,
    expected_nonzero: jax.Array | float = 3.0,
    slab_scale: jax.Array | float = 2.0,
    slab_df: jax.Array | float = 4.0,
    y: jax.Array | None = None,
) -> None:
    """Sample the scales and ``z``, with ``coefficients`` deterministic; observe ``obs``.

    Parameters
    ----------
    x
        Standardised features, shape ``(n, p)``.
    expected_nonzero
        Prior guess p_0 at the number of coefficients that matter, above 0 and below p.
    slab_scale, slab_df
        Scale s and degrees of freedom ν of the Student-t prior of coefficients that matter.
    y
        Standardised response, shape ``(n,)``.
    """
    num, num_features = x.shape
    odds = expected_nonzero / (num_features - expected_nonzero)
    intercept = numpyro.sample("intercept", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    tau = numpyro.sample("tau", dist.HalfCauchy(odds * sigma / jnp.sqrt(num)))
    c2 = numpyro.sample("c2", dist.InverseGamma(slab_df / 2, slab_df * slab_scale**2 / 2))
    with numpyro.plate("feature", num_features):
        local = numpyro.sample("lambda", dist.HalfCauchy(1))
        z = numpyro.sample("z", dist.Normal(0, 1))
        slab = jnp.sqrt(c2)
        # The product of both scales over their hypotenuse: no square overflows in the far tail.
        scale = slab * (tau * local / jnp.hypot(slab, tau * local))
        coefficients = numpyro.deterministic("coefficients", z * scale)
    mean = intercept + jnp.matmul(x, coefficients)
    with numpyro.plate("observation", num):
        numpyro.sample("obs", dist.Normal(mean, sigma), obs=y)


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    data = load_diabetes()
    return standardize(data.data), standardize(data.target)


def horseshoe_regression(expected_nonzero: float = 3.0) -> Posterior:
    """Return regularised horseshoe regression of diabetes progression on ten features.

    Parameters
    ----------
    expected_nonzero
        Prior guess at how many of the ten coefficients matter, strictly between 0 and 10.

    Raises
    ------
    TypeError, ValueError
        If ``expected_nonzero`` is no number in that range.

    Examples
    --------
    >>> posterior = horseshoe_regression()
    >>> posterior.args[0].shape, posterior.kwargs["y"].shape
    ((442, 10), (442,))
    """
    features, response = _load()
    real_parameter("expected_nonzero", expected_nonzero, scalar=True)
    if not 0 < expected_nonzero < features.shape[1]:
        raise ValueError(
            f"expected_nonzero must be above 0 and below {features.shape[1]}, the number of "
            f"features, got {expected_nonzero!r}"
        )
    return Posterior(
        model=horseshoe,
        args=(as_data(features, "x", 2), as_data(expected_nonzero, "expected_nonzero", 0)),
        kwargs={"y": as_data(response, "y", 1)},
        description=(
            "Linear regression with a regularised horseshoe prior of the progression of diabetes "
            "in 442 patients on ten measurements, all standardised."
        ),
        source=(
            "Data: Efron, Hastie, Johnstone and Tibshirani, 'Least angle regression', Annals of "
            "Statistics 32 (2004), as shipped with scikit-learn (load_diabetes). Prior: Piironen "
            "and Vehtari, Electronic Journal of Statistics 11 (2017)."
        ),
    )
