"""Discrepancies that are means of a kernel over pairs of points."""

from typing import Any

import jax
import jax.numpy as jnp

from shoal.inference._points import alike
from shoal.sampling.core import bandwidth, pairwise
from shoal.sampling.core._checks import check_flag
from shoal.sampling.core._kernel_algebra import Jet
from shoal.sampling.core.kernels import RBF, Kernel

# Points whose median distance stands for that of all.
_MEDIAN_OF = 2048


def mmd(
    samples: Any,
    reference: Any,
    kernel: Any = None,
    *,
    unbiased: bool = False,
    block_size: int | None = None,
) -> jax.Array:
    """Squared maximum mean discrepancy of two sets of points.

        MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y)

    for x, x' from the samples and y, y' from the reference: squared distance of the means of
    their features in the kernel's space, zero only for equal laws if the kernel is characteristic
    (all of `shoal.sampling.core.kernels` but ``Linear``).

    Parameters
    ----------
    samples, reference
        Shapes ``(m, ...)`` and ``(n, ...)``, float32 or float64.
    kernel
        One of `shoal.sampling.core.kernels`, or a function ``k(x, y) -> scalar`` of two points
        ``(d,)``. None is ``RBF(h)`` with h the median squared distance within the reference (of
        every k-th point, where there are more than 2048), so that the values of several samplers
        compare.
    unbiased
        False: the V-statistic, over all pairs; never negative, zero for equal sets, and even of
        equal laws (E k(x, x) - E k(x, x')) (1/m + 1/n) on average. True: the U-statistic, without
        the pairs of a point with itself; right on average, so sometimes negative. Needs two points
        in each set.
    block_size
        As in `shoal.sampling.core.pairwise`.

    Returns
    -------
    jax.Array
        Scalar, in units of the kernel; in float32 rounded by some 1e-5 of the kernel's mean at
        worst, which a small discrepancy of many points needs float64 to beat.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Notes
    -----
    Gretton, Borgwardt, Rasch, Schölkopf and Smola, "A kernel two-sample test", Journal of Machine
    Learning Research 13 (2012), equations 3 (U) and 5 (V). Takes O((m + n)² d) time and
    O((m + n) d) memory. May be jitted and differentiated.

    Examples
    --------
    >>> import jax
    >>> from shoal.sampling.core.kernels import RBF
    >>> x, y = jax.random.normal(jax.random.key(0), (2, 500, 2))
    >>> [f"{mmd(x, y + shift, RBF(2.0), unbiased=True):.1f}" for shift in (1.0, 3.0)]
    ['0.2', '0.6']
    """
    x, y = alike(samples=samples, reference=reference)
    _check_sizes(unbiased, x, y)
    if kernel is None:
        some = y[:: -(-len(y) // _MEDIAN_OF)]
        kernel = RBF(bandwidth.from_rule("median_all", some))
    return _discrepancy(kernel, x, y, unbiased, unbiased, block_size)


def energy_distance(
    samples: Any, reference: Any, *, unbiased: bool = False, block_size: int | None = None
) -> jax.Array:
    """Energy distance of two sets of points.

        D² = 2 E|x - y| - E|x - x'| - E|y - y'|

    for x, x' from the samples and y, y' from the reference: zero only for equal laws, without any
    bandwidth. Not the root of it, which ``scipy.stats.energy_distance`` returns (on a line).

    Parameters
    ----------
    samples, reference
        Shapes ``(m, ...)`` and ``(n, ...)``, float32 or float64.
    unbiased
        False: means over all pairs (V-statistic); never negative, zero for equal sets, and even
        of equal laws E|x - x'| (1/m + 1/n) on average. True: means over pairs of two points
        (U-statistic); right on average, so sometimes negative.
    block_size
        As in `shoal.sampling.core.pairwise`.

    Returns
    -------
    jax.Array
        Scalar, in units of a coordinate; in float32 rounded by some 1e-5 of the mean distance at
        worst. A sample that equals a reference point counts as up to 3e-4 of its distance from
        the mean away from it.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Notes
    -----
    Székely and Rizzo, "Energy statistics: a class of statistics based on distances", Journal of
    Statistical Planning and Inference 143 (2013), equation 6. It is the `mmd` of the kernel
    ``-|x - y|`` (Sejdinovic et al., Annals of Statistics 41, 2013, theorem 22) and costs the same.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(energy_distance(jnp.zeros((3, 2)), jnp.array([[3.0, 4.0]]))), 5)
    10.0
    """
    x, y = alike(samples=samples, reference=reference)
    _check_sizes(unbiased, x, y)
    # A point's distance to itself is zero: left out, it has no rounding.
    return _discrepancy(_Distance(), x, y, unbiased, True, block_size)


class _Distance(Kernel):
    """-|x - y|: a kernel on differences of means, where its constant does not matter."""

    @property
    def has_jet(self) -> bool:
        return True

    @property
    def is_radial(self) -> bool:
        return True

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return self.jet(jnp.sum((x - y) ** 2)).value

    def jet(self, q: jax.Array, g: Any = 0.0) -> Jet:
        # The derivative of the root is infinite where two points coincide.
        q = jnp.maximum(q, jnp.finfo(q.dtype).tiny)
        root = jnp.sqrt(q)
        return Jet(-root, q=-0.5 / root, qq=0.25 / (root * q))


def _check_sizes(unbiased: Any, x: jax.Array, y: jax.Array) -> None:
    check_flag("unbiased", unbiased)
    for name, points in (("samples", x), ("reference", y)):
        if unbiased and len(points) < 2:
            raise ValueError(f"unbiased=True needs at least 2 points in {name}, got {len(points)}")


def _discrepancy(
    kernel: Any,
    x: jax.Array,
    y: jax.Array,
    unbiased: bool,
    skip_diagonal: bool,
    block_size: int | None,
) -> jax.Array:
    """Return ``E k(x, x') + E k(y, y') - 2 E k(x, y)``."""

    def within(points: jax.Array) -> jax.Array:
        pairs = float(len(points)) * (len(points) - unbiased)
        total = pairwise.kernel_sum(
            kernel, points, points, exclude_diagonal=skip_diagonal, block_size=block_size
        )
        return total / pairs

    across = pairwise.kernel_sum(kernel, x, y, block_size=block_size) / (float(len(x)) * len(y))
    return within(x) + within(y) - 2 * across
