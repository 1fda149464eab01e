"""Statistics of a model that DPM-Solver-v3 is built on, in one call.

For every entry of a sample and every λ = log(alpha / sigma), over noised data
x = alpha x_0 + sigma z at unit variance, with ε the predicted noise (Zheng et al. 2023,
DPM-Solver-v3, eqs. 11 and 15),

    l = E[diag(sigma ∂ε/∂x)]                     the linear part of the model,
    f = e^{-λ} ε - l x / alpha                   what is left of it,
    s = Cov(f, f') / Var(f),  b = E f' - s E f   the best linear law of f' along the flow.

With D the predicted data, k = 1 - l = E[diag(alpha ∂D/∂x)] and the flow dx/dλ = alpha (D - alpha x)

    f = k x / alpha - D,    f' = (k̇ - k) x / alpha + k D - D',

so that for each λ the moments of x, D and D' are enough: one linearisation of the model and two
pushes through it. k̇ is the derivative of the spline through k.

The points, the noise and the probes are the same for all λ, which makes the estimates smooth in λ,
however rough they are as estimates. Where f does not vary beyond rounding, s is 0: constant pixels,
and all Gaussian data with independent entries, are then solved exactly.

Entries need not be those of the sample. Along the principal axes of the data the model is nearer
to one that acts on every entry by itself.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import BSpline, make_interp_spline

from shoal.sampling.core import _checks, random
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import Schedule, unit_scales

_DEGREE = 7
_MAX_SIZE = 4096
AXES = ("entries", "principal")


class Statistics(NamedTuple):
    """What `estimate_statistics` finds, in float64.

    Attributes
    ----------
    half_log_snr
        λ, rising, ``(G + 1,)``.
    l, s, b
        See the module's head; ``(G + 1, *shape)`` with the shape of a sample, or ``(G + 1,)``.
    axes
        Axes that the entries of l, s and b are along, the columns of an orthogonal ``(d, d)``
        for samples of d numbers; None for the entries of the sample themselves.
    """

    half_log_snr: np.ndarray
    l: np.ndarray  # noqa: E741 (the name in the literature)
    s: np.ndarray
    b: np.ndarray
    axes: np.ndarray | None = None

    def save(self, path: str | Path) -> None:
        """Write them to a file of NumPy's format npz."""
        parts = {name: part for name, part in self._asdict().items() if part is not None}
        with open(path, "wb") as file:
            np.savez_compressed(file, **parts)


def load_statistics(path: str | Path) -> Statistics:
    """Read what `Statistics.save` has written.

    Raises
    ------
    OSError, ValueError
        If there is no such file, or it is another.
    """
    with np.load(path) as found:
        if missing := [name for name in Statistics._fields[:4] if name not in found]:
            raise ValueError(f"path {str(path)!r} holds no statistics: {missing} are missing")
        return Statistics(**{name: found[name] for name in Statistics._fields if name in found})


class Moments(NamedTuple):
    """Moments of x, (D - alpha x) / sigma and D', in this order, over points with weights.

    Attributes
    ----------
    weight
        Number of points so far.
    mean
        Means, ``(3, *shape)``.
    product
        Products summed around the means, those in `_PAIRS`, ``(5, *shape)``.
    slope
        Mean of diag(alpha ∂D/∂x), ``shape``.
    """

    weight: Any  # arrays of JAX, and on the host of NumPy
    mean: Any
    product: Any
    slope: Any


_PAIRS = np.array([(0, 0), (0, 1), (1, 1), (0, 2), (1, 2)]).T


