"""The bounded polytope with its log barrier, whose dual map is a convex problem of its own.

With slacks s = c - Aθ and B = diag(1/s) A, the barrier ψ = -Σ log s has

    η = Aᵀ(1/s),    H = BᵀB,    D = -2 H⁻¹ Bᵀℓ,    ℓ_k = b_kᵀ H⁻¹ b_k,

where b_k are the rows of B. θ(η) minimises ψ(θ) - η·θ. That function is self-concordant: damped
Newton steps, shortened by 1/(1 + λ) with λ the length of the step in the metric H, find the minimum
from everywhere, quadratically once λ < 1/4 (Nesterov, "Lectures on Convex Optimization", 2018,
section 5.2). All start from θ_c, the centre of the largest ball in the set.

H is never formed: B = QR by Householder reflections, H⁻¹ = R⁻¹R⁻ᵀ and ℓ_k = |Q_k|², so that what is
lost to rounding grows like the ratio of the slacks and not like its square. The slacks are carried
along, s ← s ∘ (1 - t Bδ), and keep more digits near the boundary than c - Aθ has.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from scipy.optimize import linprog

from shoal.sampling.core._checks import check_entries, real_parameter
from shoal.sampling.core._mirror_map import MirrorMap, above_zero, check_size, rounding

_MAX_STEPS = 100


class Polytope(MirrorMap):
    """A θ < c, bounded, ψ = -Σ log(c - Aθ).

    Attributes
    ----------
    normals
        A, ``(p, d)``.
    bounds
        c, ``(p,)``.
    centre
        θ_c, ``(d,)``, well inside.
    """

    normals: jax.Array
    bounds: jax.Array
    centre: jax.Array

    def to_dual(self, primal: jax.Array) -> jax.Array:
        """Return Aᵀ(1/s)."""
        return (1 / self._slacks(primal)) @ self._set(primal.dtype).normals

    def to_primal(self, dual: jax.Array) -> jax.Array:
        """Return the minimum of ψ(θ) - η·θ, by Newton's method."""
        polytope = self._set(dual.dtype)
        return self._centre(dual.dtype) + self._inside(_solve_each(polytope, dual).shift)

    def hessian_product(self, primal: jax.Array, vector: jax.Array) -> jax.Array:
        """Return Bᵀ(B v)."""
        rows = self._rows(primal)
        return _sum_rows(rows, jnp.einsum("...pd,...d->...p", rows, vector))

    def inverse_hessian_product(self, primal: jax.Array, covector: jax.Array) -> jax.Array:
        """Return R⁻¹ R⁻ᵀ g."""
        factor = jnp.linalg.qr(self._rows(primal), mode="r")
        return _solve(factor, _solve(factor, covector, "T"))

    def log_det_dual_hessian(self, dual: jax.Array) -> jax.Array:
        """Return -2 Σ log |R_aa|."""
        polytope = self._set(dual.dtype)
        slacks = _solve_each(polytope, dual).slacks
        factor = jnp.linalg.qr(polytope.normals / slacks[..., None], mode="r")
        return -2 * jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factor, axis1=-2, axis2=-1))), -1)

    def divergence(self, primal: jax.Array) -> jax.Array:
        """Return -2 R⁻¹ Qᵀ ℓ."""
        basis, factor = jnp.linalg.qr(self._rows(primal))
        leverages = jnp.sum(basis**2, -1)
        return -2 * _solve(factor, _sum_rows(basis, leverages))

    def hessian_noise(self, key: jax.Array, primal: jax.Array) -> jax.Array:
        """Draw Bᵀξ."""
        rows = self._rows(primal)
        return _sum_rows(rows, jax.random.normal(key, rows.shape[:-1], rows.dtype))

    def check(self, primal: jax.Array) -> None:
        """Refuse points that violate an inequality, and shapes that do not fit."""
        check_size(primal, self.centre.size, "the polytope")
        polytope = self._set(primal.dtype)
        slacks = polytope.slacks - (primal - self._centre(primal.dtype)) @ polytope.normals.T
        name = "the slack c - Aθ at position"
        check_entries(name, slacks, lambda array: array > 0, "positive (inside of the polytope)")

    def _set(self, dtype: Any) -> "_Set":
        normals = jnp.asarray(self.normals, dtype)
        return _Set(normals, jnp.asarray(self.bounds, dtype) - normals @ self._centre(dtype))

    def _centre(self, dtype: Any) -> jax.Array:
        return jnp.asarray(self.centre, dtype)

    def _rows(self, primal: jax.Array) -> jax.Array:
        """Return B, ``(..., p, d)``."""
        return self._set(primal.dtype).normals / self._slacks(primal)[..., None]

    def _slacks(self, primal: jax.Array) -> jax.Array:
        shift = primal - self._centre(primal.dtype)
        normals, slacks = self._set(primal.dtype)
        return jnp.maximum(slacks - shift @ normals.T, self._smallest(shift))

    def _smallest(self, shift: jax.Array) -> jax.Array:
        """Return the slacks that rounding leaves in doubt."""
        normals, slacks = self._set(shift.dtype)
        sizes = jnp.abs(normals)
        scale = slacks + (jnp.abs(shift) + jnp.abs(self._centre(shift.dtype))) @ sizes.T
        doubt = rounding(shift.dtype, self.centre.size) * scale
        return jax.lax.stop_gradient(above_zero(jnp.minimum(doubt, 0.25 * slacks)))

    def _inside(self, shift: jax.Array) -> jax.Array:
        """Pull towards the centre what rounding would put on the boundary."""
        normals, slacks = self._set(shift.dtype)
        used = shift @ normals.T
        missing = 2 * self._smallest(shift) - (slacks - used)
        is_missing = missing > 0
        pull = jnp.where(is_missing, missing / jnp.where(is_missing, used, 1), 0)
        return shift * (1 - jax.lax.stop_gradient(jnp.max(pull, -1, keepdims=True)))


