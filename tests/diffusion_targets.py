"""What the tests of solvers share: a mixture with its exact denoiser, solvers in plain NumPy.

Everything here is at unit variance, alpha² + sigma² = 1, in float64 and outside of JAX: programs
are executed by a loop, so that orders are measured without compiling anything.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import edm, unit_scales, vp_linear
from shoal.sampling.diffusion.grids import half_log_snrs
from shoal.sampling.diffusion.program import DATA, NOISE, Program

MEANS = np.array([[-1.0, 0.3], [1.0, -0.5], [0.2, 1.1]])
LOG_WEIGHTS = np.log([0.3, 0.5, 0.2])
DEVIATION = 0.2
STARTS = np.random.default_rng(3).standard_normal((8, 2))


def mixture(x: Any, sigma: Any) -> Any:
    """Return the mean of the data given ``x``, data plus ``sigma`` times noise; ``(n, 2)``."""
    variance = DEVIATION**2 + sigma**2
    logits = LOG_WEIGHTS - ((x[:, None] - MEANS) ** 2).sum(-1) / (2 * variance)
    weights = np.e ** (logits - logits.max(-1, keepdims=True))
    means = weights @ MEANS / weights.sum(-1, keepdims=True)
    return (x * DEVIATION**2 + means * sigma**2) / variance


def denoiser() -> Denoiser:
    """Return the mixture's denoiser for solvers in JAX."""
    return Denoiser(mixture, "data", edm())


def data(x: np.ndarray, half_log_snr: float) -> np.ndarray:
    """Return the mixture's denoiser at unit variance."""
    return mixture(x / unit_scales(half_log_snr)[0], np.exp(-half_log_snr))


def gaussian_data(deviation: float, mean: float = 0.0) -> Callable[..., Any]:
    """Return the denoiser of normal data, as a function of x and the noise level sigma."""
    return lambda x, t: (x * deviation**2 + mean * t**2) / (deviation**2 + t**2)


def steps(grid: Any) -> Callable[[int], np.ndarray]:
    """Return a grid on the linear VP schedule, or ``"uneven"``, as solvers get it."""
    # To a time at which uniform steps are still small in λ.
    rule = uneven if grid == "uneven" else grid
    return lambda num: half_log_snrs(vp_linear(t_min=0.02), rule, num)


def uneven(schedule: Any, num: int) -> np.ndarray:
    """Space λ with three unequal intervals again and again: a grid that is never smooth."""
    ends = schedule.half_log_snr(np.array([schedule.t_max, schedule.t_min]))
    sizes = np.resize([1.0, 0.4, 1.7], num)
    return np.interp(np.cumsum([0, *sizes]) / sizes.sum(), [0, 1], ends)


def follow(
    program: Program, x: np.ndarray, model: Callable[..., np.ndarray] = data
) -> tuple[np.ndarray, int]:
    """Execute a program without noise by a loop; return its end and the number of calls."""
    num = program.matrices.shape[1]
    registers = [x, *[np.zeros_like(x)] * (num - 1)]
    for matrix, here in zip(program.matrices, program.half_log_snr[:-1], strict=True):
        seen = {DATA: model(registers[0], here), NOISE: np.zeros_like(x)}
        columns = [*registers, *(seen[name] for name in program.inputs)]
        registers = [sum(f * c for f, c in zip(row, columns, strict=True)) for row in matrix]
    return registers[0], len(program.matrices)


@functools.cache
def reference(start: float, end: float, num: int = 2000) -> np.ndarray:
    """Solve d(x / sigma)/dλ = e^λ data by the classical method of Runge and Kutta."""
    clock, h = np.linspace(start, end, num + 1), (end - start) / num
    slope = lambda at, z: np.exp(at) * data(z * unit_scales(at)[1], at)
    z = STARTS / unit_scales(start)[1]
    for at in clock[:-1]:
        k_1 = slope(at, z)
        k_2 = slope(at + h / 2, z + h / 2 * k_1)
        k_3 = slope(at + h / 2, z + h / 2 * k_2)
        k_4 = slope(at + h, z + h * k_3)
        z = z + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4)
    return z * unit_scales(end)[1]


def order(solver: Any, grid: Any, num_steps: int = 240) -> float:
    """Return the order at which a solver's error falls when ``num_steps`` are doubled."""
    points = steps(grid)
    exact = reference(*points(1).tolist())
    errors = []
    for num in (num_steps, 2 * num_steps):
        end, num_calls = follow(solver.program(points, num, False), STARTS)
        assert num_calls == num
        errors.append(np.sqrt(np.mean((end - exact) ** 2)))
    return float(np.log2(errors[0] / errors[1]))
