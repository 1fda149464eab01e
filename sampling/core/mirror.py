"""Mirror maps: a constrained set seen from all of R^k.

A strictly convex ψ on a convex set maps its interior one to one onto the dual space R^k,

    η = ∇ψ(θ),    θ = ∇ψ*(η),    H(θ) = ∇²ψ(θ),    ∇²ψ*(η) = H(θ)⁻¹.

A density p(θ) has the dual density p(θ(η)) det ∇²ψ*(η), on which any unconstrained method works,
and whose draws map back exactly. Its score needs no second derivative, and is what methods compute
as ``inverse_hessian_product(theta, gradient) + divergence(theta)``:

    ∇_η log [p(θ(η)) det ∇²ψ*(η)] = H⁻¹ ∇_θ log p + D,    D_a(θ) = Σ_b ∂(H⁻¹)_ab/∂θ_b.

It is bounded where the gradient is not: H⁻¹ takes away the (α - 1)/θ of a sparse Dirichlet law.

=========================  ==============================  =========================================
``euclidean()``            R^d                             η = θ
``orthant(low)``           θ > low                         η = log (θ - low)
``box(low, high)``         low < θ < high                  η = log (θ - low) - log (high - θ)
``simplex()``              θ > 0, Σ θ = 1                  η_a = log θ_a - log θ_m, a < m
``half_space(c, e)``       c·θ > e                         log of the height over the plane
``ball(r, c)``             |θ - c| < r                     η = w / √(1 - |w|²), w = (θ - c)/r
``polytope(A, c)``         Aθ < c, bounded                 η = Aᵀ(1/s), s = c - Aθ
``product(parts)``         blocks, each in its own set     block by block
=========================  ==============================  =========================================

All maps are pure functions of their last axis; leading axes are batches. Points on the boundary
stand for the nearest ones inside that the dtype can tell from it, so that no dual point is infinite
and ``log θ`` is finite wherever `to_primal` leads. What lies closer is merged there: below 1e-38 in
float32 where the bound is zero, elsewhere within a few units in the last place of θ. So are numbers
above 5e34. Near a bound that is not zero θ has few digits left: functions of η, `to_primal` and
`log_det_dual_hessian`, and their derivatives are accurate there, those of θ less so.

References: Hsieh, Kavis, Rolland and Cevher, "Mirrored Langevin dynamics", NeurIPS 2018, section 3;
Shi, Liu and Mackey, "Sampling with mirrored Stein operators", ICLR 2022, section 4 and appendix.
"""

from typing import Any

import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import check_entries, real_parameter
from shoal.sampling.core._mirror_ball import Ball, ball
from shoal.sampling.core._mirror_half_space import HalfSpace, half_space
from shoal.sampling.core._mirror_map import MirrorMap, above_zero, check_size, positive_exp
from shoal.sampling.core._mirror_polytope import Polytope, polytope
from shoal.sampling.core._mirror_product import Product, product

__all__ = [
    "Ball",
    "Box",
    "Euclidean",
    "HalfSpace",
    "MirrorMap",
    "Orthant",
    "Polytope",
    "Product",
    "Simplex",
    "ball",
    "box",
    "euclidean",
    "half_space",
    "orthant",
    "polytope",
    "product",
    "simplex",
]


class Euclidean(MirrorMap):
    """All of R^d, ψ = |θ|²/2: the identity."""

    def to_dual(self, primal: jax.Array) -> jax.Array:
        """Return θ."""
        return primal

    def to_primal(self, dual: jax.Array) -> jax.Array:
        """Return η."""
        return dual

    def hessian_product(self, primal: jax.Array, vector: jax.Array) -> jax.Array:
        """Return v."""
        return vector

    def inverse_hessian_product(self, primal: jax.Array, covector: jax.Array) -> jax.Array:
        """Return g."""
        return covector

    def log_det_dual_hessian(self, dual: jax.Array) -> jax.Array:
        """Return 0."""
        return jnp.zeros(dual.shape[:-1], dual.dtype)

    def divergence(self, primal: jax.Array) -> jax.Array:
        """Return 0."""
        return jnp.zeros_like(primal)

    def hessian_noise(self, key: jax.Array, primal: jax.Array) -> jax.Array:
        """Draw from N(0, I)."""
        return jax.random.normal(key, primal.shape, primal.dtype)

    def check(self, primal: jax.Array) -> None:
        """Accept every point."""


