"""Reductions over all pairs of points (x_i, y_j), in memory that grows with m + n alone.

Queries ``x`` have shape ``(m, d)``, keys ``y`` shape ``(n, d)``. Every function

- forms the whole pair matrix where that is small and otherwise visits it tile by tile, in
  O((m + n)(d + p)) memory; nothing of size m n d ever exists;
- works around a common centre, in full matrix precision, so that float32 keeps its digits when
  the points lie far from the origin;
- may be differentiated in every array and in the kernel's parameters, forwards and backwards
  (tiles are then computed again rather than kept), batched by ``vmap`` and jitted;
- takes ``block_size`` (the side of a square tile; None chooses) and ``ring``: with a `Ring` both
  sets of points are split over the devices of a mesh axis and the keys travel round it.

Arrays are float32 or float64; the result has their common dtype. Impossible shapes, dtypes and
options raise ``ValueError`` or ``TypeError`` that name the argument.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import real_array, real_parameter
from shoal.sampling.core._kernel_algebra import Kernel, as_kernel
from shoal.sampling.core._kernel_sums import (
    Sums,
    Terms,
    distance_factors,
    dot,
    kernel_sums,
    squared_distances,
)
from shoal.sampling.core._tiles import Reduction, Ring, block_sides, reduce_pairs

__all__ = [
    "CountedSum",
    "Ring",
    "count_within",
    "kernel_grad_sum",
    "kernel_matvec",
    "kernel_matvec_plus_grad_sum",
    "kernel_sum",
    "logsumexp",
    "softmax_mean",
]

AnyKernel = Kernel | Callable[..., Any]


class CountedSum(NamedTuple):
    """A sum over all pairs with a count of the near ones.

    Attributes
    ----------
    total
        Shape ``(m, d)``.
    near
        Number of j with ``|x_i - y_j|^2 <= threshold``, shape ``(m,)``; None without threshold.
    """

    total: jax.Array
    near: jax.Array | None


def kernel_matvec(
    kernel: AnyKernel,
    x: jax.Array,
    y: jax.Array,
    v: jax.Array,
    *,
    block_size: int | None = None,
    ring: Ring | None = None,
) -> jax.Array:
    """Multiply the kernel matrix by v: ``out_i = sum_j k(x_i, y_j) v_j``.

    Parameters
    ----------
    kernel
        One of `shoal.sampling.core.kernels`, or a function ``k(x, y) -> scalar`` of two points.
    x, y
        Shapes ``(m, d)`` and ``(n, d)``.
    v
        Shape ``(n,)`` or ``(n, p)``.
    block_size
        Side of a tile of the pair matrix, a positive integer; None chooses.
    ring
        Devices to share the work.

    Returns
    -------
    jax.Array
        Shape ``(m,)`` or ``(m, p)``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.sampling.core import kernels
    >>> x = jnp.array([[0.0], [1.0]])
    >>> kernel_matvec(kernels.RBF(1.0), x, x, jnp.array([1.0, 0.0])).round(3).tolist()
    [1.0, 0.3680000066757202]
    """
    x, y, v = _arrays(x, y, v=(v, ("n",) if jnp.ndim(v) == 1 else ("n", "p")))
    terms = Terms(values=v.reshape(v.shape[0], -1))
    total = _kernel_sums(kernel, x, y, terms, False, block_size, ring).total
    return total.reshape(-1, *v.shape[1:])


def kernel_grad_sum(
    kernel: AnyKernel,
    x: jax.Array,
    y: jax.Array,
    w: jax.Array,
    *,
    block_size: int | None = None,
    ring: Ring | None = None,
) -> jax.Array:
    """Sum the kernel's gradients in its second point: ``out_i = sum_j w_j grad_{y_j} k(x_i, y_j)``.

    Parameters
    ----------
    kernel, x, y, block_size, ring
        As in `kernel_matvec`.
    w
        Shape ``(n,)``.

    Returns
    -------
    jax.Array
        Shape ``(m, d)``.
    """
    x, y, w = _arrays(x, y, w=(w, ("n",)))
    return _kernel_sums(kernel, x, y, Terms(gradients=w), False, block_size, ring).total


def kernel_matvec_plus_grad_sum(
    kernel: AnyKernel,
    x: jax.Array,
    y: jax.Array,
    v: jax.Array,
    w: jax.Array,
    *,
    threshold: jax.Array | float | None = None,
    block_size: int | None = None,
    ring: Ring | None = None,
) -> CountedSum:
    """Sum values and gradients in one pass: ``sum_j k(x_i, y_j) v_j + w_j grad_{y_j} k(x_i, y_j)``.

    With scores as ``v`` and ``w = 1`` this is n times the direction of Stein variational gradient
    descent (Liu and Wang, "Stein Variational Gradient Descent", NeurIPS 2016, equation 8). An
    RBF kernel costs one exponential and one matrix product more than its distances.

    Parameters
    ----------
    kernel, x, y, block_size, ring
        As in `kernel_matvec`.
    v
        Shape ``(n, d)``.
    w
        Shape ``(n,)``.
    threshold
        Squared distance up to which pairs are counted in the same pass (a point is near itself
        too), such as the one that `shoal.sampling.core.bandwidth.track` follows. None counts
        nothing.

    Returns
    -------
    CountedSum
        ``(total, near)``.
    """
    x, y, v, w = _arrays(x, y, v=(v, ("n", "d")), w=(w, ("n",)))
    if threshold is not None:
        threshold = real_parameter("threshold", threshold, 0.0, include_low=True)
    return CountedSum(*_kernel_sums(kernel, x, y, Terms(v, w, threshold), False, block_size, ring))


def kernel_sum(
    kernel: AnyKernel,
    x: jax.Array,
    y: jax.Array,
    w: jax.Array | None = None,
    u: jax.Array | None = None,
    *,
    exclude_diagonal: bool = False,
    block_size: int | None = None,
    ring: Ring | None = None,
) -> jax.Array:
    """Sum the kernel over all pairs: ``sum_ij w_i k(x_i, y_j) u_j``.

    Parameters
    ----------
    kernel, x, y, block_size, ring
        As in `kernel_matvec`.
    w, u
        Weights of shapes ``(m,)`` and ``(n,)``; ones when None.
    exclude_diagonal
        Leave out the pairs i = j, as U-statistics do. Needs m = n.

    Returns
    -------
    jax.Array
        Scalar.
    """
    x, y = _arrays(x, y)
    w = jnp.ones_like(x[:, 0]) if w is None else w
    u = jnp.ones_like(y[:, 0]) if u is None else u
    x, y, w, u = _arrays(x, y, w=(w, ("m",)), u=(u, ("n",)))
    _check_diagonal(exclude_diagonal, x, y)
    terms = Terms(values=u[:, None])
    total = _kernel_sums(kernel, x, y, terms, exclude_diagonal, block_size, ring).total
    return dot(w, total[:, 0])


def count_within(
    x: jax.Array,
    y: jax.Array,
    threshold: jax.Array | float,
    *,
    exclude_diagonal: bool = False,
    block_size: int | None = None,
    ring: Ring | None = None,
) -> jax.Array:
    """Count near pairs: the number of j with ``|x_i - y_j|^2 <= threshold`` for each i.

    Parameters
    ----------
    x, y, exclude_diagonal, block_size, ring
        As in `kernel_sum`.
    threshold
        Number >= 0, a squared distance.

    Returns
    -------
    jax.Array
        Shape ``(m,)``, whole numbers in the dtype of the points.
    """
    x, y = _arrays(x, y)
    _check_diagonal(exclude_diagonal, x, y)
    threshold = real_parameter("threshold", threshold, 0.0, include_low=True)
    terms = Terms(threshold=threshold)
    return _kernel_sums(_zero, x, y, terms, exclude_diagonal, block_size, ring).near


def _zero(x: jax.Array, y: jax.Array) -> float:
    """Stand in for a kernel where only distances are wanted."""
    return 0.0


def logsumexp(
    x: jax.Array,
    y: jax.Array,
    bias: jax.Array,
    epsilon: jax.Array | float,
    *,
    block_size: int | None = None,
    ring: Ring | None = None,
) -> jax.Array:
    """Compute ``out_i = log sum_j exp((bias_j - |x_i - y_j|^2 / 2) / epsilon)``.

    With potentials ``g`` as ``bias`` this is the soft minimum of entropic transport for the cost
    ``|x - y|^2 / 2``; weights b_j enter as ``bias = g + epsilon log b``.

    Parameters
    ----------
    x, y, block_size, ring
        As in `kernel_matvec`.
    bias
        Shape ``(n,)``. A key with bias -inf does not count, in the value or in derivatives.
    epsilon
        Positive number.

    Returns
    -------
    jax.Array
        Shape ``(m,)``. Where every bias is -inf: -inf, with derivatives zero.
    """
    x, y, bias = _arrays(x, y, bias=(bias, ("n",)))
    epsilon = _epsilon(epsilon)
    return _softmax(x, y, bias, None, epsilon, _block_size(block_size), _ring(ring))[0]


def softmax_mean(
    x: jax.Array,
    y: jax.Array,
    bias: jax.Array,
    values: jax.Array,
    epsilon: jax.Array | float,
    *,
    block_size: int | None = None,
    ring: Ring | None = None,
) -> jax.Array:
    """Average values with the softmax weights of `logsumexp`: ``out_i = sum_j p_ij values_j``.

    ``p_ij`` is proportional to ``exp((bias_j - |x_i - y_j|^2 / 2) / epsilon)`` and sums to one
    over j.

    Parameters
    ----------
    x, y, bias, epsilon, block_size, ring
        As in `logsumexp`.
    values
        Shape ``(n,)`` or ``(n, p)``, finite also where the bias is -inf.

    Returns
    -------
    jax.Array
        Shape ``(m,)`` or ``(m, p)``. NaN where every bias is -inf: a mean
        over nothing.
    """
    rank = ("n",) if jnp.ndim(values) == 1 else ("n", "p")
    x, y, bias, values = _arrays(x, y, bias=(bias, ("n",)), values=(values, rank))
    columns = values.reshape(values.shape[0], -1)
    epsilon = _epsilon(epsilon)
    mean = _softmax(x, y, bias, columns, epsilon, _block_size(block_size), _ring(ring))[1]
    return mean.reshape(-1, *values.shape[1:])


@functools.partial(jax.jit, static_argnames=("block_size", "ring"))
def _softmax(
    x: jax.Array,
    y: jax.Array,
    bias: jax.Array,
    values: jax.Array | None,
    epsilon: Any,
    block_size: int | None,
    ring: Ring | None,
) -> tuple[jax.Array, jax.Array | None]:
    """Return log-normaliser ``(m,)`` and, given values, their mean ``(m, p)``."""
    epsilon = jnp.asarray(epsilon, x.dtype)
    a, c = distance_factors(x, y)
    # The inner where keeps 0 * inf out of the derivatives of a key that does not count.
    live = bias != -jnp.inf
    height = jnp.where(live, jnp.where(live, bias, 0) / epsilon, -jnp.inf)
    identity = (-jnp.inf, 0.0, None if values is None else 0.0)
    reduction = Reduction(_softmax_tile, _join_softmax, identity, -jnp.inf)
    sides = block_sides(x.shape[0], y.shape[0], block_size, 1)
    peak, total, moment = reduce_pairs(
        reduction, 0.5 / epsilon, a, (c, values), height, sides, ring
    )
    dead = total == 0
    log_total = jnp.log(jnp.where(dead, 1, total))
    out = jnp.where(dead, -jnp.inf, log_total + _finite(peak))
    return out, None if moment is None else moment / total[:, None]


def _softmax_tile(rate: jax.Array, a: jax.Array, points: Any, height: jax.Array) -> Any:
    """Return peak ``(b,)``, sum ``(b,)`` and moments ``(b, p)`` relative to the peak.

    The result does not depend on the peak, so that derivatives may hold it fixed.
    """
    c, values = points
    logits = height - rate * squared_distances(a, c)
    peak = jnp.max(jax.lax.stop_gradient(logits), axis=1)
    p = jnp.exp(logits - _finite(peak)[:, None])
    return peak, jnp.sum(p, axis=1), None if values is None else dot(p, values)


def _join_softmax(left: Any, right: Any) -> Any:
    """Bring two blocks to their common peak and add."""
    peak = jnp.maximum(left[0], right[0])
    scales = [jnp.exp(part[0] - _finite(peak)) for part in (left, right)]
    total = scales[0] * left[1] + scales[1] * right[1]
    if left[2] is None:
        return peak, total, None
    return peak, total, scales[0][:, None] * left[2] + scales[1][:, None] * right[2]


def _finite(peak: jax.Array) -> jax.Array:
    """Stand in zero for the peak of a block in which nothing counts."""
    return jnp.where(peak == -jnp.inf, 0, peak)


def _kernel_sums(
    kernel: AnyKernel,
    x: jax.Array,
    y: jax.Array,
    terms: Terms,
    exclude_diagonal: bool,
    block_size: int | None,
    ring: Ring | None,
) -> Any:
    kernel = as_kernel(kernel)
    if kernel.has_jet and any(jnp.ndim(leaf) for leaf in jax.tree.leaves(kernel)):
        raise ValueError(f"kernel must have scalar parameters (vmap over kernels), got {kernel}")
    return _jitted_kernel_sums(
        kernel, x, y, terms, exclude_diagonal, _block_size(block_size), _ring(ring)
    )


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _jitted_kernel_sums(
    kernel: Kernel, x: jax.Array, y: jax.Array, terms: Terms, *static: Any
) -> Sums:
    # Parameters in a wider dtype must not widen the whole computation.
    def cast(leaf: Any) -> Any:
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf, x.dtype) if floating else leaf

    return kernel_sums(*jax.tree.map(cast, (kernel, x, y, terms)), *static)


def _arrays(x: Any, y: Any, **others: tuple[Any, tuple[int | str, ...]]) -> tuple[jax.Array, ...]:
    """Check shapes and bring everything to the common dtype."""
    x = real_array("x", x, ("m", "d"))
    y = real_array("y", y, ("n", x.shape[1]))
    sizes = {"m": x.shape[0], "n": y.shape[0], "d": x.shape[1]}
    arrays = [x, y]
    for name, (value, shape) in others.items():
        wanted = tuple(sizes.get(size, size) if isinstance(size, str) else size for size in shape)
        arrays.append(real_array(name, value, wanted))
    dtype = jnp.result_type(*arrays)
    return tuple(array.astype(dtype) for array in arrays)


def _check_diagonal(exclude_diagonal: bool, x: jax.Array, y: jax.Array) -> None:
    if exclude_diagonal and x.shape[0] != y.shape[0]:
        raise ValueError(
            f"exclude_diagonal=True needs as many points in x as in y, got {len(x)} and {len(y)}"
        )


def _epsilon(epsilon: Any) -> Any:
    if jnp.ndim(epsilon):
        raise ValueError(f"epsilon must be a scalar, got shape {jnp.shape(epsilon)}")
    return real_parameter("epsilon", epsilon, 0.0)


def _block_size(block_size: Any) -> int | None:
    if block_size is None:
        return None
    try:
        size = operator.index(block_size)
    except TypeError:
        raise TypeError(f"block_size must be an integer or None, got {block_size!r}") from None
    if size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    return size


def _ring(ring: Any) -> Ring | None:
    if ring is not None and not isinstance(ring, Ring):
        raise TypeError(f"ring must be a Ring(mesh, axis) or None, got {ring!r}")
    if ring is not None and ring.axis not in ring.mesh.axis_names:
        raise ValueError(f"ring.axis must be one of {ring.mesh.axis_names}, got {ring.axis!r}")
    return ring
