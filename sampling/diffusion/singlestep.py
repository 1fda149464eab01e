"""Single-step exponential integrators: DPM-Solver-2 and -3, DPM-Solver++(2S) and (3S).

A step of order p goes from λ_s to λ_t over p neighbouring intervals of the grid, and calls the
denoiser at all their starts; so N intervals are N calls, as for every other solver, and the inner
points are the grid's own, r_1 = (λ_1 - λ_s) / h and r_2 wherever they happen to be. With m the
prediction (of the noise in DPM-Solver, of the data in DPM-Solver++) the steps as published
("midpoint"; Lu et al. 2022, algorithms 1 and 2, appendix) are

    order 2:  u_1 from m_s;                         x_t from m_s + (m_1 - m_s) / (2 r_1), constant
    order 3:  u_1 from m_s, u_2 from the line       x_t from the line through m_s and m_2
              through m_s and m_1;

of order 2 for every r_1, and of order 3 on grids that are smooth, where r_2 nears 2/3. With
"taylor" all points are used exactly, and u_2 is made so that the error of u_1 leaves the step:
order 3 for every r_1 and r_2. Nothing is remembered between steps.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses

import numpy as np

from shoal.sampling.core.multistep import exponential_weights, phi
from shoal.sampling.diffusion.exponential import advance, midpoint_weights
from shoal.sampling.diffusion.program import Evaluation, Expression, Program, Tape
from shoal.sampling.diffusion.solver import LinearSolver, Steps


@dataclasses.dataclass(frozen=True)
class Singlestep(LinearSolver):
    """See `dpm_solver`."""

    form: str
    order: int
    variant: str

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        clock = steps(num_steps)
        tape = Tape()
        x, done = tape.start, 0
        for order in block_orders(clock, self.order, lower_order_final):
            x = self._step(tape, x, clock[done : done + order + 1])
            done += order
        return tape.finish(x, clock[-1])

    def _step(self, tape: Tape, x: Expression, block: np.ndarray) -> Expression:
        s, t = block[0], block[-1]
        nodes = (block[:-1] - s) / (t - s) if len(block) > 2 else np.zeros(1)
        points = list[Evaluation]()
        for inner in block[:-1]:
            if points:
                x = self._stage(points, inner, t, nodes)
            points.append(tape.evaluate(x, inner))
        start = points[0].position
        if self.variant == "midpoint" and len(points) == 3:
            points = [points[0], points[2]]
            return advance(self.form, start, s, t, points)
        rule = midpoint_weights if self.variant == "midpoint" else exponential_weights
        return advance(self.form, start, s, t, points, rule)

    def _stage(
        self, points: list[Evaluation], inner: float, t: float, nodes: np.ndarray
    ) -> Expression:
        s = points[0].half_log_snr

        def cancelling(z: float, earlier: np.ndarray) -> np.ndarray:
            if len(earlier) == 1 or self.variant == "midpoint":
                return exponential_weights(z, earlier)
            # Σ_j b_j E_j = 0 over the stages' errors E_1 = r_1² φ_2(r_1 z) and
            # E_2 = r_2² φ_2(r_2 z) - r_1 a, of which a is what u_2 has of m_1.
            r_1, r_2 = nodes[1:]
            step_z = z / r_2
            _, b_1, b_2 = exponential_weights(step_z, nodes)
            error = lambda r: r**2 * phi(2, r * step_z)
            weight = (b_1 * error(r_1) + b_2 * error(r_2)) / (b_2 * r_1) / r_2
            return np.array([phi(1, z) - weight, weight])

        return advance(self.form, points[0].position, s, inner, points, cancelling)


def block_orders(clock: np.ndarray, order: int, lower_order_final: bool) -> list[int]:
    """Return the orders of the steps over a grid; their sum is its number of intervals.

    As published: as many steps of full order as fit, the rest in one step of lower order; with
    ``lower_order_final`` and nothing left, order 3 ends with steps of 2 and 1. An interval that is
    infinite in λ is a step of its own.
    """
    alone = ~np.isfinite(clock[[0, -1]])
    if len(clock) == 2:
        return [1]
    full, rest = divmod(len(clock) - 1 - int(alone.sum()), order)
    tail = [rest] if rest else []
    if lower_order_final and order == 3 and full and not rest:
        full, tail = full - 1, [2, 1]
    return [1] * int(alone[0]) + [order] * full + tail + [1] * int(alone[1])
