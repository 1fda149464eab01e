"""What the tests of kernels measure: features of points, and of pairs (start, end) of points."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference._particles_under_test import (
    Study,
    coordinate_names,
    first_points,
    flatten,
)
from shoal.sampling.core._checks import check_callable, real_scalar

# Up to this many coordinates every pair of them has its features, beyond it neighbours do.
_ALL_PAIRS = 8
_PILOT = 4096
# Interquartile range of N(0, 1).
_QUARTILES = 1.349


class Measure(NamedTuple):
    """Named functions of a point (or of a pair of points), evaluated together.

    Attributes
    ----------
    names
        One for each entry of the vector that ``function`` returns.
    function
        ``function(x)`` or ``function(x, y)``, a vector; a pytree whose arrays are arguments of
        what is compiled.
    """

    names: list[str]
    function: Any


class _Default(eqx.Module):
    """Features of a point, and of a pair those that average to zero under reversibility."""

    location: jax.Array
    scale: jax.Array
    pairs: tuple[tuple[int, int], ...] = eqx.field(static=True)
    log_density: Any = None

    def _standard(self, x: Any) -> jax.Array:
        return (flatten(x) - self.location) / self.scale

    def __call__(self, x: Any) -> jax.Array:
        u = self._standard(x)
        i, j = _columns(self.pairs)
        parts = [u, u**2, u[i] * u[j], jnp.cos(u), jnp.sin(u), u > 0, u[i] + u[j] > 1]
        if self.log_density is not None:
            parts.append(real_scalar("log_density", self.log_density(x))[None])
        return jnp.concatenate([part.astype(u.dtype) for part in parts])

    def antisymmetric(self, x: Any, y: Any) -> jax.Array:
        """``g(x, y) - g(y, x)`` for g = x_i y_j and x_i^3 y_j."""
        u, v = self._standard(x), self._standard(y)
        i, j = _columns(self.pairs)
        cubic = lambda a, b: u[a] ** 3 * v[b] - v[a] ** 3 * u[b]
        every = np.arange(u.size)
        swaps = u[i] * v[j] - v[i] * u[j]
        return jnp.concatenate([swaps, cubic(every, every), cubic(i, j), cubic(j, i)])


class _Difference(eqx.Module):
    """End minus start of a feature; then, for a reversible kernel, the antisymmetric features."""

    function: Any
    reversible: _Default | None

    def __call__(self, x: Any, y: Any) -> jax.Array:
        before, after = self.function(x), self.function(y)
        # What a kernel conserves changes by rounding alone, whose bias z would take for an error.
        rounding = 16 * jnp.finfo(before.dtype).eps * jnp.maximum(abs(before), abs(after))
        change = after - before
        change = jnp.where(jnp.isfinite(change) & (abs(change) <= rounding), 0, change)
        if self.reversible is None:
            return change
        return jnp.concatenate([change, self.reversible.antisymmetric(x, y)])


class _Given(eqx.Module):
    """A user's function, its result raveled; beside it the log density where there is one."""

    function: Any
    log_density: Any = None

    def __call__(self, *points: Any) -> jax.Array:
        values = flatten(self.function(*points))
        if self.log_density is None:
            return values
        value = real_scalar("log_density", self.log_density(*points))
        return jnp.append(values, value.astype(values.dtype))


def point_measure(study: Study, features: Any, log_density: Any) -> Measure:
    """Features of one point: the user's, or the default ones."""
    if log_density is not None:
        check_callable("log_density", log_density)
    if features is not None:
        names = result_names(features, study.point)
        extra = [] if log_density is None else ["log density"]
        return Measure(names + extra, _Given(features, log_density))
    default = _default(study, log_density)
    x = coordinate_names(study.point)
    pairs = [(x[i], x[j]) for i, j in default.pairs]
    names = [*x, *(f"{a}^2" for a in x), *(f"{a}*{b}" for a, b in pairs)]
    names += [*(f"cos {a}" for a in x), *(f"sin {a}" for a in x), *(f"{a}>0" for a in x)]
    names += [f"{a}+{b}>1" for a, b in pairs]
    return Measure(names if log_density is None else [*names, "log density"], default)


def change_measure(study: Study, features: Any, log_density: Any, reversible: bool) -> Measure:
    """Features of (start, end) that average to zero where the kernel keeps the law of the start."""
    names, function = point_measure(study, features, log_density)
    if not reversible:
        return Measure(names, _Difference(function, None))
    default = function if isinstance(function, _Default) else _default(study, None)
    x = coordinate_names(study.point)
    y = ["y" + name[1:] for name in x]
    pairs = list(default.pairs)
    powers = [(i, i) for i in range(len(x))] + pairs + [(j, i) for i, j in pairs]
    names = names + [f"{x[i]}*{y[j]} - {y[i]}*{x[j]}" for i, j in pairs]
    names += [f"{x[i]}^3*{y[j]} - {y[i]}^3*{x[j]}" for i, j in powers]
    return Measure(names, _Difference(function, default))


def pair_measure(study: Study, features: Any) -> Measure:
    """Return a user's features of (start, end)."""
    return Measure(result_names(features, study.point, study.point), _Given(features))


def result_names(function: Any, *points: Any) -> list[str]:
    """Name the entries of what a user's function returns by their place in its pytree."""
    check_callable("features", function)
    result = eqx.filter_eval_shape(function, *points)
    names = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(result):
        stem = jax.tree_util.keystr(path, simple=True, separator=".") or "feature"
        for index in np.ndindex(leaf.shape):
            names.append(stem + ("[" + ",".join(map(str, index)) + "]" if index else ""))
    if not names:
        raise ValueError(f"features must return at least one number, got {result}")
    return names


def _default(study: Study, log_density: Any) -> _Default:
    """Default features, in coordinates of the size of one around zero."""
    pilot = first_points(study, _PILOT)
    low, middle, high = np.quantile(pilot, [0.25, 0.5, 0.75], axis=0)
    scale = (high - low) / _QUARTILES
    # A coordinate that mostly takes one value has no quartiles; a constant one no deviation.
    scale = np.where(scale > 0, scale, pilot.std(0))
    scale = np.where(scale > 0, scale, 1.0)
    dim = pilot.shape[1]
    pairs = [(i, j) for i in range(dim) for j in range(i + 1, dim)]
    if dim > _ALL_PAIRS:
        pairs = [(i, i + 1) for i in range(dim - 1)]
    dtype = jax.eval_shape(flatten, study.point).dtype
    return _Default(
        jnp.asarray(middle, dtype), jnp.asarray(scale, dtype), tuple(pairs), log_density
    )


def _columns(pairs: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, np.ndarray]:
    table = np.asarray(pairs, int).reshape(-1, 2)
    return table[:, 0], table[:, 1]
