"""Taylor solvers: steps from the prediction and its exact derivative along the flow.

The denoiser's total derivative along the probability-flow equation is one Jacobian-vector product,
at about the cost of a second call. With it a step is of second order without a past, in one of
three forms (Dockhorn et al. 2022, GENIE, eq. 9, is the raw one; h = λ_t - λ_s, γ = sigma / alpha,
x̄ = x / alpha, and ' is by λ but for dε/dγ):

    data   x_t = (sigma_t / sigma_s) x_s + alpha_t (h φ_1(-h) m + h² φ_2(-h) m')
    noise  x_t = (alpha_t / alpha_s) x_s - sigma_t (h φ_1(h) ε + h² φ_2(h) ε')
    raw    x̄_t = x̄_s + (γ_t - γ_s) ε + (γ_t - γ_s)² / 2 dε/dγ

The data form is the best at equal numbers of steps, the raw one the worst. All three follow from
m': ε' = -m' / γ and dε/dγ = m' / γ². With the point before as well, the polynomial through both
values and both derivatives (Hermite) gives fourth order: for many steps, when digits are wanted;
long steps it does not stand.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses
import functools
import math

import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.multistep import phi
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion import startup
from shoal.sampling.diffusion.exponential import advance, order_at
from shoal.sampling.diffusion.program import Evaluation, Expression, Program, Tape
from shoal.sampling.diffusion.solver import LinearSolver, Steps

FORMS = ("data", "noise", "raw")


@dataclasses.dataclass(frozen=True)
class Taylor(LinearSolver):
    """See `taylor`."""

    order: int
    form: str

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        clock = steps(num_steps)
        if self.order > 1 and not np.isfinite(clock[0]):
            raise ValueError(
                "grid must begin where log(alpha / sigma) is finite for a Taylor solver: there is "
                f"no derivative at {clock[0]}; start at a smaller t_max"
            )
        num_points = max(self.order // 2, 1)
        clock, num_sweeps = startup.intervals(steps, num_steps, num_points, num_points - 1)
        tape = Tape()
        integrate = functools.partial(hermite_step, self.form)
        points = startup.first_points(tape, clock, num_points, num_sweeps, integrate)
        x = tape.start
        for i in range(max(len(points) - 1, 0), len(clock) - 1):
            s, t = clock[i : i + 2]
            if i >= len(points):
                points.insert(0, tape.evaluate(x, s))
            if self.order == 1 or (not np.isfinite(t) and self.form != "raw"):
                x = advance("data", points[0].position, s, t, points[:1])
                continue
            num = order_at(i, len(clock) - 1, num_points, lower_order_final)
            x = hermite_step(self.form, points[0].position, s, t, points[:num])
        return tape.finish(x, clock[-1])


def hermite_step(
    form: str, start: Expression, s: float, t: float, points: list[Evaluation]
) -> Expression:
    """Return x at ``t`` from ``start`` at ``s`` by the polynomial through ``points``.

    Exact for predictions that are polynomials, in λ or, for ``"raw"``, in γ, of a degree below
    twice the number of points.
    """
    (alpha_s, sigma_s), (alpha_t, sigma_t) = unit_scales(np.array(s)), unit_scales(np.array(t))
    at = np.array([point.half_log_snr for point in points])
    gammas, h, step = np.exp(-at), t - s, np.exp(-t) - np.exp(-s)
    z, nodes, length, factor = {
        "data": (-h, (at - s) / h, h, alpha_t * h),
        "noise": (h, (at - s) / h, h, -sigma_t * h),
        "raw": (0.0, (gammas - np.exp(-s)) / step, step, alpha_t * step),
    }[form]
    values, slopes = hermite_weights(z, nodes)
    x = (sigma_t / sigma_s if form == "data" else alpha_t / alpha_s) * start
    for value, slope, gamma, point in zip(values, slopes, gammas, points, strict=True):
        change = {"data": 1.0, "noise": -1 / gamma, "raw": 1 / gamma**2}[form]
        x = x + factor * value * point.form(form)
        x = x + factor * slope * length * change * point.derivative
    return x


def hermite_weights(z: float, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return v and w such that Σ_j v_j p(θ_j) + w_j p'(θ_j) = ∫_0^1 e^{z (1 - θ)} p(θ) dθ.

    Exact for polynomials p of a degree below twice the number of nodes.

    Examples
    --------
    >>> hermite_weights(0.0, np.array([0.0]))
    (array([1.]), array([0.5]))
    """
    powers = np.arange(2 * len(nodes))
    values = nodes[:, None] ** powers
    slopes = powers * nodes[:, None] ** np.maximum(powers - 1, 0)
    moments = [math.factorial(k) * phi(k + 1, z) for k in range(2 * len(nodes))]
    weights = np.linalg.solve(np.concatenate([values, slopes]).T, moments)
    return weights[: len(nodes)], weights[len(nodes) :]


def taylor(order: int = 2, form: str = "data") -> Taylor:
    """Take truncated Taylor steps through the exact derivative of the denoiser along the flow.

    Each of the ``num_steps`` evaluations counts as two calls for orders above 1. Of a guided
    denoiser it is the guided field that is differentiated.

    Parameters
    ----------
    order
        1, which is DDIM; 2; or 4, through the point before too, where the first step is made twice,
        for one more evaluation out of ``num_steps``, and ``lower_order_final`` lowers the order of
        the last, and of the whole to three.
    form
        What is expanded: ``"data"`` and ``"noise"`` in λ, or ``"raw"``, the noise in sigma / alpha
        as published.

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
    Dockhorn, Vahdat and Kreis (2022), GENIE: Higher-order denoising diffusion solvers, eqs. 8 and
    9 (TTM).

    Examples
    --------
    >>> taylor(2, "raw").form
    'raw'
    """
    return Taylor(_checks.choice("order", order, (1, 2, 4)), _checks.choice("form", form, FORMS))
