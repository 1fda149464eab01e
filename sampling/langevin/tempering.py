"""Parallel tempering: replicas of any sampler at several temperatures, which exchange their points.

K replicas sample the laws of a path from the target π to an easier law,

    log π_β(x) = β log π(x)                          (a power of the density), or
    log π_β(x) = (1 - β) log π₀(x) + β log π(x)      (with a reference π₀, such as the prior),

at the rungs 1 = β₀ > β₁ > ... of a ladder. A step moves every replica by its own kernel and then
proposes to exchange the points of neighbours, which is accepted with probability

    min(1, exp((β_i - β_{i+1}) (D(x_{i+1}) - D(x_i)))),    D = log π - log π₀  (or log π).

Even pairs (0, 1), (2, 3), ... are proposed in even steps and odd pairs in odd ones. This
deterministic order makes the walk of a point over the ladder non-reversible: with rejection rates
r_i of the pairs, points travel from the cold end to the hot one and back at the rate
1 / (2 + 2 Σ r_i / (1 - r_i)), whose limit for fine ladders, 1 / (2 + 2 Λ), does not fall to zero
with K as it does where pairs are drawn at random. The sum Λ = Σ r_i, the communication barrier,
hardly depends on the ladder. It is best cut into equal parts (`adapt_ladder`), by about 2 Λ + 1
replicas.

Exchanges are exact: each law π_β stays invariant if each replica's kernel keeps it, and biased
kernels (`ula`, `baoab`) keep their bias. With a power of the density an exchange evaluates nothing:
cached values are scaled. With a reference it costs one evaluation of value and gradient, of both
densities, for each replica.

References: Syed, Bouchard-Côté, Deligiannidis and Doucet, "Non-reversible parallel tempering: a
scalable highly parallel MCMC scheme", JRSS B 84 (2022), sections 2.3 and 3.3 to 5.2, algorithms 1
to 4; Okabe, Kawata, Okamoto and Mikami, Chem. Phys. Lett. 335 (2001), for the even-odd order.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core._checks import (
    check_callable,
    check_finite,
    integer,
    real_parameter,
    real_scalar,
)
from shoal.sampling.core.algorithm import Algorithm, LogDensity, Position, Sampler, Status
from shoal.sampling.core.random import check_key, particle_keys
from shoal.sampling.langevin._accept import accept, probability
from shoal.sampling.langevin._ladder import (
    adapt_ladder,
    check_ladder,
    geometric_ladder,
    round_trip_rate,
)
from shoal.sampling.langevin._ladder_tuning import Tuned, tune
from shoal.sampling.langevin._replicas import (
    Path,
    along_path,
    check_cache,
    retempered,
    tempered,
    warm,
)
from shoal.sampling.langevin.metric import as_metric
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler
from shoal.sampling.langevin.overdamped import mala

__all__ = ["Tuned", "adapt_ladder", "geometric_ladder", "parallel", "round_trip_rate", "tune"]


class ParallelState(NamedTuple):
    """Where all replicas are; rung 0 is the cold one, whose law is the target.

    Attributes
    ----------
    position
        The cold replica's point, a pytree of floating arrays.
    log_density
        Log density of the target there, a scalar.
    replicas
        State of the inner sampler, each array with a leading axis of K rungs.
    walker
        int32 ``(K,)``: which of the K walkers, numbered by the rung they started at, is at a rung.
    last_end
        int8 ``(K,)``: the end of the ladder that the walker at a rung was at last; 1 for the cold
        one, -1 for the hot one, 0 for neither yet.
    round_trips
        int32: how often a walker came to the cold end and was at the hot one before.
    num_steps
        int32: steps done, whose parity tells which pairs are next.
    """

    position: Position
    log_density: jax.Array
    replicas: Any
    walker: jax.Array
    last_end: jax.Array
    round_trips: jax.Array
    num_steps: jax.Array


class ParallelInfo(NamedTuple):
    """What happened in a step.

    Attributes
    ----------
    acceptance_rate
        That of the cold replica's kernel, which warm-up tunes ``step_size`` by.
    is_accepted
        Whether the cold replica's kernel moved it.
    status
        int8 `Status` code of the coldest replica in trouble, ``OK`` if none is.
    replica_acceptance_rate
        ``(K,)``: acceptance rates of all kernels.
    swap_acceptance_rate
        ``(K - 1,)``: the probability of exchanging each pair of neighbours, of those not proposed
        in this step too. One minus its mean over steps is the rejection rate of `adapt_ladder`.
    is_swapped
        bool ``(K - 1,)``: the pairs that were exchanged.
    """

    acceptance_rate: jax.Array
    is_accepted: jax.Array
    status: jax.Array
    replica_acceptance_rate: jax.Array
    swap_acceptance_rate: jax.Array
    is_swapped: jax.Array


def parallel(
    sampler: Sampler | None = None,
    inverse_temperatures: Any = None,
    *,
    reference: LogDensity | None = None,
    step_size: Any = None,
    step_scale: Any = 1.0,
    steps_per_swap: int = 1,
) -> Sampler:
    """Non-reversible parallel tempering of any sampler whose state caches log density and score.

    Parameters
    ----------
    sampler
        A sampler with a ``step_size``; None is ``mala()``. If it has a constant ``metric`` M, that
        is a hyperparameter of the result too, tuned by warm-up on the cold replica's points.
    inverse_temperatures
        The ladder ``(K,)``, K >= 2, falling from 1; positive, or with ``reference`` non-negative.
        None is `geometric_ladder()`: eight replicas down to 0.05.
    reference
        log π₀, a function of the position: for a posterior the log prior, so that only the
        likelihood is tempered. It must be finite where the target is positive. Replicas never
        leave the support of π, at β = 0 neither. None takes powers of the target.
    step_size
        Step size of ``sampler``, in its place if given. The initial value where warm-up tunes it,
        by the cold replica.
    step_scale
        Step sizes of the replicas relative to ``step_size``: positive, ``(K,)`` or one number for
        all; `tune` finds them. Without ``reference`` the inverse mass matrix of a replica is M / β
        besides, so that on a Gaussian all accept alike.
    steps_per_swap
        Moves of each replica between two exchanges.

    Returns
    -------
    Sampler
        Called with a log density, returns the `Algorithm`; state `ParallelState`, info
        `ParallelInfo`. One step is ``steps_per_swap`` moves of all replicas. ``init`` starts them
        all at the one position and needs a key where that of ``sampler`` does.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible, or (from ``init``) the states of ``sampler`` do not hold
        ``log_density`` and ``score`` of their position, and nothing else that depends on β.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> from shoal.sampling.langevin import tempering
    >>> modes = lambda x: jax.nn.logsumexp(-0.5 * jnp.sum((x - jnp.array([[-6.0], [6.0]])) ** 2, 1))
    >>> algorithm = tempering.parallel(langevin.mala(0.5))(modes)
    >>> state = algorithm.init(jnp.array([6.0]))
    >>> state, info = jax.jit(algorithm.step)(jax.random.key(0), state)
    >>> state.position.shape, state.replicas.position.shape, info.swap_acceptance_rate.shape
    ((1,), (8, 1), (7,))
    """
    inner = _check_sampler(sampler)
    ladder = geometric_ladder() if inverse_temperatures is None else inverse_temperatures
    if reference is not None:
        check_callable("reference", reference)
    parameters = {
        "step_size": inner.parameters["step_size"] if step_size is None else step_size,
        "step_scale": step_scale,
        "inverse_temperatures": ladder,
        "sampler": inner,
    }
    prepare = {
        "step_size": check_positive("step_size"),
        "step_scale": _check_scale,
        "inverse_temperatures": check_ladder(reference is not None),
        "sampler": _check_sampler,
    }
    if "metric" in inner.parameters:
        parameters["metric"], prepare["metric"] = inner.parameters["metric"], as_metric
    return make_sampler(
        _build,
        parameters,
        prepare,
        options=(
            ("reference", reference),
            ("steps_per_swap", integer("steps_per_swap", steps_per_swap)),
        ),
        target_acceptance=inner.target_acceptance,
        is_adjusted=inner.is_adjusted,
    )


def _build(
    log_density: LogDensity,
    step_size: Any,
    step_scale: Any,
    inverse_temperatures: Any,
    sampler: Sampler,
    reference: LogDensity | None,
    steps_per_swap: int,
    metric: Any = None,
) -> Algorithm:
    betas = jnp.asarray(inverse_temperatures)
    scales = _scales(step_scale, betas)
    rungs = jnp.arange(betas.size, dtype=jnp.int32)

    def kernel(beta: jax.Array, scale: jax.Array) -> Algorithm:
        given = {"step_size": step_size * scale}
        if metric is not None:
            given["metric"] = metric if reference is not None else warm(metric, beta)
        return sampler.replace(**given)(tempered(log_density, reference, beta))

    def init(position: Position, key: jax.Array | None = None) -> ParallelState:
        _check_start(log_density, reference, position)
        if key is None:
            replicas = jax.vmap(lambda b, s: kernel(b, s).init(position))(betas, scales)
        else:
            start = lambda b, s, k: kernel(b, s).init(position, k)
            replicas = jax.vmap(start)(betas, scales, particle_keys(key, rungs))
        check_cache(replicas, ravel_pytree(position)[0].size)
        return _first_state(replicas, rungs)

    def move(key: jax.Array, replicas: Any) -> tuple[Any, Any]:
        one = lambda b, s, k, state: kernel(b, s).step(k, state)
        replicas, info = jax.vmap(one)(betas, scales, particle_keys(key, rungs), replicas)
        return replicas, (info.acceptance_rate, info.is_accepted, info.status)

    def moves(key: jax.Array, replicas: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, steps_per_swap)
        replicas, info = jax.lax.scan(lambda r, k: move(k, r), replicas, keys)
        return replicas, _over_moves(*info)

    def step(key: jax.Array, state: ParallelState) -> tuple[ParallelState, ParallelInfo]:
        check_key(key)
        key_move, key_swap = jax.random.split(key)
        replicas, (rates, is_accepted, status) = (move if steps_per_swap == 1 else moves)(
            key_move, state.replicas
        )
        path = along_path(log_density, reference, betas, replicas)
        log_ratio, is_swapped = _proposals(key_swap, state, path, betas)
        state = _exchange(state, replicas, path, betas, is_swapped)
        info = ParallelInfo(
            rates[0], is_accepted[0], status[jnp.argmax(status != Status.OK)], rates,
            probability(log_ratio), is_swapped,
        )  # fmt: skip
        return state, info

    return Algorithm(init, step)


def _scales(step_scale: Any, betas: jax.Array) -> jax.Array:
    """Return what the step size of each replica is multiplied with."""
    if jnp.shape(step_scale) not in ((), betas.shape):
        raise ValueError(
            f"step_scale has shape {jnp.shape(step_scale)}, but there are {betas.size} replicas; "
            f"give a number or ({betas.size},)"
        )
    return jnp.broadcast_to(jnp.asarray(step_scale), betas.shape)


def _check_start(log_density: Any, reference: LogDensity | None, position: Position) -> None:
    """Raise unless both densities are finite where the replicas start."""
    evaluate_start(log_density, position, as_metric(None))
    if reference is not None:
        check_finite("reference at the start", real_scalar("reference", reference(position)))


def _first_state(replicas: Any, rungs: jax.Array) -> ParallelState:
    ends = jnp.zeros(rungs.size, jnp.int8).at[0].set(1).at[-1].set(-1)
    zero = jnp.asarray(0, jnp.int32)
    cold = jax.tree.map(lambda leaf: leaf[0], replicas)
    return ParallelState(cold.position, cold.log_density, replicas, rungs, ends, zero, zero)


def _over_moves(rates: jax.Array, is_accepted: jax.Array, status: jax.Array) -> Any:
    """Sum up what several moves of all replicas report, arrays ``(moves, K)``."""
    # Codes have no order of badness: the first that is not OK stands for the moves.
    first = jnp.argmax(status != Status.OK, axis=0)
    worst = jnp.take_along_axis(status, first[None], 0)[0]
    return jnp.mean(rates, 0), jnp.any(is_accepted, 0), worst


def _proposals(
    key: jax.Array, state: ParallelState, path: Path, betas: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return log acceptance ratios of all pairs of neighbours, and which are exchanged."""
    rungs = jnp.arange(betas.size, dtype=jnp.int32)
    log_ratio = (betas[:-1] - betas[1:]) * (path.slope[1:] - path.slope[:-1])
    is_proposed = rungs[:-1] % 2 == state.num_steps % 2
    keys, status = particle_keys(key, rungs[:-1]), jnp.full(rungs.size - 1, Status.OK)
    return log_ratio, is_proposed & jax.vmap(accept)(keys, log_ratio, status)


