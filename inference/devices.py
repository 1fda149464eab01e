"""Particles over devices: which arrays hold them, how they are laid out and brought back.

Independent particles (chains, images) are split over the devices of a mesh and stepped there in
one program that never communicates. The particles of an interacting ensemble are split likewise,
and the compiler, or a ring in the algorithm's own sums, moves what they have to know of each other.
A number of particles that the devices do not divide is filled up: with copies of the last particle
whose results are dropped or, in an ensemble, that are dead (``state.alive`` is False).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shoal.inference.checkpoint import is_key
from shoal.inference.hosts import to_host


class Layout(NamedTuple):
    """Where the arrays of independent particles lie, told by an algorithm's ``layout()``.

    Attributes
    ----------
    algorithm, state
        Pytrees of bools, or prefixes of such, in the structure of the algorithm and of its state:
        True where an array's leading axis counts particles.
    """

    algorithm: Any
    state: Any


class Placement(NamedTuple):
    """A mesh, and where particles lie in an algorithm and its state.

    Attributes
    ----------
    mesh
        Mesh of one axis; None for the default device alone.
    num, padded
        Particles, and rows that stand for them on the devices.
    is_independent
        Whether particles never communicate.
    algorithm, state
        Full pytrees of bools as in `Layout`.
    """

    mesh: Mesh | None
    num: int
    padded: int
    is_independent: bool
    algorithm: Any
    state: Any

    @property
    def axis(self) -> str:
        """Name of the mesh's axis."""
        assert self.mesh is not None
        return str(self.mesh.axis_names[0])

    def spec(self, holds_particles: bool, axis: int = 0) -> PartitionSpec:
        """Partition of an array whose ``axis`` counts particles, or of one for all devices."""
        return PartitionSpec(*[None] * axis, self.axis) if holds_particles else PartitionSpec()

    def put(self, tree: Any, where: Any, axis: int = 0) -> Any:
        """Copy a pytree to the devices, filling up the particle axis."""
        mesh = self.mesh
        if mesh is None:
            return jax.tree.map(jnp.copy, tree)

        def put(leaf: Any, holds_particles: bool) -> Any:
            leaf = to_host(leaf)
            if holds_particles and self.padded > self.num:
                rows = np.minimum(np.arange(self.padded), self.num - 1)
                leaf = np.take(leaf, rows, axis)
            sharding = NamedSharding(mesh, self.spec(holds_particles, axis))
            return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

        return jax.tree.map(_on_key_data(put), tree, where)

    def bring(self, tree: Any, where: Any, axis: int = 0) -> Any:
        """Bring a pytree back, without what filled it up; NumPy arrays if there is a mesh."""
        if self.mesh is None:
            return tree

        def bring(leaf: Any, holds_particles: bool) -> Any:
            leaf = to_host(leaf)
            return _cut(leaf, self.num, axis) if holds_particles else leaf

        return jax.tree.map(_on_key_data(bring), tree, where)

    def local(self, tree: Any, where: Any, axis: int = 0) -> Any:
        """Bring the particles that lie with this process, in the order of `ranges`, to the host."""

        def local(leaf: Any, holds_particles: bool) -> Any:
            if not holds_particles or not isinstance(leaf, jax.Array):
                return to_host(leaf)
            blocks = {}
            for shard in leaf.addressable_shards:
                lo, hi, _ = shard.index[axis].indices(self.padded)
                blocks[lo] = _cut(to_host(shard.data), max(0, min(hi, self.num) - lo), axis)
            return np.concatenate([blocks[lo] for lo in sorted(blocks)], axis)

        return jax.tree.map(_on_key_data(local), tree, where)

    def ranges(self) -> list[list[int]]:
        """Index ranges of the particles that lie with this process; empty without a mesh."""
        if self.mesh is None:
            return []
        sharding = NamedSharding(self.mesh, self.spec(True))
        indices = sharding.addressable_devices_indices_map((self.padded,)).values()
        found = sorted(index[0].indices(self.padded)[:2] for index in indices if index)
        return [[lo, min(hi, self.num)] for lo, hi in found if lo < self.num]


