"""Problems with several objectives, all minimised, whose Pareto fronts are known.

With f_1 = x_1 and g = 1 + 9 (x_2 + ... + x_d) / (d - 1), on the unit cube,

    ZDT1    f_2 = g (1 - sqrt(f_1 / g))
    ZDT2    f_2 = g (1 - (f_1 / g)^2)
    ZDT3    f_2 = g (1 - sqrt(f_1 / g) - f_1 / g sin(10 π f_1))

have their fronts at g = 1: convex, concave, and five convex pieces. And, on [-2, 2]^d,

    VLMOP2  f = 1 - exp(-|x -+ 1 / sqrt(d)|^2)

has its set on the segment between the two centres, and a concave front.

References: Zitzler, Deb and Thiele, "Comparison of multiobjective evolutionary algorithms",
Evolutionary Computation 8 (2000), section 4; Van Veldhuizen and Lamont, "Multiobjective
evolutionary algorithm test suites", SAC 1999. Reference points: Nguyen et al., "Improving Pareto
set learning for expensive multi-objective optimization via Stein variational hypernetworks" (2024).

Examples
--------
>>> import jax.numpy as jnp
>>> problem = zdt1(dim=3)
>>> problem(jnp.array([[0.25, 0.0, 0.0], [0.0, 1.0, 1.0]])).tolist()
[[0.25, 0.5], [0.0, 10.0]]
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import integer, real_values

__all__ = ["MultiObjective", "vlmop2", "zdt1", "zdt2", "zdt3"]

# Grid on which the pieces of a front in several are found; the error of their ends is its square.
_FINE = 200_001


class MultiObjective(eqx.Module):
    """Objectives to be minimised together, ``(..., dim)`` to ``(..., num_objectives)``.

    Made by `zdt1`, `zdt2`, `zdt3` and `vlmop2`.

    Attributes
    ----------
    name
        Name of the problem.
    dim
        Number of coordinates.
    num_objectives
        Number of objectives.
    bounds
        Corners of the box of admitted points, a pair of float64 arrays ``(dim,)``.
    reference_point
        float64 ``(num_objectives,)``: hypervolumes in the literature are below this point.

    Examples
    --------
    >>> problem = vlmop2(dim=2)
    >>> problem.name, problem.dim, problem.reference_point.tolist()
    ('VLMOP2', 2, [1.1, 1.1])
    """

    name: str = eqx.field(static=True)
    dim: int = eqx.field(static=True)
    num_objectives: int = eqx.field(static=True)
    box: tuple[float, float] = eqx.field(static=True)
    reference: tuple[float, ...] = eqx.field(static=True)
    fn: Callable[[jax.Array], jax.Array] = eqx.field(static=True)
    curve: Callable[[np.ndarray], np.ndarray] = eqx.field(static=True)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest admitted point."""
        return np.full(self.dim, self.box[0]), np.full(self.dim, self.box[1])

    @property
    def reference_point(self) -> np.ndarray:
        """Point below which hypervolumes are measured."""
        return np.array(self.reference)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the objectives at points ``(..., dim)``, in their dtype if that is floating.

        Raises ``TypeError`` or ``ValueError`` if ``x`` is not real or of another last axis. Points
        are not checked to lie within `bounds`.
        """
        x = jnp.asarray(real_values("x", x))
        if x.ndim < 1 or x.shape[-1] != self.dim:
            raise ValueError(f"x must have shape (..., {self.dim}), got {x.shape}")
        return self.fn(
            x.astype(jnp.result_type(x.dtype, float) if x.dtype.kind != "f" else x.dtype)
        )

    def pareto_front(self, num: int = 200) -> np.ndarray:
        """Return points of the Pareto front, none of which dominates another.

        Parameters
        ----------
        num
            How many, at least 2.

        Returns
        -------
        np.ndarray
            float64 ``(num, num_objectives)``, ascending in the first objective, evenly spread along
            the parameter of the curve: f_1 for the ZDT problems, the solutions for VLMOP2.
        """
        num = integer("num", num, 2)
        return _even(self.curve, num)

    def hypervolume_of_front(self) -> float:
        """Return the hypervolume of the whole front below `reference_point`.

        From 200,001 points of it by the trapezoidal rule, of which the error is far below 1e-8.
        """
        points = self.curve(np.linspace(0.0, 1.0, _FINE))
        first = np.minimum(points[:, 0], self.reference[0])
        low = np.minimum.accumulate(np.minimum(points[:, 1], self.reference[1]))
        depth = self.reference[1] - low
        # Right of the front's end its last depth goes on to the reference point.
        rest = (self.reference[0] - first[-1]) * depth[-1]
        return float(np.sum(np.diff(first) * (depth[1:] + depth[:-1]) / 2) + rest)


def _even(curve: Callable[[np.ndarray], np.ndarray], num: int) -> np.ndarray:
    """Return ``num`` points of the nondominated part of a curve over [0, 1], evenly spread."""
    t = np.linspace(0.0, 1.0, _FINE)
    second = curve(t)[:, 1]
    is_front = second <= np.minimum.accumulate(second)
    kept = t[is_front]
    return curve(kept[np.round(np.linspace(0, len(kept) - 1, num)).astype(int)])


def zdt1(dim: int = 30) -> MultiObjective:
    """Return ZDT1, with the convex front f_2 = 1 - sqrt(f_1).

    Parameters
    ----------
    dim
        Number of coordinates d, at least 2.

    Returns
    -------
    MultiObjective

    Raises
    ------
    TypeError, ValueError
        If ``dim`` is no such integer.

    Examples
    --------
    >>> zdt1().pareto_front(3).tolist()
    [[0.0, 1.0], [0.5, 0.2928932188134524], [1.0, 0.0]]
    """
    return _zdt("ZDT1", dim, 6.0576, lambda ratio, first, sine: 1 - ratio**0.5)


def zdt2(dim: int = 30) -> MultiObjective:
    """Return ZDT2, with the concave front f_2 = 1 - f_1^2.

    Parameters
    ----------
    dim
        Number of coordinates d, at least 2.

    Returns
    -------
    MultiObjective

    Raises
    ------
    TypeError, ValueError
        If ``dim`` is no such integer.

    Examples
    --------
    >>> zdt2().pareto_front(3).tolist()
    [[0.0, 1.0], [0.5, 0.75], [1.0, 0.0]]
    """
    return _zdt("ZDT2", dim, 6.8960, lambda ratio, first, sine: 1 - ratio**2)


def zdt3(dim: int = 30) -> MultiObjective:
    """Return ZDT3, whose front is five pieces of f_2 = 1 - sqrt(f_1) - f_1 sin(10 π f_1).

    Parameters
    ----------
    dim
        Number of coordinates d, at least 2.

    Returns
    -------
    MultiObjective

    Raises
    ------
    TypeError, ValueError
        If ``dim`` is no such integer.

    Examples
    --------
    >>> zdt3().pareto_front(3).round(4).tolist()
    [[0.0, 1.0], [0.2321, 0.322], [0.8518, -0.7734]]
    """
    return _zdt(
        "ZDT3", dim, 6.0571,
        lambda ratio, first, sine: 1 - ratio**0.5 - ratio * sine(10 * np.pi * first),
    )  # fmt: skip


def vlmop2(dim: int = 6) -> MultiObjective:
    """Return VLMOP2, two bumps of which each objective wants the top of one.

    Parameters
    ----------
    dim
        Number of coordinates d, at least 1.

    Returns
    -------
    MultiObjective

    Raises
    ------
    TypeError, ValueError
        If ``dim`` is no such integer.

    Examples
    --------
    >>> vlmop2().pareto_front(3).round(4).tolist()
    [[0.0, 0.9817], [0.6321, 0.6321], [0.9817, 0.0]]
    """
    dim = integer("dim", dim)
    # At x = ± s / √d for s in [-1, 1] the squared distances to the centres are (s -+ 1)².
    along = lambda t: np.stack([(2 * t) ** 2, (2 * t - 2) ** 2], -1)
    fn = functools.partial(_bumps, dim=dim)
    return MultiObjective(
        "VLMOP2", dim, 2, (-2.0, 2.0), (1.1, 1.1), fn, lambda t: -np.expm1(-along(t))
    )


def _bumps(x: jax.Array, dim: int) -> jax.Array:
    centres = jnp.asarray([[1.0], [-1.0]], x.dtype) / dim**0.5
    return -jnp.expm1(-jnp.sum((x[..., None, :] - centres) ** 2, -1))


def _zdt(name: str, dim: int, reference: float, shape: Callable[..., Any]) -> MultiObjective:
    """Return the problem with f_2 = g shape(f_1 / g, f_1)."""
    dim = integer("dim", dim, 2)

    def fn(x: jax.Array) -> jax.Array:
        first = x[..., 0]
        g = 1 + 9 * jnp.mean(x[..., 1:], -1)
        return jnp.stack([first, g * shape(first / g, first, jnp.sin)], -1)

    curve = lambda t: np.stack([t, shape(t, t, np.sin)], -1)
    return MultiObjective(name, dim, 2, (0.0, 1.0), (0.9994, reference), fn, curve)
