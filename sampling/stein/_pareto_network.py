"""The map from preferences to solutions, and how it is trained.

A network x = sigmoid(W_3 relu(W_2 relu(W_1 λ))) of weights w takes a preference λ to a point of the
unit cube. For n preferences with values v_i (lower confidence bounds of the objectives at x_i), the
ideal point z and the losses of Chebyshev,

    L_i = max_a λ_ia (v_ia - z_a),   at a = a_i,   g_i = ∂L_i / ∂w,

each coordinate of g is scaled to unit length over i (ĝ), and w moves against

    Σ_j (Σ_i K_ij) ĝ_j / n + α ∂/∂w Σ_ij K_ij / n,   K_ij = exp(-(v_ib - v_jb)² / h_b),  b = a_j:

down the losses, shared among preferences with similar values, and away from values that coincide.
The kernel is local: it compares along the one objective that is active for j.

No gradient of one preference is formed: with the inputs A ``(n, p)`` of a layer and the slopes Δ
``(n, q)`` after it, g_j = A_j Δ_jᵀ, of which the squared lengths over j are (A∘A)ᵀ(Δ∘Δ) and a sum
with weights c is (A∘c)ᵀΔ.

Reference: Nguyen, Dao, Nguyen et al., "Improving Pareto set learning for expensive multi-objective
optimization via Stein variational hypernetworks" (2024), Algorithm 1.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from shoal.sampling.stein._pareto_front import choose_greedily, dominated_volume

Network = tuple[tuple[jax.Array, jax.Array], ...]
# Offset that keeps preferences from the corners, where an objective would not count at all.
_OFFSET = 1e-4
_SMALLEST_BANDWIDTH = 5e-6
# Gradients of a coordinate that are shorter are not scaled to unit length.
_SHORTEST = 1e-12
# How far the ideal point is below the best values, in their standard deviations.
_BEYOND_BEST = 0.1
# Of their range, added to the worst values for a reference point.
_MARGIN = 0.1
# Steps between two looks at the hypervolume, by which a network is chosen.
_CHECK_EVERY = 10


class Sizes(NamedTuple):
    """Numbers that shape a program."""

    num_preferences: int
    num_steps: int
    num_candidates: int
    batch_size: int
    width: int
    bandwidth: str


class Rates(NamedTuple):
    """Numbers that do not."""

    learning_rate: float
    exploration: float
    repulsion: float
    kernel_scale: float


class Task(NamedTuple):
    """What a network is trained for: objectives, and where they matter.

    ``front`` holds the values of nondominated solutions, padded with infinite ones; ``solutions``
    are these, in the unit cube, padded with zeros.
    """

    surrogate: Any
    reference: jax.Array
    front: jax.Array
    solutions: jax.Array


def initialise(key: jax.Array, num_objectives: int, dim: int, width: int) -> Network:
    """Draw weights and biases of three layers, uniform within 1 / √(number of inputs)."""
    sizes = (num_objectives, width, width, dim)

    def layer(key: jax.Array, inputs: int, outputs: int) -> tuple[jax.Array, jax.Array]:
        limit = 1 / math.sqrt(inputs)
        both = jax.random.uniform(key, (inputs + 1, outputs), jnp.float32, -limit, limit)
        return both[:-1], both[-1]

    keys = jax.random.split(key, 3)
    return tuple(layer(*args) for args in zip(keys, sizes[:-1], sizes[1:], strict=True))


def forward(network: Network, preferences: jax.Array, taps: Any = (0, 0, 0)) -> tuple[Any, Any]:
    """Return solutions ``(n, d)``, and the inputs of each layer; ``taps`` are added after it."""
    hidden, inputs = preferences.astype(network[0][0].dtype), []
    for (weight, bias), tap in zip(network, taps, strict=True):
        inputs.append(hidden)
        outputs = hidden @ weight + bias + tap
        hidden = jax.nn.relu(outputs)
    return jax.nn.sigmoid(outputs), inputs


def draw_preferences(key: jax.Array, num: int, num_objectives: int) -> jax.Array:
    """Draw from the uniform law on the simplex, ``(num, m)``, offset from its faces."""
    parts = jax.random.exponential(key, (num, num_objectives), jnp.float32)
    return parts / jnp.sum(parts, 1, keepdims=True) + _OFFSET


def even_preferences(num_objectives: int) -> np.ndarray:
    """Return a lattice on the simplex, of 200 points for two objectives and 300 for three."""
    if num_objectives == 2:
        first = np.linspace(0, 1, 200)
        return np.stack([first, 1 - first], 1)
    counts = [(i, j, 23 - i - j) for i in range(24) for j in range(24 - i)]
    return np.array(counts) / 23


def local_kernel(values: jax.Array, active: jax.Array, scale: Any, bandwidth: str) -> jax.Array:
    """Return K ``(n, n)`` of values ``(n, m)``, where column j compares objective ``active[j]``.

    h is ``scale`` times the median of all n² squared differences over log n, or, for
    ``"squared_median"``, its square over log n.
    """
    differences = (values[:, None] - values) ** 2
    median = jax.lax.stop_gradient(jnp.median(differences, axis=(0, 1)))
    power = 2 if bandwidth == "squared_median" else 1
    h = jnp.where(median > 0, scale * median**power / math.log(len(values)), _SMALLEST_BANDWIDTH)
    compared = jnp.take_along_axis(differences, active[None, :, None], 2)[..., 0]
    return jnp.exp(-compared / h[active])


def direction(
    network: Network, values_of: Callable[[jax.Array], jax.Array], weights: jax.Array,
    ideal: jax.Array, preferences: jax.Array, sizes: Sizes, rates: Rates,
) -> tuple[Network, jax.Array]:  # fmt: skip
    """Return what the weights are moved against, and the least value of each objective."""

    def values(network: Network, taps: Any) -> tuple[jax.Array, Any]:
        solutions, inputs = forward(network, preferences, taps)
        return values_of(solutions), inputs

    taps = tuple(jnp.zeros((len(preferences), bias.size), bias.dtype) for _, bias in network)
    v, pull, inputs = jax.vjp(values, network, taps, has_aux=True)
    losses = weights * (v - ideal)
    active = jnp.argmax(losses, 1)
    kernel = functools.partial(
        local_kernel, active=active, scale=rates.kernel_scale, bandwidth=sizes.bandwidth
    )
    of_loss = jnp.where(jnp.arange(v.shape[1]) == active[:, None], weights, 0).astype(v.dtype)
    slopes = pull(of_loss)[1]
    apart = pull(jax.grad(lambda v: jnp.sum(kernel(v)))(v))[0]
    share = jnp.sum(kernel(v), 0).astype(taps[0].dtype)
    down = tuple(_normalised_sum(a, b, share) for a, b in zip(inputs, slopes, strict=True))
    # Summed over i: Σ_i (1/n) [Σ_j K_ij ĝ_j + α ∇ Σ_j K_ij].
    against = jax.tree.map(lambda g, r: (g + rates.repulsion * r) / len(v), down, apart)
    return against, jnp.min(v, 0)


def _normalised_sum(
    inputs: jax.Array, slopes: jax.Array, share: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return Σ_j share_j ĝ_j for the weight and the bias of a layer."""
    lengths = jnp.sqrt((inputs**2).T @ slopes**2)
    bias_lengths = jnp.sqrt(jnp.sum(slopes**2, 0))
    shared = share[:, None] * slopes
    return inputs.T @ shared / jnp.maximum(lengths, _SHORTEST), jnp.sum(shared, 0) / jnp.maximum(
        bias_lengths, _SHORTEST
    )