def estimate_statistics(
    key: jax.Array, denoiser: Denoiser, schedule: Schedule, samples: jax.Array | np.ndarray, *,
    num_points: int = 120, batch_size: int = 256, num_probes: int = 1, average: bool = False,
    axes: str = "entries",
) -> Statistics:  # fmt: skip
    """Estimate the statistics of a model for `dpm_solver_v3`, once for each model and schedule.

    Parameters
    ----------
    key
        Typed key.
    denoiser
        The model.
    schedule
        Its t_max and t_min are where the statistics begin and end.
    samples
        Points of data, ``(n, ...)``, float32 or float64; a thousand are enough. They are noised
        here. The result is about the accuracy of the solver alone: whatever the points, what is
        solved is the model's own flow.
    num_points
        Number G of intervals in λ, which are equal.
    batch_size
        Points per call of the model. Memory is that of one batch, of the noise for all points and
        of the result.
    num_probes
        Random probes of the diagonal for each point and λ.
    average
        Give all entries of a sample the same statistics. Without it the solver's coefficients are
        arrays of the shape of a sample.
    axes
        ``"entries"``, or ``"principal"``: take statistics along the principal axes of ``samples``.
        Up to 40 per cent less error on the digits mixture, for two products of
        ``(d, d)`` per call; for samples of at most 4096 numbers.

    Returns
    -------
    Statistics
        On the host, in float64; the model is called in the dtype of ``samples``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above, λ is infinite at an end of ``schedule``, or the
        model returns NaN or infinity.

    Examples
    --------
    Of Gaussian data N(1, 0.25) the model is linear: l = sigma² / (0.25 alpha² + sigma²), s = 0.

    >>> from shoal.sampling.diffusion import edm
    >>> denoiser = Denoiser(lambda x, t: (0.25 * x + t**2) / (0.25 + t**2), "data", edm())
    >>> points = 1 + 0.5 * jax.random.normal(jax.random.key(0), (64, 1))
    >>> found = estimate_statistics(jax.random.key(1), denoiser, edm(0.5, 2.0), points)
    >>> found.l[[0, -1], 0].round(3), found.s[60, 0]
    (array([0.941, 0.5  ]), np.float64(0.0))
    """
    random.check_key(key)
    if not isinstance(denoiser, Denoiser):
        raise TypeError(f"denoiser must be a Denoiser, got {type(denoiser).__name__}")
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a Schedule, got {type(schedule).__name__}")
    samples = _checks.real_array("samples", samples, ("n", *np.shape(samples)[1:]))
    _checks.check_finite("samples", samples)
    num_points = _checks.integer("num_points", num_points, 2)
    batch_size = min(_checks.integer("batch_size", batch_size), len(samples))
    num_probes = _checks.integer("num_probes", num_probes)
    _checks.check_flag("average", average)
    turned = principal_axes(samples) if _checks.choice("axes", axes, AXES) == AXES[1] else None
    with np.errstate(divide="ignore"):
        ends = schedule.half_log_snr(np.array([schedule.t_max, schedule.t_min]))
    if not np.isfinite(ends).all():
        raise ValueError(
            f"schedule must have a finite log(alpha / sigma) at t_max and t_min, got {ends}"
        )
    grid = np.linspace(ends[0], ends[1], num_points + 1)
    denoiser = denoiser.on(schedule)
    if turned is not None:
        denoiser, samples = along(denoiser, turned), turn(samples, turned)
    moments = _moments(
        key, denoiser, samples, jnp.asarray(grid, samples.dtype), batch_size,
        num_probes,
    )  # fmt: skip
    host = Moments(*(np.asarray(part, np.float64) for part in moments))
    is_good = np.isfinite(np.concatenate([host.mean, host.product], axis=1))
    if not (is_good.all() and np.isfinite(host.slope).all()):
        bad = ~is_good.reshape(len(grid), -1).all(1)
        where = grid[bad][0] if bad.any() else grid[0]
        raise ValueError(
            f"the denoiser returned NaN or infinity where log(alpha / sigma) is {where:.3f}"
        )
    found = _solve(grid, host, float(jnp.finfo(samples.dtype).eps), average)
    return found._replace(axes=turned)


