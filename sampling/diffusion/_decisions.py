"""Decisions of a solver, step by step, and the schedules of decisions that known solvers are."""

import math
from typing import Any, NamedTuple

import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.multistep import phi
from shoal.sampling.diffusion.singlestep import block_orders

FORMS = ("data", "noise", "v3")
RELAXATIONS = ("bh1", "bh2", "+exp", "-exp")
MAX_ORDER = 4


class Update(NamedTuple):
    """How a step is made from its start.

    Attributes
    ----------
    order
        Number n of terms of Taylor's series, 1 to 4.
    active
        For each of the n - 1 derivatives the number of points beside the start that it is
        estimated from, newest first; at least k for the k-th. None is n - 1 for all: the
        polynomial through n points.
    relaxation
        What the first derivative is multiplied by, with z = h for the noise and -h for the data:
        ``"bh2"``, z (e^z - 1) / 2 (e^z - 1 - z), which is the midpoint rule; ``"bh1"``,
        z² / 2 (e^z - 1 - z); ``"+exp"`` and ``"-exp"``, 1 ± (e^z - 1) / 2; a number c, 1 + c h; or
        None. Names are for the data and the noise alone.
    """

    order: int = 1
    active: tuple[int, ...] | None = None
    relaxation: str | float | None = None


class Step(NamedTuple):
    """The decisions of one step.

    Attributes
    ----------
    form
        ``"data"``, ``"noise"`` or ``"v3"``.
    update
        The prediction of the next position.
    start
        The point from which the step is made: -1 the last one, -2 the one before, ... Single-step
        solvers are made of these.
    corrector
        The step made again, from the same start, once the prediction at its end is known; no call
        is spent, and predictions stay as they are. None for none; the last step has none.
    implicit
        Whether to call the denoiser again where the corrector leads: one call more.
    """

    form: str = "data"
    update: Update = Update()
    start: int = -1
    corrector: Update | None = None
    implicit: bool = False


class SolverSchedule(NamedTuple):
    """A solver, decision by decision; `usf` makes it a solver.

    Attributes
    ----------
    steps
        One for each interval.
    half_log_snr
        λ of the interval ends, strictly monotone; None to take the grid of `solve`.
    first
        ``"noise"`` or ``"data"``: the first call of the denoiser is not made, and instead the
        noise is taken to be x at unit variance, or the data to be their mean.
    """

    steps: tuple[Step, ...]
    half_log_snr: tuple[float, ...] | None = None
    first: str | None = None

    @property
    def num_calls(self) -> int:
        """Calls of the denoiser."""
        return len(self.steps) - (self.first is not None) + sum(s.implicit for s in self.steps)


def multistep_schedule(
    num_steps: int, order: int = 2, form: str = "data", *, relaxation: Any = None,
    corrector: int | None = None, pseudo_predictor: bool = False, pseudo_corrector: bool = False,
    lower_order_final: bool = True,
) -> SolverSchedule:  # fmt: skip
    """Return the schedule of a multistep solver.

    =================  =======================================================================
    DDIM               ``order=1``
    DPM-Solver++(pM)   ``order=p, relaxation="bh2"``
    DEIS in log rho    ``order=p, form="noise"``
    UniPC-p, bh1/bh2   ``order=p, relaxation="bh1"|"bh2", corrector=1``
    DPM-Solver-v3      ``order=p, form="v3", corrector=0``, or 1 with ``pseudo_corrector``
    =================  =======================================================================

    Parameters
    ----------
    num_steps
        Number of steps.
    order
        Number of points, at the first steps as many as there are.
    form
        As in `Step`.
    relaxation
        As in `Update`, for steps through two points.
    corrector
        By how much the order of the corrector is above that of the predictor, or None for none.
    pseudo_predictor, pseudo_corrector
        Whether the k-th derivative comes from the k + 1 nearest points alone.
    lower_order_final
        Lower the order over the last steps.

    Examples
    --------
    >>> [step.update.order for step in multistep_schedule(5, 3).steps]
    [1, 2, 3, 2, 1]
    """
    num_steps = _checks.integer("num_steps", num_steps)
    order = _checks.integer("order", order)
    if corrector is not None:
        corrector = _checks.integer("corrector", corrector, 0)
    _checks.check_flag("pseudo_predictor", pseudo_predictor)
    _checks.check_flag("pseudo_corrector", pseudo_corrector)
    _checks.check_flag("lower_order_final", lower_order_final)

    def update(order: int, pseudo: bool) -> Update:
        active = tuple(range(1, order)) if pseudo else None
        return Update(order, active, relaxation if order == 2 else None)

    steps = []
    for i in range(num_steps):
        points = min(order, i + 1, num_steps - i if lower_order_final else order)
        again = None
        if corrector is not None and points + corrector > 1 and i < num_steps - 1:
            again = update(points + corrector, pseudo_corrector)
        steps.append(Step(form, update(points, pseudo_predictor), corrector=again))
    return check_schedule(SolverSchedule(tuple(steps)))