class _Set(NamedTuple):
    """The polytope seen from its centre: ``normals @ shift < slacks``."""

    normals: jax.Array
    slacks: jax.Array


class _Point(NamedTuple):
    """θ - θ_c and the slacks there."""

    shift: jax.Array
    slacks: jax.Array


class _Search(NamedTuple):
    point: _Point
    size: jax.Array  # λ of the last step
    is_done: jax.Array
    num_steps: jax.Array


def _solve_each(polytope: _Set, dual: jax.Array) -> _Point:
    """Solve for each η of a batch ``(..., d)``."""
    flat = dual.reshape(-1, dual.shape[-1])
    points = jax.vmap(_minimise, (None, 0))(polytope, flat)
    return jax.tree.map(lambda leaf: leaf.reshape(*dual.shape[:-1], leaf.shape[-1]), points)


@jax.custom_jvp
def _minimise(polytope: _Set, dual: jax.Array) -> _Point:
    """Return where Aᵀ(1/s) = η, by damped Newton steps from the centre.

    In the quadratic phase exact steps shrink by more than a half; one that does not is rounding.
    """

    def step(search: _Search) -> _Search:
        shift, slacks = search.point
        rows = polytope.normals / slacks[:, None]
        factor = jnp.linalg.qr(rows, mode="r")
        whitened = _solve(factor, dual - jnp.sum(rows, 0), "T")
        size = jnp.linalg.norm(whitened)
        is_near = size < 0.25
        length = jnp.where(is_near, 1, 1 / (1 + size))
        move = length * _solve(factor, whitened)
        # What is left of each slack is at least 1 - λ/(1 + λ), up to rounding.
        left = jnp.maximum(1 - rows @ move, 0.5 / (1 + size))
        is_done = is_near & (size >= 0.5 * search.size)
        point = _Point(shift + move, slacks * left)
        return _Search(point, size, is_done, search.num_steps + 1)

    start = _Point(jnp.zeros_like(dual), polytope.slacks)
    search = _Search(start, jnp.asarray(jnp.inf, dual.dtype), jnp.asarray(False), jnp.asarray(0))
    going_on = lambda search: ~search.is_done & (search.num_steps < _MAX_STEPS)
    return jax.lax.while_loop(going_on, step, search).point


