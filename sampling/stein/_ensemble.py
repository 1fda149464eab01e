"""What Stein samplers share: an ensemble that an optimiser moves along a direction.

A method is a function that tells from the particles x_i, their scores s_i and a kernel the
directions φ_i in which to move them. All else is here: scores, by all the data or by a minibatch;
the bandwidth; any optax transformation, which gets -φ as a gradient to descend; the mirror map, if
the particles move in its dual space; particles that die.

Kernels are used at x/√h with h the bandwidth. For a kernel of the distance that is the kernel with
its bandwidth multiplied by h (its length scale by √h), so that one rule serves all kernels.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from shoal.sampling.core import bandwidth as bandwidths
from shoal.sampling.core._checks import (
    check_callable,
    check_finite,
    check_position,
    real_scalar,
)
from shoal.sampling.core._kernel_sums import dot
from shoal.sampling.core.algorithm import (
    Algorithm,
    LogDensity,
    Position,
    Status,
    proposal_status,
)
from shoal.sampling.core.mirror import MirrorMap
from shoal.sampling.core.particles import park_dead, to_matrix
from shoal.sampling.core.random import check_key
from shoal.sampling.stein._direction import Direction, Ensemble
from shoal.sampling.stein._options import Bandwidth

# Steps between looks whether all particles coincide.
_LOOK_EVERY = 16


class SteinState(NamedTuple):
    """An ensemble of n particles in d coordinates.

    Attributes
    ----------
    position
        Pytree of floating arrays ``(n, ...)``.
    dual
        ``(n, k)``: the particles in the dual space, where a mirrored method moves them; else None.
    log_density
        ``(n,)``, or its estimates from the batch that the next step uses.
    score
        ``(n, d)``: gradients of the log density, or of that of the dual law, ``(n, k)``.
    alive
        bool ``(n,)``: the particles that count. One whose new point, log density or gradient is not
        finite stays where it was and counts no more.
    optimizer
        State of the optax transformation.
    median
        `shoal.sampling.core.bandwidth.TrackedMedian`; None for a rule that does not follow it.
    memory
        What the method carries from step to step, such as running averages; None for most.
    num_steps
        Steps made, int32.
    """

    position: Position
    dual: jax.Array | None
    log_density: jax.Array
    score: jax.Array
    alive: jax.Array
    optimizer: Any
    median: bandwidths.TrackedMedian | None
    memory: Any
    num_steps: jax.Array


class SteinInfo(NamedTuple):
    """What happened in a step.

    Attributes
    ----------
    direction_norm
        Root mean square of φ over living particles and coordinates: how far from rest they are.
    bandwidth
        h that was used, in units of the squared distance.
    status
        int8 `Status` codes ``(n,)``; ``FROZEN`` for the dead, and for all where they coincide.
    """

    direction_norm: jax.Array
    bandwidth: jax.Array
    status: jax.Array


@dataclasses.dataclass(frozen=True)
class Method:
    """What makes a method of an ensemble.

    Attributes
    ----------
    direction
        ``direction(key, ensemble) -> Direction``.
    optimizer, bandwidth
        Checked.
    mirror
        Map in whose dual space the particles move; None for their own space.
    project
        Applied to each raveled particle ``(d,)`` after a step.
    check
        ``check(points)`` raises for a start, ``(n, d)``, that the method cannot use.
    memory
        ``memory(points)`` is the memory at the start; None for a method that keeps none.
    sees_dual
        Whether the points of the ensemble, and with them kernel and bandwidth, are the dual ones.
    """

    direction: Callable[[jax.Array, Ensemble], Direction]
    optimizer: optax.GradientTransformation
    bandwidth: Bandwidth
    mirror: MirrorMap | None = None
    project: Callable[[jax.Array], jax.Array] | None = None
    check: Callable[[jax.Array], None] | None = None
    memory: Callable[[jax.Array], Any] | None = None
    sees_dual: bool = False

    def algorithm(self, log_density: LogDensity) -> Algorithm:
        """Return the algorithm that moves particles towards a log density.

        ``log_density`` is of one particle; or an object with ``draw(key) -> batch`` and
        ``estimate(position, batch)`` (`shoal.sampling.core.minibatches`), or with such an attribute
        ``minibatches``: one batch a step, the same for all particles.
        """
        target = _Target(log_density, self.mirror)
        return Algorithm(
            lambda position, key=None: self._init(target, position, key),
            lambda key, state: self._step(target, key, state),
        )

    def _init(self, target: "_Target", position: Position, key: jax.Array | None) -> SteinState:
        check_callable("log_density", target.log_density)
        check_position("position", position)
        points = to_matrix(position)[0]
        if self.mirror is not None:
            self.mirror.check(points)
        if self.check is not None:
            self.check(points)
        _check_apart(points)
        values, score = target.scores(target.density(position, key)[0], points)
        check_finite("log_density at the start", values)
        check_finite("the gradient of log_density at the start", score)
        dual = points if self.mirror is None else self.mirror.to_dual(points)
        return SteinState(
            position,
            None if self.mirror is None else dual,
            values,
            score,
            jnp.ones(len(points), bool),
            self.optimizer.init(dual),
            self.bandwidth.start(dual if self.sees_dual else points),
            None if self.memory is None else self.memory(points),
            jnp.zeros((), jnp.int32),
        )

    def _step(
        self, target: "_Target", key: jax.Array, state: SteinState
    ) -> tuple[SteinState, SteinInfo]:
        check_key(key)
        key_direction, key_batch = jax.random.split(key)
        points, from_matrix = to_matrix(state.position)
        dual = points if state.dual is None else state.dual
        seen = target.density(state.position, key_batch)
        density = seen[0]
        ensemble = self._ensemble(state, points, dual, seen)
        found = self.direction(key_direction, ensemble)
        phi = found.phi
        is_finite = _rows_finite(phi)
        phi = jnp.where((state.alive & is_finite)[:, None], phi, 0)
        updates, optimizer = self.optimizer.update(-phi, state.optimizer, dual)
        if found.basis is not None:
            updates = dot(dot(updates, found.basis), found.basis.T)
        new = dual + updates
        if found.noise is not None:
            new = new + found.noise
        if self.project is not None:
            new = jax.vmap(self.project)(new)
        moved = new if self.mirror is None else self.mirror.to_primal(new)
        values, score = target.scores(density, moved)
        is_finite &= _rows_finite(new, score)
        status = proposal_status(values, is_finite)
        stays = ~state.alive | _collapsed(state, points)
        status = jnp.where(stays, jnp.int8(Status.FROZEN), status)
        moves = status == Status.OK
        keep = lambda a, b: jnp.where(moves.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        kept = state._replace(
            position=jax.tree.map(keep, from_matrix(moved), state.position),
            dual=None if self.mirror is None else keep(new, state.dual),
            log_density=keep(values, state.log_density),
            score=keep(score, state.score),
            alive=moves,
            optimizer=optimizer,
            median=self.bandwidth.follow(state.median, ensemble.points, state.alive, found.near),
            memory=found.memory,
            num_steps=state.num_steps + 1,
        )
        size = jnp.sqrt(jnp.sum(phi**2) / (ensemble.num_alive * phi.shape[1]))
        bandwidth = ensemble.bandwidth if found.bandwidth is None else found.bandwidth
        return kept, SteinInfo(size, bandwidth, status)

    def _ensemble(
        self, state: SteinState, points: jax.Array, dual: jax.Array, target: tuple[Any, Any, Any]
    ) -> Ensemble:
        seen = dual if self.sees_dual else points
        park = lambda: park_dead(seen, state.alive)
        num_alive = jnp.sum(state.alive)
        parked = jax.lax.cond(num_alive == len(seen), lambda: seen, park)
        return Ensemble(
            parked,
            dual,
            jnp.where(state.alive[:, None], state.score, 0),
            state.alive,
            jnp.maximum(num_alive, 1).astype(points.dtype),
            self.bandwidth.at(parked, state.alive, state.median),
            None if state.median is None else state.median.threshold,
            state.num_steps,
            *target,
            memory=state.memory,
        )


@dataclasses.dataclass(frozen=True)
class _Target:
    """A log density, exact or estimated from batches, and its scores where particles move."""

    log_density: Any
    mirror: MirrorMap | None

    def density(self, position: Position, key: jax.Array | None) -> tuple[Any, Any, Any]:
        """Return the log density of one raveled particle, its batch drawn by key, and unravel."""
        unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], position))[1]
        found = getattr(self.log_density, "minibatches", self.log_density)
        evaluate, batch = self.log_density, None
        if callable(getattr(found, "draw", None)) and callable(getattr(found, "estimate", None)):
            check_key(key)
            batch = found.draw(key)
            evaluate = lambda point: found.estimate(point, batch)
        density = lambda flat: real_scalar("log_density", evaluate(unravel(flat)))
        return density, batch, unravel

    def scores(self, density: Any, points: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return log densities ``(n,)`` and the scores, of the dual law if mirrored, ``(n, k)``."""
        values, gradients = jax.vmap(jax.value_and_grad(density))(points)
        if self.mirror is None:
            return values, gradients
        moved = self.mirror.inverse_hessian_product(points, gradients)
        return values, moved + self.mirror.divergence(points)


def _rows_finite(*arrays: jax.Array) -> jax.Array:
    """Whether all numbers in each row are finite: a product, which is faster than a reduction."""
    zeros = functools.reduce(jnp.add, (array * 0 for array in arrays))
    return dot(zeros, jnp.ones(zeros.shape[1], zeros.dtype)) == 0


def _collapsed(state: SteinState, points: jax.Array) -> jax.Array:
    """Whether the particles coincide, looked at now and then: it takes as long as their moves."""
    look = lambda: bandwidths.collapsed(points, state.alive)
    return jax.lax.cond(state.num_steps % _LOOK_EVERY == 0, look, lambda: jnp.asarray(False))


def _check_apart(points: jax.Array) -> None:
    """Refuse particles that all coincide: they would never part."""
    if len(points) == 1:
        return
    # In a program that is being traced, what is made of a constant is known no more.
    coincide = bandwidths.collapsed(points)
    if not isinstance(coincide, jax.core.Tracer) and bool(coincide):
        raise ValueError(
            f"position holds {len(points)} particles in one place, {points[0]}: they would move as "
            "one; draw them from a distribution that is wide enough"
        )
