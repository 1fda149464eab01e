"""Sums of a kernel's Stein kernel over pairs of points with scores.

For a radial kernel k(x, y) = f(q), q = |x - y|^2, and a law with scores s = grad log p,

    k_p(x, y) = f s_x.s_y - 2 f' ((s_x - s_y).(x - y) + d) - 4 q f''

is the kernel of Stein's operator applied to both points: its mean over y drawn from p is zero for
every x (Oates, Girolami and Chopin, "Control functionals for Monte Carlo integration", JRSS B 79,
2017; Liu, Lee and Jordan, "A kernelized Stein discrepancy", ICML 2016, theorem 3.6). It needs
three products of matrices a tile and no array with a coordinate axis beside the pairs.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import check_flag, real_array
from shoal.sampling.core._kernel_algebra import Kernel, as_kernel
from shoal.sampling.core._kernel_sums import distance_factors, dot, squared_distances
from shoal.sampling.core._tiles import (
    Reduction,
    Ring,
    block_sides,
    check_block_size,
    check_ring,
    reduce_pairs,
)
from shoal.sampling.core.kernels import Matern32


def stein_kernel_matvec(
    kernel: Kernel,
    x: jax.Array,
    scores_x: jax.Array,
    y: jax.Array,
    scores_y: jax.Array,
    v: jax.Array,
    *,
    exclude_diagonal: bool = False,
    block_size: int | None = None,
    ring: Ring | None = None,
) -> jax.Array:
    """Multiply the matrix of Stein kernels by v: ``out_i = sum_j k_p(x_i, y_j) v_j``.

    Parameters
    ----------
    kernel
        A radial kernel of `shoal.sampling.core.kernels` that is twice differentiable where points
        coincide: not ``Matern32``.
    x, scores_x
        Points and the gradients there of the log density, shape ``(m, d)``.
    y, scores_y
        The same, shape ``(n, d)``.
    v
        Shape ``(n,)``.
    exclude_diagonal
        Leave out the pairs i = j, as U-statistics do. Needs m = n.
    block_size, ring
        As in `kernel_matvec`.

    Returns
    -------
    jax.Array
        Shape ``(m,)``.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.core import kernels, pairwise
    >>> x = jax.random.normal(jax.random.key(0), (1000, 2))
    >>> v, rbf = jnp.full(1000, 1 / 1000), kernels.RBF(2.0)
    >>> of_p = pairwise.stein_kernel_matvec(rbf, x, -x, x, -x, v)
    >>> of_another = pairwise.stein_kernel_matvec(rbf, x, 1 - x, x, 1 - x, v)
    >>> bool(jnp.abs(of_p).max() < 0.3 < jnp.abs(of_another).max())
    True
    """
    kernel = check_stein_kernel(kernel)
    check_flag("exclude_diagonal", exclude_diagonal)
    x = real_array("x", x, ("m", "d"))
    m, d = x.shape
    y = real_array("y", y, ("n", d))
    n = y.shape[0]
    if exclude_diagonal and m != n:
        raise ValueError(
            f"exclude_diagonal=True needs as many points in x as in y, got {m} and {n}"
        )
    scores_x = real_array("scores_x", scores_x, (m, d))
    scores_y, v = real_array("scores_y", scores_y, (n, d)), real_array("v", v, (n,))
    dtype = jnp.result_type(x, scores_x, y, scores_y, v)
    arrays = (array.astype(dtype) for array in (x, scores_x, y, scores_y, v))
    return _matvec(
        kernel, *arrays, exclude_diagonal, check_block_size(block_size), check_ring(ring)
    )


def check_stein_kernel(kernel: Any) -> Kernel:
    """Pass on a kernel whose Stein kernel is known in closed form; else raise."""
    kernel = as_kernel(kernel)
    if not (kernel.has_jet and kernel.is_radial):
        raise ValueError(
            "kernel must be a function of the distance with second derivatives in closed form "
            f"(IMQ, RBF, Matern52, RationalQuadratic, their sums and products), got {kernel}"
        )
    is_rough = lambda part: isinstance(part, Matern32)
    if any(map(is_rough, jax.tree.leaves(kernel, is_leaf=is_rough))):
        raise ValueError(
            f"kernel must be twice differentiable where points coincide, got {kernel}: "
            "take Matern52 for Matern32"
        )
    if any(jnp.ndim(leaf) for leaf in jax.tree.leaves(kernel)):
        raise ValueError(f"kernel must have scalar parameters (vmap over kernels), got {kernel}")
    return kernel


def cast_kernel(kernel: Kernel, dtype: Any) -> Kernel:
    """Bring a kernel's parameters to a dtype: wider ones must not widen the computation."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), kernel)


def stein_kernel(kernel: Kernel, q: Any, scores: Any, slopes: Any) -> jax.Array:
    """Return k_p from ``q``, ``scores = s_x.s_y`` and ``slopes = (s_x - s_y).(x - y) + d``."""
    jet = kernel.jet(q)
    return jet.value * scores - 2 * jet.q * slopes - 4 * q * jet.qq


