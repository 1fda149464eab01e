"""Kinetic Langevin dynamics by exponential integrators, of strong order two and three.

The dynamics are those of `kinetic`, in whitened coordinates with friction γ:

    dx = L w dt,    dw = Lᵀ∇log π(x) dt - γ w dt + √(2γ) dW.

`ubu`, `align`, `should` and `quicsort` solve what is linear in them exactly and take in the force
at one or two points. Where a splitting draws a number or two for each coordinate, these take the
increment of the Brownian motion over the step, its space-time and (order three) its
space-time-time Lévy area, and so follow the exact path that belongs to them: the error of the
path at a fixed time falls as h² (`ubu`, `align`) or h³ (`should`, `quicsort`). Their formulas are
in `_exponential_schemes`.

All four are biased by the step size, none is exact on Gaussians. With precision λ (and M = 1), as h
goes to 0,

    UBU:             Var x ≈ (1 - h²λ/6) / λ,     Var w ≈ 1 + h²λ/12
    ALIGN:           Var x ≈ (1 + h²λ/6) / λ,     Var w ≈ 1 - h²λ/12    for small γ
    ShOULD, QUICSORT: errors of order h³.

For small γ they are stable for h √λ below 2 (`ubu`, `align`), √6 = 2.45 (`should`) and 2.50
(`quicsort`), for larger γ beyond. Noise that is no combination of the increment and its areas is
not there, which matters for γh above 1: without a force the stationary Var w is 1 - (γh)⁴/720 + ...
(`ubu`, `align`), 1 - (γh)⁶/100800 + ... (`should`) and 1 + (γh)⁴/360 + ... (`quicsort`).

References: those of `_exponential_schemes`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core.algorithm import (
    Algorithm,
    LogDensity,
    Position,
    Sampler,
    Status,
    proposal_status,
)
from shoal.sampling.core.random import check_key
from shoal.sampling.langevin._accept import choose
from shoal.sampling.langevin._exponential_schemes import (
    SCHEMES,
    Increment,
    Phase,
    Scheme,
)
from shoal.sampling.langevin._midpoint import Evaluation, MidpointState
from shoal.sampling.langevin.kinetic import KineticState, draw_momentum
from shoal.sampling.langevin.metric import Metric, as_metric
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler

__all__ = [
    "SCHEMES",
    "Evaluation",
    "ExponentialInfo",
    "Increment",
    "MidpointState",
    "Phase",
    "Scheme",
    "align",
    "draw_increment",
    "quicsort",
    "should",
    "ubu",
]


class ExponentialInfo(NamedTuple):
    """What happened in a step.

    Attributes
    ----------
    acceptance_rate
        ``min(1, exp(-energy_error))``. The step moves regardless; the number tells how coarse it
        is.
    energy_error
        Energy that leapfrog steps along the points at which the gradient was evaluated would have
        failed to conserve.
    is_accepted
        Whether the step was taken. False only where a point or gradient is not finite; the
        particle then stays and turns back: its momentum changes sign.
    status
        int8 `shoal.sampling.core.algorithm.Status` code.
    """

    acceptance_rate: jax.Array
    energy_error: jax.Array
    is_accepted: jax.Array
    status: jax.Array


def ubu(step_size: Any = 0.1, friction: Any = 1.0, metric: Any = None) -> Sampler:
    """UBU: strong order two for one gradient a step, in the middle of it.

    The density is not evaluated where a step ends: a result's ``lp`` is NaN, and on a target with
    bounded support draws may lie outside of it by half a step.

    Parameters
    ----------
    step_size
        h > 0, in units of time (length over velocity). The initial value where warm-up tunes it, to
        an `ExponentialInfo.acceptance_rate` of 0.95.
    friction
        γ >= 0, per unit of time. Zero makes the dynamics Hamiltonian.
    metric
        M, the inverse mass matrix: None (identity), scalar, ``(d,)`` diagonal or ``(d, d)``, over
        the raveled position. The closer to the target's covariance, the better.

    Returns
    -------
    Sampler
        Called with a log density, returns the `Algorithm`; state `MidpointState`, info
        `ExponentialInfo`. ``init`` needs a key, to draw the momentum. Works in the position's
        dtype.

    Raises
    ------
    ValueError
        If ``step_size`` is not positive, ``friction`` negative or ``metric`` not
        positive definite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.ubu(step_size=0.5)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> state.position.shape, int(info.status)
    ((3,), 0)
    """
    return _sampler("ubu", step_size, friction, metric, target_acceptance=0.95)


def align(step_size: Any = 0.1, friction: Any = 1.0, metric: Any = None) -> Sampler:
    """ALIGN: strong order two for one gradient a step, at its end.

    Parameters and errors are those of `ubu`; the state is `kinetic.KineticState`, with the log
    density of the position.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.align(step_size=0.5)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> bool(jnp.allclose(state.log_density, -0.5 * jnp.sum(state.position**2)))
    True
    """
    return _sampler("align", step_size, friction, metric, target_acceptance=0.95)


def should(step_size: Any = 0.1, friction: Any = 1.0, metric: Any = None) -> Sampler:
    """Shifted-ODE Runge-Kutta (ShOULD): strong order three for two gradients a step.

    They are taken in its middle and at its end.

    Parameters and errors are those of `ubu`; the state is `kinetic.KineticState`, with the log
    density of the position.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.should(step_size=0.5)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> bool(info.is_accepted)
    True
    """
    return _sampler("should", step_size, friction, metric, target_acceptance=0.95)


def quicsort(step_size: Any = 0.1, friction: Any = 1.0, metric: Any = None) -> Sampler:
    """QUICSORT: strong order three for two gradients a step, at Gauss's nodes inside of it.

    Parameters, state and errors are those of `ubu`, and so is what it says of ``lp``.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.quicsort(step_size=0.5)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> bool(info.is_accepted)
    True
    """
    return _sampler("quicsort", step_size, friction, metric, target_acceptance=0.95)


def draw_increment(key: jax.Array, h: jax.Array, dim: int, levy: str) -> Increment:
    """Draw a Brownian motion over a step of size ``h``, in the dtype of ``h``.

    ``levy`` is ``"WH"`` or ``"WHK"``, as in `Scheme`.
    """
    variances = jnp.asarray([1, 1 / 12, 1 / 720][: len(levy)], h.dtype)
    noise = jax.random.normal(key, (len(levy), dim), h.dtype)
    return Increment(*(jnp.sqrt(h * variances)[:, None] * noise))


def _sampler(
    name: str, step_size: Any, friction: Any, metric: Any, target_acceptance: float
) -> Sampler:
    return make_sampler(
        _build,
        {"step_size": step_size, "friction": friction, "metric": metric},
        {
            "step_size": check_positive("step_size"),
            "friction": check_positive("friction", allow_zero=True),
            "metric": as_metric,
        },
        options=(("scheme", name),),
        target_acceptance=target_acceptance,
        is_adjusted=False,
    )


def _build(
    log_density: LogDensity, step_size: Any, friction: Any, metric: Metric, scheme: str
) -> Algorithm:
    method = SCHEMES[scheme]

    def init(position: Position, key: jax.Array | None = None) -> KineticState | MidpointState:
        value, score = evaluate_start(log_density, position, metric)
        momentum = draw_momentum(key, score)
        start = Evaluation(ravel_pytree(position)[0], value, score)
        return _state(method, position, momentum, start)

    def step(key: jax.Array, state: Any) -> tuple[Any, ExponentialInfo]:
        check_key(key)
        x, unravel = ravel_pytree(state.position)
        value_and_score = jax.value_and_grad(lambda flat: log_density(unravel(flat)))
        h, c = jnp.asarray(step_size, x.dtype), jnp.asarray(friction, x.dtype)
        old = _phase(method, x, state)
        increment = draw_increment(key, h, x.size, method.levy)
        new, _ = method.step(value_and_score, metric, c, h, increment, old)
        energy_error = new.work - (new.evaluated.log_density - old.evaluated.log_density)
        status = proposal_status(new.evaluated.log_density, jnp.isfinite(new.work))
        is_accepted = status == Status.OK
        status = jnp.where(is_accepted & (energy_error > 1000), Status.DIVERGENCE, status)
        moved = _state(method, unravel(new.position), new.momentum, new.evaluated)
        kept = choose(is_accepted, moved, state._replace(momentum=-state.momentum))
        rate = jnp.where(is_accepted, jnp.exp(-jnp.maximum(energy_error, 0)), 0)
        return kept, ExponentialInfo(rate, energy_error, is_accepted, status.astype(jnp.int8))

    return Algorithm(init, step)


def _state(
    method: Scheme, position: Position, momentum: jax.Array, evaluated: Evaluation
) -> KineticState | MidpointState:
    if method.fsal:
        return KineticState(position, momentum, evaluated.log_density, evaluated.score)
    return MidpointState(position, momentum, evaluated)


def _phase(method: Scheme, x: jax.Array, state: Any) -> Phase:
    at = Evaluation(x, state.log_density, state.score) if method.fsal else state.evaluated
    return Phase(x, state.momentum, at, jnp.zeros_like(at.log_density))
