"""Weights by which given samples stand best for a law known by its scores."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from optax.projections import projection_simplex

from shoal.inference._stein_discrepancy import stein_kernel_or_default, with_scores
from shoal.sampling.core import pairwise
from shoal.sampling.core._checks import integer, real_parameter
from shoal.sampling.core._kernel_algebra import Kernel
from shoal.sampling.core._kernel_sums import dot
from shoal.sampling.core._stein_sums import cast_kernel, factors, stein_kernel_tile

# Up to this many samples the matrix of their Stein kernels is kept: 64 MiB in float32.
_KEPT = 4096
# The power method's steps, and how far its answer may lie below the largest eigenvalue.
_POWER_STEPS, _MARGIN = 50, 1.2


class SteinWeights(NamedTuple):
    """Weights of samples, and how good they are.

    Attributes
    ----------
    weights
        Numbers >= 0 that sum to one, shape ``(n,)``.
    ksd
        Squared discrepancy of the weighted samples.
    gap
        No weights have a squared discrepancy below ``ksd - gap``; zero where the conditions of
        Karush, Kuhn and Tucker hold exactly.
    num_steps
        Steps that were taken.
    """

    weights: jax.Array
    ksd: jax.Array
    gap: jax.Array
    num_steps: jax.Array


def stein_weights(
    samples: Any,
    scores: Any,
    kernel: Kernel | None = None,
    *,
    num_steps: int = 1000,
    tolerance: float = 1e-3,
) -> SteinWeights:
    """Weigh samples so that their discrepancy from a law given by its scores is least.

        min_w  w' K_p w   over  w >= 0, sum w = 1

    with K_p the matrix of Stein kernels of `ksd`: importance weights that ask neither for the law
    the samples come from nor for a normalising constant. A weighted mean may converge faster than
    the mean of exact draws.

    Parameters
    ----------
    samples, scores, kernel
        As for `ksd`.
    num_steps
        Steps at most.
    tolerance
        Number >= 0: stop once ``gap`` is at most this part of the squared discrepancy of equal
        weights.

    Returns
    -------
    SteinWeights
        ``(weights, ksd, gap, num_steps)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Notes
    -----
    Liu and Lee, "Black-box importance sampling", AISTATS 2017. The quadratic programme is solved
    by accelerated projected gradients (Beck and Teboulle, SIAM Journal on Imaging Sciences 2, 2009)
    with restarts (O'Donoghue and Candès, Foundations of Computational Mathematics 15, 2015,
    section 3.2). At w with g = K_p w, ``gap = 2 (w.g - min g)`` bounds how much lower the
    minimum is, since the objective is convex. A step takes O(n²) time; up to 4096 samples
    the matrix is kept, beyond them it is formed again in tiles. The blind spots are those of `ksd`.

    Examples
    --------
    >>> import jax
    >>> x = 2.0 * jax.random.normal(jax.random.key(0), (200, 2))  # too wide for N(0, I)
    >>> found = stein_weights(x, -x)
    >>> f"{(x**2).mean():.1f} {found.weights @ (x**2).mean(1):.1f}"
    '3.8 1.0'
    """
    x, s = with_scores(samples, scores)
    kernel = cast_kernel(stein_kernel_or_default(kernel, x), x.dtype)
    num_steps = integer("num_steps", num_steps)
    tolerance = real_parameter("tolerance", tolerance, 0.0, include_low=True, scalar=True)
    return _solve(kernel, x, s, num_steps, tolerance)


class _State(NamedTuple):
    """The weights, where the next gradient is taken, and the products of both with the matrix."""

    w: jax.Array
    ahead: jax.Array
    product_w: jax.Array
    product_ahead: jax.Array
    momentum: jax.Array
    step: jax.Array


@jax.jit
def _solve(
    kernel: Kernel, x: jax.Array, s: jax.Array, num_steps: int, tolerance: Any
) -> SteinWeights:
    multiply = _multiplier(kernel, x, s)
    rate = 1 / (_MARGIN * _largest_eigenvalue(multiply, x))
    equal = jnp.full(len(x), 1 / len(x), x.dtype)
    product = multiply(equal)
    enough = tolerance * dot(equal, product)

    def goes_on(state: _State) -> jax.Array:
        return (state.step < num_steps) & (_gap(state) > enough)

    def step(state: _State) -> _State:
        w = projection_simplex(state.ahead - rate * state.product_ahead)
        product_w = multiply(w)
        momentum = (1 + jnp.sqrt(1 + 4 * state.momentum**2)) / 2
        # Where the momentum points uphill it starts again from nothing.
        uphill = dot(state.ahead - w, w - state.w) > 0
        share = jnp.where(uphill, 0, (state.momentum - 1) / momentum)
        return _State(
            w,
            w + share * (w - state.w),
            product_w,
            product_w + share * (product_w - state.product_w),
            jnp.where(uphill, 1, momentum),
            state.step + 1,
        )

    one = jnp.ones((), x.dtype)
    start = _State(equal, equal, product, product, one, jnp.zeros((), jnp.int32))
    end = jax.lax.while_loop(goes_on, step, start)
    return SteinWeights(end.w, dot(end.w, end.product_w), _gap(end), end.step)


def _gap(state: _State) -> jax.Array:
    return 2 * (dot(state.w, state.product_w) - jnp.min(state.product_w))


def _multiplier(kernel: Kernel, x: jax.Array, s: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Return the product with the matrix of Stein kernels."""
    if len(x) > _KEPT:
        return lambda v: pairwise.stein_kernel_matvec(kernel, x, s, x, s, v)
    matrix = stein_kernel_tile(kernel, *factors(x, s, x, s))
    return lambda v: dot(matrix, v)


def _largest_eigenvalue(multiply: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Estimate it by the power method, from below.

    The start is random: a vector of ones is nearly in the null space where samples fit the law.
    """

    def step(v: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        product = multiply(v)
        norm = jnp.linalg.norm(product)
        return product / norm, norm

    start = jax.random.normal(jax.random.key(0), (len(x),), x.dtype)
    start /= jnp.linalg.norm(start)
    return jax.lax.scan(step, start, length=_POWER_STEPS)[1][-1]
