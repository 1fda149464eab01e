"""Heun's method in the noise level, with churn: the sampler of EDM.

With X = x / alpha and σ = sigma / alpha = e^{-λ} the probability-flow equation is
dX/dσ = (X - D(X, σ)) / σ. A step (Karras, Aittala, Aila and Laine 2022, algorithm 2) raises the
noise from σ to σ' = (1 + γ) σ by adding some, then takes a trapezoidal step to the next level:

    X' = X + √(σ'² - σ²) S z
    d  = (X' - D(X', σ')) / σ',       Y = X' + (σ_next - σ') d
    d' = (Y - D(Y, σ_next)) / σ_next, X_next = X' + (σ_next - σ') (d + d') / 2.

Second order without churn. A step is two calls of the denoiser.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses
import math

import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion.program import Program, Tape
from shoal.sampling.diffusion.solver import LinearSolver, Steps


@dataclasses.dataclass(frozen=True)
class Heun(LinearSolver):
    """See `heun`."""

    churn: float
    churn_min: float
    churn_max: float
    noise_scale: float

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        clock = steps(-(-num_steps // 2))
        self._check(clock, num_steps)
        scale = lambda half_log_snr: unit_scales(half_log_snr)[0]
        tape = Tape()
        x = tape.start / scale(clock[0])
        for i, (s, t) in enumerate(zip(clock[:-1], clock[1:], strict=True)):
            sigma, sigma_next = math.exp(-s), math.exp(-t)
            growth = self._growth(i, sigma, len(clock) - 1)
            if growth:
                x = x + self.noise_scale * sigma * math.sqrt(growth**2 + 2 * growth) * tape.noise()
                s, sigma = s - math.log1p(growth), sigma * (1 + growth)
            here = tape.evaluate(scale(s) * x if i else tape.start, s)
            x = here.position / scale(s)
            slope = (x - here.data) / sigma
            step = sigma_next - sigma
            if 2 * i + 1 == num_steps:
                x = x + step * slope
                break
            half = tape.keep(x + 0.5 * step * slope)
            there = tape.evaluate(scale(t) * (x + step * slope), t)
            x = half + 0.5 * step / sigma_next * (there.position / scale(t) - there.data)
        return tape.finish(scale(clock[-1]) * x, clock[-1])

    def _growth(self, step: int, sigma: float, num: int) -> float:
        """Return γ: none before the first call, where x_T is noise as it is."""
        if not (step and self.churn_min <= sigma <= self.churn_max):
            return 0.0
        return min(self.churn / num, math.sqrt(2) - 1)

    def _check(self, clock: np.ndarray, num_steps: int) -> None:
        if not np.isfinite(clock[0]) or clock[-1] == -math.inf:
            raise ValueError(
                f"grid must have finite sigma / alpha for heun but at its end, got log(alpha / "
                f"sigma) {clock[0]} to {clock[-1]}; take t_max < 1 and t_min > 0"
            )
        if np.isinf(clock[-1]) and num_steps % 2 == 0:
            raise ValueError(
                f"num_steps must be odd for heun on a grid that ends without noise, where the "
                f"last step is one of Euler; got {num_steps}"
            )
        if self.churn and clock[-1] < clock[0]:
            raise ValueError("grid must go from noise to data with churn: noise cannot encode")


def heun(
    churn: float = 0.0, churn_min: float = 0.0, churn_max: float = math.inf,
    noise_scale: float = 1.0,
) -> LinearSolver:  # fmt: skip
    """Heun's method of EDM, second order, with noise added on the way where ``churn`` > 0.

    ``num_steps`` counts calls of the denoiser, as everywhere: ``num_steps = 2 N - 1`` is N steps
    of which the last is one of Euler, as published for a grid that ends at sigma = 0; with
    ``num_steps = 2 N`` the last step is one of Heun too, and the grid must end above 0. A grid
    given as times has N + 1 of them.

    Parameters
    ----------
    churn
        S_churn: a step raises the noise by the factor 1 + min(churn / N, √2 - 1), but for the
        first. Needs a key.
    churn_min, churn_max
        S_tmin and S_tmax: it does so where sigma / alpha is between them, ends included.
    noise_scale
        S_noise, the deviation of the noise that is added, 1 for noise as large as the raise.

    References
    ----------
    Karras, Aittala, Aila and Laine (2022), Elucidating the design space of diffusion-based
    generative models, algorithms 1 and 2.

    Examples
    --------
    >>> heun(churn=40.0, churn_min=0.05, churn_max=50.0, noise_scale=1.003).churn
    40.0
    """
    number = lambda name, value: float(
        _checks.real_parameter(name, value, 0.0, include_low=True, scalar=True)
    )
    low = number("churn_min", churn_min)
    unbounded = isinstance(churn_max, float) and churn_max == math.inf
    high = math.inf if unbounded else number("churn_max", churn_max)
    if low > high:
        raise ValueError(f"churn_min must be <= churn_max, got {low:g} and {high:g}")
    return Heun(number("churn", churn), low, high, number("noise_scale", noise_scale))
