"""Overdamped Langevin dynamics in a metric that depends on the position.

With M(x) = L(x) L(x)ᵀ, an inverse metric tensor such as the inverse of the Fisher information, and
a standard normal vector ξ, one step of size h proposes

    y = x + h b(x) + √(2h) L(x) ξ,    b = M ∇log π + Γ,    Γ_i = Σ_j ∂M_ij/∂x_j.

The divergence Γ is what makes π the stationary law of the diffusion: without it the bias of `ula`
would not vanish as h does. `mala` accepts with the ratio of the two Gaussian proposal densities,
their determinants included, and leaves π exactly invariant.

One step costs one value and gradient of log π, one M and its derivative along each of the d
coordinates (forward mode), and where M is ``(d, d)`` a Cholesky factor and a triangular solve.
Factor and drift of the current point are kept in the state.

References: Roberts and Stramer, "Langevin diffusions and Metropolis-Hastings algorithms",
Methodology and Computing in Applied Probability 4 (2002); Xifara, Sherlock, Livingstone, Byrne and
Girolami, "Langevin diffusions and the Metropolis-adjusted Langevin algorithm", Statistics and
Probability Letters 91 (2014), for Γ; Girolami and Calderhead, "Riemann manifold Langevin and
Hamiltonian Monte Carlo methods", JRSS B 73 (2011), section 5.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular

from shoal.sampling.core._checks import check_finite
from shoal.sampling.core.algorithm import LogDensity, Position, Status, proposal_status
from shoal.sampling.langevin.metric import as_metric
from shoal.sampling.langevin.options import evaluate_start


class PositionMetricState(NamedTuple):
    """Where a chain is, and the Gaussian from which it goes on.

    Attributes
    ----------
    position
        The point, a pytree of floating arrays.
    log_density
        Its log density, a scalar.
    score
        The gradient of the log density there, as a flat vector ``(d,)``.
    drift
        b = M ∇log π + Γ there, ``(d,)``.
    factor
        L there: ``(d,)``, the root of a diagonal, or ``(d, d)``, lower Cholesky.
    """

    position: Position
    log_density: jax.Array
    score: jax.Array
    drift: jax.Array
    factor: jax.Array


def scheme(
    log_density: LogDensity, step_size: Any, metric: Callable[[Position], jax.Array]
) -> tuple[Callable[..., PositionMetricState], Callable[..., Any]]:
    """Return ``init(position)`` and ``propose(key, state)`` for `ula` and `mala`.

    Parameters
    ----------
    log_density
        log π.
    step_size
        h.
    metric
        M, a function of the position that returns ``(d,)``, a positive diagonal, or a symmetric
        positive definite ``(d, d)``. Must be differentiable.

    Returns
    -------
    tuple
        ``init`` raises as `evaluate_start` does, and ``TypeError`` or ``ValueError`` if ``metric``
        returns something else at the start. ``propose`` returns the proposed state, the log
        acceptance ratio and the status; where M is not positive definite the status is
        ``NONFINITE_GRADIENT``.
    """

    def init(position: Position, key: jax.Array | None = None) -> PositionMetricState:
        value, score = evaluate_start(log_density, position, as_metric(None))
        x, unravel = ravel_pytree(position)
        _check_metric(metric(position), x)
        drift, factor = _local(lambda flat: metric(unravel(flat)), x, score)
        check_finite("the divergence of metric at the start", drift)
        return PositionMetricState(position, value, score, drift, factor)

    def propose(
        key: jax.Array, state: PositionMetricState
    ) -> tuple[PositionMetricState, jax.Array, jax.Array]:
        x, unravel = ravel_pytree(state.position)
        h = jnp.asarray(step_size, x.dtype)
        noise = jax.random.normal(key, x.shape, x.dtype)
        y = x + h * state.drift + jnp.sqrt(2 * h) * _apply(state.factor, noise)
        value, score = jax.value_and_grad(lambda flat: log_density(unravel(flat)))(y)
        drift, factor = _local(lambda flat: metric(unravel(flat)), y, score)
        back = _solve(factor, x - y - h * drift) / jnp.sqrt(2 * h)
        log_forward = -0.5 * jnp.sum(noise**2) - _log_det(state.factor)
        log_reverse = -0.5 * jnp.sum(back**2) - _log_det(factor)
        status = proposal_status(value, jnp.isfinite(log_reverse) & jnp.isfinite(score).all())
        ratio = value - state.log_density + log_reverse - log_forward
        ratio = jnp.where(status == Status.OK, ratio, -jnp.inf)
        return PositionMetricState(unravel(y), value, score, drift, factor), ratio, status

    return init, propose


def _local(
    metric: Callable[[jax.Array], jax.Array], x: jax.Array, score: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return drift and factor at a flat point."""
    inverse = metric(x)

    def column_derivative(direction: jax.Array) -> jax.Array:
        """∂_j of the j-th column of M, for the j-th unit vector."""
        column = lambda z: _apply(metric(z), direction)
        return jax.jvp(column, (x,), (direction,))[1]

    divergence = jnp.sum(jax.vmap(column_derivative)(jnp.eye(x.size, dtype=x.dtype)), 0)
    factor = jnp.linalg.cholesky(inverse) if inverse.ndim == 2 else jnp.sqrt(inverse)
    return _apply(inverse, score) + divergence, factor


def _apply(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """Multiply by a matrix, or by a diagonal one held as a vector."""
    return matrix @ vector if matrix.ndim == 2 else matrix * vector


def _solve(factor: jax.Array, vector: jax.Array) -> jax.Array:
    if factor.ndim == 2:
        return solve_triangular(factor, vector, lower=True)
    return vector / factor


def _log_det(factor: jax.Array) -> jax.Array:
    return jnp.sum(jnp.log(jnp.diagonal(factor) if factor.ndim == 2 else factor))


def _check_metric(value: Any, x: jax.Array) -> None:
    if jnp.shape(value) not in ((x.size,), (x.size, x.size)):
        raise ValueError(
            f"metric must return shape ({x.size},) or ({x.size}, {x.size}) for a position of "
            f"{x.size} coordinates, got {jnp.shape(value)}"
        )
    if jnp.result_type(value) != x.dtype:
        raise TypeError(f"metric must return {x.dtype}, got {jnp.result_type(value)}")
    as_metric(value)
