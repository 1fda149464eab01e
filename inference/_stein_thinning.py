"""Stein thinning: the few of many samples that stand best for a law known by its scores."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference._stein_discrepancy import with_scores
from shoal.sampling.core import bandwidth
from shoal.sampling.core._checks import check_entries, check_flag, choice, integer
from shoal.sampling.core._kernel_algebra import Kernel
from shoal.sampling.core._stein_sums import cast_kernel, check_stein_kernel
from shoal.sampling.core.kernels import IMQ

PRECONDITIONERS = ("id", "med", "sclmed", "smpcov")
# Samples whose median distance stands for that of all, as in the reference implementation.
_MEDIAN_OF = 1000


def stein_thinning(
    samples: Any,
    scores: Any,
    num: int,
    kernel: Kernel | str = "id",
    *,
    standardize: bool = True,
) -> jax.Array:
    """Choose samples one by one, each such that the discrepancy of those chosen is least.

        j_t = argmin_j  k_p(x_j, x_j) / 2 + sum_{i < t} k_p(x_j, x_{j_i})

    with the Stein kernel k_p of `ksd`: greedy minimisation of the KSD over sets of ``num``
    samples. A sample may be chosen again. The samples need not be from p: those of a burn-in, of a
    biased sampler or of a tempered law are left out where they do not fit.

    Parameters
    ----------
    samples
        Shape ``(n, ...)``, float32 or float64.
    scores
        Gradients of the log density at the samples, of their shape; or the log density, a function
        of one sample.
    num
        How many to choose.
    kernel
        A kernel as for `ksd`, or a name for ``(1 + (x - y)' A (x - y))^(-1/2)``:

        - ``"id"``: A is the identity;
        - ``"med"``: A = 1 / m², m the median distance of two samples (of at most 1000 of them,
          evenly spaced);
        - ``"sclmed"``: A = log(min(n, 1000)) / m²;
        - ``"smpcov"``: A is the inverse covariance matrix of the samples.
    standardize
        Whether each coordinate is divided beforehand by its mean absolute deviation (and each
        score multiplied by it), so that no unit matters.

    Returns
    -------
    jax.Array
        Indices into the samples, in the order of choice, int32 of shape ``(num,)``; of equally
        good samples the first.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or the covariance of ``"smpcov"`` is singular.

    Notes
    -----
    Riabiz et al., "Optimal thinning of MCMC output", JRSS B 84 (2022), algorithm 1. The names,
    the scaling and the indices are those of the package stein-thinning 0.2.0 (in float64; in
    float32 samples equally good to seven digits may stand for each other). Takes O(n num d) time
    and O(n d) memory. The blind spots are those of `ksd`.

    Examples
    --------
    >>> import jax
    >>> x = 3.0 * jax.random.normal(jax.random.key(0), (2000, 2))  # too wide for N(0, I)
    >>> chosen = x[stein_thinning(x, -x, 100)]
    >>> f"{x.std():.1f} {chosen.std():.1f}"
    '3.0 1.0'
    """
    x, s = with_scores(samples, scores)
    num = integer("num", num)
    check_flag("standardize", standardize)
    if isinstance(kernel, str):
        choice("kernel", kernel, PRECONDITIONERS)
    else:
        kernel = check_stein_kernel(kernel)
    if standardize:
        scale = jnp.mean(jnp.abs(x - jnp.mean(x, axis=0)), axis=0)
        # A coordinate that never changes has no scale, and needs none.
        scale = jnp.where(scale > 0, scale, 1)
        x, s = x / scale, s * scale
    root = None
    if isinstance(kernel, str):
        root = _whitening(x) if kernel == "smpcov" else None
        kernel = IMQ(_named_bandwidth(kernel, x))
    return _chosen(cast_kernel(kernel, x.dtype), root, x, s, num)


def _named_bandwidth(name: str, x: jax.Array) -> Any:
    """Return h of the kernel (1 + q / h)^(-1/2), of q in whitened coordinates for a covariance."""
    if name in ("id", "smpcov"):
        return 1.0
    num = min(len(x), _MEDIAN_OF)
    some = x[np.linspace(0, len(x) - 1, num, dtype=int)]
    scaled = bandwidth.from_rule("median_offdiag_log", some)
    return scaled * np.log(max(num, 2)) if name == "med" else scaled


def _whitening(x: jax.Array) -> jax.Array:
    """Return L with L L' the inverse covariance of the samples."""
    covariance = jnp.atleast_2d(jnp.cov(x, rowvar=False))
    lower = jnp.linalg.cholesky(covariance)
    check_entries("kernel='smpcov': samples' covariance", lower, np.isfinite, "regular")
    identity = jnp.eye(len(lower), dtype=x.dtype)
    return jax.scipy.linalg.solve_triangular(lower, identity, lower=True).T


@functools.partial(jax.jit, static_argnames="num")
def _chosen(
    kernel: Kernel, root: jax.Array | None, x: jax.Array, s: jax.Array, num: int
) -> jax.Array:
    """Choose greedily; coordinates lead, so that sums over them run along the samples."""
    # u and v with q = |u - u'|^2 and slopes (v - v').(u - u') + trace; z where the second
    # derivative takes its own square.
    if root is None:
        u, v, z, trace = x.T, s.T, x.T, jnp.asarray(x.shape[1], x.dtype)
    else:
        u, v, z, trace = (x @ root).T, (s @ root).T, (x @ root @ root.T).T, jnp.sum(root**2)
    scores = s.T

    def column(j: jax.Array) -> jax.Array:
        """Return k_p(x_i, x_j) for all i."""
        of = lambda array: jax.lax.dynamic_slice_in_dim(array, j, 1, axis=1)
        gap = u - of(u)
        jet = kernel.jet(jnp.sum(gap * gap, axis=0))
        slopes = jnp.sum((v - of(v)) * gap, axis=0) + trace
        square = jnp.sum((z - of(z)) ** 2, axis=0)
        inner = jnp.sum(scores * of(scores), axis=0)
        return jet.value * inner - 2 * jet.q * slopes - 4 * jet.qq * square

    at_zero = kernel.jet(jnp.zeros((), x.dtype))
    diagonal = at_zero.value * jnp.sum(scores**2, axis=0) - 2 * at_zero.q * trace

    def choose(objective: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        best = jnp.argmin(objective).astype(jnp.int32)
        return objective + 2 * column(best), best

    return jax.lax.scan(choose, diagonal, length=num)[1]
