"""The warm-up of `auto`: all chains together learn metric, slowest direction and step size.

It has three phases.

1. Climb, in a tenth of the steps at most a hundred: Adam raises the log density of each chain until
   five of its steps gain less than d / 2, the depth of a typical set. Started where the density is
   absurdly low, a Langevin chain would fly off or crawl.
2. Learn, in the next 65 %: the chains run with the metric and the slowest direction learnt so far,
   each with a step size of its own. Moments are pooled over chains and taken over a window that
   begins anew, by halves, as the run grows, so that what was seen on the way there is forgotten.
   Chains whose log density is far below the best one's, d + 20 and more, are not learnt from.
3. Settle, in the last quarter: metric, friction and length stay as they are, and the chains find
   their common step size.

The step size is right where a measure q of its error is one in the mean. Adjusted,
q = (1 - a) / 0.2 with a the acceptance probability. Unadjusted,

    q = min(Δ² / d, 1)² / (3 · 0.01²)

with Δ a step's energy error: were Δ normal, Δ² / d would be 0.01 in the mean, and the square sees
to it that rare large errors, which tell of the bias in a tail, count. While learning, log h grows
by κ (1 - q), with κ = 0.05 and q cut off at 20. While settling, q is taken to grow like h² or h¹²,
respectively, and h is where its mean over all steps so far would be one.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from shoal.sampling.core.algorithm import Sampler, Status
from shoal.sampling.core.particles import to_matrix

_ENERGY_ERROR = 0.01
_LEAST_NUM_STEPS = 50
_CLIMBING_RATE = 0.1
_MEMORY = 5
_ACCEPTANCE = 0.8
_GAIN = 0.05
_LARGEST = 20
# Of whitened coordinates: friction and length do not go by what one chain far off suggests.
_LARGEST_VARIANCE = 1e4
# As if so many steps had been seen at the step size at which settling begins.
_PRIOR_STEPS = 10


class Moments(NamedTuple):
    """Sums over chains and steps: weight, means, squared deviations, squares along a direction.

    Vectors have shape ``(1, d)``: the driver takes a leading axis as long as the number of chains
    for theirs.
    """

    weight: jax.Array
    mean: jax.Array
    deviations: jax.Array
    score_mean: jax.Array
    score_deviations: jax.Array
    along: jax.Array


class Climb(NamedTuple):
    """State of the optimiser, the last log densities ``(n, 5)`` and which chains still climb."""

    optimizer: Any
    history: jax.Array
    is_climbing: jax.Array


class TuningState(NamedTuple):
    """Chains on their way and what they have learnt.

    Attributes
    ----------
    chains
        States of the chains, leading chain axis.
    ids
        Their ids, ``(n,)``.
    sampler
        `Sampler` with per-chain parameters.
    climb
        `Climb`.
    recent, pending
        `Moments` since the last change of window but one, and since the last.
    window
        Step of the last change of window.
    direction
        Unit vector ``(1, d)`` of largest variance in whitened coordinates.
    log_step_size
        log h at which settling began.
    error
        Sum of q while settling, each as it would be at that step size.
    step
        Steps done, int32.
    """

    chains: Any
    ids: jax.Array
    sampler: Sampler
    climb: Climb
    recent: Moments
    pending: Moments
    window: jax.Array
    direction: jax.Array
    log_step_size: jax.Array
    error: jax.Array
    step: jax.Array

    @property
    def position(self) -> Any:
        """Positions of the chains."""
        return self.chains.position


class Tuning(eqx.Module):
    """The warm-up as an algorithm for the driver: an ensemble, since its chains learn together.

    Attributes
    ----------
    chains
        Chains of one sampler: ``step(key, states)``, ``sampler``, ``target.log_density``.
    num_climb, num_learn, num_settle
        Steps of the phases. Static.
    """

    chains: Any
    num_climb: int = eqx.field(static=True)
    num_learn: int = eqx.field(static=True)
    num_settle: int = eqx.field(static=True)

    def init(self, states: Any) -> TuningState:
        """Start from the states of the chains."""
        x, _ = to_matrix(states.position)
        num, dim = x.shape
        climb = Climb(
            _optimizer().init(x), jnp.full((num, _MEMORY), -jnp.inf, x.dtype), jnp.ones(num, bool)
        )
        metric = jnp.ones((num, dim), x.dtype)
        sampler = _replace(self.chains.sampler, metric=metric)
        # Any direction will do that is no symmetry of the problem.
        direction = jax.random.normal(jax.random.key(0), (1, dim), x.dtype)
        zero, none = jnp.zeros((), x.dtype), jnp.asarray(0, jnp.int32)
        return TuningState(
            states, self.chains.ids, sampler, climb, _no_moments(x), _no_moments(x), none,
            direction / jnp.linalg.norm(direction), zero, zero, none,
        )  # fmt: skip

    def step(self, key: jax.Array, state: TuningState) -> tuple[TuningState, Any]:
        """Advance the chains by one step and learn from it."""
        state, info = jax.lax.cond(
            state.step < self.num_climb,
            lambda key, state: self._climb(key, state),
            lambda key, state: self._sample(key, state),
            key,
            state,
        )
        return state._replace(step=state.step + 1), info

    def final_sampler(self, state: TuningState) -> Sampler:
        """Return the tuned sampler; all chains have the same parameters."""
        return state.sampler

    def _climb(self, key: jax.Array, state: TuningState) -> tuple[TuningState, Any]:
        """Take a step of Adam with each chain that still has far to go."""
        states, (optimizer, history, is_climbing) = state.chains, state.climb
        x, from_matrix = to_matrix(states.position)
        updates, optimizer = _optimizer().update(-states.score, optimizer)
        position = from_matrix(x + updates)
        value, score = jax.vmap(jax.value_and_grad(self.chains.target.log_density))(position)
        score, _ = to_matrix(score)
        is_finite = jnp.isfinite(value) & jnp.isfinite(score).all(1)
        gains = value - history[:, 0] > x.shape[1] / 2
        is_climbing = is_climbing & is_finite & gains
        new = states._replace(position=position, log_density=value, score=score)
        climb = Climb(optimizer, jnp.append(history[:, 1:], value[:, None], 1), is_climbing)
        # What a step of the chains would report, had all gone well.
        _, info = jax.eval_shape(self._chains(state).step, key, states)
        info = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), info)
        info = info._replace(moved=is_climbing)
        return state._replace(chains=_choose(is_climbing, new, states), climb=climb), info

    def _sample(self, key: jax.Array, state: TuningState) -> tuple[TuningState, Any]:
        """Take a step of the sampler and learn from it."""
        states, info = self._chains(state).step(key, state.chains)
        if not state.sampler.is_adjusted:
            states = _cool(states)
        is_learning = state.step < self.num_climb + self.num_learn
        learnt = self._learn(state, states)
        state = jax.tree.map(lambda a, b: jnp.where(is_learning, a, b), learnt, state)
        state = self._set_step_size(state, _error(state.sampler, info, states.score), is_learning)
        return state._replace(chains=states), info

    def _learn(self, state: TuningState, states: Any) -> TuningState:
        """Add a step to the moments, follow the slowest direction and use what is known."""
        x, _ = to_matrix(states.position)
        dim = x.shape[1]
        weight = (states.log_density > states.log_density.max() - dim - 20).astype(x.dtype)
        factor = state.sampler.parameters["metric"].factor[0]
        whitened = (x - state.recent.mean) / factor
        along = jnp.sum(whitened * state.direction, 1, keepdims=True)
        squares = jnp.sum(weight[:, None] * jnp.minimum(along**2, 4 * _LARGEST_VARIANCE))
        add = lambda moments: _add(moments, x, states.score, weight, squares)
        recent, pending = add(state.recent), add(state.pending)

        t = state.step - self.num_climb
        rate = 6 / (jnp.minimum(t, 200) + 7)
        pull = jnp.mean(along * whitened, 0) / jnp.maximum(jnp.mean(along**2), 1e-3)
        direction = (1 - rate) * state.direction + rate * pull

        turn = t - state.window >= jnp.maximum(40, t // 2)
        recent = jax.tree.map(lambda a, b: jnp.where(turn, a, b), pending, recent)
        pending = jax.tree.map(lambda a: jnp.where(turn, 0, a), pending)
        sampler = _replace(state.sampler, **_parameters(state.sampler, recent, x))
        is_enough = recent.weight >= 5 * x.shape[0]
        return state._replace(
            sampler=jax.tree.map(lambda a, b: jnp.where(is_enough, a, b), sampler, state.sampler),
            recent=recent,
            pending=pending,
            window=jnp.where(turn, t, state.window),
            direction=direction / jnp.linalg.norm(direction),
        )

    def _set_step_size(
        self, state: TuningState, error: jax.Array, is_learning: jax.Array
    ) -> TuningState:
        """Make the error ``(n,)`` one: of each chain while learning, then of all in the mean."""
        log_h = jnp.log(state.sampler.parameters["step_size"])
        t = state.step - self.num_climb
        gain = jnp.maximum(_GAIN, 1.5 / (t + 5))
        learning = log_h + jnp.clip(gain * (1 - jnp.minimum(error, _LARGEST)), -0.7, 0.3)
        # All settle from one step size: that of the last step of learning, in the mean.
        learning = jnp.where(t < self.num_learn - 1, learning, jnp.mean(learning))
        begin = jnp.where(is_learning, jnp.mean(learning), state.log_step_size)
        power = 2 if state.sampler.is_adjusted else 12
        seen = state.error + jnp.mean(error * jnp.exp(power * (begin - log_h)))
        num = t - self.num_learn + 1
        settled = begin - jnp.log((_PRIOR_STEPS + seen) / (_PRIOR_STEPS + num)) / power
        log_h = jnp.where(is_learning, learning, settled).astype(log_h.dtype)
        return state._replace(
            sampler=_replace(state.sampler, step_size=jnp.exp(log_h)),
            log_step_size=begin.astype(log_h.dtype),
            error=jnp.where(is_learning, 0, seen).astype(log_h.dtype),
        )

    def _chains(self, state: TuningState) -> Any:
        where = lambda chains: (chains.sampler, chains.ids)
        return eqx.tree_at(where, self.chains, (state.sampler, state.ids))


def warm_up(chains: Any, num_steps: int) -> Tuning:
    """Lay out the phases for ``num_steps`` steps; ``ValueError`` for fewer than 50."""
    if num_steps < _LEAST_NUM_STEPS:
        raise ValueError(
            f"num_warmup must be at least {_LEAST_NUM_STEPS} for langevin.auto(), which has all to "
            f"learn in it, or 0 to use its parameters as they are; got {num_steps}"
        )
    num_climb, num_settle = min(100, num_steps // 10), num_steps // 4
    return Tuning(chains, num_climb, num_steps - num_climb - num_settle, num_settle)


def _optimizer() -> optax.GradientTransformation:
    return optax.adam(_CLIMBING_RATE, b2=0.99)


def _error(sampler: Sampler, info: Any, score: jax.Array) -> jax.Array:
    """Return each chain's measure q of the error of its step, shape ``(n,)``."""
    if sampler.is_adjusted:
        return (1 - info.statistics["acceptance_rate"]) / (1 - _ACCEPTANCE)
    relative = info.statistics["energy_error"] ** 2 / score.shape[1]
    has_failed = (info.statistics["n_steps"] > 0) | (info.status != Status.OK)
    return jnp.where(has_failed, 1, jnp.minimum(relative, 1)) ** 2 / (3 * _ENERGY_ERROR**2)


