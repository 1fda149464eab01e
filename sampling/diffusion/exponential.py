"""Exponential-integrator solvers: DDIM and the multistep family DPM-Solver++.

At unit variance the probability-flow equation from λ_s to λ_t, h = λ_t - λ_s, has the exact
solution (Lu et al. 2022, DPM-Solver, eq. 3.4; DPM-Solver++, eq. 8)

    data:   x_t = (sigma_t / sigma_s) x_s + alpha_t ∫_0^h e^{-(h - r)} x_0(λ_s + r) dr
    noise:  x_t = (alpha_t / alpha_s) x_s - sigma_t ∫_0^h e^{h - r} ε(λ_s + r) dr

in which the prediction is replaced by the polynomial through its values at the last points; the
integral of that is exact. With p points the order is p. Multistep solvers call the denoiser once a
step and are as cheap as DDIM.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses

import numpy as np

from shoal.sampling.core.multistep import exponential_weights
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion.program import Evaluation, Expression, Program, Tape
from shoal.sampling.diffusion.solver import LinearSolver, Steps


def advance(
    form: str, start: Expression, s: float, t: float, points: list[Evaluation]
) -> Expression:
    """Return x at ``t`` from ``start`` at ``s`` by the polynomial through ``points``.

    Exact for predictions that are polynomials in λ of a degree below the number of points. Where λ
    is infinite at an end of the step, only ``points[0]``, at ``s``, is used.
    """
    (alpha_s, sigma_s), (alpha_t, sigma_t) = unit_scales(np.array(s)), unit_scales(np.array(t))
    h = t - s
    if not np.isfinite(h):
        return (sigma_t / sigma_s) * start + alpha_t * -np.expm1(-h) * points[0].data
    points = [point for point in points if np.isfinite(point.half_log_snr)]
    nodes = np.array([(point.half_log_snr - s) / h for point in points])
    if form == "data":
        base, factor, z = (sigma_t / sigma_s) * start, alpha_t * h, -h
    else:
        base, factor, z = (alpha_t / alpha_s) * start, -sigma_t * h, h
    for weight, point in zip(exponential_weights(z, nodes), points, strict=True):
        base = base + factor * weight * point.form(form)
    return base


def order_at(step: int, num_steps: int, order: int, lower_order_final: bool) -> int:
    """Return the order of a multistep solver's step, counted from 0."""
    return min(order, step + 1, num_steps - step if lower_order_final else order)


@dataclasses.dataclass(frozen=True)
class Multistep(LinearSolver):
    """See `dpm_solver_pp`."""

    form: str
    order: int

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        clock = steps(num_steps)
        tape = Tape()
        x, points = tape.start, list[Evaluation]()
        for i, (s, t) in enumerate(zip(clock[:-1], clock[1:], strict=True)):
            points.insert(0, tape.evaluate(x, s))
            order = order_at(i, num_steps, self.order, lower_order_final)
            x = advance(self.form, points[0].position, s, t, points[:order])
        return tape.finish(x, clock[-1])


def ddim() -> Multistep:
    """DDIM (Song et al. 2021), which is DPM-Solver-1: first order."""
    return Multistep("data", 1)