def lower_bounds(surrogate: Any, exploration: Any, predict: Any, x: jax.Array) -> jax.Array:
    """Return means less a multiple of the deviations, ``(n, m)``."""
    mean, deviation = predict(surrogate, x.astype(surrogate.inputs.dtype))
    return mean - exploration * deviation


@functools.partial(jax.jit, static_argnames=("sizes", "predict", "dim"))
def train(
    key: jax.Array, task: Task, rates: Rates, sizes: Sizes, predict: Any, dim: int
) -> Network:
    """Return a network trained afresh: of all that were looked at, that of most hypervolume."""
    num_objectives = len(task.reference)
    values_of = functools.partial(lower_bounds, task.surrogate, rates.exploration, predict)
    even = jnp.asarray(even_preferences(num_objectives), jnp.float32)
    optimiser = optax.adam(rates.learning_rate)
    start = initialise(jax.random.fold_in(key, 0), num_objectives, dim, sizes.width)

    def volume(network: Network) -> jax.Array:
        return dominated_volume(values_of(forward(network, even)[0]), task.reference)

    def step(carry: Any, i: jax.Array) -> tuple[Any, None]:
        network, state, best, most, ideal = carry
        draws = jax.random.fold_in(key, i + 1)
        preferences = draw_preferences(draws, sizes.num_preferences, num_objectives)
        # Each objective in units of its range on the front: standard deviations are those of all
        # that was evaluated, mostly far behind it.
        weights = preferences / (worst - ideal)
        against, least = direction(network, values_of, weights, ideal, preferences, sizes, rates)
        updates, state = optimiser.update(against, state)
        network = optax.apply_updates(network, updates)
        is_time = ((i + 1) % _CHECK_EVERY == 0) | (i + 1 == sizes.num_steps)
        found = jax.lax.cond(is_time, lambda: volume(network), lambda: jnp.full_like(most, -1))
        best = jax.tree.map(lambda new, old: jnp.where(found >= most, new, old), network, best)
        # The surrogate may promise more than was seen: a value below the ideal would count as zero.
        ideal = jnp.minimum(ideal, least - _BEYOND_BEST)
        return (network, state, best, jnp.maximum(found, most), ideal), None

    ideal, worst = jnp.min(task.front, 0) - _BEYOND_BEST, _worst(task.front)
    carry = start, optimiser.init(start), start, jnp.zeros((), ideal.dtype), ideal
    return jax.lax.scan(step, carry, jnp.arange(sizes.num_steps))[0][2]