def _exchange(
    state: ParallelState, replicas: Any, path: Path, betas: jax.Array, is_swapped: jax.Array
) -> ParallelState:
    """Exchange neighbours, count who came home, and note it all in the new state."""
    down = jnp.pad(is_swapped, (0, 1)).astype(jnp.int32)
    up = jnp.pad(is_swapped, (1, 0)).astype(jnp.int32)
    source = jnp.arange(betas.size) + down - up
    take = lambda tree: jax.tree.map(lambda leaf: leaf[source], tree)
    has_moved = source != jnp.arange(betas.size)
    replicas = retempered(take(replicas), take(path), betas, has_moved)
    last_end = state.last_end[source]
    came_home = last_end[0] == -1
    return ParallelState(
        jax.tree.map(lambda leaf: leaf[0], replicas.position),
        replicas.log_density[0],
        replicas,
        state.walker[source],
        last_end.at[0].set(1).at[-1].set(-1),
        state.round_trips + came_home,
        state.num_steps + 1,
    )


def _check_sampler(sampler: Any) -> Sampler:
    if sampler is None:
        return mala()
    if not isinstance(sampler, Sampler) or "step_size" not in sampler.parameters:
        raise TypeError(
            "sampler must be a sampler with a step_size, such as langevin.mala(), got "
            f"{type(sampler).__name__}: {sampler!r}"
        )
    return sampler


def _check_scale(step_scale: Any) -> Any:
    return real_parameter("step_scale", step_scale, 0.0, wanted="positive and finite")
