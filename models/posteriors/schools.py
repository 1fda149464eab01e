"""Eight schools: how much coaching for a test helps, and how much that differs between schools.

    mu ~ N(0, 5),   tau ~ HalfCauchy(5),   theta_j ~ N(mu, tau),   y_j ~ N(theta_j, sigma_j).

The centred form samples theta; near tau = 0 its density is a funnel, which defeats samplers with
one step size. The non-centred form samples z_j = (theta_j - mu) / tau instead. Both have the same
posterior of mu, tau and theta.
"""

import jax
import numpyro
import numpyro.distributions as dist

from shoal.models.posteriors.posterior import Posterior, as_data
from shoal.sampling.core._checks import check_flag

_EFFECTS = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
_STANDARD_ERRORS = [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]


def centred_schools(sigma: jax.Array, y: jax.Array | None = None) -> None:
    """Sample ``mu``, ``tau`` and ``theta``; observe ``obs``, the effects ``y`` of shape ``(J,)``.

    ``sigma``, shape ``(J,)``, holds the known standard errors of the effects.
    """
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", sigma.shape[0]):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def non_centred_schools(sigma: jax.Array, y: jax.Array | None = None) -> None:
    """Sample ``mu``, ``tau`` and ``z``, with ``theta`` deterministic; else as the centred form."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", sigma.shape[0]):
        z = numpyro.sample("z", dist.Normal(0, 1))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def eight_schools(centred: bool = False) -> Posterior:
    """Return the eight schools: a hierarchical normal model of Rubin's coaching data.

    Parameters
    ----------
    centred
        True samples ``theta`` itself, a hard funnel; False samples it standardised. Anything else
        raises ``TypeError``.

    Examples
    --------
    >>> posterior = eight_schools()
    >>> posterior.kwargs["y"].tolist()
    [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
    """
    check_flag("centred", centred)
    return Posterior(
        model=centred_schools if centred else non_centred_schools,
        args=(as_data(_STANDARD_ERRORS, "sigma", 1),),
        kwargs={"y": as_data(_EFFECTS, "y", 1)},
        description=(
            "Effects of coaching on SAT verbal scores in eight schools, with known standard "
            f"errors; {'centred' if centred else 'non-centred'} hierarchical normal model."
        ),
        source=(
            "Data: Rubin, 'Estimation in parallel randomized experiments', Journal of Educational "
            "Statistics 6 (1981). Priors: N(0, 5) and HalfCauchy(5), those usual for this example "
            "in Stan and NumPyro."
        ),
    )