@functools.partial(jax.jit, static_argnames=("sizes", "predict"))
def propose(
    key: jax.Array, network: Network, task: Task, rates: Rates, sizes: Sizes, predict: Any
) -> jax.Array:
    """Return the candidates ``(batch, d)`` that promise to add most hypervolume."""
    of_network, of_front = jax.random.split(key)
    preferences = draw_preferences(of_network, sizes.num_candidates, len(task.reference))
    learned = forward(network, preferences)[0]
    candidates = jnp.concatenate([learned, _neighbours(of_front, task, len(learned))])
    values = lower_bounds(task.surrogate, rates.exploration, predict, candidates)
    # Far behind the front a reference point would have the ends of the front chosen alone.
    both = jnp.concatenate([task.front, values])
    worst = _worst(both)
    reference = jnp.minimum(task.reference, worst + _MARGIN * (worst - jnp.min(both, 0)))
    # By the same bounds as the candidates', or what lies beside a known point would seem better.
    known = lower_bounds(task.surrogate, rates.exploration, predict, task.solutions)
    front = jnp.where(jnp.isinf(task.front), jnp.inf, jnp.minimum(task.front, known))
    return candidates[choose_greedily(values, front, reference, sizes.batch_size)]


def _worst(front: jax.Array) -> jax.Array:
    """Return the largest finite value of each objective."""
    return jnp.max(jnp.where(jnp.isinf(front), -jnp.inf, front), 0)


def _neighbours(key: jax.Array, task: Task, num: int) -> jax.Array:
    """Return solutions on the front with one coordinate drawn anew, ``(num, d)``.

    A network may have settled where the surrogate is wrong and would be asked there again.
    """
    of_row, of_coordinate, of_value = jax.random.split(key, 3)
    count = jnp.sum(jnp.isfinite(task.front[:, 0]))
    rows = task.solutions[jax.random.randint(of_row, (num,), 0, count)]
    chosen = jax.random.randint(of_coordinate, (num, 1), 0, rows.shape[1])
    # Uniform, but for one in twelve at either bound, where optima often are.
    drawn = jnp.clip(jax.random.uniform(of_value, (num, 1), rows.dtype, -0.1, 1.1), 0, 1)
    return jnp.where(jnp.arange(rows.shape[1]) == chosen, drawn, rows)
