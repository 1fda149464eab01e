"""A model with its data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import check_finite, real_values


class Posterior(NamedTuple):
    """A NumPyro model with real data.

    The posterior is that of ``model(*args, **kwargs)``. What was observed is in ``kwargs`` and what
    it was observed at is in ``args``, so ``model(*args)`` is the generative model: it draws from
    the prior predictive distribution, and from the posterior predictive given posterior draws.

    Attributes
    ----------
    model
        The NumPyro model, a function of its module and so the same object at every call: compiled
        programs are used again, also with other data of the same shapes.
    args
        NumPy arrays, floating ones in JAX's default float dtype.
    kwargs
        The observations by name, NumPy arrays; None in place of one leaves it unobserved.
    description
        What is modelled, in a sentence or two.
    source
        Where the data and the priors come from.
    """

    model: Callable[..., None]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    description: str
    source: str


def as_data(values: Any, name: str, ndim: int) -> np.ndarray:
    """Return finite real data as a NumPy array in JAX's default float dtype.

    Raises
    ------
    TypeError, ValueError
        If ``values`` is not real, has not ``ndim`` axes or an entry is not finite.
    """
    array = np.asarray(real_values(name, values))
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {array.shape}")
    check_finite(name, array)
    return array.astype(jnp.result_type(float))


def standardize(columns: np.ndarray) -> np.ndarray:
    """Shift and scale along the first axis to mean 0 and standard deviation 1 (population's)."""
    columns = np.asarray(columns, np.float64)
    return (columns - columns.mean(axis=0)) / columns.std(axis=0)
