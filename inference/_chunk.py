"""One chunk of a run: the compiled loop over steps, on one device or over a mesh."""

import functools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shoal.inference.devices import Placement, holds_particles, place
from shoal.inference.failures import no_failures, record
from shoal.sampling.core.random import step_key

# Why a chunk ended.
GO_ON, DONE, LOST = range(3)
# With more than this part of an ensemble dead, what is left no longer says anything.
_LARGEST_LOSS = 0.1


class Program(NamedTuple):
    """What the compiled loop does; nothing in it is an array.

    Attributes
    ----------
    keep, tally, until
        As in `shoal.inference.run.run`.
    placement
        The devices, and where particles lie in algorithm and state.
    info, counts, record
        Pytrees of bools: in which leaves of a step's info, of the tally and of what is kept the
        leading axis counts particles.
    """

    keep: Any
    tally: Any
    until: Any
    placement: Placement
    info: Any
    counts: Any
    record: Any


class Shapes(NamedTuple):
    """Shapes of a step's info, of the tally and of one row of what is kept."""

    info: Any
    counts: Any
    record: Any


class Chunked(NamedTuple):
    """What a chunk tells.

    Attributes
    ----------
    done
        Rows done since the start of the run.
    reason
        ``GO_ON``, or why the run has ended: ``DONE`` (``until``) or ``LOST``.
    counts, failures
        Sums over the steps of the chunk.
    """

    done: Any
    reason: Any
    counts: Any
    failures: Any


def as_arrays(tree: Any) -> Any:
    """Make floats and NumPy arrays arrays of JAX, so that their values are no part of programs."""
    is_number = lambda leaf: isinstance(leaf, float | np.ndarray | np.generic)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if is_number(leaf) else leaf, tree)


def as_state(tree: Any) -> Any:
    """Make everything an array of a definite dtype, as it is after it has been saved."""
    is_weak = lambda leaf: getattr(leaf, "weak_type", False)
    settle = lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype) if is_weak(leaf) else leaf
    return jax.tree.map(settle, as_arrays(tree))


def make_program(
    mesh: Mesh | None, algorithm: Any, state: Any, key: jax.Array, keep: Any, tally: Any, until: Any
) -> tuple[Program, Shapes]:
    """Find out where particles lie in all that a step makes.

    Raises
    ------
    TypeError, ValueError
        If ``mesh`` does not suit the algorithm.
    """
    placement = place(mesh, algorithm, state)
    if until is not None and placement.is_independent:
        raise ValueError("until cannot stop independent particles on a mesh: leave out one of them")
    step = functools.partial(_shapes_of_step, keep, tally, key)
    shapes = Shapes(*eqx.filter_eval_shape(step, algorithm, state))
    in_info, in_counts, in_record = jax.tree.map(lambda _: False, shapes)
    if mesh is not None:
        in_info, in_counts, in_record = holds_particles(step, placement, algorithm, state)
    if placement.is_independent and not all(jax.tree.leaves(in_record)):
        raise ValueError(
            "keep must return arrays with a leading particle axis where independent particles are "
            f"split over a mesh, got {jax.tree.map(lambda flag: flag, in_record)} for its leaves"
        )
    return Program(keep, tally, until, placement, in_info, in_counts, in_record), shapes


def _shapes_of_step(keep: Any, tally: Any, key: jax.Array, algorithm: Any, state: Any) -> Any:
    state, info = algorithm.step(key, state)
    return info, tally(state, info), keep(state, info)


def put_inputs(program: Program, algorithm: Any, state: Any, key: jax.Array) -> Any:
    """Copy algorithm, state and key to the devices."""
    placement = program.placement
    state = placement.put(state, placement.state)
    if placement.mesh is None:
        return algorithm, state, key
    if placement.padded > placement.num and not placement.is_independent:
        fills = jnp.arange(placement.padded) >= placement.num
        state = state._replace(alive=state.alive & ~fills)
    arrays, static = eqx.partition(algorithm, eqx.is_array)
    arrays = placement.put(arrays, placement.algorithm)
    return eqx.combine(arrays, static), state, placement.put(key, False)


def empty(program: Program, shapes: Shapes, rows: int) -> tuple[Any, Any]:
    """Make room on the devices for the last info and for ``rows`` rows of what is kept."""
    placement = program.placement

    def zeros(leaf: Any, flag: bool, *leading: int) -> jax.Array:
        shape = (placement.padded, *leaf.shape[1:]) if flag else leaf.shape
        sharding = None
        if placement.mesh is not None:
            sharding = NamedSharding(placement.mesh, placement.spec(flag, len(leading)))
        return jnp.zeros((*leading, *shape), leaf.dtype, device=sharding)

    info = jax.tree.map(zeros, shapes.info, program.info)
    kept = jax.tree.map(lambda *a: zeros(*a, rows), shapes.record, program.record)
    return info, kept


class _Static(NamedTuple):
    """A pytree without arrays, in a form that can be hashed."""

    structure: Any
    leaves: tuple[Any, ...]

    @staticmethod
    def of(tree: Any) -> "_Static":
        leaves, structure = jax.tree.flatten(tree)
        return _Static(structure, tuple(leaves))

    @property
    def tree(self) -> Any:
        return jax.tree.unflatten(self.structure, self.leaves)