@_minimise.defjvp
def _minimise_jvp(primals: Any, tangents: Any) -> tuple[_Point, _Point]:
    """Differentiate Aᵀ(1/s) = η, s = s_c - A (θ - θ_c)."""
    (polytope, dual), ((normals_dot, slacks_dot), dual_dot) = primals, tangents
    point = _minimise(polytope, dual)
    rows = polytope.normals / point.slacks[:, None]
    factor = jnp.linalg.qr(rows, mode="r")
    pushed = slacks_dot - normals_dot @ point.shift
    force = dual_dot - (1 / point.slacks) @ normals_dot + (pushed / point.slacks) @ rows
    shift_dot = _solve(factor, _solve(factor, force, "T"))
    return point, _Point(shift_dot, pushed - polytope.normals @ shift_dot)


def _solve(factor: jax.Array, vector: jax.Array, transpose: str = "N") -> jax.Array:
    return solve_triangular(factor, vector[..., None], trans=transpose)[..., 0]


def _sum_rows(rows: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.einsum("...pd,...p->...d", rows, weights)


def polytope(A: Any, c: Any) -> Polytope:
    """Return the log-barrier map of a bounded polytope: η = Aᵀ(1/s), s = c - Aθ.

    θ(η) has no closed form: `to_primal` runs Newton's method, each step of which factorises a
    ``(p, d)`` matrix for every point. For a box or a simplex the other maps are much cheaper.

    Parameters
    ----------
    A
        Normals of the p > d faces, ``(p, d)``, of any length but zero.
    c
        Bounds, ``(p,)``: the set is Aθ < c.

    Raises
    ------
    TypeError, ValueError
        If an argument is not real and finite or has the wrong shape, is traced, or the set is empty
        or has no interior beyond rounding, or is unbounded: then the gradient of the barrier does
        not reach all of R^d.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.sampling.core import mirror
    >>> normals = jnp.array([[-1.0, 0.0], [0.0, -1.0], [1.0, 1.0]])
    >>> triangle = mirror.polytope(normals, jnp.array([0.0, 0.0, 3.0]))
    >>> triangle.to_primal(jnp.zeros(2)).round(3).tolist()
    [1.0, 1.0]
    """
    normals, bounds = _as_inequalities(A, c)
    _check_bounded(normals)
    centre = _chebyshev_centre(normals, bounds)
    dtype = jnp.result_type(float)
    return Polytope(*(jnp.asarray(array, dtype) for array in (normals, bounds, centre)))


def _as_inequalities(A: Any, c: Any) -> tuple[np.ndarray, np.ndarray]:
    for name, value in (("A", A), ("c", c)):
        if isinstance(value, jax.core.Tracer):
            raise TypeError(f"{name} must not be traced: the polytope is looked at, got {value}")
    normals = np.asarray(real_parameter("A", A), np.float64)
    bounds = np.asarray(real_parameter("c", c), np.float64)
    if normals.ndim != 2 or not normals.size:
        raise ValueError(f"A must have shape (p, d), got {normals.shape}")
    if bounds.shape != normals.shape[:1]:
        raise ValueError(f"c must have shape {normals.shape[:1]} as A has rows, got {bounds.shape}")
    lengths = np.linalg.norm(normals, axis=1)
    check_entries("the length of the rows of A", lengths, lambda array: array > 0, "positive")
    return normals, bounds


def _check_bounded(normals: np.ndarray) -> None:
    """Raise unless Ad <= 0 for d = 0 alone: rank d, and Aᵀy = 0 for some y > 0 (Stiemke)."""
    num_rows, num_dims = normals.shape
    units = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    is_bounded = (
        np.linalg.matrix_rank(units) == num_dims
        and linprog(
            np.zeros(num_rows), A_eq=units.T, b_eq=np.zeros(num_dims), bounds=(1, None)
        ).success
    )
    if not is_bounded:
        raise ValueError(
            f"A must bound the set on all sides, but Ad <= 0 in some direction d; got A = {normals}"
        )


def _chebyshev_centre(normals: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return the centre of the largest ball inside; raise if there is none."""
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    found = linprog(
        np.append(np.zeros(normals.shape[1]), -1.0),
        A_ub=np.hstack([normals, lengths]),
        b_ub=bounds,
        bounds=(None, None),
    )
    centre, radius = found.x[:-1], found.x[-1]
    smallest = 100 * np.finfo(jnp.result_type(float)).eps * np.max(np.abs(centre))
    if not radius > smallest:
        raise ValueError(
            f"c leaves no room inside of Aθ < c: the largest ball has radius {radius:g}, not above "
            f"{smallest:g}; got c = {bounds}"
        )
    return centre
