"""DDIM, DPM-Solver and DPM-Solver++: the factories; see `exponential` for the equations."""

from typing import Any

from shoal.sampling.core import _checks
from shoal.sampling.core.multistep import exponential_weights
from shoal.sampling.diffusion.exponential import (
    Multistep,
    Rule,
    StochasticDDIM,
    halved_weights,
    midpoint_weights,
)
from shoal.sampling.diffusion.singlestep import Singlestep
from shoal.sampling.diffusion.solver import LinearSolver


def ddim(eta: float = 0.0) -> LinearSolver:
    """DDIM, which is DPM-Solver-1: first order.

    Parameters
    ----------
    eta
        Between 0, the probability-flow equation, and 1, the ancestral steps of DDPM. A step adds
        noise of deviation ``eta sigma_t √(1 - e^{-2h})``.

    References
    ----------
    Song, Meng and Ermon (2021), Denoising diffusion implicit models, eqs. 12 and 16.

    Examples
    --------
    >>> ddim().order
    1
    """
    eta = _rate("eta", eta)
    if eta > 1:
        raise ValueError(f"eta must be between 0 and 1, got {eta:g}")
    return StochasticDDIM(eta) if eta else Multistep("data", 1)


def dpm_solver(order: int = 3, *, variant: str = "midpoint") -> LinearSolver:
    """DPM-Solver: single steps through predictions of the noise.

    Parameters
    ----------
    order
        1, 2 or 3: a step goes over as many intervals of the grid and calls the denoiser at each.
        Steps at the end are of lower order where the number of intervals asks for it, and an
        interval where λ is infinite is a step of its own.
    variant
        ``"midpoint"``, the weights published: of order 2 on all grids and of order 3 on smooth
        ones; or ``"taylor"``: exact for polynomials in λ, and of order 3 on all grids.

    References
    ----------
    Lu, Zhou, Bao, Chen, Li and Zhu (2022), DPM-Solver, algorithms 1, 2 and 3.

    Examples
    --------
    >>> dpm_solver(3).order
    3
    """
    _choice("variant", variant, ("midpoint", "taylor"))
    return Singlestep("noise", _order(order), variant)


def dpm_solver_pp(
    order: int = 2, multistep: bool = True, sde: bool = False, *, variant: str = "midpoint",
    eta: float = 1.0, compat: str | None = None,
) -> LinearSolver:  # fmt: skip
    """DPM-Solver++: polynomials in λ through predictions of the data.

    Parameters
    ----------
    order
        1, 2 or 3.
    multistep
        Whether the polynomials go through the last points (2M, 3M), or through points inside of
        each step (2S, 3S; see `dpm_solver`). One call of the denoiser for each interval of the
        grid either way.
    sde
        Whether to solve the stochastic equation: one call a step, needs a key, multistep only.
    variant
        How two points are used: ``"midpoint"`` as published, or ``"taylor"``, exact for linear
        predictions. Both are second order. Three points are always used exactly in multistep
        solvers; in single steps as `dpm_solver` says.
    eta
        Rate at which noise is renewed, with ``sde``; 0 is the probability-flow equation.
    compat
        ``"upstream"``: the coefficients of the published code, which halve the second derivative
        in 3M, so that it is of second order.

    References
    ----------
    Lu, Zhou, Bao, Chen, Li and Zhu (2022), DPM-Solver++, algorithms 1 and 2 and appendix.

    Examples
    --------
    >>> dpm_solver_pp(3).order
    3
    """
    order = _order(order)
    for name, flag in (("multistep", multistep), ("sde", sde)):
        _checks.check_flag(name, flag)
    _choice("variant", variant, ("midpoint", "taylor"))
    _choice("compat", compat, (None, "upstream"))
    eta = _rate("eta", eta)
    if not multistep:
        if sde:
            raise ValueError("sde must be False with multistep=False, got True")
        return Singlestep("data", order, variant)
    rule: Rule = midpoint_weights if variant == "midpoint" else exponential_weights
    if compat == "upstream":
        rule = halved_weights(rule)
    return Multistep("data", order, rule, eta if sde else 0.0)


def _order(order: Any) -> int:
    order = _checks.integer("order", order)
    if order > 3:
        raise ValueError(f"order must be 1, 2 or 3, got {order}")
    return order


def _rate(name: str, value: Any) -> float:
    return float(_checks.real_parameter(name, value, 0.0, include_low=True, scalar=True))


def _choice(name: str, value: Any, accepted: tuple) -> None:
    if not (isinstance(value, str | None) and value in accepted):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {value!r}")