def stein_diagonal(kernel: Kernel, scores: jax.Array) -> jax.Array:
    """Return k_p(x_i, x_i) for scores ``(n, d)``, shape ``(n,)``."""
    zero = jnp.zeros((), scores.dtype)
    return stein_kernel(kernel, zero, jnp.sum(scores**2, axis=1), scores.shape[1])


@functools.partial(jax.jit, static_argnums=(6, 7, 8))
def _matvec(
    kernel: Kernel,
    x: jax.Array,
    scores_x: jax.Array,
    y: jax.Array,
    scores_y: jax.Array,
    v: jax.Array,
    exclude_diagonal: bool,
    block_size: int | None,
    ring: Ring | None,
) -> jax.Array:
    rows, points = factors(x, scores_x, y, scores_y, exclude_diagonal)
    reduction = Reduction(_tile, jnp.add, 0.0, 0.0)
    # A pair needs an entry of each of the three products.
    sides = block_sides(x.shape[0], y.shape[0], block_size, 3, aspect=2)
    return reduce_pairs(reduction, cast_kernel(kernel, x.dtype), rows, points, v, sides, ring)


@functools.partial(jax.jit, static_argnums=(4, 5))
def stein_kernel_sum(
    kernel: Kernel,
    x: jax.Array,
    scores: jax.Array,
    w: jax.Array,
    exclude_diagonal: bool = False,
    block_size: int | None = None,
) -> jax.Array:
    """Return ``sum_ij w_i w_j k_p(x_i, x_j)``, twice as fast as by `stein_kernel_matvec`.

    The matrix is symmetric: of tiles that mirror each other one is computed. Arrays have one dtype.
    """
    num = x.shape[0]
    kernel = cast_kernel(kernel, x.dtype)
    rows, points = factors(x, scores, x, scores, exclude_diagonal)
    side = block_sides(num, num, block_size, 2)[0]

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def of_tile(row: Any, u: jax.Array, point: Any, v: jax.Array) -> jax.Array:
        return dot(u, _tile(kernel, row, point, v))

    if side == num:
        return of_tile(rows, w, points, w)
    zero = jnp.zeros((), x.dtype)
    numbers = jnp.arange(-(-num // side))
    rows, points = (_blocks(tree, side, "edge") for tree in (rows, points))
    weights = _blocks(w, side, "constant")

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def of_row(block: Any) -> jax.Array:
        i, row, u = block

        def add(total: jax.Array, block: Any) -> tuple[jax.Array, None]:
            j, point, v = block
            here = jax.lax.cond(i <= j, lambda: of_tile(row, u, point, v), lambda: zero)
            return total + jnp.where(i == j, here, 2 * here), None

        return jax.lax.scan(add, zero, (numbers, points, weights))[0]

    return jnp.sum(jax.lax.map(of_row, (numbers, rows, weights)))


def _blocks(tree: Any, side: int, mode: str) -> Any:
    """Split leading axes into blocks ``(k, side, ...)``, the last filled up by copies or zeros."""

    def split(leaf: jax.Array) -> jax.Array:
        width = [(0, -leaf.shape[0] % side)] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, width, mode=mode).reshape(-1, side, *leaf.shape[1:])

    return jax.tree.map(split, tree)


def factors(
    x: jax.Array,
    scores_x: jax.Array,
    y: jax.Array,
    scores_y: jax.Array,
    exclude_diagonal: bool = False,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Return the matrices whose products are the tiles of q, s_x.s_y and the slopes.

    Points are taken around their mean, which drops out: float32 keeps its digits far from it.
    """
    a, c = distance_factors(x, y)
    dim = x.shape[1]
    x, y = -0.5 * a[:, :dim], c[:, :dim]
    product_x, product_y = (
        jnp.sum(s * z, axis=1, keepdims=True) for s, z in ((scores_x, x), (scores_y, y))
    )
    one_x, one_y = jnp.ones_like(product_x), jnp.ones_like(product_y)
    slopes_x = jnp.concatenate([-scores_x, -x, product_x + dim, one_x], axis=1)
    slopes_y = jnp.concatenate([y, scores_y, one_y, product_y], axis=1)
    rows = {"distances": a, "scores": scores_x, "slopes": slopes_x}
    points = {"distances": c, "scores": scores_y, "slopes": slopes_y}
    if exclude_diagonal:
        rows["index"] = jnp.arange(x.shape[0], dtype=jnp.int32)
        points["index"] = jnp.arange(y.shape[0], dtype=jnp.int32)
    return rows, points


def stein_kernel_tile(kernel: Kernel, rows: Any, points: Any) -> jax.Array:
    """Return the Stein kernels of all pairs of rows and points, given as `factors`."""
    q = squared_distances(rows["distances"], points["distances"])
    scores, slopes = (dot(rows[name], points[name].T) for name in ("scores", "slopes"))
    return stein_kernel(kernel, q, scores, slopes)


def _tile(kernel: Kernel, rows: Any, points: Any, v: jax.Array) -> jax.Array:
    tile = stein_kernel_tile(kernel, rows, points)
    if "index" in rows:
        tile = jnp.where(rows["index"][:, None] != points["index"], tile, 0)
    return dot(tile, v)
