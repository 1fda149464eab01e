"""Message-passing SVGD: a kernel for each coordinate, on its neighbours in a graph.

A kernel of all d coordinates loses sight as d grows: no particle is near another, and the spread of
all collapses. Where the target is a Markov random field, coordinate a depends on few others, its
Markov blanket: a log density with no term in both x_a and x_b needs no edge. With C_a the blanket
and a itself, and kernels k_a of the coordinates in C_a alone, coordinate a of particle i is moved
along

    φ_ia = (1/n) Σ_j [ k_a(x_j, x_i) s_ja + ∂k_a(x_j, x_i) / ∂x_ja ].

With every coordinate a neighbour of every other it is SVGD. The marginal laws of the C_a are kept
as by SVGD in |C_a| dimensions instead of d; what coordinates that are no neighbours have in common
is not looked after. For a chain of d = 50 with variances 1 and correlation 0.5 of neighbours,
n = 50, 600 steps of Adam, the variances are 0.91, and those of SVGD 0.62 (with an RBF kernel 0.14).
Where neighbours are strongly correlated an ensemble widens slowly: with 0.9 and d = 20, 3000 steps
from N(0, I) lead to 0.48, from the target's own draws to 0.88; with SVGD both to 0.90.

References: Zhuo, Liu, Shi, Zhu, Chen and Zhang, "Message passing Stein variational gradient
descent", ICML 2018; Wang, Zeng and Liu, "Stein variational message passing for continuous graphical
models", ICML 2018.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from shoal.sampling.core import pairwise
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


def message_passing_svgd(
    kernel: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    *,
    neighbours: Any,
    bandwidth: str | float = "tracked",
) -> Sampler:
    """Stein variational gradient descent for a target whose coordinates form a sparse graph.

    Parameters
    ----------
    kernel, optimizer
        As in `svgd`; each coordinate uses the kernel on the particles' neighbouring coordinates.
    neighbours
        bool ``(d, d)``, symmetric: which coordinates of the raveled particle appear together in a
        term of the log density. The diagonal does not matter.
    bandwidth
        A number is h of every coordinate's kernel. A rule, as in `svgd`, gives an h for all d
        coordinates, of which each kernel takes the part that its coordinates have in the summed
        variance.

    Returns
    -------
    Sampler
        As `svgd` returns. A step costs n gradients and about 4 n² d c multiplications with c the
        largest number of neighbours, in O(n (d + c)) memory; the tracked bandwidth n² d more.

    Raises
    ------
    TypeError, ValueError
        As `svgd`; also for ``neighbours`` that are no symmetric bool matrix, and from ``init`` for
        particles with another number of coordinates.

    Examples
    --------
    A series of 30 numbers, each of variance 1 and correlated with the next:

    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from shoal.inference.run import run
    >>> from shoal.sampling import stein
    >>> time = np.arange(30)
    >>> neighbours = abs(time[:, None] - time) <= 1
    >>> log_density = lambda x: -0.5 * (
    ...     x[0] ** 2 + jnp.sum((x[1:] - 0.5 * x[:-1]) ** 2) / 0.75
    ... )
    >>> algorithm = stein.message_passing_svgd(neighbours=neighbours)(log_density)
    >>> state = algorithm.init(jax.random.normal(jax.random.key(0), (50, 30)))
    >>> state = run(jax.random.key(1), algorithm, state, 300).state
    >>> f"{state.position.var(axis=0).mean():.1f}"
    '0.9'
    """
    return make_sampler(
        _build_message_passing_svgd,
        {"kernel": kernel, "bandwidth": bandwidth, "neighbours": neighbours},
        {
            "kernel": check_kernel,
            "bandwidth": check_bandwidth,
            "neighbours": check_neighbours,
        },
        options=(("optimizer", check_optimizer(optimizer)),),
        is_adjusted=False,
        is_ensemble=True,
    )


def check_neighbours(neighbours: Any) -> np.ndarray:
    """Return for each coordinate itself and its neighbours, int32 ``(d, c)`` padded with -1."""
    matrix = np.asarray(neighbours)
    if matrix.dtype != bool:
        raise TypeError(
            f"neighbours must be a bool matrix, got dtype {matrix.dtype}: {neighbours!r}"
        )
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"neighbours must have shape (d, d), got {matrix.shape}")
    if (matrix != matrix.T).any():
        a, b = np.argwhere(matrix != matrix.T)[0].tolist()
        raise ValueError(
            f"neighbours must be symmetric, but entry [{a}, {b}] is {matrix[a, b]} and "
            f"[{b}, {a}] is {matrix[b, a]}"
        )
    others = matrix & ~np.eye(len(matrix), dtype=bool)
    table = np.full((len(matrix), 1 + others.sum(1).max()), -1, np.int32)
    table[:, 0] = np.arange(len(matrix))
    for row, is_neighbour in zip(table, others, strict=True):
        found = np.flatnonzero(is_neighbour)
        row[1 : 1 + len(found)] = found
    return table


def _build_message_passing_svgd(
    log_density: LogDensity,
    kernel: Kernel,
    bandwidth: Bandwidth,
    neighbours: Any,
    optimizer: optax.GradientTransformation,
) -> Algorithm:
    def check(points: jax.Array) -> None:
        if points.shape[1] != len(neighbours):
            raise ValueError(
                f"neighbours are of {len(neighbours)} coordinates, but a particle of position has "
                f"{points.shape[1]}"
            )

    def direction(key: jax.Array, ensemble: Ensemble) -> Direction:
        variance = jnp.var(ensemble.points, axis=0, where=ensemble.alive[:, None])

        def of_coordinate(members: jax.Array) -> jax.Array:
            is_member = members >= 0
            share = jnp.sum(jnp.where(is_member, variance[members], 0)) / jnp.sum(variance)
            # Particles that coincide, or one alone: any bandwidth is as good.
            is_shared = bandwidth.rule is not None and (share > 0)
            h = ensemble.bandwidth * jnp.where(is_shared, share, 1)
            local = ensemble._replace(
                points=jnp.where(is_member, ensemble.points[:, members], 0), bandwidth=h
            )
            first = jnp.arange(len(members)) == 0
            sums = pairwise.kernel_matvec_plus_grad_sum(
                kernel,
                local.scaled(kernel),
                local.scaled(kernel),
                jnp.where(first, ensemble.score[:, members[:1]], 0),
                ensemble.weights * jax.lax.rsqrt(h),
            )
            return sums.total[:, 0]

        total = jax.lax.map(of_coordinate, jnp.asarray(neighbours))
        return Direction(total.T / ensemble.num_alive)

    return Method(direction, optimizer, bandwidth, check=check).algorithm(log_density)
