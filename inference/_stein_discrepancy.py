"""Kernelised Stein discrepancy: how far points are from a law known by its scores alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference._points import as_points
from shoal.sampling.core import bandwidth
from shoal.sampling.core._checks import (
    check_entries,
    check_finite,
    choice,
    real_array,
    real_scalar,
)
from shoal.sampling.core._kernel_algebra import Kernel
from shoal.sampling.core._stein_sums import check_stein_kernel, stein_kernel_sum
from shoal.sampling.core._tiles import check_block_size
from shoal.sampling.core.kernels import IMQ

# Points whose median distance stands for that of all.
_MEDIAN_OF = 2048


def ksd(
    samples: Any,
    scores: Any,
    kernel: Kernel | None = None,
    *,
    statistic: str = "V",
    weights: Any = None,
    block_size: int | None = None,
) -> jax.Array:
    """Squared kernelised Stein discrepancy of samples from a law given by its scores.

        KSD² = E k_p(x, x'),
        k_p(x, y) = f s(x).s(y) - 2 f' ((s(x) - s(y)).(x - y) + d) - 4 q f''

    for x, x' from the samples, ``s = grad log p``, a kernel f of ``q = |x - y|²`` and its
    derivatives. No draws from p and no normalising constant are needed. (The root of it is what
    coreax and stein-thinning return.)

    Parameters
    ----------
    samples
        Shape ``(n, ...)``, float32 or float64.
    scores
        Gradients of the log density at the samples, of their shape; or the log density, a function
        of one sample that returns a scalar.
    kernel
        A kernel of `shoal.sampling.core.kernels` that is a function of the distance: ``IMQ``,
        ``RBF``, ``Matern52``, ``RationalQuadratic``, sums and products of them. None is
        ``IMQ(h)`` with h the median squared distance of the samples (of every k-th, where there
        are more than 2048), taken as a constant. To compare several samplers give all of them one
        kernel.
    statistic
        ``"V"``: the mean over all pairs; never negative but for rounding, and even for draws from
        p ``E k_p(x, x) / n`` on average. ``"U"``: the mean over pairs of two samples; right on
        average, so zero for draws from p and sometimes negative. Needs two samples.
    weights
        Numbers >= 0 of shape ``(n,)``, not all zero, by which the samples count; they are
        normalised. None counts all alike.
    block_size
        As in `shoal.sampling.core.pairwise`.

    Returns
    -------
    jax.Array
        Scalar, in units of a squared score.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; ``Matern32``, whose second derivative is singular, is
        refused.

    Notes
    -----
    Liu, Lee and Jordan, "A kernelized Stein discrepancy for goodness-of-fit tests", ICML 2016,
    theorem 3.6. Takes O(n² d) time and O(n d) memory. May be jitted and
    differentiated in samples, scores, weights and the kernel's parameters.

    It is blind to what scores do not tell. The weights of modes that are far apart hardly enter:
    all samples in one of two modes look as good as half in each. With an ``RBF``, ``Matern52`` or
    any other kernel that falls off fast, in three dimensions or more, samples may wander off to
    infinity while it goes to zero; with ``IMQ`` it tells convergence (Gorham and Mackey,
    "Measuring sample quality with kernels", ICML 2017, theorems 6 and 8).

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from shoal.sampling.core.kernels import IMQ
    >>> x = jax.random.normal(jax.random.key(0), (1000, 2))
    >>> log_density = lambda x: -0.5 * jnp.sum(x**2)
    >>> [f"{ksd(c * x, log_density, IMQ(2.0), statistic='U'):.2f}" for c in (1.0, 1.5)]
    ['0.00', '0.11']
    """
    x, s = with_scores(samples, scores)
    kernel = stein_kernel_or_default(kernel, x)
    choice("statistic", statistic, ("V", "U"))
    unbiased = statistic == "U"
    if unbiased and len(x) < 2:
        raise ValueError(f"statistic='U' needs at least 2 samples, got {len(x)}")
    w = jnp.full(len(x), 1 / len(x), x.dtype) if weights is None else _normalised(weights, x)
    mean = stein_kernel_sum(kernel, x, s, w, unbiased, check_block_size(block_size))
    return mean / (1 - jnp.sum(w**2)) if unbiased else mean


def with_scores(samples: Any, scores: Any) -> tuple[jax.Array, jax.Array]:
    """Return samples and their scores, both ``(n, d)``, finite and of one dtype; else raise."""
    x = as_points("samples", samples)
    if callable(scores):
        s = scores_of("scores", scores, "samples", samples)
    else:
        s = real_array("scores", scores, tuple(samples.shape))
        check_finite("scores", s)
        s = s.reshape(x.shape)
    dtype = jnp.result_type(x, s)
    return x.astype(dtype), s.astype(dtype)


def scores_of(name: str, log_density: Callable[[Any], Any], where: str, points: Any) -> jax.Array:
    """Return the gradients ``(n, d)`` of the argument ``name`` at the points of ``where``.

    Raises if it is not finite there.
    """
    density = lambda x: real_scalar(name, log_density(x))
    values, gradients = jax.vmap(jax.value_and_grad(density))(jnp.asarray(points))
    check_finite(f"{name} at {where}", values)
    check_finite(f"the gradient of {name} at {where}", gradients)
    return gradients.reshape(len(points), -1)


def stein_kernel_or_default(kernel: Any, x: jax.Array) -> Kernel:
    """Return a kernel that has a Stein kernel; for None the default."""
    return default_kernel(x) if kernel is None else check_stein_kernel(kernel)


def default_kernel(x: jax.Array, where: jax.Array | None = None) -> Kernel:
    """Return the IMQ of the points' median squared distance, of those that count."""
    some = slice(None, None, -(-len(x) // _MEDIAN_OF))
    where = None if where is None else where[some]
    return IMQ(bandwidth.from_rule("median_all", x[some], where=where))


def _normalised(weights: Any, x: jax.Array) -> jax.Array:
    weights = real_array("weights", weights, (len(x),))
    check_entries("weights", weights, lambda w: np.isfinite(w) & (w >= 0), "finite and >= 0")
    total = jnp.sum(weights)
    check_entries("weights", total, lambda total: total > 0, "positive somewhere")
    return (weights / total).astype(x.dtype)