@eqx.filter_jit
def _moments(
    key: jax.Array, denoiser: Denoiser, samples: jax.Array, grid: jax.Array, batch_size: int,
    num_probes: int,
) -> Moments:  # fmt: skip
    """Return moments for every λ of ``grid``; a loop over λ of loops over batches."""
    num, event = len(samples), samples.shape[1:]
    ids = jnp.arange(num)
    noise = random.normal(key, ids, 0, event, samples.dtype)
    signs = jnp.sign(random.normal(key, ids, 1, (num_probes, *event), samples.dtype))
    num_batches = -(-num // batch_size)

    def cut(array: jax.Array) -> jax.Array:
        padded = jnp.resize(array, (num_batches * batch_size, *array.shape[1:]))
        return padded.reshape(num_batches, batch_size, *array.shape[1:])

    weights = (jnp.arange(num_batches * batch_size) < num).astype(samples.dtype)
    batches = (cut(samples), cut(noise), cut(signs), weights.reshape(num_batches, -1))
    zeros = lambda *leading: jnp.zeros((*leading, *event), samples.dtype)
    empty = Moments(jnp.zeros((), samples.dtype), zeros(3), zeros(5), zeros())

    def at(half_log_snr: jax.Array) -> Moments:
        more = lambda so_far, batch: (_merge(so_far, _batch(denoiser, half_log_snr, batch)), None)
        return jax.lax.scan(more, empty, batches)[0]

    return jax.lax.map(at, grid)


def _batch(denoiser: Denoiser, half_log_snr: jax.Array, batch: tuple[jax.Array, ...]) -> Moments:
    samples, noise, signs, weights = batch
    alpha, sigma = unit_scales(half_log_snr)
    x = alpha * samples + sigma * noise
    data, push = jax.linearize(denoiser.data, x, half_log_snr)
    derivative = push(alpha * (data - alpha * x), jnp.ones_like(half_log_snr))
    total = jnp.sum(weights)
    mean = lambda values: jnp.tensordot(weights, values, 1, precision="highest") / total
    # One probe after the other, for the memory of one.
    diagonal = lambda sign: mean(sign * push(alpha * sign, jnp.zeros_like(half_log_snr)))
    slope = jnp.mean(jax.lax.map(diagonal, jnp.moveaxis(signs, 1, 0)), axis=0)
    # Both of unit size at all λ, with f a combination of them without cancellation.
    values = jnp.stack([x, (data - alpha * x) / sigma, derivative], axis=1)
    means = mean(values)
    apart = values - means
    product = mean(apart[:, _PAIRS[0]] * apart[:, _PAIRS[1]]) * total
    return Moments(total, means, product, slope)


def _merge(a: Moments, b: Moments) -> Moments:
    """Combine the moments of two sets of points (Chan, Golub and LeVeque 1983)."""
    weight = a.weight + b.weight
    share = b.weight / weight
    apart = b.mean - a.mean
    between = apart[_PAIRS[0]] * apart[_PAIRS[1]] * a.weight * share
    mean, slope = a.mean + share * apart, a.slope + share * (b.slope - a.slope)
    return Moments(weight, mean, a.product + b.product + between, slope)


def _solve(grid: np.ndarray, moments: Moments, eps: float, average: bool) -> Statistics:
    """Turn moments into l, s and b."""
    wide = lambda values: values.reshape(-1, *[1] * (moments.slope.ndim - 1))
    pool: Any = (
        functools.partial(np.mean, axis=tuple(range(1, moments.slope.ndim)), keepdims=True)
        if average
        else np.asarray
    )
    alpha, sigma = (wide(part) for part in unit_scales(grid))
    slope = pool(moments.slope)
    slope_dot = spline(grid, slope).derivative()(grid)
    # f = p x - sigma r and f' = q x + slope sigma r - D' with r = (D - alpha x) / sigma.
    p = (slope - alpha**2) / alpha
    q = (slope_dot - slope * sigma**2) / alpha
    mean = np.moveaxis(moments.mean, 1, 0)
    xx, xr, rr, xd, rd = np.moveaxis(moments.product, 1, 0) / wide(moments.weight)
    f, f_dot = p * mean[0] - sigma * mean[1], q * mean[0] + slope * sigma * mean[1] - mean[2]
    # Entries taken together differ in their means too.
    apart, apart_dot = f - pool(f), f_dot - pool(f_dot)
    variance = pool(p**2 * xx - 2 * p * sigma * xr + sigma**2 * rr + apart**2)
    covariance = pool(
        p * (q * xx + slope * sigma * xr - xd) - sigma * (q * xr + slope * sigma * rr - rd)
        + apart * apart_dot
    )  # fmt: skip
    # Where it is of the size of rounding s is 0, and towards that it is led smoothly.
    floor = 64 * eps * pool(p**2 * xx + sigma**2 * rr)
    is_known = variance > floor
    fade = np.square(1 - np.divide(floor, variance, out=np.ones_like(floor), where=is_known))
    s = fade * np.divide(covariance, variance, out=np.zeros_like(floor), where=is_known)
    b = pool(f_dot) - s * pool(f)
    if average:
        slope, s, b = (part.reshape(-1) for part in (slope, s, b))
    return Statistics(grid, 1 - slope, s, b)


def principal_axes(samples: jax.Array) -> np.ndarray:
    """Return the principal axes of points ``(n, ...)`` of d numbers, as columns ``(d, d)``."""
    rows = np.asarray(samples, np.float64).reshape(len(samples), -1)
    if rows.shape[1] > _MAX_SIZE:
        raise ValueError(
            f'axes "principal" needs samples of at most {_MAX_SIZE} numbers, got {rows.shape[1]}; '
            'take "entries"'
        )
    rows = rows - rows.mean(axis=0)
    return np.linalg.eigh(rows.T @ rows)[1]


def turn(x: jax.Array, axes: Any) -> jax.Array:
    """Return ``x``, ``(n, ...)``, along the axes that are the columns of ``axes``."""
    rows = x.reshape(len(x), -1)
    if np.shape(axes)[0] != rows.shape[1]:
        raise ValueError(
            f"the axes of the statistics are for samples of {np.shape(axes)[0]} numbers, got "
            f"samples of shape {x.shape[1:]}"
        )
    return jnp.matmul(rows, jnp.asarray(axes, x.dtype), precision="highest").reshape(x.shape)


class Turned(eqx.Module):
    """A function ``fn(x, t)`` with its argument and its value along other axes."""

    fn: Any
    axes: jax.Array

    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        """Evaluate."""
        return turn(self.fn(turn(x, self.axes.T), t), self.axes)


def along(denoiser: Denoiser, axes: np.ndarray) -> Denoiser:
    """Return the denoiser as seen along orthogonal axes, the columns of ``axes``."""
    return Denoiser(
        Turned(denoiser.fn, jnp.asarray(axes)), denoiser.prediction, denoiser.schedule,
        denoiser.num_calls,
    )  # fmt: skip


def spline(grid: np.ndarray, values: np.ndarray) -> BSpline:
    """Return the spline through values on a grid, of degree 7 or the most that the grid allows."""
    degree = min(_DEGREE, len(grid) - 1)
    return make_interp_spline(grid, values, degree - 1 + degree % 2)
