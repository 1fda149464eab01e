"""Kinetic Langevin dynamics with adaptive step sizes, on Brownian paths that rejection keeps.

The dynamics and the schemes are those of `exponential`. One step of a sampler here runs for a fixed
time, the ``interval``, along a Brownian path drawn for it. It goes through the interval in dyadic
pieces: each piece is attempted in one step and in two halves, and where these differ by more than
the ``tolerance`` the piece is halved and its left half comes next. Every increment is read off the
one path (`_dyadic_walk`), so a rejected attempt biases no noise: what is rejected is a step size,
not a path. The two halves are kept, so an attempt costs three steps of the scheme and one draw.

A piece clearly longer than the error of the last one allows, to the power 1 / (order + 1/2), is
halved without an attempt.

Biased by the tolerance, exact in its limit: the error of a path falls with the number of steps as
that of the scheme does. No step size is too large for a part of the space, as it may be with fixed
steps; on a target of one scale the fixed-step scheme is cheaper.

References: Jelinčič, Foster and Kidger, "Single-seed generation of Brownian paths and integrals for
adaptive and high order SDE solvers", arXiv:2405.06464, for adaptive steps on one path; those of
`_exponential_schemes`.
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
from shoal.sampling.langevin import _dyadic_walk as dyadic
from shoal.sampling.langevin._accept import choose
from shoal.sampling.langevin._brownian_tree import Increment, seed_of
from shoal.sampling.langevin._exponential_schemes import (
    SCHEMES,
    Evaluation,
    Phase,
    Scheme,
)
from shoal.sampling.langevin.metric import as_metric
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler

# The smallest piece is the interval / 2^9, its halves one level below.
_DEPTH = 10
_ORDERS = {"ubu": 2, "align": 2, "should": 3, "quicsort": 3}


class AdaptiveState(NamedTuple):
    """Where a chain is and how it moves.

    Attributes
    ----------
    position
        The point, a pytree of floating arrays.
    momentum
        Whitened momentum w, flat, ``(d,)``; the velocity is L w.
    evaluated
        `Evaluation` of the point at which the gradient was taken last: for ALIGN and ShOULD the
        position itself, for UBU and QUICSORT a point inside the last piece.
    step_size
        Size of a piece that the error of the last one suggests, a scalar.
    """

    position: Position
    momentum: jax.Array
    evaluated: Evaluation
    step_size: jax.Array


class AdaptiveInfo(NamedTuple):
    """What happened in a step.

    Attributes
    ----------
    acceptance_rate
        ``min(1, exp(-energy_error))``.
    energy_error
        Energy that leapfrog steps along the points at which the gradient was evaluated would have
        failed to conserve, over all pieces.
    is_accepted
        Whether the step was taken. False only where a piece of the smallest size had no finite end;
        the particle then stays and turns back: its momentum changes sign.
    status
        int8 `shoal.sampling.core.algorithm.Status` code; ``MAX_ITERATIONS`` where a piece of the
        smallest size, interval / 512, was kept with an error above the tolerance.
    num_integration_steps
        Attempts, int32: three steps of the scheme each.
    num_pieces
        Attempts that were kept, int32.
    """

    acceptance_rate: jax.Array
    energy_error: jax.Array
    is_accepted: jax.Array
    status: jax.Array
    num_integration_steps: jax.Array
    num_pieces: jax.Array


def adaptive_quicsort(
    interval: Any = 1.0, tolerance: Any = 0.03, friction: Any = 1.0, metric: Any = None
) -> Sampler:
    """Adaptive QUICSORT, of strong order three: two gradients a step, six an attempt.

    Parameters
    ----------
    interval
        Time between draws, positive: a float or scalar array. It bounds the size of a step.
    tolerance
        Largest difference, positive, between one step and two of half its size: the root mean
        square over position and momentum, in units of their standard deviations under ``metric``.
    friction
        γ >= 0, per unit of time. Zero makes the dynamics Hamiltonian.
    metric
        M, the inverse mass matrix: None (identity), scalar, ``(d,)`` diagonal or ``(d, d)``, over
        the raveled position. The closer to the target's covariance, the better.

    Returns
    -------
    Sampler
        Called with a log density, returns the `Algorithm`; state `AdaptiveState`, info
        `AdaptiveInfo`. ``init`` needs a key, to draw the momentum. Works in the position's dtype.
        Warm-up leaves ``interval`` and ``tolerance`` as they are.

    Raises
    ------
    ValueError
        If ``interval`` or ``tolerance`` is not positive, ``friction`` negative or ``metric`` not
        positive definite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.adaptive_quicsort()(lambda x: -50 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> bool(info.num_integration_steps >= info.num_pieces > 1)
    True
    """
    return _sampler("quicsort", interval, tolerance, friction, metric)


def adaptive_should(
    interval: Any = 1.0, tolerance: Any = 0.03, friction: Any = 1.0, metric: Any = None
) -> Sampler:
    """Adaptive ShOULD, of strong order three: two gradients a step, six an attempt.

    Parameters, result and errors are those of `adaptive_quicsort`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.adaptive_should()(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> bool(info.is_accepted)
    True
    """
    return _sampler("should", interval, tolerance, friction, metric)


def adaptive_align(
    interval: Any = 1.0, tolerance: Any = 0.03, friction: Any = 1.0, metric: Any = None
) -> Sampler:
    """Adaptive ALIGN, of strong order two: one gradient a step, three an attempt.

    Parameters, result and errors are those of `adaptive_quicsort`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.adaptive_align()(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> bool(info.is_accepted)
    True
    """
    return _sampler("align", interval, tolerance, friction, metric)


def adaptive_ubu(
    interval: Any = 1.0, tolerance: Any = 0.03, friction: Any = 1.0, metric: Any = None
) -> Sampler:
    """Adaptive UBU, of strong order two: one gradient a step, three an attempt.

    Parameters, result and errors are those of `adaptive_quicsort`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.adaptive_ubu()(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> bool(info.is_accepted)
    True
    """
    return _sampler("ubu", interval, tolerance, friction, metric)


def _sampler(name: str, interval: Any, tolerance: Any, friction: Any, metric: Any) -> Sampler:
    return make_sampler(
        _build,
        {"interval": interval, "tolerance": tolerance, "friction": friction, "metric": metric},
        {
            "interval": check_positive("interval"),
            "tolerance": check_positive("tolerance"),
            "friction": check_positive("friction", allow_zero=True),
            "metric": as_metric,
        },
        options=(("scheme", name),),
        target_acceptance=None,
        is_adjusted=False,
    )


def _build(
    log_density: LogDensity, interval: Any, tolerance: Any, friction: Any, metric: Any, scheme: str
) -> Algorithm:
    def init(position: Position, key: jax.Array | None = None) -> AdaptiveState:
        if key is None:
            raise ValueError(
                "key is None, but a kinetic sampler draws its momentum: give init a key"
            )
        check_key(key)
        value, score = evaluate_start(log_density, position, metric)
        momentum = jax.random.normal(key, score.shape, score.dtype)
        start = Evaluation(ravel_pytree(position)[0], value, score)
        return AdaptiveState(position, momentum, start, jnp.asarray(interval, score.dtype))

    def step(key: jax.Array, state: AdaptiveState) -> tuple[AdaptiveState, AdaptiveInfo]:
        check_key(key)
        x, unravel = ravel_pytree(state.position)
        value_and_score = jax.value_and_grad(lambda flat: log_density(unravel(flat)))
        c = jnp.asarray(friction, x.dtype)
        attempt = _attempt(SCHEMES[scheme], value_and_score, metric, c, tolerance)
        start = Phase(x, state.momentum, state.evaluated, jnp.zeros_like(x, shape=()))
        run = _run(
            attempt, key, jnp.asarray(interval, x.dtype), start, state.step_size,
            _ORDERS[scheme] + 0.5, SCHEMES[scheme].levy,
        )  # fmt: skip
        end = run.phase
        energy_error = end.work - (end.evaluated.log_density - start.evaluated.log_density)
        is_accepted = run.broken == Status.OK
        status = jnp.where(run.is_too_coarse, Status.MAX_ITERATIONS, Status.OK)
        status = jnp.where(is_accepted, status, run.broken).astype(jnp.int8)
        moved = AdaptiveState(unravel(end.position), end.momentum, end.evaluated, run.step_size)
        kept = choose(is_accepted, moved, state._replace(momentum=-state.momentum))
        energy_error = jnp.where(is_accepted, energy_error, jnp.inf)
        rate = jnp.exp(-jnp.maximum(energy_error, 0))
        return kept, AdaptiveInfo(
            rate, energy_error, is_accepted, status, run.num_attempts, run.num_pieces
        )

    return Algorithm(init, step)


class _Run(NamedTuple):
    """The loop over the pieces of an interval."""

    walk: dyadic.Walk
    phase: Phase
    step_size: jax.Array
    num_attempts: jax.Array
    num_pieces: jax.Array
    is_too_coarse: jax.Array
    broken: jax.Array
    is_done: jax.Array


def _run(
    attempt: Any,
    key: jax.Array,
    interval: jax.Array,
    start: Phase,
    step_size: jax.Array,
    order: float,
    levy: str,
) -> _Run:
    """Go through the interval, a draw and an attempt at a time.

    Of a piece that is too long one halving is done before the attempt: more would be rare, and all
    chains of a batch would wait for them.
    """
    seed = seed_of(key)
    dim, dtype = start.position.shape[0], interval.dtype

    def body(run: _Run) -> _Run:
        walk = run.walk
        is_halved = dyadic.size(walk, interval) > run.step_size
        is_halved &= walk.level < _DEPTH - 1
        first, second = dyadic.halves(seed, walk, interval)
        walk = dyadic.to_left(walk, first, is_halved)
        left, right = dyadic.halves(seed, walk, interval)
        h = dyadic.size(walk, interval)
        phase, error, status = attempt(run.phase, h, walk.node, left, right)
        is_smallest = walk.level == _DEPTH - 1
        is_finite = status == Status.OK
        is_kept = is_finite & ((error <= 1) | is_smallest)
        broken = jnp.where(is_smallest & ~is_finite, status, Status.OK).astype(jnp.int8)
        following, is_last = _following(walk, second, is_halved)
        # The stack is large: it is written in one place, and only what will be read.
        levels = jnp.stack([walk.level, walk.level + 1])
        is_ahead = jnp.stack([is_halved & ~is_kept, ~is_kept])
        lower = dyadic.store(walk, levels, (second, right), is_ahead)
        lower = dyadic.to_left(lower, left, ~is_smallest)
        new_walk = choose(is_kept, following._replace(pending=lower.pending), lower)
        growth = jnp.clip(jnp.maximum(error, 1e-6) ** (-1 / order), 0.2, 5.0)
        suggested = h * jnp.where(is_finite, growth, 0.2)
        return _Run(
            new_walk,
            choose(is_kept, phase._replace(work=run.phase.work + phase.work), run.phase),
            jnp.clip(suggested, interval * 2.0**-_DEPTH, interval),
            run.num_attempts + 1,
            run.num_pieces + is_kept,
            run.is_too_coarse | (is_kept & (error > 1)),
            broken,
            (is_kept & is_last) | (broken != Status.OK),
        )

    zero, no = jnp.int32(0), jnp.zeros((), bool)
    walk = dyadic.start(seed, interval, dim, levy, _DEPTH)
    first = _Run(walk, start, step_size.astype(dtype), zero, zero, no, jnp.int8(Status.OK), no)
    return jax.lax.while_loop(lambda run: ~run.is_done, body, first)


def _following(
    walk: dyadic.Walk, second: Increment, is_halved: jax.Array
) -> tuple[dyadic.Walk, jax.Array]:
    """Return the walk at what follows, and whether nothing does: the second half of a halved."""
    after, is_last = dyadic.on(walk)
    beside = walk._replace(number=walk.number + 1, node=second)
    return choose(is_halved, beside, after), is_last & ~is_halved


def _attempt(
    scheme: Scheme, value_and_score: Any, metric: Any, friction: jax.Array, tolerance: Any
) -> Any:
    """Return the function that takes a piece in one step and in two.

    It returns the end of the two, with the work of both, the difference between the ends over the
    tolerance, and the status.
    """

    def take(phase: Phase, piece: tuple[jax.Array, Any]) -> Phase:
        h, increment = piece
        return scheme.step(value_and_score, metric, friction, h, increment, phase)[0]

    def attempt(
        phase: Phase, h: jax.Array, whole: Increment, left: Increment, right: Increment
    ) -> tuple[Phase, jax.Array, jax.Array]:
        # A loop over the three steps, so that the density is compiled once.
        def body(carry: Phase, piece: Any) -> tuple[Phase, Any]:
            is_second_half, *piece = piece
            end = take(choose(is_second_half, carry, phase), piece)
            return end, end

        steps = jnp.array([False, False, True]), h * jnp.array([1, 0.5, 0.5], h.dtype)
        stacked = jax.tree.map(lambda *parts: jnp.stack(parts), whole, left, right)
        end, ends = jax.lax.scan(body, phase, (*steps, stacked))
        scale = _deviations(metric)
        off_x = (end.position - ends.position[0]) / scale
        off_w = end.momentum - ends.momentum[0]
        error = jnp.sqrt(jnp.mean(off_x**2 + off_w**2) / 2) / tolerance
        work = ends.work[1] + ends.work[2]
        # A first half that is not finite makes the second one so too.
        is_finite = jnp.isfinite(work) & jnp.isfinite(error)
        values = ends.evaluated.log_density[1:]
        bad = ~jnp.isfinite(values[0])
        status = proposal_status(jnp.where(bad, values[0], values[1]), is_finite)
        return end._replace(work=work), error, status

    return attempt


def _deviations(metric: Any) -> jax.Array:
    """Return the standard deviations of N(0, M), ``()`` or ``(d,)``.

    Of a low-rank metric those of its diagonal part.
    """
    if hasattr(metric, "scale"):
        return metric.scale
    factor = metric.factor
    return jnp.sqrt(jnp.sum(factor**2, axis=-1)) if factor.ndim == 2 else factor