class Orthant(MirrorMap):
    """θ > low; with t = θ - low, ψ = Σ t log t - t: η = log t, H = diag(1/t).

    Attributes
    ----------
    low
        Bound, a scalar or ``(d,)``.
    """

    low: jax.Array

    def to_dual(self, primal: jax.Array) -> jax.Array:
        """Return log t."""
        return jnp.log(self._gap(self._inside(primal)))

    def to_primal(self, dual: jax.Array) -> jax.Array:
        """Return low + exp η."""
        return self._inside(self._bound(dual.dtype) + positive_exp(dual))

    def hessian_product(self, primal: jax.Array, vector: jax.Array) -> jax.Array:
        """Return v / t."""
        return vector / self._gap(self._inside(primal))

    def inverse_hessian_product(self, primal: jax.Array, covector: jax.Array) -> jax.Array:
        """Return t g."""
        return self._gap(primal) * covector

    def log_det_dual_hessian(self, dual: jax.Array) -> jax.Array:
        """Return Σ η."""
        return jnp.sum(dual, -1)

    def divergence(self, primal: jax.Array) -> jax.Array:
        """Return 1."""
        return jnp.ones_like(primal)

    def hessian_noise(self, key: jax.Array, primal: jax.Array) -> jax.Array:
        """Draw ξ / √t."""
        white = jax.random.normal(key, primal.shape, primal.dtype)
        return white * jax.lax.rsqrt(self._gap(self._inside(primal)))

    def check(self, primal: jax.Array) -> None:
        """Refuse points that are not above the bound, and shapes that do not fit."""
        if self.low.ndim:
            check_size(primal, self.low.size, "the orthant")
        low = self._bound(primal.dtype)
        is_inside = lambda array: array > low
        check_entries("position", primal, is_inside, f"above {low} (in the orthant)")

    def _bound(self, dtype: Any) -> jax.Array:
        return jnp.asarray(self.low, dtype)

    def _gap(self, primal: jax.Array) -> jax.Array:
        return primal - self._bound(primal.dtype)

    def _inside(self, primal: jax.Array) -> jax.Array:
        return jnp.maximum(primal, _next_above(self._bound(primal.dtype)))


