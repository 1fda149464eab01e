"""Time grids: where between noise and data a solver stops.

A grid turns a schedule and a number of intervals N into N + 1 values of λ = log(alpha / sigma), in
float64, rising from the noise to the data:

    "logsnr"      even in λ
    "uniform"     even in t
    "quadratic"   even in √t
    "karras"      even in (sigma / alpha)^(1/7)  (Karras et al. 2022, eq. 5)

`power`, `karras` and `polynomial` make others, an array of times is a grid of its own.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.schedules import Schedule

Rule: TypeAlias = Callable[[Schedule, int], np.ndarray]


def power(exponent: float) -> Rule:
    """Space t^(1 / exponent) evenly: 1 is ``"uniform"``, 2 is ``"quadratic"``.

    Parameters
    ----------
    exponent
        The larger, the more points where there is little noise.

    Returns
    -------
    Rule
        For ``grid`` of `solve`.

    Raises
    ------
    TypeError, ValueError
        If it is not a finite number > 0.

    Examples
    --------
    >>> from shoal.sampling.diffusion import edm
    >>> np.exp(-power(2.0)(edm(1.0, 9.0), 2)).round(3)
    array([9., 4., 1.])
    """
    exponent = _positive("exponent", exponent)

    def rule(schedule: Schedule, num: int) -> np.ndarray:
        ends = np.array([schedule.t_max, schedule.t_min]) ** (1 / exponent)
        return schedule.half_log_snr(
            schedule.warp(np.linspace(ends[0], ends[1], num + 1) ** exponent)
        )

    return rule


def karras(rho: float = 7.0) -> Rule:
    """Space (sigma / alpha)^(1 / rho) evenly (Karras et al. 2022, eq. 5).

    Parameters
    ----------
    rho
        The larger, the more points where there is little noise; published and ``"karras"``: 7.

    Returns
    -------
    Rule
        For ``grid`` of `solve`.

    Raises
    ------
    TypeError, ValueError
        If it is not a finite number > 0.

    Examples
    --------
    >>> from shoal.sampling.diffusion import edm
    >>> np.exp(-karras(2.0)(edm(1.0, 9.0), 2)).round(3)
    array([9., 4., 1.])
    """
    rho = _positive("rho", rho)

    def rule(schedule: Schedule, num: int) -> np.ndarray:
        ends = np.exp(-_ends(schedule, "karras") / rho)
        return -rho * np.log(np.linspace(ends[0], ends[1], num + 1))

    return rule


def polynomial(exponent: float) -> Rule:
    """Put λ at (i / N)^exponent of the way from the noise: 1 is ``"logsnr"``.

    Parameters
    ----------
    exponent
        The larger, the more points where there is much noise.

    Returns
    -------
    Rule
        For ``grid`` of `solve`.

    Raises
    ------
    TypeError, ValueError
        If it is not a finite number > 0.

    Examples
    --------
    >>> from shoal.sampling.diffusion import edm
    >>> polynomial(2.0)(edm(1.0, np.exp(4.0)), 2).round(3) + 0.0
    array([-4., -3.,  0.])
    """
    exponent = _positive("exponent", exponent)

    def rule(schedule: Schedule, num: int) -> np.ndarray:
        start, end = _ends(schedule, "logsnr")
        return start + (end - start) * np.linspace(0, 1, num + 1) ** exponent

    return rule


def half_log_snrs(schedule: Schedule, grid: Any, num_intervals: int) -> np.ndarray:
    """Return the λ of a grid, shape ``(num_intervals + 1,)``, float64.

    Parameters
    ----------
    grid
        A name, a rule, or ``num_intervals + 1`` times in the order in which they are visited: from
        noise to data, or back, to encode.

    Raises
    ------
    ValueError
        For unknown names, and for times that are not strictly monotone, not of the schedule or of
        another number.

    Examples
    --------
    >>> from shoal.sampling.diffusion import edm
    >>> half_log_snrs(edm(1.0, 100.0), "logsnr", 2).round(3)
    array([-4.605, -2.303,  0.   ])
    """
    if num_intervals < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_intervals}")
    if isinstance(grid, str):
        rules = {"logsnr": polynomial(1), "uniform": power(1), "quadratic": power(2)}
        rules["karras"] = karras()
        if grid not in rules:
            raise ValueError(f"grid must be one of {', '.join(rules)} or times; got {grid!r}")
        grid = rules[grid]
    if callable(grid):
        points = np.asarray(grid(schedule, num_intervals), np.float64)
    else:
        times = np.asarray(_checks.real_values("grid", grid), np.float64)
        if times.shape != (num_intervals + 1,):
            raise ValueError(
                f"grid must hold {num_intervals + 1} times for this solver and number of steps, "
                f"got shape {times.shape}"
            )
        with np.errstate(invalid="ignore", divide="ignore"):
            points = np.asarray(schedule.half_log_snr(times), np.float64)
        if np.isnan(points).any():
            raise ValueError(f"grid holds a time that the schedule does not have: {times}")
    falls = np.diff(points) < 0
    if not (np.all(falls) or np.all(np.diff(points) > 0)):
        raise ValueError(f"grid must be strictly monotone; its log(alpha / sigma) are {points}")
    if not np.isfinite(points[1:-1]).all():
        raise ValueError(f"grid must be finite in log(alpha / sigma) but at its ends: {points}")
    return points


def _ends(schedule: Schedule, name: str) -> np.ndarray:
    ends = schedule.half_log_snr(np.array([schedule.t_max, schedule.t_min]))
    if not np.isfinite(ends).all():
        raise ValueError(
            f'grid "{name}" needs a finite log(alpha / sigma) at t_min and t_max, got '
            f"{ends[1]} and {ends[0]}; take the uniform grid, or t_min > 0 and t_max < 1"
        )
    return ends


def _positive(name: str, value: Any) -> float:
    return float(_checks.real_parameter(name, value, 0.0, scalar=True))
