"""Adams-Bashforth solvers of the noise form, DEIS and PLMS, on any grid and with momentum.

With γ = sigma / alpha and x̄ = x / alpha the probability-flow equation is dx̄/dγ = ε(x̄, γ). A step

    x̄_t = x̄_s + ∫_{γ_s}^{γ_t} p(γ) dγ

takes for p the polynomial through the last k predictions of the noise, in a variable u of choice:
u = γ itself ("rho"), log γ = -λ ("log_rho", an exponential integrator) or the schedule's time
("t"). The integrals are by 64 points of Gauss and Legendre in λ, exact but for rounding. As nodes
are where they are, the order is k on every grid. This is DEIS (Zhang and Chen 2023, eq.
14); with even steps in γ and u = γ its coefficients are those of Adams and Bashforth, which PLMS
(Liu et al. 2022, eq. 12) uses on all grids: on uneven ones the order then is two at most.

Momentum (Wizadwongsa et al. 2024, GHVB) keeps averages v_n = (1 - β) v_{n-1} + β ε_n instead of the
predictions. What they are of a polynomial of degree below k is known exactly on any grid, and so
are the weights c of the last k of them with which the step is exact for such polynomials:

    Σ_j c_j V_{n-j,d} = ∫ u^d dγ,  V_{n,d} = (1 - β) V_{n-1,d} + β u_n^d,  d < k.

The published weights are what these become after many even steps.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion import startup
from shoal.sampling.diffusion.exponential import advance, order_at
from shoal.sampling.diffusion.program import Evaluation, Expression, Program, Tape
from shoal.sampling.diffusion.solver import LinearSolver, Problem, Record, Steps, execute

Variable: TypeAlias = Callable[[Any], Any]

VARIABLES = ("log_rho", "rho", "t")
_HIGHEST = 5
# On [0, 1].
_POINTS, _WEIGHTS = (np.polynomial.legendre.leggauss(64) + np.array([[1], [0]])) / 2


@dataclasses.dataclass(frozen=True)
class Adams(LinearSolver):
    """See `deis`, `plms` and `ghvb`.

    Attributes
    ----------
    time
        t as a function of λ, for the variable "t"; known when a problem is.
    """

    order: int
    variable: str
    beta: float = 1.0
    start: str = "growing"
    compat: str | None = None
    time: Variable | None = None

    def run(self, problem: Problem) -> tuple[jax.Array, Record]:
        bound = dataclasses.replace(self, time=problem.schedule.time)
        table = bound.program(problem.steps, problem.num_steps, problem.lower_order_final)
        return execute(table, problem)

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        wanted = self.order - 2 if self.start == "sweeps" else 0
        clock, num_sweeps = startup.intervals(steps, num_steps, self.order, wanted)
        tape = Tape()
        points = startup.first_points(tape, clock, self.order, num_sweeps, self._integrate)
        averages = list[Expression]()
        for point in reversed(points):
            self._average(tape, averages, point)
        x = tape.start
        for i in range(max(len(points) - 1, 0), len(clock) - 1):
            if i >= len(points):
                points.insert(0, tape.evaluate(x, clock[i]))
                self._average(tape, averages, points[0])
            order = order_at(i, len(clock) - 1, self.order, lower_order_final)
            x = self._step(clock[: i + 2], points[0], averages[: min(order, len(averages))])
        return tape.finish(x, clock[-1])

    def _average(self, tape: Tape, averages: list[Expression], point: Evaluation) -> None:
        """Put the average that a new prediction makes before the others."""
        if not np.isfinite(point.half_log_snr):
            return
        new = point.noise
        if averages and self.beta < 1:
            new = tape.keep((1 - self.beta) * averages[0] + self.beta * new, "average")
        averages.insert(0, new)

    def _step(self, clock: np.ndarray, here: Evaluation, averages: list[Expression]) -> Expression:
        """Return x at the last of ``clock`` from ``here``, the last but one."""
        s, t = clock[-2:]
        if not np.isfinite(t - s):
            return advance("data", here.position, s, t, [here])
        nodes = clock[:-1][np.isfinite(clock[:-1])]
        if self.compat == "upstream":
            weights = (np.exp(-t) - np.exp(-s)) * constant_weights(len(averages), self.beta)
        else:
            weights = self._weights(s, t, nodes, len(averages), self.beta)
        return _add(here.position, s, t, weights, averages)

    def _integrate(
        self, start: Expression, s: float, t: float, points: list[Evaluation]
    ) -> Expression:
        nodes = np.array([point.half_log_snr for point in reversed(points)])
        weights = self._weights(s, t, nodes, len(nodes), 1.0)
        return _add(start, s, t, weights, [point.noise for point in points])

    def _weights(self, s: float, t: float, nodes: np.ndarray, num: int, beta: float) -> np.ndarray:
        if self.variable == "t" and self.time is None:
            raise ValueError('variable "t" needs a schedule: run the solver with solve()')
        variables: dict[str, Any] = {"rho": _rho, "log_rho": np.asarray, "t": self.time}
        return averaged_weights(variables[self.variable], s, t, nodes, num, beta)


def _rho(half_log_snr: Any) -> Any:
    return np.exp(-half_log_snr)


def _add(
    start: Expression, s: float, t: float, weights: np.ndarray, values: list[Expression]
) -> Expression:
    """Return x at ``t`` from x at ``s``, with ``weights`` for steps of x / alpha."""
    (alpha_s, _), (alpha_t, _) = unit_scales(np.array(s)), unit_scales(np.array(t))
    x = (alpha_t / alpha_s) * start
    for weight, value in zip(weights, values, strict=True):
        x = x + alpha_t * weight * value
    return x


def averaged_weights(
    u: Variable, s: float, t: float, nodes: np.ndarray, num: int, beta: float
) -> np.ndarray:
    """Return what a step of x / alpha takes of the last ``num`` averages of values at ``nodes``.

    Parameters
    ----------
    u
        In which variable, a monotone function of λ, polynomials are meant.
    s, t
        λ at the ends of the step.
    nodes
        λ of all values so far, oldest first, ``(n,)`` with n >= ``num``.
    num
        Number of weights; the step is exact for polynomials of a degree below.
    beta
        Share of the new value in an average, in (0, 1].

    Returns
    -------
    np.ndarray
        ``(num,)``, newest first.

    Examples
    --------
    >>> grid = -np.log(np.array([4.0, 3.0, 2.0]))
    >>> averaged_weights(lambda λ: np.exp(-λ), grid[1], grid[2], grid[:2], 2, 1.0).round(3)
    array([-1.5,  0.5])
    """
    powers = np.arange(num)
    fraction = lambda λ: ((u(λ) - u(s)) / (u(t) - u(s)))[:, None] ** powers
    λ = s + (t - s) * _POINTS
    moments = -(t - s) * (_WEIGHTS * np.exp(-λ)) @ fraction(λ)
    values = fraction(nodes)
    averages = [values[0]]
    for value in values[1:]:
        averages.append((1 - beta) * averages[-1] + beta * value)
    return np.linalg.solve(np.array(averages[: -num - 1 : -1]).T, moments)


def constant_weights(num: int, beta: float = 1.0) -> np.ndarray:
    """Return the published weights of GHVB for unit steps; of Adams and Bashforth with ``beta`` 1.

    With backward differences ∇ a step is Σ_j a_j ∇^j ε, and ε_n is (1 + (1 - β) ∇ / β) v_n; of the
    product the powers below ``num`` are kept.

    Examples
    --------
    >>> constant_weights(3) * 12
    array([ 23., -16.,   5.])
    """
    adams = list[float]()
    for j in range(num):
        adams.append(1.0 - sum(a / (j + 1 - i) for i, a in enumerate(adams)))
    factors = np.array(adams)
    factors[1:] += (1 - beta) / beta * np.array(adams[:-1])
    signs = [[(-1) ** i * math.comb(j, i) for i in range(num)] for j in range(num)]
    return factors @ np.array(signs)


def deis(order: int = 3, variable: str = "log_rho", *, start: str = "growing") -> LinearSolver:
    """DEIS: Adams-Bashforth steps of the noise form, exact in the variable of choice.

    Parameters
    ----------
    order
        Number of points, and order, on any grid. At least 1.
    variable
        In what predictions are interpolated: ``"log_rho"``, in λ, which is the multistep solver of
        DPM-Solver's kind in the noise form; ``"rho"``, in sigma / alpha; ``"t"``, in the time of
        the schedule that the problem is solved on. In the noise, sigma / alpha is large and
        predictions vary with its logarithm: on usual grids "rho" is the worst.
    start
        ``"growing"`` order over the first steps, after which the order as a whole is two at most
        unless the grid begins at nearly pure noise, or ``"sweeps"``, which keep it for
        (order - 1) (order - 2) more calls out of ``num_steps``.

    Returns
    -------
    LinearSolver
        For `solve`.

    Raises
    ------
    TypeError, ValueError
        For impossible arguments.

    References
    ----------
    Zhang and Chen (2023), Fast sampling of diffusion models with exponential integrator, eqs. 13
    to 15 and section 3.2 (ρAB, tAB).

    Examples
    --------
    >>> deis(3, "t").order
    3
    """
    order = _checks.integer("order", order)
    _checks.choice("variable", variable, VARIABLES)
    _checks.choice("start", start, startup.STARTS)
    return Adams(order, variable, start=start)


def plms(
    order: int = 4, variable: str = "log_rho", *, start: str = "growing", compat: str | None = None
) -> LinearSolver:
    """PLMS: linear multistep in the noise, of order 4 as published, on any grid.

    Parameters
    ----------
    order
        Number of points, and order, from 1 to 5.
    variable, start
        As in `deis`; with ``"rho"`` weights are the published ones on grids even in sigma / alpha.
    compat
        ``"upstream"``: the published constant weights on every grid, whatever the variable. On
        uneven grids the order then is two at most.

    Returns
    -------
    LinearSolver
        For `solve`.

    Raises
    ------
    TypeError, ValueError
        For impossible arguments.

    References
    ----------
    Liu, Ren, Lin and Zhao (2022), Pseudo numerical methods for diffusion models on manifolds, eqs.
    11 and 12.

    Examples
    --------
    >>> plms(4).order
    4
    """
    return momentum(order, 1.0, variable, start, compat)


def momentum(order: int, beta: float, variable: str, start: str, compat: str | None) -> Adams:
    """Check arguments, and return PLMS with averages: `ghvb`."""
    if _checks.integer("order", order) > _HIGHEST:
        raise ValueError(f"order must be from 1 to {_HIGHEST}, got {order}")
    beta = float(_checks.real_parameter("beta", beta, 0.0, scalar=True))
    if beta > 1:
        raise ValueError(f"beta must be > 0 and <= 1, got {beta}")
    _checks.choice("variable", variable, VARIABLES)
    _checks.choice("start", start, startup.STARTS)
    if _checks.choice("compat", compat, (None, "upstream")) and start == "sweeps":
        raise ValueError('compat "upstream" must be with start "growing", got start "sweeps"')
    return Adams(int(order), variable, beta, start, compat)