class Box(MirrorMap):
    """low < θ < high, the entropy of both distances: η = log (θ - low) / (high - θ).

    Attributes
    ----------
    low, high
        Bounds, each a scalar or ``(d,)``.
    """

    low: jax.Array
    high: jax.Array

    def to_dual(self, primal: jax.Array) -> jax.Array:
        """Return log (θ - low) - log (high - θ)."""
        below, above = self._gaps(self._inside(primal))
        return jnp.log(below) - jnp.log(above)

    def to_primal(self, dual: jax.Array) -> jax.Array:
        """Return low + (high - low) σ(η), from the nearer end."""
        low, high = self._bounds(dual.dtype)
        width = high - low
        near = jnp.where(
            dual < 0, low + width * jax.nn.sigmoid(dual), high - width * jax.nn.sigmoid(-dual)
        )
        return self._inside(near)

    def hessian_product(self, primal: jax.Array, vector: jax.Array) -> jax.Array:
        """Return (high - low) / ((θ - low) (high - θ)) v."""
        return vector * self._hessian(self._inside(primal))

    def inverse_hessian_product(self, primal: jax.Array, covector: jax.Array) -> jax.Array:
        """Return (θ - low) (high - θ) / (high - low) g."""
        return covector / self._hessian(primal)

    def log_det_dual_hessian(self, dual: jax.Array) -> jax.Array:
        """Return Σ log (high - low) + log σ(η) + log σ(-η)."""
        low, high = self._bounds(dual.dtype)
        return jnp.sum(
            jnp.log(high - low) + jax.nn.log_sigmoid(dual) + jax.nn.log_sigmoid(-dual), -1
        )

    def divergence(self, primal: jax.Array) -> jax.Array:
        """Return (low + high - 2 θ) / (high - low)."""
        below, above = self._gaps(primal)
        return (above - below) / (above + below)

    def hessian_noise(self, key: jax.Array, primal: jax.Array) -> jax.Array:
        """Draw ξ H^½, H = diag((high - low) / ((θ - low) (high - θ)))."""
        white = jax.random.normal(key, primal.shape, primal.dtype)
        return white * jnp.sqrt(self._hessian(self._inside(primal)))

    def check(self, primal: jax.Array) -> None:
        """Refuse points that are not strictly between the bounds, and shapes that do not fit."""
        if self.low.ndim:
            check_size(primal, self.low.size, "the box")
        low, high = self._bounds(primal.dtype)
        is_inside = lambda array: (array > low) & (array < high)
        check_entries("position", primal, is_inside, f"inside of the box from {low} to {high}")

    def _bounds(self, dtype: Any) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(self.low, dtype), jnp.asarray(self.high, dtype)

    def _gaps(self, primal: jax.Array) -> tuple[jax.Array, jax.Array]:
        low, high = self._bounds(primal.dtype)
        return primal - low, high - primal

    def _hessian(self, primal: jax.Array) -> jax.Array:
        below, above = self._gaps(primal)
        return 1 / below + 1 / above

    def _inside(self, primal: jax.Array) -> jax.Array:
        """Move a point on the boundary to the nearest number inside."""
        low, high = self._bounds(primal.dtype)
        return jnp.clip(primal, _next_above(low), -_next_above(-high))


class Simplex(MirrorMap):
    """Probability vectors θ ∈ R^m, θ > 0, Σ θ = 1, with ψ = Σ_{a<=m} θ_a log θ_a.

    Primal points are full vectors of m numbers, so that no 1 - Σ θ is ever taken. Dual points have
    the m - 1 numbers η_a = log θ_a - log θ_m, derivatives of ψ in the first m - 1 coordinates. The
    densities are those with respect to these coordinates: the usual ones.
    """

    def to_dual(self, primal: jax.Array) -> jax.Array:
        """Return log θ_a - log θ_m."""
        logs = jnp.log(above_zero(primal))
        return logs[..., :-1] - logs[..., -1:]

    def to_primal(self, dual: jax.Array) -> jax.Array:
        """Return the softmax of (η, 0)."""
        return above_zero(jax.nn.softmax(_with_zero(dual), -1))

    def dual_size(self, primal_size: int) -> int:
        """Return m - 1."""
        return primal_size - 1

    def along(self, covector: jax.Array) -> jax.Array:
        """Return g_a - g_m."""
        return covector[..., :-1] - covector[..., -1:]

    def hessian_product(self, primal: jax.Array, vector: jax.Array) -> jax.Array:
        """Return v_a / θ_a + Σ v / θ_m."""
        inverse = 1 / above_zero(primal)
        total = jnp.sum(vector, -1, keepdims=True)
        return vector * inverse[..., :-1] + total * inverse[..., -1:]

    def inverse_hessian_product(self, primal: jax.Array, covector: jax.Array) -> jax.Array:
        """Return the first m - 1 coordinates of θ (g - θ·g)."""
        mean = jnp.sum(primal * covector, -1, keepdims=True)
        return (primal * (covector - mean))[..., :-1]

    def log_det_dual_hessian(self, dual: jax.Array) -> jax.Array:
        """Return Σ_{a<=m} log θ_a."""
        return jnp.sum(jax.nn.log_softmax(_with_zero(dual), -1), -1)

    def divergence(self, primal: jax.Array) -> jax.Array:
        """Return 1 - m θ, the first m - 1 coordinates."""
        return 1 - primal.shape[-1] * primal[..., :-1]

    def hessian_noise(self, key: jax.Array, primal: jax.Array) -> jax.Array:
        """Draw ξ_a / √θ_a - ξ_m / √θ_m, whose covariance is diag(1/θ) + 1/θ_m."""
        white = jax.random.normal(key, primal.shape, primal.dtype)
        scaled = white * jax.lax.rsqrt(above_zero(primal))
        return scaled[..., :-1] - scaled[..., -1:]

    def check(self, primal: jax.Array) -> None:
        """Refuse vectors that are not positive or do not sum to one (to 1e-3)."""
        if primal.shape[-1] < 2:
            raise ValueError(f"position must hold at least 2 probabilities, got {primal.shape}")
        check_entries("position", primal, lambda array: array > 0, "positive (in the simplex)")
        is_one = lambda total: abs(total - 1) < 1e-3
        check_entries("the sum of position", jnp.sum(primal, -1), is_one, "1 (in the simplex)")


