"""Inference after model selection: the randomised LASSO and the law of its own estimates.

Which variables a LASSO picks depends on the data, and so classical intervals for the picked ones
are too narrow. With a known noise ω ~ N(0, s² I_p) in the selection, the solution of

    min_β  |y - X β|²/2 + λ |β|_1 - ωᵀβ + (ε/2) |β|²

tells which event of selection took place: active set E, signs z, and subgradient u outside of E.
Given that event and the data, the magnitudes o = |β_E| have the density

    p(o) ∝ exp(-|B o + r|² / (2 s²)) = const exp(-|L o + r₀|² / (2 s²)),    o > 0,
    B = [XᵀX_E + ε I on the rows of E] diag(z),    r = (λz on E, u elsewhere) - Xᵀy,    LᵀL = BᵀB,

on the positive orthant, and draws of it give intervals for the coefficients of X_E that cover as
often as they say, for what was selected: pivots of the least-squares estimate, by importance
weights from the draws.

References: Tian and Taylor, "Selective inference with a randomized response", Annals of Statistics
46 (2018); Tian Harris, Panigrahi, Markovic, Bi and Taylor, "Selective sampling after solving a
convex problem", arXiv 1609.05609; Shi, Liu and Mackey, "Sampling with mirrored Stein operators",
ICLR 2022, section 5.2 and appendix, whose settings are the defaults here.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import check_entries, check_finite, real_array, real_parameter
from shoal.sampling.core.random import check_key

__all__ = ["Selection", "confidence_intervals", "randomized_lasso"]

_SWEEPS = 500
_NOISE_DRAWS = 1000
_BISECTIONS = 50
# Ends of an interval are sought within so many standard deviations of the estimate.
_REACH = 10.0


class Selection(NamedTuple):
    """What a randomised LASSO selected, k of p variables, and the law of the magnitudes.

    A pytree of arrays: selections of one k may be stacked and mapped over.

    Attributes
    ----------
    active
        Indices of the selected variables, ``(k,)``.
    magnitude
        o = |β_E| as it was, ``(k,)``: where to start.
    factor, shift
        L, ``(k, k)``, and r₀, ``(k,)``.
    scale
        s.
    estimate
        Least squares on the selected variables, ``(k,)``.
    covariance
        Of the estimate, ``(k, k)``.
    slope
        How L o + r₀ moves with each estimate, rows ``(k, k)``.
    """

    active: jax.Array
    magnitude: jax.Array
    factor: jax.Array
    shift: jax.Array
    scale: jax.Array
    estimate: jax.Array
    covariance: jax.Array
    slope: jax.Array

    def log_density(self, magnitude: jax.Array) -> jax.Array:
        """Return the log density of o > 0, ``(k,)``, up to a constant."""
        return -0.5 * jnp.sum(((self.factor @ magnitude + self.shift) / self.scale) ** 2)


def randomized_lasso(
    key: jax.Array, X: Any, y: Any, *, penalty: float = 0.7, noise: float = 0.25
) -> Selection:
    """Select variables by a randomised LASSO.

    Parameters
    ----------
    key
        Typed key of the noise ω and of the penalty's scale.
    X
        Predictors, ``(n, p)`` with n > p, float32 or float64; columns of about unit norm.
    y
        Response, ``(n,)``.
    penalty
        λ in units of E|Xᵀe|_∞ for standard normal e.
    noise
        s in units of sd(y) times the root mean square norm of the columns.

    Returns
    -------
    Selection
        In the dtype of ``X``. Its size k depends on the data: not for use under ``jit``.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible, or no variable was selected.

    Examples
    --------
    >>> import jax
    >>> X = jax.random.normal(jax.random.key(0), (100, 10)) / 10
    >>> y = 30 * X[:, 3] + jax.random.normal(jax.random.key(1), (100,))
    >>> selection = randomized_lasso(jax.random.key(2), X, y, penalty=2.0)
    >>> selection.active.tolist(), bool((selection.magnitude > 0).all())
    ([3], True)
    """
    check_key(key)
    X = real_array("X", X, ("n", "p"))
    y = real_array("y", y, (X.shape[0],))
    check_finite("X", X)
    check_finite("y", y)
    if X.shape[0] <= X.shape[1]:
        raise ValueError(f"X must have more rows than columns, got shape {X.shape}")
    penalty = real_parameter("penalty", penalty, 0.0, scalar=True)
    noise = real_parameter("noise", noise, 0.0, scalar=True)
    check_entries("the spread of y", jnp.std(y), lambda sd: sd > 0, "positive")
    problem = _solve(key, X, y, penalty, noise)
    active = np.flatnonzero(np.asarray(problem.solution))
    if not active.size:
        raise ValueError(f"no variable was selected with penalty={penalty}: take a smaller one")
    return _condition(problem, X, y, jnp.asarray(active))


class _Problem(NamedTuple):
    """A randomised LASSO and its solution β."""

    penalty: jax.Array
    ridge: jax.Array
    scale: jax.Array
    noise: jax.Array
    solution: jax.Array


@jax.jit
def _solve(key: jax.Array, X: jax.Array, y: jax.Array, penalty: Any, noise: Any) -> _Problem:
    key_penalty, key_noise = jax.random.split(key)
    n, p = X.shape
    draws = jax.random.normal(key_penalty, (_NOISE_DRAWS, n), X.dtype) @ X
    lam = penalty * jnp.mean(jnp.max(jnp.abs(draws), axis=1))
    spread = jnp.std(y, ddof=1)
    size = jnp.sqrt(jnp.mean(jnp.sum(X**2, axis=0)))
    ridge = size * spread / jnp.sqrt(n)
    scale = noise * spread * size
    omega = scale * jax.random.normal(key_noise, (p,), X.dtype)
    gram, linear = X.T @ X, X.T @ y + omega

    def coordinate(j: jax.Array, beta: jax.Array) -> jax.Array:
        rest = linear[j] - gram[j] @ beta + gram[j, j] * beta[j]
        shrunk = jnp.sign(rest) * jnp.maximum(jnp.abs(rest) - lam, 0)
        return beta.at[j].set(shrunk / (gram[j, j] + ridge))

    def sweep(carry: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        beta, _, count = carry
        new = jax.lax.fori_loop(0, p, coordinate, beta)
        return new, jnp.max(jnp.abs(new - beta)), count + 1

    tolerance = 10 * jnp.finfo(X.dtype).eps
    moves = lambda c: (c[1] > tolerance * (1 + jnp.max(jnp.abs(c[0])))) & (c[2] < _SWEEPS)
    start = (jnp.zeros(p, X.dtype), jnp.asarray(jnp.inf, X.dtype), jnp.zeros((), jnp.int32))
    beta = jax.lax.while_loop(moves, sweep, start)[0]
    return _Problem(lam, ridge, scale, omega, beta)


@jax.jit
def _condition(problem: _Problem, X: jax.Array, y: jax.Array, active: jax.Array) -> Selection:
    """Return the law of the magnitudes given active set, signs and subgradient."""
    beta = problem.solution
    signs = jnp.sign(beta[active])
    selected = X[:, active]
    cross = X.T @ selected
    B = cross.at[active, jnp.arange(active.size)].add(problem.ridge) * signs
    subgradient = X.T @ (y - X @ beta) + problem.noise
    subgradient = subgradient.at[active].set(problem.penalty * signs)
    factor = jnp.linalg.cholesky(B.T @ B, upper=True)
    lift = lambda v: jax.scipy.linalg.solve_triangular(factor, B.T @ v, trans=1)
    estimate, *_ = jnp.linalg.lstsq(selected, y)
    fitted, *_ = jnp.linalg.lstsq(X, y)
    variance = jnp.sum((y - X @ fitted) ** 2) / (X.shape[0] - X.shape[1])
    covariance = variance * jnp.linalg.inv(selected.T @ selected)
    # Xᵀy depends on the estimate through its covariance with it, which is Xᵀ X_E cov.
    slope = lift(-cross @ covariance / jnp.diag(covariance)).T
    return Selection(
        active, jnp.abs(beta[active]), factor, lift(subgradient - X.T @ y), problem.scale,
        estimate, covariance, slope,
    )  # fmt: skip


def confidence_intervals(
    key: jax.Array, selection: Selection, draws: jax.Array, levels: Any
) -> jax.Array:
    """Return intervals for the coefficients of the selected variables that know of the selection.

    Each end c solves pivot(c) = (1 ± level)/2, with weights of the draws o_t and of as many draws
    T_t ~ N(0, covariance) of the estimate's error:

        pivot_i(c) = Σ_t w_t 1{T_ti + c <= estimate_i} / Σ_t w_t,
        log w_t = (|L o_t + r₀|² - |L o_t + r₀ + (T_ti + c - estimate_i) slope_i|²) / (2 s²).

    Parameters
    ----------
    key
        Typed key of the T_t.
    selection
        From `randomized_lasso`.
    draws
        Draws of the magnitudes given the selection, ``(T, k)``, by any sampler.
    levels
        Nominal coverages in (0, 1), ``(l,)``.

    Returns
    -------
    jax.Array
        Lower and upper ends, ``(l, k, 2)``, within ten standard deviations of the estimate. May be
        jitted and mapped.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible.

    Examples
    --------
    With a strong effect the selection was never in doubt, and intervals are the classical ones:

    >>> import jax, jax.numpy as jnp
    >>> X = jax.random.normal(jax.random.key(0), (100, 10)) / 10
    >>> y = 30 * X[:, 3] + jax.random.normal(jax.random.key(1), (100,))
    >>> selection = randomized_lasso(jax.random.key(2), X, y, penalty=2.0)
    >>> noise = selection.scale * jax.random.normal(jax.random.key(3), (4000, 1))
    >>> draws = (noise - selection.shift) / selection.factor[0]
    >>> ends = confidence_intervals(jax.random.key(4), selection, draws, [0.9])[0, 0]
    >>> half = 1.645 * jnp.sqrt(selection.covariance[0, 0])
    >>> bool(jnp.allclose((ends - selection.estimate) / half, jnp.array([-1, 1]), atol=0.1))
    True
    """
    check_key(key)
    k = selection.magnitude.shape[-1]
    draws = real_array("draws", draws, ("T", k))
    check_finite("draws", draws)
    levels = real_parameter("levels", levels, 0.0, 1.0)
    errors = jax.random.multivariate_normal(
        key, jnp.zeros(k, draws.dtype), selection.covariance, (len(draws),)
    )
    residual = (draws @ selection.factor.T + selection.shift) / selection.scale

    def pivot(end: jax.Array, i: jax.Array) -> jax.Array:
        # Coordinates of T that the slope of i does not see are integrated out by the draws.
        moved = errors[:, i] + end - selection.estimate[i]
        slope = selection.slope[i] / selection.scale
        log_weight = -moved * (residual @ slope) - 0.5 * moved**2 * jnp.sum(slope**2)
        weight = jax.nn.softmax(log_weight)
        return jnp.sum(jnp.where(moved <= 0, weight, 0))

    def solve(wanted: jax.Array, i: jax.Array) -> jax.Array:
        reach = _REACH * jnp.sqrt(selection.covariance[i, i])
        bounds = selection.estimate[i] - reach, selection.estimate[i] + reach

        def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low, high = bounds
            middle = (low + high) / 2
            is_low = pivot(middle, i) > wanted
            return jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)

        low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, bounds)
        return (low + high) / 2

    levels = jnp.atleast_1d(jnp.asarray(levels, draws.dtype))
    wanted = jnp.stack([(1 + levels) / 2, (1 - levels) / 2], axis=-1)
    over_ends = jax.vmap(solve, (0, None))
    over_levels = jax.vmap(over_ends, (0, None))
    return jax.vmap(over_levels, (None, 0), 1)(wanted, jnp.arange(k))
