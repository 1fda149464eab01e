"""The ladder of parallel tempering: inverse temperatures, and what rejection rates say of them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import PchipInterpolator

from shoal.sampling.core._checks import (
    check_entries,
    integer,
    real_array,
    real_parameter,
    real_values,
)


def geometric_ladder(num_replicas: int = 8, hottest: float = 0.05) -> jax.Array:
    """Return inverse temperatures from 1 down to ``hottest`` in equal ratios, ``(num_replicas,)``.

    On a Gaussian this ladder has equal rejection rates. Raises ``TypeError`` or ``ValueError``
    unless there are at least two replicas and 0 < ``hottest`` < 1.

    Examples
    --------
    >>> geometric_ladder(3, 0.25).tolist()
    [1.0, 0.5, 0.25]
    """
    num = integer("num_replicas", num_replicas, 2)
    real_parameter("hottest", hottest, 0.0, 1.0, scalar=True)
    return jnp.asarray(hottest, float) ** (jnp.arange(num) / (num - 1))


def adapt_ladder(inverse_temperatures: Any, rejection_rates: Any) -> jax.Array:
    """Return the ladder with as many rungs and the same ends that shares out rejections equally.

    The rejection rates, summed up along the ladder, sample the barrier as a function of β. The new
    rungs are where that function, interpolated by monotone cubics, has equal steps. A ladder whose
    rates are equal stays as it is; from another a few repetitions with new rates lead there. It
    works on numbers, not on traced arrays.

    Parameters
    ----------
    inverse_temperatures
        ``(K,)``, falling.
    rejection_rates
        ``(K - 1,)``, in [0, 1]: one minus the mean of `ParallelInfo.swap_acceptance_rate`.

    Raises
    ------
    TypeError, ValueError
        If shapes, dtypes or numbers are not as above.

    Notes
    -----
    Syed et al. (2022), section 5.1 and algorithm 2.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.sampling.langevin import tempering
    >>> ladder = jnp.array([1.0, 0.5, 0.25])
    >>> [round(x, 3) for x in tempering.adapt_ladder(ladder, jnp.array([0.6, 0.2])).tolist()]
    [1.0, 0.698, 0.25]
    """
    betas = real_array("inverse_temperatures", inverse_temperatures, ("K",))
    betas = check_ladder(True)(betas)
    rates = _check_rates(rejection_rates, betas.size - 1)
    old = np.asarray(betas, np.float64)
    # Pairs that never reject keep a share, so that their rungs stay apart.
    shares = np.asarray(rates, np.float64) + 1e-3
    cumulative = np.concatenate([[0.0], np.cumsum(shares)])
    levels = np.linspace(0, cumulative[-1], old.size)[1:-1]
    inside = PchipInterpolator(cumulative, old)(levels)
    return jnp.asarray(np.concatenate([old[:1], inside, old[-1:]]), betas.dtype)


def round_trip_rate(rejection_rates: Any) -> jax.Array:
    """Return the round trips in a step of all walkers together, 1 / (2 + 2 Σ r / (1 - r)).

    Exact where the replicas' kernels forget their point in one step (Syed et al. (2022), corollary
    2); below that for slower kernels. Raises ``TypeError`` or ``ValueError`` unless
    ``rejection_rates`` is a vector of numbers in [0, 1].

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(round_trip_rate(jnp.array([0.5, 0.5]))), 4)
    0.1667
    """
    rates = _check_rates(rejection_rates, None)
    return 1 / (2 + 2 * jnp.sum(rates / (1 - rates)))


@functools.cache
def check_ladder(allow_zero: bool) -> Callable[[Any], Any]:
    return functools.partial(_as_ladder, allow_zero)


def _as_ladder(allow_zero: bool, inverse_temperatures: Any) -> jax.Array:
    name = "inverse_temperatures"
    values = real_values(name, inverse_temperatures)
    if len(values.shape) != 1 or values.size < 2:
        raise ValueError(f"{name} must have shape (K,) with K >= 2, got shape {values.shape}")
    real_parameter(name, values, 0.0, include_low=allow_zero)
    falls = lambda x: np.concatenate([x[:1] == 1, x[1:] < x[:-1]])
    check_entries(name, values, falls, "falling from 1")
    array = jnp.asarray(values)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def _check_rates(rejection_rates: Any, size: int | None) -> jax.Array:
    rates = real_array("rejection_rates", rejection_rates, ("K - 1" if size is None else size,))
    check_entries("rejection_rates", rates, lambda r: (r >= 0) & (r <= 1), "in [0, 1]")
    return rates
