"""Run a kernel under test from many starting points and measure it, in batches of bounded memory.

Particle i uses keys made of (run key, i, step), so nothing depends on the size of the batches.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import check_callable, integer, real_values
from shoal.sampling.core.algorithm import Sampler
from shoal.sampling.core.random import check_key, step_key

# Numbers (particles times features) that a batch may hand to the host.
_BATCH_NUMBERS = 2**22
_DEFAULT_NUM_PARTICLES = 100_000


class Kernel(eqx.Module):
    """A kernel in one form: a function ``step(key, x) -> x`` or an algorithm with its states.

    Attributes
    ----------
    kernel
        A callable, or an object with ``init`` and ``step``.
    begin
        ``begin(key, draw) -> state``, or None for the natural one.
    view
        ``view(state) -> point``, or None for the natural one.
    """

    kernel: Any
    begin: Any = None
    view: Any = None

    @property
    def is_algorithm(self) -> bool:
        """Whether the kernel is a pair of ``init`` and ``step``."""
        return hasattr(self.kernel, "init") and hasattr(self.kernel, "step")

    def start(self, key: jax.Array, draw: Any) -> Any:
        """State of one particle at an exact draw."""
        if self.begin is not None:
            return self.begin(key, draw)
        return self.kernel.init(draw, key) if self.is_algorithm else draw

    def step(self, key: jax.Array, state: Any) -> Any:
        """State after one more step."""
        return self.kernel.step(key, state)[0] if self.is_algorithm else self.kernel(key, state)

    def observe(self, state: Any) -> Any:
        """Return the point that features see."""
        if self.view is not None:
            return self.view(state)
        return state.position if self.is_algorithm else state


class Study(NamedTuple):
    """A kernel, its exact starting points and the keys of a test, all checked.

    Attributes
    ----------
    kernel
        The `Kernel`.
    draws
        Exact draws, a pytree of arrays with a leading axis of ``num_particles``.
    num_particles
        n.
    key
        Key of the starts and steps.
    point
        Structure of one observed point (a pytree of ``jax.ShapeDtypeStruct``).
    """

    kernel: Kernel
    draws: Any
    num_particles: int
    key: jax.Array
    point: Any


def prepare(
    key: jax.Array,
    kernel: Any,
    draws: Any,
    num_particles: int | None,
    start: Callable[[jax.Array, Any], Any] | None,
    observe: Callable[[Any], Any] | None,
) -> Study:
    """Check the arguments that all tests of kernels share and draw the starting points.

    Raises
    ------
    TypeError, ValueError
        If the kernel is none, changes the structure of its state, or draws are missing, of
        unequal length or not finite.
    """
    check_key(key)
    if isinstance(kernel, Sampler):
        raise TypeError(
            f"kernel is a sampler without a log density ({type(kernel).__name__}); "
            "pass sampler(log_density)"
        )
    for name, function in (("start", start), ("observe", observe)):
        if function is not None:
            check_callable(name, function)
    form = Kernel(kernel, start, observe)
    if not (form.is_algorithm or callable(kernel)):
        raise TypeError(
            "kernel must be a function step(key, x) -> x or have init and step, got "
            f"{type(kernel).__name__}"
        )
    if num_particles is not None:
        integer("num_particles", num_particles, 2)
    key_draws, key_run = jax.random.split(key)
    if callable(draws):
        count = _DEFAULT_NUM_PARTICLES if num_particles is None else num_particles
        draws = draws(key_draws, count)
        found = _check_draws(draws)
        if found != count:
            raise ValueError(f"draws(key, {count}) returned {found} points, not {count}")
    else:
        count = _check_draws(draws)
        if num_particles not in (None, count):
            raise ValueError(
                f"num_particles={num_particles}, but draws holds {count} points; leave it out"
            )
    return Study(form, draws, count, key_run, _check_states(form, key, draws))


def _check_draws(draws: Any) -> int:
    """Check draws and return how many points they hold."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(draws):
        real_values(f"draws{jax.tree_util.keystr(path)}", leaf)
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(draws)}
    if len(sizes) != 1 or () in sizes or min(sizes) < (2,):
        raise ValueError(
            "draws must be arrays with one common leading axis of at least 2 points, got shapes "
            f"{[jnp.shape(leaf) for leaf in jax.tree.leaves(draws)] or draws}"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(draws):
        values = np.asarray(leaf)
        bad = np.argwhere(~np.isfinite(values))
        if bad.size:
            first = bad[0].tolist()
            raise ValueError(
                f"draws{jax.tree_util.keystr(path)} is not finite at particle {first[0]}: "
                f"entry {first} is {values[tuple(first)]}"
            )
    return sizes.pop()[0]


def _check_states(kernel: Kernel, key: jax.Array, draws: Any) -> Any:
    """Check that a step keeps the structure of the state; return that of a point."""
    state = eqx.filter_eval_shape(lambda: kernel.start(key, jax.tree.map(lambda a: a[0], draws)))
    after = eqx.filter_eval_shape(kernel.step, key, state)
    describe = lambda tree: (
        jax.tree.structure(tree),
        [(getattr(a, "shape", None), getattr(a, "dtype", type(a))) for a in jax.tree.leaves(tree)],
    )
    if describe(state) != describe(after):
        raise TypeError(
            "kernel must return a state of the structure, shapes and dtypes that it was given: "
            f"given {state}, returned {after}"
        )
    return eqx.filter_eval_shape(kernel.observe, state)


def first_points(study: Study, count: int) -> np.ndarray:
    """Observed starting points of the first particles as a float64 matrix."""
    draws = jax.tree.map(lambda leaf: leaf[:count], study.draws)
    if study.kernel.begin is None and study.kernel.view is None:
        return np.asarray(_flatten_all(draws), np.float64)
    ids = jnp.arange(min(count, study.num_particles))
    return np.asarray(_observe_starts(study.kernel, study.key, ids, draws), np.float64)


def flatten(point: Any) -> jax.Array:
    """One point as a floating vector."""
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(point)]
    return jnp.concatenate([leaf.astype(jnp.result_type(leaf, jnp.float32)) for leaf in leaves])