def _cut(array: np.ndarray, size: int, axis: int) -> np.ndarray:
    return array[(slice(None),) * axis + (slice(size),)]


def _on_key_data(function: Any) -> Any:
    """Let a function of plain arrays work on the data of PRNG keys."""

    def wrapped(leaf: Any, *rest: Any) -> Any:
        if not is_key(leaf):
            return function(leaf, *rest)
        data = function(jax.random.key_data(leaf), *rest)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))

    return wrapped


def place(mesh: Mesh | None, algorithm: Any, state: Any) -> Placement:
    """Find out where particles lie.

    Raises
    ------
    TypeError, ValueError
        If ``mesh`` is no mesh of one axis, the state holds no particles, or an ensemble cannot be
        filled up.
    """
    nowhere = lambda tree: jax.tree.map(lambda _: False, tree)
    if mesh is None:
        return Placement(None, 0, 0, False, nowhere(algorithm), nowhere(state))
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh or None, got {type(mesh).__name__}")
    if len(mesh.axis_names) != 1:
        raise ValueError(
            f"mesh must have one axis, got {mesh.axis_names}; for example "
            "jax.make_mesh((jax.device_count(),), ('particles',))"
        )
    # What jax.make_mesh returns may want shardings written into the types of arrays.
    mesh = Mesh(mesh.devices, mesh.axis_names)
    particles = jax.tree.leaves(getattr(state, "position", None))
    layout = algorithm.layout(state) if hasattr(algorithm, "layout") else None
    if layout is not None:
        arrays = eqx.filter(algorithm, eqx.is_array)
        flags = jax.tree.broadcast(layout.algorithm, arrays)
        in_state = jax.tree.broadcast(layout.state, state)
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(in_state), strict=True)
        particles = [leaf for leaf, holds_particles in pairs if holds_particles]
    if not particles or jnp.ndim(particles[0]) == 0:
        raise ValueError("mesh is given, but state.position has no leading particle axis to split")
    num = particles[0].shape[0]
    padded = -(-num // mesh.size) * mesh.size
    if layout is not None:
        return Placement(mesh, num, padded, True, flags, in_state)
    if padded > num and not hasattr(state, "alive"):
        raise ValueError(
            f"{num} particles cannot be split evenly over {mesh.size} devices, and the state has "
            f"no field alive to mark those that fill up; take a multiple of {mesh.size}"
        )
    flags = nowhere(eqx.filter(algorithm, eqx.is_array))
    in_state = jax.tree.map(lambda leaf: jnp.shape(leaf)[:1] == (num,), state)
    return Placement(mesh, num, padded, False, flags, in_state)


def holds_particles(function: Any, placement: Placement, algorithm: Any, state: Any) -> Any:
    """Find in which leaves of ``function(algorithm, state)`` the leading axis counts particles.

    It is evaluated in the abstract for ``num`` and for ``num + 1`` particles.
    """

    def sized(tree: Any, where: Any, num: int) -> Any:
        arrays, static = eqx.partition(tree, eqx.is_array)
        resize = lambda leaf, flag: jax.ShapeDtypeStruct(
            (num, *leaf.shape[1:]) if flag else leaf.shape, leaf.dtype
        )
        return eqx.combine(jax.tree.map(resize, arrays, where), static)

    def shapes(num: int) -> Any:
        sizes = sized(algorithm, placement.algorithm, num), sized(state, placement.state, num)
        return eqx.filter_eval_shape(function, *sizes)

    num = placement.num
    grows = lambda a, b: a.shape[:1] == (num,) and b.shape[:1] == (num + 1,)
    return jax.tree.map(grows, shapes(num), shapes(num + 1))
