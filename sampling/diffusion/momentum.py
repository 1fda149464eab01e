"""Heavy-ball momentum: averages that let few, long steps of high order stay stable.

Multistep solvers extrapolate, and with few steps or strong guidance the flow is too stiff for that.
Two remedies average with weight β in (0, 1] for what is new (Wizadwongsa et al. 2024):

    heavy ball    v_n = (1 - β) v_{n-1} + β p_n,  x̄ += δ_n v_n
    generalised   v_n = (1 - β) v_{n-1} + β ε_n,  x̄ += Σ_j c_j(β) v_{n-j}

where x̄ = x / alpha, δ_n is the step of sigma / alpha and p_n the mean over it of the polynomial
through the last k predictions. With β = 1 both are PLMS. On even grids and for dx̄/ds = -x̄ steps are
stable up to

    k             1              2               3                      4
    heavy ball    2 (2 - β) / β  (2 - β) / β     (6 / 11) (2 - β) / β   (3 / 10) (2 - β) / β
    generalised   2 (2 - β) / β  2 - β           6 (2 - β) / (12 - β)   3 (2 - β) / (11 - β)

so the heavy ball has as much stability as is asked for, but below β = 1 it lags behind and is of
first order whatever k. The generalised one gains at most a factor of two for k > 1 and keeps order
k for every β: `adams` says how, on any grid.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses

import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.multistep import exponential_weights, phi
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion.adams import constant_weights, momentum
from shoal.sampling.diffusion.exponential import advance, midpoint_weights, order_at
from shoal.sampling.diffusion.program import Evaluation, Expression, Program, Tape
from shoal.sampling.diffusion.solver import LinearSolver, Steps


@dataclasses.dataclass(frozen=True)
class HeavyBall(LinearSolver):
    """See `heavy_ball`."""

    order: int
    beta: float
    form: str
    compat: str | None

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        clock = steps(num_steps)
        tape = Tape()
        x, points = tape.start, list[Evaluation]()
        velocity: Expression | None = None
        for i, (s, t) in enumerate(zip(clock[:-1], clock[1:], strict=True)):
            here = tape.evaluate(x, s)
            if not np.isfinite(t - s):
                x = advance("data", here.position, s, t, [here])
                continue
            points.insert(0, here)
            order = order_at(i, num_steps, self.order, lower_order_final)
            mean = self._mean(t - s, points[:order])
            # As published: in the data form momentum begins where the order is reached.
            if velocity is None or (self.form == "data" and i < self.order):
                velocity = mean
            else:
                velocity = (1 - self.beta) * velocity + self.beta * mean
            velocity = tape.keep(velocity, "velocity")
            x = displaced(self.form, here.position, s, t, velocity)
        return tape.finish(x, clock[-1])

    def _mean(self, h: float, points: list[Evaluation]) -> Expression:
        """Return the mean over the step of the polynomial through ``points``."""
        nodes = np.array([(point.half_log_snr - points[0].half_log_snr) / h for point in points])
        if self.compat == "upstream" and self.form == "noise":
            weights = constant_weights(len(points))
        elif self.form == "noise":
            weights = exponential_weights(h, nodes) / phi(1, h)
        else:
            weights = midpoint_weights(-h, nodes) / phi(1, -h)
        terms = (w * point.form(self.form) for w, point in zip(weights, points, strict=True))
        return sum(terms, Expression({}))


def displaced(form: str, start: Expression, s: float, t: float, value: Expression) -> Expression:
    """Return x at ``t`` from ``start`` at ``s`` with the same prediction all the way."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = unit_scales(np.array(s)), unit_scales(np.array(t))
    if form == "data":
        return (sigma_t / sigma_s) * start - alpha_t * np.expm1(s - t) * value
    return (alpha_t / alpha_s) * start - sigma_t * np.expm1(t - s) * value


def heavy_ball(
    order: int = 2, beta: float = 0.8, form: str = "noise", *, compat: str | None = None
) -> LinearSolver:
    """Heavy-ball momentum on PLMS or on DPM-Solver++(2M); first order below ``beta`` 1.

    Parameters
    ----------
    order
        Number of points of the multistep solver beneath, from 1 to 5.
    beta
        Share of the new value in the average, in (0, 1]. With 1 it is the solver beneath; the
        smaller, the more stable and the less accurate. Published: 0.8 and 0.9.
    form
        Beneath are ``"noise"``, PLMS of that order, or ``"data"``, for 2 points DPM-Solver++(2M).
    compat
        ``"upstream"``: the constant weights of PLMS, see `plms`. In the data form nothing changes.

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
    Wizadwongsa, Chinchuthakun, Khungurn, Raj and Suwajanakorn (2024), Diffusion sampling with
    momentum for mitigating divergence artifacts, section 4.1, and appendix on DPM-Solver++.

    Examples
    --------
    >>> heavy_ball(2, 0.8, form="data").beta
    0.8
    """
    base = momentum(order, beta, "log_rho", "growing", compat)
    _checks.choice("form", form, ("noise", "data"))
    return HeavyBall(base.order, base.beta, form, compat)


def ghvb(
    order: int = 2, beta: float = 0.8, variable: str = "log_rho", *, start: str = "growing",
    compat: str | None = None,
) -> LinearSolver:  # fmt: skip
    """Generalised heavy-ball momentum: order ``order`` for every ``beta`` and on any grid.

    Parameters
    ----------
    order
        Number of averages that a step takes, and order, from 1 to 5.
    beta
        Share of the new value in an average, in (0, 1]. With 1 it is `plms`. What is published as
        order 3.8 has ``order=4, beta=0.8``; with strong guidance and few steps (2, 0.5) does well.
    variable, start
        As in `deis`.
    compat
        ``"upstream"``: the published weights, constant on every grid, whatever the variable. The
        order then is two at most, on even grids too, as the first average is of one value.

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
    Wizadwongsa, Chinchuthakun, Khungurn, Raj and Suwajanakorn (2024), Diffusion sampling with
    momentum for mitigating divergence artifacts, section 4.2 and table of coefficients.

    Examples
    --------
    >>> ghvb(4, 0.8).beta
    0.8
    """
    return momentum(order, beta, variable, start, compat)
