"""UniPC: a predictor and a corrector that shares its calls, one order more for nothing.

The predictor is the exponential multistep solver of `exponential`, through p points. Once the
denoiser has been called where the predictor led, the step is made again from the same start with
that value as one more point, here for the data form with h = λ_t - λ_s (Zhao et al. 2023, eq. 3 and
algorithm 1),

    x_t = (sigma_t / sigma_s) x_s - alpha_t (e^{-h} - 1) m_s
          - alpha_t B(h) (Σ_{i<p} ρ_i (m_i - m_s) / r_i + ρ_p (m_t - m_s)),  r_i = (λ_i - λ_s) / h.

The next step starts there; the value itself is used on as it is, so there is one call a step. The
last step is not corrected: that would need a call at the end. With p points the order is p + 1.

The ρ of the paper solve a Vandermonde system in which B cancels: the step is exact for polynomials.
Only where two points are used, in the predictor of order 2 and the corrector of order 1, the paper
sets ρ = 1/2, and B(h) is -h ("bh1") or e^{-h} - 1 ("bh2"). "vary" is exact there too.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.multistep import exponential_weights, phi
from shoal.sampling.diffusion import startup
from shoal.sampling.diffusion.exponential import Rule, advance, order_at
from shoal.sampling.diffusion.program import Expression, Program, Tape
from shoal.sampling.diffusion.solver import LinearSolver, Steps

VARIANTS = ("bh2", "bh1", "vary")


@dataclasses.dataclass(frozen=True)
class UniPC(LinearSolver):
    """See `unipc`."""

    order: int
    form: str
    predictor: Rule
    corrector: Rule | None
    start: str = "growing"

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        wanted = self.order - (2 if self.corrector is None else 1) if self.start == "sweeps" else 0
        clock, num_sweeps = startup.intervals(steps, num_steps, self.order, wanted)
        tape = Tape()
        integrate = functools.partial(advance, self.form)
        points = startup.first_points(tape, clock, self.order, num_sweeps, integrate)
        x = points[0].position if points else tape.start
        start, order = x, 0
        for i in range(max(len(points) - 1, 0), len(clock) - 1):
            if i >= len(points):
                here, before = tape.evaluate(x, clock[i]), clock[i - 1]
                start = here.position
                # Over an infinite step there is no polynomial to correct with.
                if i and self.corrector is not None and np.isfinite(before):
                    # Predictor and corrector begin alike, so what they differ by need not know
                    # where: nothing but predictions is remembered.
                    add = functools.partial(advance, self.form, Expression({}), before, clock[i])
                    seen = points[:order]
                    start = start + add([*seen, here], self.corrector) - add(seen, self.predictor)
                points.insert(0, here)
            order = order_at(i, len(clock) - 1, self.order, lower_order_final)
            x = advance(self.form, start, clock[i], clock[i + 1], points[:order], self.predictor)
        return tape.finish(x, clock[-1])


def unipc(
    order: int = 2, variant: str = "bh2", *, corrector: bool = True, form: str = "data",
    start: str = "growing", compat: str | None = None,
) -> LinearSolver:  # fmt: skip
    """UniPC: predictor and corrector, one call of the denoiser a step, order ``order + 1``.

    Parameters
    ----------
    order
        Number of points of the predictor, at least 1. The published choices are 2 and 3. 1 is DDIM
        with a corrector: it extrapolates nothing, and bears few steps with strong guidance.
    variant
        ``"bh1"``, ``"bh2"`` (for few steps better) or ``"vary"``; they differ where two points are
        used, see the module.
    corrector
        Whether to correct. Without, this is UniP, of order ``order``.
    form
        Whether predictions of ``"data"`` or of ``"noise"`` are interpolated.
    start
        ``"growing"``: the first steps have as many points as there are, so that the order as a
        whole is three at most, two without a corrector, unless the grid begins at nearly pure
        noise; or ``"sweeps"``, which keep it for (order - 1)² more calls out of ``num_steps``,
        (order - 1) (order - 2) without.
    compat
        ``"upstream"``: the coefficients of the published code, whose corrector of variant "vary"
        leaves out the highest derivative and takes the new value into account in one place only:
        first order from two points on. The other variants are the same.

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
    Zhao, Bai, Rao, Zhou and Lu (2023), UniPC: a unified predictor-corrector framework for fast
    sampling of diffusion models, algorithms 1 and 2, eqs. 3 and 7, and appendix on varying
    coefficients.

    Examples
    --------
    >>> unipc(3).order
    3
    """
    order = _checks.integer("order", order)
    variant = _checks.choice("variant", variant, VARIANTS)
    _checks.check_flag("corrector", corrector)
    form = _checks.choice("form", form, ("data", "noise"))
    start = _checks.choice("start", start, startup.STARTS)
    compat = _checks.choice("compat", compat, (None, "upstream"))
    rule: Rule = exponential_weights
    if variant != "vary":
        rule = functools.partial(halfway_weights, variant)
    correction = upstream_weights if variant == "vary" and compat == "upstream" else rule
    return UniPC(order, form, rule, correction if corrector else None, start)


def halfway_weights(variant: str, z: float, nodes: np.ndarray) -> np.ndarray:
    """Use two points with ρ = 1/2 and B(h) of the variant; other numbers exactly."""
    if len(nodes) != 2:
        return exponential_weights(z, nodes)
    scale = 1.0 if variant == "bh1" else phi(1, z)
    weight = scale / (2 * nodes[1])
    return np.array([phi(1, z) - weight, weight])


def upstream_weights(z: float, nodes: np.ndarray) -> np.ndarray:
    """Return what the published code corrects with in variant "vary"; the new point is last.

    It estimates the derivatives h^k m^(k) = Σ_i A_ki (m_i - m_s) / r_i with A the inverse of
    r_i^{k - 1} / k!, but then sums all but the last over the old points alone.
    """
    ratios: Any = nodes[1:]
    num = len(ratios)
    if num == 1:
        return exponential_weights(z, nodes)
    factorials = [math.factorial(k + 1) for k in range(num)]
    inverse = np.linalg.inv(ratios[:, None] ** np.arange(num) / factorials)
    factors = np.array([phi(k + 2, z) for k in range(num)])
    old = factors[:-1] @ inverse[:-1, :-1]
    new = factors[-1] * inverse[-2, -1]
    weights = np.array([*old, new]) / ratios
    return np.array([phi(1, z) - weights.sum(), *weights])