def coordinate_names(point: Any) -> list[str]:
    """Name the entries of `flatten`, such as ``x[0]`` or ``x['scale'][2]``."""
    names = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(point):
        for index in np.ndindex(leaf.shape):
            entry = "[" + ",".join(map(str, index)) + "]" if index else ""
            names.append(f"x{jax.tree_util.keystr(path)}{entry}")
    return names


def batches(study: Study, batch_size: int, width: int) -> Iterator[tuple[jax.Array, Any, int]]:
    """Yield (ids, draws, number of them that count); all of one size, the last one padded."""
    integer("batch_size", batch_size)
    size = min(batch_size, study.num_particles, max(1, _BATCH_NUMBERS // max(width, 1)))
    for begin in range(0, study.num_particles, size):
        count = min(size, study.num_particles - begin)
        ids = np.minimum(np.arange(begin, begin + size), study.num_particles - 1)
        yield jnp.asarray(ids), jax.tree.map(lambda leaf, ids=ids: leaf[ids], study.draws), count


@jax.jit
def _flatten_all(points: Any) -> jax.Array:
    return jax.vmap(flatten)(points)


@eqx.filter_jit
def _observe_starts(kernel: Kernel, key: jax.Array, ids: jax.Array, draws: Any) -> jax.Array:
    return jax.vmap(lambda i, x: flatten(kernel.observe(kernel.start(start_key(key, i), x))))(
        ids, draws
    )


def start_key(key: jax.Array, particle: jax.Array) -> jax.Array:
    """Key with which a particle's state is made: that of step 0."""
    return jax.random.fold_in(step_key(key, 0), particle)


def move_key(key: jax.Array, particle: jax.Array, step: jax.Array) -> jax.Array:
    """Key of a particle's step, counted from 0."""
    return jax.random.fold_in(step_key(key, step + 1), particle)