def run_chunk(inputs: Any, carry: Any, program: Program) -> tuple[Any, Chunked]:
    """Do the rows from ``lo`` to ``hi``; returns before they are done.

    Parameters
    ----------
    inputs
        ``(algorithm, key, first_step, thin, lo, hi)``.
    carry
        ``(state, info, kept)``; used up.
    program
        What to do.
    """
    algorithm, *scalars = inputs
    arrays, static = eqx.partition(algorithm, eqx.is_array)
    return compiled_chunk(_Static.of((static, program)), arrays, scalars, carry)


# Not equinox.filter_jit, which waits for the result where no second Ctrl-C is heard.
@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def compiled_chunk(fixed: _Static, arrays: Any, scalars: Any, carry: Any) -> tuple[Any, Chunked]:
    """Compile `run_chunk`, whose arguments are ``arrays`` and ``scalars``."""
    static, program = fixed.tree
    loop = lambda arrays, *rest: _loop(program, eqx.combine(arrays, static), *rest)
    place = program.placement
    if not place.is_independent:
        return loop(arrays, scalars, carry)
    everywhere, per_device = PartitionSpec(), place.spec(True)
    specs = lambda flags, axis=0: jax.tree.map(lambda flag: place.spec(flag, axis), flags)
    carried = specs(place.state), specs(program.info), specs(program.record, 1)
    sums = jax.tree.map(lambda _: per_device, program.counts)
    return jax.shard_map(
        loop,
        mesh=place.mesh,
        in_specs=(specs(place.algorithm), everywhere, carried),
        out_specs=(carried, Chunked(everywhere, everywhere, sums, per_device)),
        check_vma=False,
    )(arrays, scalars, carry)


def _loop(program: Program, algorithm: Any, scalars: Any, carry: Any) -> tuple[Any, Chunked]:
    key, first_step, thin, lo, hi = scalars
    state, info, kept = carry
    place = program.placement
    counts = jax.eval_shape(program.tally, state, info)
    counts = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), counts)
    particles = _particles(place, info)

    def step(t: jax.Array, carry: Any) -> Any:
        state, _, counts, failures = carry
        now = first_step + t
        new, info = algorithm.step(step_key(key, now), state)
        # An algorithm may return weaker or wider types than it was given; a loop may not.
        new, info = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), (new, info), carry[:2])
        news = program.tally(new, info)
        counts = jax.tree.map(lambda a, b: a + jnp.asarray(b, a.dtype), counts, news)
        return _laid_out(place, new), info, counts, record(failures, info, now, particles)

    def row(carry: Any) -> Any:
        i, inner, kept = carry
        inner = jax.lax.fori_loop(i * thin, (i + 1) * thin, step, inner)
        put = lambda buffer, value: jax.lax.dynamic_update_index_in_dim(buffer, value, i, 0)
        return i + 1, inner, jax.tree.map(put, kept, program.keep(inner[0], inner[1]))

    goes_on = lambda carry: (carry[0] < hi) & (_reason(program, carry[1][0]) == GO_ON)
    inner = (state, info, counts, no_failures())
    done, inner, kept = jax.lax.while_loop(goes_on, row, (lo, inner, kept))
    state, info, counts, failures = inner
    if place.is_independent:  # sums of this device alone, to be added up on the host
        alone = lambda leaf, flag: leaf if flag else leaf[None]
        counts = jax.tree.map(alone, counts, program.counts)
        failures = jax.tree.map(lambda leaf: leaf[None], failures)
    return (state, info, kept), Chunked(done, _reason(program, state), counts, failures)


def _particles(place: Placement, info: Any) -> jax.Array:
    """Index of the particle that each status code is of; -1 where it only fills up."""
    shape = info.status.shape if hasattr(info, "status") else (0,)
    size = math.prod(shape)
    particles = jnp.arange(size, dtype=jnp.int32)
    if place.mesh is None:
        return particles
    # An independent particle may be an ensemble, with a code for each of its members.
    width = math.prod(shape[1:])
    if place.is_independent:
        particles = particles + size * jax.lax.axis_index(place.axis)
    return jnp.where(particles < place.num * width, particles, -1)


def _laid_out(place: Placement, state: Any) -> Any:
    """Hold an ensemble's arrays where they are, from step to step."""
    mesh = place.mesh
    if mesh is None or place.is_independent:
        return state
    hold = lambda leaf, flag: jax.lax.with_sharding_constraint(
        leaf, NamedSharding(mesh, place.spec(flag))
    )
    return jax.tree.map(hold, state, place.state)


def _reason(program: Program, state: Any) -> jax.Array:
    """Whether to go on from a state, and if not, why."""
    reason = jnp.asarray(GO_ON)
    if program.placement.is_independent:
        return reason
    if program.until is not None:
        reason = jnp.where(program.until(state), DONE, reason)
    if hasattr(state, "alive"):
        total = program.placement.num or state.alive.size
        dead = total - jnp.sum(state.alive)
        reason = jnp.where(dead > _LARGEST_LOSS * total, LOST, reason)
    return reason


@functools.partial(jax.jit, static_argnums=2)
def rows_from(kept: Any, start: jax.Array, size: int) -> Any:
    """Cut ``size`` rows out of what was kept."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), kept)