def euclidean() -> Euclidean:
    """Return the map of all of R^d onto itself.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.sampling.core import mirror
    >>> mirror.euclidean().to_dual(jnp.array([1.0, -2.0])).tolist()
    [1.0, -2.0]
    """
    return Euclidean()


def orthant(low: Any = 0.0) -> Orthant:
    """Return the entropic map of an orthant: η = log (θ - low).

    Parameters
    ----------
    low
        Finite bounds, a scalar or ``(d,)``.

    Raises
    ------
    TypeError, ValueError
        If ``low`` is not real and finite or has axes beyond one.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.sampling.core import mirror
    >>> mirror.orthant().to_primal(jnp.zeros(2)).tolist()
    [1.0, 1.0]
    """
    bound = jnp.asarray(real_parameter("low", low), jnp.result_type(float))
    if bound.ndim > 1 or not bound.size:
        raise ValueError(f"low must be a scalar or (d,), got shape {bound.shape}")
    return Orthant(bound)


def box(low: Any, high: Any) -> Box:
    """Return the entropic map of a box: η = log (θ - low) / (high - θ).

    Parameters
    ----------
    low, high
        Finite bounds, ``low < high``, each a scalar or ``(d,)``.

    Raises
    ------
    TypeError, ValueError
        If a bound is not real and finite, has axes beyond one, or ``low`` is not below ``high``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.sampling.core import mirror
    >>> mirror.box(-1.0, jnp.array([1.0, 3.0])).to_primal(jnp.zeros(2)).tolist()
    [0.0, 1.0]
    """
    dtype = jnp.result_type(float)
    bounds = [
        jnp.asarray(real_parameter(name, value), dtype)
        for name, value in (("low", low), ("high", high))
    ]
    if bounds[0].ndim > 1 or bounds[1].ndim > 1:
        raise ValueError(
            f"low and high must be scalars or (d,), got shapes {[b.shape for b in bounds]}"
        )
    try:
        lower, upper = jnp.broadcast_arrays(*bounds)
    except ValueError:
        shapes = [b.shape for b in bounds]
        raise ValueError(f"low and high must have one shape, got {shapes}") from None
    check_entries("low", lower, lambda array: array < upper, f"below high = {high}")
    return Box(lower, upper)


def simplex() -> Simplex:
    """Return the entropic map of the probability simplex: η_a = log θ_a / θ_m.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.sampling.core import mirror
    >>> mirror.simplex().to_primal(jnp.zeros(3)).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    return Simplex()


def _with_zero(dual: jax.Array) -> jax.Array:
    return jnp.concatenate([dual, jnp.zeros_like(dual[..., :1])], -1)


def _next_above(bound: jax.Array) -> jax.Array:
    """Return the next larger number; denormal ones are flushed to zero on most devices."""
    above = jnp.nextafter(bound, jnp.full_like(bound, jnp.inf))
    return jnp.where(bound == 0, jnp.finfo(bound.dtype).tiny, above)
