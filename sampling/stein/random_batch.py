"""Random-batch SVGD: each particle meets a few others in a step, and all of them in the mean.

In each step the n living particles are put at random into batches, of p particles or fewer. With b
the sizes of the batches and c = (n - 1) / Σ_b b (b - 1), which is (1 - 1/n) / (p - 1) where all are
full, each particle is moved along

    φ_i = (1/n) [k(x_i, x_i) s_i + ∇₁k(x_i, x_i)]
        + c Σ_{j ≠ i in the batch of i} [ k(x_j, x_i) s_j + ∇_{x_j} k(x_j, x_i) ].

Any two particles share a batch with probability 1 / (n c), so the mean over partitions is exactly
SVGD's direction. What a batch adds is noise that does not shrink with n but with p and the step
size: use a decaying one. For a standard normal law in the plane, n = 500, 1000 steps of Adam with a
rate of 0.1 that halves every 200, the variances end at 1.04 with p = 10 and at 1.14 with p = 2. A
step costs n p d instead of n² d.

References: Li, Li, Liu, Liu and Lu, "A stochastic version of Stein variational gradient descent for
efficient sampling", Communications in Applied Mathematics and Computational Science 15 (2020),
algorithm 1; Jin, Li and Liu, "Random batch methods (RBM) for interacting particle systems", Journal
of Computational Physics 400 (2020).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from shoal.sampling.core import pairwise
from shoal.sampling.core._checks import integer
from shoal.sampling.core._hyperparameters import make_sampler
from shoal.sampling.core.algorithm import Algorithm, LogDensity, Sampler
from shoal.sampling.core.kernels import Kernel
from shoal.sampling.stein._direction import Direction, Ensemble
from shoal.sampling.stein._ensemble import Method
from shoal.sampling.stein._options import (
    Bandwidth,
    check_bandwidth,
    check_kernel,
    check_optimizer,
)
from shoal.sampling.stein._pairs import own_pairs


def random_batch_svgd(
    kernel: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    *,
    batch_size: int = 32,
    bandwidth: str | float = "tracked",
) -> Sampler:
    """Stein variational gradient descent with interactions inside of random batches.

    Parameters
    ----------
    kernel, optimizer
        As in `svgd`.
    batch_size
        p, at least 2: the most particles in a batch. From n on the method is SVGD.
    bandwidth
        As in `svgd`. The tracked rules count the near pairs inside of batches: in nine of ten steps
        they were within 6 percent of the median for n p = 5000, and 16 for 1000 (the example at the
        head); for far fewer pairs give a number.

    Returns
    -------
    Sampler
        As `svgd` returns. A step costs n gradients and about 4 n p d multiplications, in O(n d)
        memory.

    Raises
    ------
    TypeError, ValueError
        As `svgd`; also for a ``batch_size`` that is no integer of at least 2.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> from shoal.inference.run import run
    >>> from shoal.sampling import stein
    >>> optimizer = optax.adam(optax.exponential_decay(0.1, 100, 0.5))
    >>> algorithm = stein.random_batch_svgd(None, optimizer, batch_size=20)(
    ...     lambda x: -0.5 * jnp.sum((x - 3.0) ** 2)
    ... )
    >>> state = algorithm.init(jax.random.normal(jax.random.key(0), (500, 2)))
    >>> state = run(jax.random.key(1), algorithm, state, 500).state
    >>> [f"{value:.1f}" for value in (state.position.mean(), state.position.var(axis=0).mean())]
    ['3.0', '1.0']
    """
    return make_sampler(
        _build_random_batch_svgd,
        {"kernel": kernel, "bandwidth": bandwidth},
        {"kernel": check_kernel, "bandwidth": check_bandwidth},
        options=(
            ("batch_size", integer("batch_size", batch_size, 2)),
            ("optimizer", check_optimizer(optimizer)),
        ),
        is_adjusted=False,
        is_ensemble=True,
    )


def _build_random_batch_svgd(
    log_density: LogDensity,
    kernel: Kernel,
    bandwidth: Bandwidth,
    batch_size: int,
    optimizer: optax.GradientTransformation,
) -> Algorithm:
    def direction(key: jax.Array, ensemble: Ensemble) -> Direction:
        order = jax.random.permutation(key, len(ensemble.points))
        return direction_in_batches(kernel, ensemble, order, batch_size)

    return Method(direction, optimizer, bandwidth).algorithm(log_density)


def direction_in_batches(
    kernel: Kernel, ensemble: Ensemble, order: jax.Array, batch_size: int
) -> Direction:
    """Return φ for the partition that an order of the particles, ``(n,)``, stands for."""
    num = len(order)
    members, num_pairs = _partition(ensemble.alive[order], batch_size)
    members = jnp.where(members < num, order[members % num], num)
    is_member = members < num
    points = ensemble.scaled(kernel)
    # Empty places are filled from a row that is harmless, without weight.
    rows = jnp.where(is_member, members, 0)
    weights = is_member.astype(points.dtype)
    score = ensemble.score[rows] * weights[..., None]
    threshold = None if ensemble.threshold is None else ensemble.threshold / ensemble.bandwidth
    slope = jax.lax.rsqrt(ensemble.bandwidth)

    def inside(x: jax.Array, s: jax.Array, w: jax.Array) -> pairwise.CountedSum:
        sums = pairwise.kernel_matvec_plus_grad_sum(kernel, x, x, s, slope * w, threshold=threshold)
        if threshold is None or sums.near is None:
            return sums
        is_near = jnp.sum((x - points[0]) ** 2, 1) <= threshold
        return sums._replace(near=sums.near - jnp.sum(1 - w) * is_near)

    total, near = jax.vmap(inside)(points[rows], score, weights)
    values, gradients = own_pairs(kernel, points)
    own = values[:, None] * ensemble.score + slope * gradients
    back = lambda batches: (
        jnp.zeros((num, *batches.shape[2:]), batches.dtype).at[members].set(batches, mode="drop")
    )
    count = ensemble.num_alive
    # One over the probability that two particles meet, times n; zero where there is one only.
    factor = (count - 1) / jnp.maximum(num_pairs, 1)
    phi = factor * (back(total) - own) + own / count
    if near is None:
        return Direction(phi)
    # The dead in no batch count as near each other and no one else.
    others = 1 + factor * count * (back(near) - 1)
    return Direction(phi, jnp.where(ensemble.alive, others, num - count))


def _partition(alive: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Deal the living, in their order, to as few batches as will do, of sizes as like as can be.

    Returns the indices in each batch, ``(⌈n/p⌉, p)`` with n where there is nobody, and the number
    of ordered pairs of different particles in one batch.
    """
    num = len(alive)
    batch_size = min(batch_size, num)
    count = jnp.sum(alive)
    num_batches = jnp.maximum(-(-count // batch_size), 1)
    rank = jnp.cumsum(alive) - 1
    slot = (rank % num_batches) * batch_size + rank // num_batches
    most = -(-num // batch_size)
    slot = jnp.where(alive, slot, most * batch_size)
    members = jnp.full(most * batch_size, num).at[slot].set(jnp.arange(num), mode="drop")
    size, larger = count // num_batches, count % num_batches
    num_pairs = size * (size - 1) * num_batches + 2 * size * larger
    return members.reshape(most, batch_size), num_pairs
