"""What a method of Stein samplers is made of, and what it makes: an ensemble and a direction."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from shoal.sampling.core import pairwise
from shoal.sampling.core.algorithm import Position
from shoal.sampling.core.kernels import Kernel


class Ensemble(NamedTuple):
    """What a direction is made of; rows of the dead are parked, their scores zero.

    Attributes
    ----------
    points
        Raveled particles ``(n, d)``, in the set where there is a mirror map; in the dual space for
        a method that `sees_dual`.
    dual
        ``(n, k)``: the coordinates that are moved; the points themselves without a mirror map.
    score
        ``(n, k)``: score in the coordinates that are moved.
    alive
        bool ``(n,)``.
    num_alive
        Number of the living, at least 1, in the dtype of the points.
    bandwidth
        h, scalar.
    threshold
        Squared distance up to which pairs are to be counted; None if they are not.
    num_steps
        Steps made before, int32.
    log_density
        Log density of one raveled point; from minibatches an estimate, by the batch that the
        scores after the step will be of.
    batch
        That batch; None without minibatches.
    unravel
        Makes a position of one particle from a raveled point ``(d,)``.
    memory
        What the direction of the last step returned, at first what `Method.memory` did.
    """

    points: jax.Array
    dual: jax.Array
    score: jax.Array
    alive: jax.Array
    num_alive: jax.Array
    bandwidth: jax.Array
    threshold: jax.Array | None
    num_steps: jax.Array
    log_density: Callable[[jax.Array], jax.Array]
    batch: Any
    unravel: Callable[[jax.Array], Position]
    memory: Any

    @property
    def weights(self) -> jax.Array:
        """One for the living and zero for the dead, ``(n,)``."""
        return self.alive.astype(self.points.dtype)

    def scaled(self, kernel: Kernel) -> jax.Array:
        """Points in units of the kernel, x/√h, around one of them if the kernel is radial."""
        points = self.points
        if kernel.has_jet and kernel.is_radial:
            # Far from the origin rounding x/√h would take digits of the differences.
            points = points - jax.lax.stop_gradient(points[:1])
        return points * jax.lax.rsqrt(self.bandwidth)


class Direction(NamedTuple):
    """Where to move.

    Attributes
    ----------
    phi
        ``(n, k)``.
    near
        For each particle the number of particles within the threshold, ``(n,)``; None if the
        method has not counted.
    memory
        For the next step; of the structure, shapes and dtypes of that in the ensemble.
    bandwidth
        h that was used, if it is not that of the ensemble.
    basis
        Orthonormal columns ``(k, r)``: the optimiser's updates are projected on their span; None
        for all of space.
    noise
        Added to the new coordinates ``(n, k)``, past the optimiser; None for none.
    """

    phi: jax.Array
    near: jax.Array | None = None
    memory: Any = None
    bandwidth: jax.Array | None = None
    basis: jax.Array | None = None
    noise: jax.Array | None = None


def stein_direction(
    kernel: Kernel,
    ensemble: Ensemble,
    score: jax.Array | None = None,
    *,
    block_size: int | None = None,
    ring: pairwise.Ring | None = None,
) -> Direction:
    """Return ``φ_i = (1/n) Σ_j k(x_j, x_i) s_j + ∇_{x_j} k(x_j, x_i)`` and the count of near pairs.

    ``score`` stands for s, that of the ensemble by default.
    """
    points = ensemble.scaled(kernel)
    threshold = None if ensemble.threshold is None else ensemble.threshold / ensemble.bandwidth
    sums = pairwise.kernel_matvec_plus_grad_sum(
        kernel,
        points,
        points,
        ensemble.score if score is None else score,
        ensemble.weights * jax.lax.rsqrt(ensemble.bandwidth),
        threshold=threshold,
        block_size=block_size,
        ring=ring,
    )
    return Direction(sums.total / ensemble.num_alive, sums.near)
