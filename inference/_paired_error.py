"""Errors of samples each of which has its own true end point."""

from typing import Any

import jax
import jax.numpy as jnp

from shoal.inference._points import alike


def rmse(samples: Any, reference: Any) -> jax.Array:
    """Root of the mean squared error over all samples and coordinates.

    Parameters
    ----------
    samples
        Shape ``(n, ...)``, float32 or float64: for each start, where a method has ended.
    reference
        Of the same shape: for the same starts, where it should have.

    Returns
    -------
    jax.Array
        Scalar, in units of a coordinate. Where starts lie near the watershed of two modes, the
        few that end in the wrong one make up most of it: see `median_rmse`.

    Raises
    ------
    TypeError, ValueError
        If an argument is no floating array, not finite, or the shapes differ.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(rmse(jnp.zeros((2, 2)), jnp.array([[3.0, 4.0], [3.0, 4.0]])))
    3.5355...
    """
    return jnp.sqrt(jnp.mean(_squares(samples, reference)))


def median_rmse(samples: Any, reference: Any) -> jax.Array:
    """Median over the samples of each one's root mean squared error over its coordinates.

    Parameters
    ----------
    samples, reference
        As in `rmse`.

    Returns
    -------
    jax.Array
        Scalar, in units of a coordinate: the error of a typical sample, blind to those that have
        switched mode as long as they are less than half.

    Raises
    ------
    TypeError, ValueError
        As `rmse`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> samples = jnp.array([[1.0, 1.0], [1.0, 1.0], [100.0, 100.0]])
    >>> float(median_rmse(samples, jnp.zeros((3, 2))))
    1.0
    """
    return jnp.median(jnp.sqrt(jnp.mean(_squares(samples, reference), axis=1)))


def _squares(samples: Any, reference: Any) -> jax.Array:
    """Return squared errors ``(n, d)``."""
    x, y = alike(samples=samples, reference=reference)
    if samples.shape != reference.shape:
        raise ValueError(
            "samples and reference must have one shape, each sample beside its reference, "
            f"got {samples.shape} and {reference.shape}"
        )
    return (x - y) ** 2