def singlestep_schedule(
    num_steps: int, order: int = 2, form: str = "noise", lower_order_final: bool = True
) -> SolverSchedule:
    """Return the schedule of DPM-Solver (form "noise") or DPM-Solver++ (form "data"), single step.

    ``num_steps`` counts calls of the denoiser. The inner points of a step are those of the grid.

    Examples
    --------
    >>> [step.start for step in singlestep_schedule(5, 3).steps]
    [-1, -2, -3, -1, -2]
    """
    num_steps, order = _checks.integer("num_steps", num_steps), _checks.integer("order", order)
    if order > 3:
        raise ValueError(f"order must be 1, 2 or 3, got {order}")
    _checks.check_flag("lower_order_final", lower_order_final)
    steps = list[Step]()
    for block in block_orders(np.arange(num_steps + 1.0), order, lower_order_final):
        steps.append(Step(form))
        if block == 2:
            steps.append(Step(form, Update(2, None, "bh2"), start=-2))
        if block == 3:
            steps.extend(Step(form, Update(2, (1,)), start=start) for start in (-2, -3))
    return check_schedule(SolverSchedule(tuple(steps)))


def check_schedule(schedule: SolverSchedule) -> SolverSchedule:
    """Return the schedule if it can be carried out, else raise, naming the step."""
    if not isinstance(schedule, SolverSchedule):
        raise TypeError(f"schedule must be a SolverSchedule, got {type(schedule).__name__}")
    if not isinstance(schedule.steps, tuple) or not schedule.steps:
        raise ValueError(f"schedule.steps must be a tuple of steps, got {schedule.steps!r}")
    for i, step in enumerate(schedule.steps):
        _check_step(f"schedule.steps[{i}]", step, i, i == len(schedule.steps) - 1)
    first = schedule.first
    if first not in (None, "noise", "data"):
        raise ValueError(f'schedule.first must be None, "noise" or "data"; got {first!r}')
    if first is not None and len(schedule.steps) < 2:
        raise ValueError(f"schedule.steps must be at least 2 with schedule.first {first!r}, got 1")
    if schedule.half_log_snr is not None:
        name = "schedule.half_log_snr"
        clock = np.asarray(_checks.real_values(name, np.asarray(schedule.half_log_snr)))
        if clock.shape != (len(schedule.steps) + 1,):
            raise ValueError(
                f"{name} must hold {len(schedule.steps) + 1} numbers, got shape {clock.shape}"
            )
        rises = np.diff(clock) > 0
        if not (np.isfinite(clock).all() and (rises.all() or not rises.any())):
            raise ValueError(f"{name} must be finite and strictly monotone, got {clock}")
    return schedule


def active(update: Update) -> tuple[int, ...]:
    """Return how many points beside the start each derivative is estimated from."""
    return (update.order - 1,) * (update.order - 1) if update.active is None else update.active