def _parameters(sampler: Sampler, moments: Moments, x: jax.Array) -> dict[str, jax.Array]:
    """Return metric, and friction or path length, for each chain."""
    num, dim = x.shape
    tiny = jnp.finfo(x.dtype).tiny
    ratio = (moments.deviations + tiny) / (moments.score_deviations + tiny)
    everywhere = lambda value: jnp.broadcast_to(value, (num, *jnp.shape(value)))
    largest = jnp.clip(moments.along / jnp.maximum(moments.weight, 1), 1, _LARGEST_VARIANCE)
    if sampler.is_adjusted:
        # A path moves 1 / √d along a coordinate. A quarter of the slowest period, π / 2, would be
        # best for means; the squares of a shorter one's ends are less correlated.
        slowest = {"path_length": everywhere(1.25 * jnp.sqrt(largest * dim))}
    else:
        slowest = {"friction": everywhere(2 / jnp.sqrt(largest))}
    return {"metric": everywhere(jnp.sqrt(ratio[0])), **slowest}


def _no_moments(x: jax.Array) -> Moments:
    scalar, vector = jnp.zeros((), x.dtype), jnp.zeros((1, x.shape[1]), x.dtype)
    return Moments(scalar, vector, vector, vector, vector, scalar)


def _add(
    moments: Moments, x: jax.Array, score: jax.Array, weight: jax.Array, squares: jax.Array
) -> Moments:
    """Add all chains at once (Chan, Golub and LeVeque's update of means and deviations)."""
    added = jnp.sum(weight)
    total = moments.weight + added
    share = (weight / added)[:, None]

    def update(mean: jax.Array, deviations: jax.Array, values: jax.Array) -> tuple[Any, Any]:
        centre = jnp.sum(share * values, 0, keepdims=True)
        shift = centre - mean
        within = added * jnp.sum(share * (values - centre) ** 2, 0)
        between = shift**2 * moments.weight * added / total
        return mean + shift * added / total, deviations + within + between

    of_x = update(moments.mean, moments.deviations, x)
    of_score = update(moments.score_mean, moments.score_deviations, score)
    return Moments(total, *of_x, *of_score, moments.along + squares)


def _cool(states: Any) -> Any:
    """Shorten momenta that exceed what equilibrium would have, four deviations above the mean."""
    dim = states.momentum.shape[1]
    longest = (dim + 4 * (2 * dim) ** 0.5) ** 0.5
    length = jnp.linalg.norm(states.momentum, axis=1, keepdims=True)
    return states._replace(momentum=states.momentum * jnp.minimum(1, longest / length))


def _choose(mask: jax.Array, new: Any, old: Any) -> Any:
    """Take the new rows where ``mask`` ``(n,)`` holds."""
    where = lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)
    return jax.tree.map(where, new, old)


def _replace(sampler: Sampler, **parameters: jax.Array) -> Sampler:
    """Replace per-chain parameters in the form and dtype in which the sampler holds them."""
    new = jax.vmap(lambda s, p: s.replace(**p))(sampler, parameters)
    if "metric" in parameters:  # may change from a scalar to a diagonal
        return new
    return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), new, sampler)
