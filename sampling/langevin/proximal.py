"""Langevin dynamics for densities with a part that has no gradient: exp(-f(x) - ψ(x)).

f is smooth and given by its log density -f; ψ is convex (a sparsity penalty, the indicator of a
convex set) and given by its proximal map

    prox(x, λ) = argmin_u ψ(u) + |u - x|² / (2 λ).

Its Moreau envelope ψ_λ(x) = ψ(p) + |x - p|² / (2 λ), p = prox(x, λ), lies below ψ, tends to it as
λ → 0 and has the gradient (x - p) / λ, 1/λ-Lipschitz. With s = -∇f - ∇ψ_λ both samplers propose

    y = x + h M s(x) + √(2h) L ξ.

`myula` always moves there. It is biased twice: by h, as `ula` is, and by λ: as h → 0 its law is
exp(-f - ψ_λ). It is stable for h < 2 / (L_f + 1/λ) where ∇f is L_f-Lipschitz and M = 1; half of
that is the usual choice. `prox_mala` accepts with the ratio of exp(-f - ψ), the true density: no
bias from either.

References: Durmus, Moulines and Pereyra, "Efficient Bayesian computation by proximal Markov chain
Monte Carlo: when Langevin meets Moreau", SIAM J. Imaging Sciences 11 (2018), section 3; Pereyra,
"Proximal Markov chain Monte Carlo algorithms", Statistics and Computing 26 (2016), section 3.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core._checks import check_callable, check_finite, real_scalar
from shoal.sampling.core.algorithm import Algorithm, LogDensity, Position, Sampler
from shoal.sampling.langevin.metric import Metric, as_metric
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler
from shoal.sampling.langevin.overdamped import (
    OverdampedState,
    Scheme,
    adjusted,
    propose_along,
    unadjusted,
)

Prox: TypeAlias = Callable[[Position, jax.Array], Position]
Penalty: TypeAlias = Callable[[Position], jax.Array]


def myula(
    prox: Prox | None = None,
    penalty: Penalty | None = None,
    step_size: Any = 0.05,
    smoothing: Any = 0.1,
    metric: Any = None,
) -> Sampler:
    """Moreau-Yosida unadjusted Langevin algorithm: biased by step size and smoothing.

    Parameters
    ----------
    prox
        ``prox(position, smoothing) -> position``, the proximal map of ψ. For the indicator of a set
        that is the projection onto it, as in ``optax.projections``. None: there is no ψ.
    penalty
        ``penalty(position) -> scalar``, ψ, evaluated only where ``prox`` leads. Only the log
        density and the acceptance rate that are reported (and tuned for) depend on it. None: zero
        there, as for an indicator.
    step_size
        h > 0, a float or scalar array. The initial value where warm-up tunes it, to an acceptance
        rate of 0.98 that is not enforced.
    smoothing
        λ > 0. Warm-up leaves it alone. The step size cannot be much larger.
    metric
        M, the inverse mass matrix: None (identity), scalar, ``(d,)`` diagonal, ``(d, d)`` or a
        `shoal.sampling.langevin.metric.low_rank`, over the raveled position.

    Returns
    -------
    Sampler
        Called with the log density -f of the smooth part, returns the `Algorithm`; state
        `OverdampedState`, whose log density and score are those of exp(-f - ψ_λ), info
        `OverdampedInfo`. Works in the dtype of the position.

    Raises
    ------
    TypeError, ValueError
        If ``prox`` or ``penalty`` cannot be called, a penalty comes without ``prox``, ``step_size``
        or ``smoothing`` is not positive or ``metric`` not positive definite.

    Examples
    --------
    A normal likelihood with a Laplace prior:

    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> soft = lambda x, smoothing: jnp.sign(x) * jnp.maximum(jnp.abs(x) - smoothing, 0)
    >>> sampler = langevin.myula(soft, lambda x: jnp.sum(jnp.abs(x)), step_size=0.05)
    >>> algorithm = sampler(lambda x: -0.5 * jnp.sum((x - 1) ** 2))
    >>> state, info = algorithm.step(jax.random.key(0), algorithm.init(jnp.ones(3)))
    >>> state.position.shape, bool(info.is_accepted)
    ((3,), True)

    A normal law kept near the unit ball:

    >>> from optax import projections
    >>> sampler = langevin.myula(lambda x, _: projections.projection_l2_ball(x), smoothing=0.01)
    """
    if prox is None and penalty is not None:
        raise ValueError("prox is None, but there is a penalty: give its proximal map")
    functions = {"prox": prox, "penalty": penalty}
    return _sampler(_build_myula, functions, step_size, smoothing, metric, 0.98, is_adjusted=False)


def prox_mala(
    prox: Prox | None = None,
    penalty: Penalty | None = None,
    step_size: Any = 0.05,
    smoothing: Any = 0.1,
    metric: Any = None,
) -> Sampler:
    """Proximal MALA: `myula`'s move, accepted so that exp(-f - ψ) is exact.

    Parameters
    ----------
    prox
        ``prox(position, smoothing) -> position``, the proximal map of ψ, on which only the
        efficiency depends. None, with ``penalty`` None: there is no ψ.
    penalty
        ``penalty(position) -> scalar``, ψ; may be infinite, outside of a convex set.
    step_size
        h > 0, a float or scalar array. The initial value where warm-up tunes it, to an acceptance
        rate of 0.574.
    smoothing
        λ > 0. Warm-up leaves it alone; of the order of the step size is best.
    metric
        M, as in `myula`.

    Returns
    -------
    Sampler
        Called with the log density -f of the smooth part, returns the `Algorithm`; state
        `OverdampedState`, whose log density is -f - ψ and whose score that of exp(-f - ψ_λ), info
        `OverdampedInfo`. Works in the dtype of the position.

    Raises
    ------
    TypeError, ValueError
        If ``prox`` or ``penalty`` cannot be called or only one of them is given, ``step_size`` or
        ``smoothing`` is not positive or ``metric`` not positive definite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> soft = lambda x, smoothing: jnp.sign(x) * jnp.maximum(jnp.abs(x) - smoothing, 0)
    >>> sampler = langevin.prox_mala(soft, lambda x: jnp.sum(jnp.abs(x)), step_size=0.3)
    >>> algorithm = sampler(lambda x: -0.5 * jnp.sum((x - 1) ** 2))
    >>> state = algorithm.init(jnp.ones(3))
    >>> float(state.log_density)
    -3.0
    """
    if (prox is None) != (penalty is None):
        raise ValueError(
            "prox and penalty belong together: give both, got "
            f"prox={prox!r} and penalty={penalty!r}"
        )
    functions = {"prox": prox, "penalty": penalty}
    return _sampler(_build_mala, functions, step_size, smoothing, metric, 0.574, is_adjusted=True)


def _sampler(
    build: Any,
    functions: dict[str, Any],
    step_size: Any,
    smoothing: Any,
    metric: Any,
    target_acceptance: float,
    is_adjusted: bool,
) -> Sampler:
    for name, function in functions.items():
        if function is not None:
            check_callable(name, function)
    return make_sampler(
        build,
        {"step_size": step_size, "smoothing": smoothing, "metric": metric},
        {
            "step_size": check_positive("step_size"),
            "smoothing": check_positive("smoothing"),
            "metric": as_metric,
        },
        options=tuple(sorted(functions.items())),
        target_acceptance=target_acceptance,
        is_adjusted=is_adjusted,
    )


def _build_myula(
    log_density: LogDensity, step_size: Any, smoothing: Any, metric: Metric, **functions: Any
) -> Algorithm:
    return unadjusted(_scheme(log_density, step_size, smoothing, metric, True, **functions))


def _build_mala(
    log_density: LogDensity, step_size: Any, smoothing: Any, metric: Metric, **functions: Any
) -> Algorithm:
    return adjusted(_scheme(log_density, step_size, smoothing, metric, False, **functions))


def _scheme(
    log_density: LogDensity,
    step_size: Any,
    smoothing: Any,
    metric: Metric,
    is_smoothed: bool,
    prox: Prox | None,
    penalty: Penalty | None,
) -> Scheme:
    """Return start and proposal; log densities are of exp(-f - ψ_λ) if ``is_smoothed``."""

    def value_and_drift(position: Position) -> tuple[jax.Array, Position]:
        value, score = jax.value_and_grad(log_density)(position)
        if prox is None:
            return value, score
        near = _prox_point(prox, position, smoothing)
        pull = jax.tree.map(lambda p, x: (p - x) / jnp.asarray(smoothing, x.dtype), near, position)
        if penalty is not None:
            loss = real_scalar("penalty", penalty(near if is_smoothed else position))
            value = value - loss.astype(value.dtype)
        if is_smoothed:
            gap = sum(jnp.sum((p - x) * q) for p, x, q in _leaves(near, position, pull))
            value = value - 0.5 * gap
        return value, jax.tree.map(jnp.add, score, pull)

    def init(position: Position, key: jax.Array | None = None) -> OverdampedState:
        evaluate_start(log_density, position, metric)
        value, drift = value_and_drift(position)
        check_finite("log_density minus penalty at the start", value)
        score = ravel_pytree(drift)[0]
        check_finite("prox at the start", score)
        return OverdampedState(position, value, score)

    def propose(key: jax.Array, state: OverdampedState) -> Any:
        return propose_along(value_and_drift, step_size, metric, key, state)

    return Scheme(init, propose)


def _prox_point(prox: Prox, position: Position, smoothing: Any) -> Position:
    """Evaluate ``prox``; what it returns must look like the position."""
    near = prox(position, jnp.asarray(smoothing, jax.tree.leaves(position)[0].dtype))
    like = lambda tree: jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)
    if like(near) != like(position):
        raise ValueError(
            f"prox must return what is like the position, {like(position)}, got {near}"
        )
    return near


def _leaves(*trees: Position) -> Any:
    return zip(*map(jax.tree.leaves, trees), strict=True)
