"""Exponential integrators: what DDIM, DPM-Solver, DPM-Solver++ and their relatives share.

At unit variance the probability-flow equation from λ_s to λ_t, h = λ_t - λ_s, has the exact
solution (Lu et al. 2022, DPM-Solver, eq. 3.4; DPM-Solver++, eq. 8)

    data:   x_t = (sigma_t / sigma_s) x_s + alpha_t ∫_0^h e^{-(h - r)} x_0(λ_s + r) dr
    noise:  x_t = (alpha_t / alpha_s) x_s - sigma_t ∫_0^h e^{h - r} ε(λ_s + r) dr

in which the prediction is replaced by the polynomial through its values at the last points; the
integral of that is exact. With p points the order is p. Multistep solvers call the denoiser once a
step and are as cheap as DDIM.

All stochastic equations with the same marginals add noise at some rate η >= 0 and take it away
again. In the data form the solution differs in three places (DPM-Solver++, eq. 10, with η = 1):

    x_t = (sigma_t / sigma_s) e^{-η h} x_s
          + alpha_t (1 + η) ∫_0^h e^{-(1 + η) (h - r)} x_0(λ_s + r) dr
          + sigma_t √(1 - e^{-2 η h}) z.

With constant predictions the law of the step is exact. Noise comes from one Brownian path for each
sample, so that refined grids converge to the same sample.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from shoal.sampling.core.multistep import exponential_weights, phi, polynomial_weights
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion.program import Evaluation, Expression, Program, Tape
from shoal.sampling.diffusion.solver import LinearSolver, Steps

Rule: TypeAlias = Callable[[float, np.ndarray], np.ndarray]


def advance(
    form: str, start: Expression, s: float, t: float, points: list[Evaluation],
    rule: Rule = exponential_weights, eta: float = 0.0,
) -> Expression:  # fmt: skip
    """Return x at ``t`` from ``start`` at ``s`` by the polynomial through ``points``.

    Exact for predictions that are polynomials in λ of a degree below the number of points. Where λ
    is infinite at an end of the step, only ``points[0]``, at ``s``, is used. ``rule`` may give
    other weights than `exponential_weights`; with ``eta``, for the data form alone, the step is
    that of the stochastic equation but for its noise.
    """
    (alpha_s, sigma_s), (alpha_t, sigma_t) = unit_scales(np.array(s)), unit_scales(np.array(t))
    h = t - s
    if sigma_s == 0:
        raise ValueError("grid starts where there is no noise: nothing to encode; take t_min > 0")
    decay = np.exp(-eta * h) if eta else 1.0
    if not np.isfinite(h):
        shrink = decay * sigma_t / sigma_s
        return shrink * start + (alpha_t - shrink * decay * alpha_s) * points[0].data
    points = [point for point in points if np.isfinite(point.half_log_snr)]
    nodes = np.array([(point.half_log_snr - s) / h for point in points])
    if form == "data":
        z = -(1 + eta) * h
        base, factor = (decay * sigma_t / sigma_s) * start, -alpha_t * z
    else:
        base, factor, z = (alpha_t / alpha_s) * start, -sigma_t * h, h
    for weight, point in zip(rule(z, nodes), points, strict=True):
        base = base + factor * weight * point.form(form)
    return base


def midpoint_weights(z: float, nodes: np.ndarray) -> np.ndarray:
    """Replace a line through two points by its value half-way; other numbers as usual.

    Second order like the exact weights; what DPM-Solver-2 and DPM-Solver++(2M) are published with.
    """
    if len(nodes) != 2:
        return exponential_weights(z, nodes)
    return phi(1, z) * np.array([1.0, 0.5]) @ polynomial_weights(nodes)


def halved_weights(rule: Rule) -> Rule:
    """Return ``rule`` with half the second derivative of a parabola through three points.

    The published code of DPM-Solver++(3M), and all that descends from it, takes the second divided
    difference for the second derivative, which is twice that: the order falls to two.
    """

    def halved(z: float, nodes: np.ndarray) -> np.ndarray:
        weights = rule(z, nodes)
        if len(nodes) != 3:
            return weights
        return weights - phi(3, z) * polynomial_weights(nodes)[2]

    return halved


def order_at(step: int, num_steps: int, order: int, lower_order_final: bool) -> int:
    """Return the order of a multistep solver's step, counted from 0."""
    return min(order, step + 1, num_steps - step if lower_order_final else order)


def renewal(tape: Tape, s: float, t: float, eta: float) -> Expression:
    """Return the noise of a step of the stochastic equation of rate ``eta``."""
    if t < s:
        raise ValueError("grid must go from noise to data: a stochastic solver cannot encode")
    _, sigma_t = unit_scales(t)
    return sigma_t * np.sqrt(-np.expm1(-2 * eta * (t - s))) * tape.noise(s, t, eta)


@dataclasses.dataclass(frozen=True)
class Multistep(LinearSolver):
    """See `dpm_solver_pp`."""

    form: str
    order: int
    rule: Rule = exponential_weights
    eta: float = 0.0

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        clock = steps(num_steps)
        tape = Tape()
        x, points = tape.start, list[Evaluation]()
        for i, (s, t) in enumerate(zip(clock[:-1], clock[1:], strict=True)):
            points.insert(0, tape.evaluate(x, s))
            order = order_at(i, num_steps, self.order, lower_order_final)
            x = advance(self.form, points[0].position, s, t, points[:order], self.rule, self.eta)
            if self.eta:
                x = x + renewal(tape, s, t, self.eta)
        return tape.finish(x, clock[-1])


@dataclasses.dataclass(frozen=True)
class StochasticDDIM(LinearSolver):
    """See `ddim`."""

    eta: float

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        clock = steps(num_steps)
        tape = Tape()
        x = tape.start
        for s, t in zip(clock[:-1], clock[1:], strict=True):
            here = tape.evaluate(x, s)
            # DDIM's η is the root of a rate: its noise is as large as that of rate 1, times η.
            fresh = self.eta * renewal(tape, s, t, 1.0)
            (alpha_s, sigma_s), (alpha_t, sigma_t) = unit_scales(s), unit_scales(t)
            kept = sigma_t * np.sqrt(1 + self.eta**2 * np.expm1(-2 * (t - s))) / sigma_s
            x = kept * here.position + (alpha_t - kept * alpha_s) * here.data + fresh
        return tape.finish(x, clock[-1])