def series(update: Update, factor: float, nodes: np.ndarray) -> np.ndarray:
    """Return the matrix from values at ``nodes`` to coefficients of powers, row k of θ^k.

    The first node is the start, θ = 0; ``factor`` multiplies the first derivative.
    """
    matrix = np.zeros((update.order, len(nodes)))
    matrix[0, 0] = 1.0
    for k, num in enumerate(active(update), start=1):
        if num >= len(nodes):
            raise ValueError(
                f"a step needs {num} points at finite log(alpha / sigma) beside its start, has "
                f"{len(nodes) - 1}"
            )
        # The system in powers from 1; its right-hand sides are differences from the start.
        row = np.linalg.inv(nodes[1 : num + 1, None] ** np.arange(1, num + 1))[k - 1]
        matrix[k, 1 : num + 1] = row
        matrix[k, 0] = -row.sum()
    matrix[1:2] *= factor
    return matrix


def weights(update: Update, h: float, z: float, nodes: np.ndarray) -> np.ndarray:
    """Return what `exponential_weights` would, with the decisions of ``update``."""
    moments = np.array([math.factorial(k) * phi(k + 1, z) for k in range(update.order)])
    return moments @ series(update, relaxation_factor(update.relaxation, z, h), nodes)


def relaxation_factor(relaxation: str | float | None, z: float, h: float) -> float:
    """Return what the first derivative is multiplied by."""
    if relaxation is None:
        return 1.0
    if not isinstance(relaxation, str):
        return 1 + relaxation * h
    if relaxation in ("+exp", "-exp"):
        return 1 + (0.5 if relaxation == "+exp" else -0.5) * math.expm1(z)
    # z (e^z - 1) / 2 (e^z - 1 - z), and the same with z for e^z - 1, without cancellation.
    return (phi(1, z) if relaxation == "bh2" else 1.0) / (2 * phi(2, z))


def _check_step(name: str, step: Any, num_before: int, is_last: bool) -> None:
    if not isinstance(step, Step):
        raise TypeError(f"{name} must be a Step, got {type(step).__name__}")
    if step.form not in FORMS:
        raise ValueError(f"{name}.form must be one of {', '.join(FORMS)}; got {step.form!r}")
    _check_update(f"{name}.update", step.update, step.form, num_before)
    _checks.check_flag(f"{name}.implicit", step.implicit)
    start = -_checks.integer(f"{name}.start", step.start, -num_before - 1)
    if start < 1:
        raise ValueError(f"{name}.start must be at most -1, got {step.start}")
    if step.corrector is not None:
        _check_update(f"{name}.corrector", step.corrector, step.form, num_before + 1)
    if is_last and step.corrector is not None:
        raise ValueError(f"{name}.corrector must be None in the last step, got {step.corrector}")
    if step.implicit and step.corrector is None:
        raise ValueError(f"{name}.implicit must be False without a corrector, got True")


def _check_update(name: str, update: Any, form: str, num_others: int) -> None:
    if not isinstance(update, Update):
        raise TypeError(f"{name} must be an Update, got {type(update).__name__}")
    order = _checks.integer(f"{name}.order", update.order)
    if order > MAX_ORDER:
        raise ValueError(f"{name}.order must be at most {MAX_ORDER}, got {order}")
    counts = active(update)
    if not isinstance(counts, tuple) or len(counts) != order - 1:
        raise ValueError(f"{name}.active must hold {order - 1} numbers, got {counts!r}")
    for k, num in enumerate(counts, start=1):
        if _checks.integer(f"{name}.active", num, k) > num_others:
            raise ValueError(
                f"{name} needs {num} points beside its start, there are {num_others}: its order "
                f"is {order}"
            )
    if update.relaxation is None:
        return
    if not isinstance(update.relaxation, str):
        _checks.real_parameter(f"{name}.relaxation", update.relaxation, scalar=True)
    elif update.relaxation not in RELAXATIONS or form == "v3":
        raise ValueError(
            f"{name}.relaxation must be None, a number or, but for v3, one of "
            f"{', '.join(RELAXATIONS)}; got {update.relaxation!r}"
        )
