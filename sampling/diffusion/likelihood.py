"""The log density of a diffusion model, by the change of variables along the flow.

The model is where the probability-flow equation carries x_T ~ N(0, sigma(t_max)²). At unit variance
and in λ the equation is dx/dλ = alpha (D(x, λ) - alpha x), with D the predicted data, and along it
(Chen et al. 2018, theorem 1; Song et al. 2021, eq. 39)

    d log p / dλ = -div = alpha² d - alpha tr(∂D/∂x).

Both are integrated from the data to the noise, whose density is known. What comes out is the
density of the data at t_min, with the noise that is left there. The trace is exact, from d
derivatives, or Hutchinson's estimate v · (∂D/∂x) v with random signs v (Grathwohl et al. 2019):
unbiased for log p, with the same v all the way; the linear part of the divergence is never
estimated. The error of the integrator, Tsitouras' of order 5, is all that is left.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core import _checks, random
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import Schedule, unit_scales
from shoal.sampling.diffusion import grids

# Basis vectors pushed forward at a time: bounds the memory of an exact trace.
_TRACE_BATCH = 16


class Likelihood(NamedTuple):
    """What `log_likelihood` returns.

    Attributes
    ----------
    log_density
        Log density of each sample, in nats and with respect to its own coordinates, ``(n,)``; NaN
        where the denoiser returned NaN.
    noise
        The samples' encodings at the first time of the grid, ``(n, ...)``.
    """

    log_density: jax.Array
    noise: jax.Array


def log_likelihood(
    key: jax.Array | None,
    denoiser: Denoiser,
    schedule: Schedule,
    samples: jax.Array,
    *,
    num_steps: int = 50,
    trace: str = "hutchinson",
    num_probes: int = 1,
    grid: Any = "logsnr",
    ids: jax.Array | None = None,
) -> Likelihood:
    """Return the log density of samples under a diffusion model.

    Parameters
    ----------
    key
        Typed key of the random signs; may be None for the exact trace.
    denoiser
        `Denoiser`; its prediction of a sample must depend on that sample alone.
    schedule
        Noise schedule, in whose coordinates the samples are.
    samples
        Data with the noise of the last time of the grid, ``(n, ...)``, float32 or float64.
    num_steps
        Steps of the integrator, of six evaluations each.
    trace
        ``"hutchinson"`` or ``"exact"``, which costs d derivatives at each evaluation.
    num_probes
        Directions to average Hutchinson's estimate over.
    grid
        As in `solve`, from noise to data; λ must be finite at both ends.
    ids
        Number of each sample, ``(n,)`` integers, 0 to n - 1 if not given: signs depend on ``key``
        and the number alone.

    Returns
    -------
    Likelihood

    Raises
    ------
    TypeError, ValueError
        For impossible arguments.

    Examples
    --------
    Normal data with deviation 0.5, seen with noise of deviation 0.1:

    >>> from shoal.sampling.diffusion import edm
    >>> denoiser = Denoiser(lambda x, t: x * 0.25 / (0.25 + t**2), "data")
    >>> x = jnp.array([[0.0], [1.0]])
    >>> found = log_likelihood(None, denoiser, edm(0.1, 80.0), x, trace="exact")
    >>> np.asarray(found.log_density).round(2)
    array([-0.25, -2.17], dtype=float32)
    >>> np.asarray(jax.scipy.stats.norm.logpdf(x[:, 0], scale=0.26**0.5)).round(2)
    array([-0.25, -2.17], dtype=float32)
    """
    if not isinstance(denoiser, Denoiser):
        raise TypeError(f"denoiser must be a Denoiser, got {type(denoiser).__name__}")
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a Schedule, got {type(schedule).__name__}")
    samples = _checks.real_array("samples", samples, ("n", *np.shape(samples)[1:]))
    num_probes = _checks.integer("num_probes", num_probes)
    clock = grids.half_log_snrs(schedule, grid, _checks.integer("num_steps", num_steps))
    if clock[0] > clock[-1] or not np.isfinite(clock).all():
        raise ValueError(
            "grid must go from noise to data between finite log(alpha / sigma), got "
            f"{clock[0]} to {clock[-1]}"
        )
    probes = _probes(key, trace, num_probes, samples, ids)
    end, change = _integrate(denoiser.on(schedule), clock[::-1], samples, probes, schedule)
    return _density(schedule, clock[0], clock[-1], end, change)


def _probes(
    key: jax.Array | None, trace: str, num: int, samples: jax.Array, ids: jax.Array | None
) -> jax.Array | None:
    """Return random signs ``(num, n, ...)``, or None for the exact trace."""
    if trace not in ("hutchinson", "exact"):
        raise ValueError(f"trace must be 'hutchinson' or 'exact', got {trace!r}")
    if trace == "exact":
        return None
    random.check_key(key)
    assert key is not None
    ids = jnp.arange(samples.shape[0]) if ids is None else ids
    if np.shape(ids) != samples.shape[:1]:
        raise ValueError(f"ids must have shape {samples.shape[:1]}, got {np.shape(ids)}")
    draw = lambda key: jax.random.rademacher(key, (num, *samples.shape[1:]), samples.dtype)
    return jnp.moveaxis(jax.vmap(draw)(random.particle_keys(key, ids)), 1, 0)


def _integrate(
    denoiser: Denoiser, clock: np.ndarray, samples: jax.Array, probes: jax.Array | None,
    schedule: Schedule,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Return the end at unit variance and the integral of the divergence along ``clock``."""
    import diffrax  # a second to import

    dtype, event_axes = samples.dtype, tuple(range(1, samples.ndim))
    size = int(np.prod(samples.shape[1:]))

    def field(half_log_snr: Any, state: Any, denoiser: Denoiser) -> Any:
        x, _ = state
        half_log_snr = jnp.asarray(half_log_snr, dtype)
        alpha, _ = unit_scales(half_log_snr)
        data, push = jax.linearize(lambda x: denoiser.data(x, half_log_snr), x)
        along = lambda v: jnp.sum(v * push(v), event_axes)
        if probes is None:
            basis = jnp.eye(size, dtype=dtype).reshape(size, 1, *x.shape[1:])
            entry = lambda e: along(jnp.broadcast_to(e, x.shape))
            trace = jax.lax.map(entry, basis, batch_size=_TRACE_BATCH).sum(axis=0)
        else:
            trace = jax.vmap(along)(probes).mean(axis=0)
        return alpha * (data - alpha * x), alpha * trace - alpha**2 * size

    scale = np.hypot(*schedule.scales(clock[0]))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), clock[0], clock[-1], None,
        (samples / jnp.asarray(scale, dtype), jnp.zeros(samples.shape[0], dtype)), denoiser,
        stepsize_controller=diffrax.StepTo(jnp.asarray(clock, dtype)), max_steps=len(clock),
    )  # fmt: skip
    assert solution.ys is not None
    end, change = jax.tree.map(lambda leaf: leaf[-1], solution.ys)
    return end, change


def _density(
    schedule: Schedule, first: float, last: float, end: jax.Array, change: jax.Array
) -> Likelihood:
    """Add up the log density of the noise, the flow's divergence and the change of scale."""
    (alpha, sigma), scale = schedule.scales(first), np.hypot(*schedule.scales(last))
    scale_noise = np.hypot(alpha, sigma)
    noise = end * jnp.asarray(scale_noise, end.dtype)
    size = int(np.prod(end.shape[1:]))
    standard = noise / jnp.asarray(sigma, end.dtype)
    square = jnp.sum(standard**2, tuple(range(1, end.ndim)))
    constant = size * (np.log(scale_noise / sigma / scale) - 0.5 * np.log(2 * np.pi))
    return Likelihood(jnp.asarray(constant, end.dtype) - 0.5 * square + change, noise)
