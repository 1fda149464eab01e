"""Noise schedules: how signal and noise are mixed at each time, over one shared clock.

At time t a diffusion model sees x_t = alpha x_0 + sigma z with z standard normal. The clock shared
by all schedules is half the log signal-to-noise ratio,

    λ = log(alpha / sigma),

which falls as t grows; sampling goes from the least λ to the largest. In x / alpha as a function of
λ all schedules have the same probability-flow equation, so a schedule says no more than how t is
read off the clock and what scale x has. Every map is given with its exact inverse. Functions take
and return NumPy arrays (for tables, in float64) or JAX arrays (inside compiled programs).
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses
import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core import _checks


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A schedule; made by `vp_linear` and its neighbours.

    Attributes
    ----------
    t_min, t_max
        Where sampling ends and begins.
    """

    t_min: float
    t_max: float

    def __post_init__(self) -> None:
        for name in ("t_min", "t_max"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        if not 0 <= self.t_min < self.t_max:
            raise ValueError(
                f"t_min and t_max must satisfy 0 <= t_min < t_max, got {self.t_min} and "
                f"{self.t_max}"
            )

    def half_log_snr(self, t: Any) -> Any:
        """Return λ at time ``t``, any shape."""
        raise NotImplementedError

    def time(self, half_log_snr: Any) -> Any:
        """Return the time at which λ is ``half_log_snr``, any shape."""
        raise NotImplementedError

    def scales(self, half_log_snr: Any) -> tuple[Any, Any]:
        """Return (alpha, sigma) where λ is ``half_log_snr``, also where it is infinite."""
        raise NotImplementedError

    def alpha(self, t: Any) -> Any:
        """Return the scale of the data at time ``t``."""
        return self.scales(self.half_log_snr(t))[0]

    def sigma(self, t: Any) -> Any:
        """Return the scale of the noise at time ``t``."""
        return self.scales(self.half_log_snr(t))[1]

    def warp(self, u: Any) -> Any:
        """Return the times for evenly spaced ``u``; other than ``u`` for shifted flows only."""
        return u


class VariancePreserving(Schedule):
    """alpha² + sigma² = 1."""

    def scales(self, half_log_snr: Any) -> tuple[Any, Any]:
        return unit_scales(half_log_snr)


class VarianceExploding(Schedule):
    """alpha = 1."""

    def scales(self, half_log_snr: Any) -> tuple[Any, Any]:
        xp = _namespace(half_log_snr)
        return xp.ones_like(half_log_snr), xp.exp(-half_log_snr)


@dataclasses.dataclass(frozen=True)
class VPLinear(VariancePreserving):
    """See `vp_linear`."""

    beta_min: float
    beta_max: float

    def half_log_snr(self, t: Any) -> Any:
        xp = _namespace(t)
        # The noise variance over that of the data, without the cancellation of 1 - alpha².
        slope = self.beta_max - self.beta_min
        return -0.5 * xp.log(xp.expm1(t * (self.beta_min + 0.5 * slope * t)))

    def time(self, half_log_snr: Any) -> Any:
        xp = _namespace(half_log_snr)
        slope = self.beta_max - self.beta_min
        twice = 2 * slope * xp.logaddexp(-2 * half_log_snr, xp.zeros_like(half_log_snr))
        return twice / ((xp.sqrt(self.beta_min**2 + twice) + self.beta_min) * slope)


@dataclasses.dataclass(frozen=True)
class VPCosine(VariancePreserving):
    """See `vp_cosine`."""

    offset: float

    def half_log_snr(self, t: Any) -> Any:
        xp = _namespace(t)
        log_alpha = xp.log(xp.cos(self._angle(t))) - math.log(math.cos(self._angle(0.0)))
        return log_alpha - 0.5 * xp.log(-xp.expm1(2 * log_alpha))

    def time(self, half_log_snr: Any) -> Any:
        xp = _namespace(half_log_snr)
        log_alpha = -0.5 * xp.logaddexp(-2 * half_log_snr, xp.zeros_like(half_log_snr))
        angle = xp.arccos(xp.exp(log_alpha) * math.cos(self._angle(0.0)))
        return angle * 2 * (1 + self.offset) / math.pi - self.offset

    def _angle(self, t: Any) -> Any:
        return (t + self.offset) / (1 + self.offset) * math.pi / 2


@dataclasses.dataclass(frozen=True)
class VPDiscrete(VariancePreserving):
    """See `vp_discrete`."""

    log_alphas: tuple[float, ...]

    def half_log_snr(self, t: Any) -> Any:
        xp = _namespace(t)
        log_alpha = xp.interp(t, *self._tables(t))
        return log_alpha - 0.5 * xp.log(-xp.expm1(2 * log_alpha))

    def time(self, half_log_snr: Any) -> Any:
        xp = _namespace(half_log_snr)
        log_alpha = -0.5 * xp.logaddexp(-2 * half_log_snr, xp.zeros_like(half_log_snr))
        times, log_alphas = self._tables(half_log_snr)
        return xp.interp(-log_alpha, -log_alphas, times)

    def _tables(self, like: Any) -> tuple[np.ndarray, np.ndarray]:
        # Tables in float64 would widen what is interpolated in float32.
        dtype = like.dtype if isinstance(like, jax.Array) else np.float64
        num = len(self.log_alphas)
        return (np.arange(1, num + 1) / num).astype(dtype), np.asarray(self.log_alphas, dtype)


@dataclasses.dataclass(frozen=True)
class VE(VarianceExploding):
    """See `ve`."""

    sigma_min: float
    sigma_max: float

    def half_log_snr(self, t: Any) -> Any:
        return -(math.log(self.sigma_min) + t * math.log(self.sigma_max / self.sigma_min))

    def time(self, half_log_snr: Any) -> Any:
        log_ratio = math.log(self.sigma_max / self.sigma_min)
        return -(half_log_snr + math.log(self.sigma_min)) / log_ratio


class EDM(VarianceExploding):
    """See `edm`."""

    def half_log_snr(self, t: Any) -> Any:
        return -_namespace(t).log(t)

    def time(self, half_log_snr: Any) -> Any:
        return _namespace(half_log_snr).exp(-half_log_snr)


@dataclasses.dataclass(frozen=True)
class Flow(Schedule):
    """See `flow`."""

    shift: float

    def half_log_snr(self, t: Any) -> Any:
        xp = _namespace(t)
        with np.errstate(divide="ignore"):
            return xp.log1p(-t) - xp.log(t)

    def time(self, half_log_snr: Any) -> Any:
        return self.scales(half_log_snr)[1]

    def scales(self, half_log_snr: Any) -> tuple[Any, Any]:
        xp = _namespace(half_log_snr)
        sigmoid = lambda x: xp.exp(-xp.logaddexp(-x, xp.zeros_like(x)))
        return sigmoid(half_log_snr), sigmoid(-half_log_snr)

    def warp(self, u: Any) -> Any:
        return self.shift * u / (1 + (self.shift - 1) * u)


def vp_linear(
    beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3, t_max: float = 1.0
) -> VPLinear:
    """Variance preserving with a linear noise rate beta(t) (Song et al. 2021, eq. 32).

    log alpha = -t² (beta_max - beta_min) / 4 - t beta_min / 2.

    Examples
    --------
    >>> schedule = vp_linear()
    >>> float(schedule.half_log_snr(np.float64(1.0))).__round__(4)
    -5.025
    >>> float(schedule.time(schedule.half_log_snr(np.float64(0.25)))).__round__(12)
    0.25
    """
    low, high = _number("beta_min", beta_min), _number("beta_max", beta_max)
    if not 0 < low < high:
        raise ValueError(
            f"beta_min and beta_max must satisfy 0 < beta_min < beta_max, got {low} and {high}"
        )
    return VPLinear(_positive_start(t_min), t_max, low, high)


def vp_cosine(offset: float = 0.008, t_min: float = 1e-3, t_max: float = 0.9946) -> VPCosine:
    """Variance preserving with alpha a cosine (Nichol and Dhariwal 2021, eq. 17).

    Examples
    --------
    >>> float(vp_cosine().alpha(np.float64(0.5))).__round__(4)
    0.7027
    """
    offset, t_max = _number("offset", offset), _number("t_max", t_max)
    if not (offset >= 0 and 0 < t_max < 1):
        raise ValueError(
            f"offset must be >= 0 and t_max < 1, where alpha is 0; got {offset} and {t_max}"
        )
    return VPCosine(_positive_start(t_min), t_max, offset)


def vp_discrete(alphas_cumprod: Any) -> VPDiscrete:
    """Variance preserving, as trained with N discrete steps: t = (i + 1) / N at step i.

    Parameters
    ----------
    alphas_cumprod
        alpha² of the steps, ``(N,)``, falling from below 1 to above 0. Between steps log alpha is
        interpolated linearly. A network that wants the index of a step gets ``N t - 1``.

    Examples
    --------
    >>> schedule = vp_discrete([0.99, 0.64, 0.04])
    >>> float(schedule.alpha(np.float64(2 / 3))).__round__(4)
    0.8
    """
    squares = np.asarray(_checks.real_values("alphas_cumprod", alphas_cumprod), np.float64)
    if squares.ndim != 1 or squares.size < 2:
        raise ValueError(f"alphas_cumprod must have shape (N,) with N >= 2, got {squares.shape}")
    inside = lambda values: (values > 0) & (values < 1)
    _checks.check_entries("alphas_cumprod", squares, inside, "between 0 and 1, ends excluded")
    falls = lambda values: np.diff(values, prepend=1.0) < 0
    _checks.check_entries("alphas_cumprod", squares, falls, "smaller at every step")
    return VPDiscrete(1 / squares.size, 1.0, tuple((0.5 * np.log(squares)).tolist()))


def ve(
    sigma_min: float = 0.01, sigma_max: float = 50.0, t_min: float = 0.0, t_max: float = 1.0
) -> VE:
    """Variance exploding with sigma(t) geometric in t (Song et al. 2021, eq. 30).

    Examples
    --------
    >>> float(ve(0.01, 100.0).sigma(np.float64(0.5))).__round__(4)
    1.0
    """
    return VE(t_min, t_max, *_sigmas(sigma_min, sigma_max))


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> EDM:
    """Variance exploding with sigma itself as time (Karras et al. 2022).

    Examples
    --------
    >>> float(edm().half_log_snr(np.float64(0.5))).__round__(4)
    0.6931
    """
    return EDM(*_sigmas(sigma_min, sigma_max))


def flow(shift: float = 1.0, t_min: float = 1e-3, t_max: float = 0.999) -> Flow:
    """Straight paths, alpha = 1 - t and sigma = t (flow matching, rectified flow).

    Parameters
    ----------
    shift
        Evenly spaced u become times ``shift u / (1 + (shift - 1) u)``. It moves the points of the
        uniform, quadratic and power grids and nothing else: the network always sees t = sigma.
    t_min, t_max
        May be 0 and 1, where λ is infinite, for grids that are not even in λ.

    Examples
    --------
    >>> float(flow().time(np.float64(0.0))).__round__(4)
    0.5
    >>> float(flow(shift=3.0).warp(0.5))
    0.75
    """
    shift, t_max = _number("shift", shift), _number("t_max", t_max)
    if not (shift > 0 and t_max <= 1):
        raise ValueError(f"shift must be > 0 and t_max <= 1, got {shift} and {t_max}")
    return Flow(t_min, t_max, shift)


def unit_scales(half_log_snr: Any) -> tuple[Any, Any]:
    """Return (alpha, sigma) of unit variance: where solvers and tables live.

    Examples
    --------
    >>> [round(float(scale), 4) for scale in unit_scales(np.float64(0.0))]
    [0.7071, 0.7071]
    """
    xp = _namespace(half_log_snr)
    half = lambda x: xp.exp(-0.5 * xp.logaddexp(-2 * x, xp.zeros_like(x)))
    return half(half_log_snr), half(-half_log_snr)


def _namespace(value: Any) -> ModuleType:
    return jnp if isinstance(value, jax.Array) else np


def _number(name: str, value: Any) -> float:
    return float(_checks.real_parameter(name, value, scalar=True))


def _positive_start(t_min: float) -> float:
    if not _number("t_min", t_min) > 0:
        raise ValueError(f"t_min must be > 0, where the noise vanishes; got {float(t_min)}")
    return t_min


def _sigmas(sigma_min: float, sigma_max: float) -> tuple[float, float]:
    low, high = _number("sigma_min", sigma_min), _number("sigma_max", sigma_max)
    if not 0 < low < high:
        raise ValueError(
            f"sigma_min and sigma_max must satisfy 0 < sigma_min < sigma_max, got {low} and {high}"
        )
    return low, high
