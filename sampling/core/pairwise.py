"""Reductions over all pairs of points (x_i, y_j), in memory that grows with m + n alone.

Queries ``x`` have shape ``(m, d)``, keys ``y`` shape ``(n, d)``. Every function

- forms the whole pair matrix where that is small and otherwise visits it tile by tile, in
  O((m + n)(d + p)) memory; nothing of size m n d ever exists;
- works around the mean of the keys, in full matrix precision, so that float32 keeps its digits
  when the points lie far from the origin (a squared distance is good to some 1e-7 of the two
  points' squared distances from that mean);
- may be differentiated in every array and in the kernel's parameters, forwards and backwards
  (tiles are then computed again rather than kept), batched by ``vmap`` and jitted;
- takes ``block_size`` (the side of a square tile; None chooses) and ``ring``: with a `Ring` both
  sets of points are split over the devices of a mesh axis and the keys travel round it.

Arrays are float32 or float64; the result has their common dtype. Impossible shapes, dtypes and
options raise ``ValueError`` or ``TypeError`` that name the argument.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import check_flag, real_array, real_parameter
from shoal.sampling.core._kernel_algebra import Kernel, as_kernel
from shoal.sampling.core._kernel_sums import Sums, Terms, kernel_sums
from shoal.sampling.core._softmax import log_normaliser_and_mean
from shoal.sampling.core._stein_sums import stein_kernel_matvec
from shoal.sampling.core._tiles import Ring, check_block_size, check_ring

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
    "stein_kernel_matvec",
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
    >>> out = kernel_matvec(kernels.RBF(1.0), x, x, jnp.array([1.0, 0.0]))
    >>> [round(value, 3) for value in out.tolist()]
    [1.0, 0.368]
    """
    x, y, v = _arrays(x, y, v=(v, _columns(v)))
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
        threshold = real_parameter("threshold", threshold, 0.0, include_low=True, scalar=True)
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
    # A sum loses less to rounding than a dot product, which adds up one after another.
    return jnp.sum(w * total[:, 0])


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
        Number >= 0, a squared distance. A point that is not finite is near none.

    Returns
    -------
    jax.Array
        Shape ``(m,)``, whole numbers in the dtype of the points.
    """
    x, y = _arrays(x, y)
    _check_diagonal(exclude_diagonal, x, y)
    threshold = real_parameter("threshold", threshold, 0.0, include_low=True, scalar=True)
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
    return log_normaliser_and_mean(
        x, y, bias, None, epsilon, check_block_size(block_size), check_ring(ring)
    )[0]


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
    x, y, bias, values = _arrays(x, y, bias=(bias, ("n",)), values=(values, _columns(values)))
    columns = values.reshape(values.shape[0], -1)
    epsilon = _epsilon(epsilon)
    mean = log_normaliser_and_mean(
        x, y, bias, columns, epsilon, check_block_size(block_size), check_ring(ring)
    )[1]
    return mean.reshape(-1, *values.shape[1:])


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
        kernel, x, y, terms, exclude_diagonal, check_block_size(block_size), check_ring(ring)
    )


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _jitted_kernel_sums(
    kernel: Kernel, x: jax.Array, y: jax.Array, terms: Terms, *static: Any
) -> Sums:
    if not kernel.has_jet:
        value = jax.eval_shape(kernel, x[0], y[0])
        if getattr(value, "shape", None) not in (None, ()):
            raise ValueError(f"kernel must return a scalar for two points, got shape {value.shape}")

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


def _columns(values: Any) -> tuple[str, ...]:
    """Return the shape wanted of values: one column or several."""
    return ("n",) if getattr(values, "ndim", None) == 1 else ("n", "p")


def _check_diagonal(exclude_diagonal: bool, x: jax.Array, y: jax.Array) -> None:
    check_flag("exclude_diagonal", exclude_diagonal)
    if exclude_diagonal and x.shape[0] != y.shape[0]:
        raise ValueError(
            f"exclude_diagonal=True needs as many points in x as in y, got {len(x)} and {len(y)}"
        )


def _epsilon(epsilon: Any) -> Any:
    return real_parameter("epsilon", epsilon, 0.0, scalar=True)
