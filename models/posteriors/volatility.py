"""Stochastic volatility: returns whose log variance wanders about a level.

    h_1 ~ N(mu, sigma / sqrt(1 - phi²)),   h_{t+1} ~ N(mu + phi (h_t - mu), sigma),
    y_t ~ N(0, exp(h_t / 2)),

with the priors mu ~ N(0, 10), (phi + 1) / 2 ~ Beta(5, 1.5) and sigma ~ HalfNormal(1) on the level,
persistence and volatility of the log variance. The model samples the innovations z_t, standard
normal, instead of h: with a log variance that moves little in a day, the data say little about a
single innovation, and so the posterior stays near this well-scaled prior.
"""

import functools
import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib import cbook

from shoal.models.posteriors.posterior import Posterior, as_data


def volatility(time: jax.Array, y: jax.Array | None = None) -> None:
    """Sample ``mu``, ``phi``, ``sigma`` and ``z``, with ``log_variance`` h; observe ``obs``.

    Parameters
    ----------
    time
        When the returns were observed, shape ``(T,)``, in equal steps: only T enters.
    y
        Returns, shape ``(T,)``, with their mean taken off; in per cent, or else the prior of mu
        has to be thought over.
    """
    mu = numpyro.sample("mu", dist.Normal(0, 10))
    stretch = dist.transforms.AffineTransform(-1, 2, domain=dist.constraints.unit_interval)
    phi = numpyro.sample("phi", dist.TransformedDistribution(dist.Beta(5, 1.5), stretch))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("time", time.shape[0]):
        z = numpyro.sample("z", dist.Normal(0, 1))
        # (1 - phi)(1 + phi) keeps its digits where phi is close to one.
        start = z[0] / jnp.sqrt((1 - phi) * (1 + phi))
        shocks = sigma * jnp.append(start, z[1:])
        h = numpyro.deterministic("log_variance", mu + autoregression(phi, shocks))
        numpyro.sample("obs", dist.Normal(0, jnp.exp(h / 2)), obs=y)


def autoregression(phi: jax.Array, shocks: jax.Array) -> jax.Array:
    """Return ``x_t = phi x_{t-1} + shocks_t``, shape ``(T,)``, from ``x_0 = shocks_0``.

    In 2 √T sequential steps: all of √T blocks at once as if each began at zero, then the last
    value of one block after the other, which enters the next block with powers of phi.
    """
    num = shocks.shape[0]
    width = math.isqrt(num - 1) + 1
    blocks = jnp.pad(shocks, (0, -num % width)).reshape(-1, width)

    def within(carry: tuple[Any, Any], shock: jax.Array) -> tuple[tuple[Any, Any], Any]:
        local, power = carry
        carry = phi * local + shock, phi * power
        return carry, carry

    start = jnp.zeros_like(blocks[:, 0]), jnp.ones_like(phi)
    (last, power), (local, powers) = jax.lax.scan(within, start, blocks.T)

    def between(value: jax.Array, local: jax.Array) -> tuple[jax.Array, jax.Array]:
        return power * value + local, value

    entering = jax.lax.scan(between, jnp.zeros_like(last[0]), last)[1]
    return (local.T + entering[:, None] * powers).ravel()[:num]


@functools.cache
def _load() -> np.ndarray:
    with cast(Any, cbook.get_sample_data("goog.npz")) as archive:
        prices = archive["price_data"]["adj_close"]
    returns = 100 * np.diff(np.log(prices))
    return returns - returns.mean()


def stochastic_volatility(returns: Any = None) -> Posterior:
    """Return a stochastic volatility model of daily returns.

    Parameters
    ----------
    returns
        Your own returns, shape ``(T,)`` with T at least 2, preferably in per cent with their mean
        taken off. When None, the 1046 daily log returns of Google's stock from August 2004 to
        October 2008 (into the crash of that autumn), real data that Matplotlib ships.

    Raises
    ------
    TypeError, ValueError
        If ``returns`` is not a vector of at least two finite real numbers.
    FileNotFoundError
        If ``returns`` is None and Matplotlib was installed without its sample data.

    Examples
    --------
    >>> stochastic_volatility().kwargs["y"].shape
    (1046,)
    """
    own = returns is not None
    y = as_data(returns if own else _load(), "returns", 1)
    if y.shape[0] < 2:
        raise ValueError(f"returns must have at least 2 entries, got {y.shape[0]}")
    data = (
        ""
        if own
        else (
            "Data: adjusted closing prices of GOOG, 2004-08-19 to 2008-10-14, from Yahoo "
            "Finance, as shipped with Matplotlib (sample data goog.npz). "
        )
    )
    return Posterior(
        model=volatility,
        args=(as_data(np.arange(y.shape[0]), "time", 1),),
        kwargs={"y": y},
        description=(
            "Stochastic volatility with an autoregressive log variance, of "
            + ("returns that were given." if own else "Google's daily log returns in per cent.")
        ),
        source=data
        + (
            "Model: Kim, Shephard and Chib, 'Stochastic volatility: likelihood inference and "
            "comparison with ARCH models', Review of Economic Studies 65 (1998), section 1. "
            "Priors: of the form in Kastner and Fruehwirth-Schnatter, 'Ancillarity-sufficiency "
            "interweaving strategy (ASIS) for boosting MCMC estimation of stochastic volatility "
            "models', Computational Statistics and Data Analysis 76 (2014), section 2."
        ),
    )
