"""Evolution of solver schedules, and a predictor that ranks candidates before they are tried.

Children of good schedules mix and change their decisions, with the rates of the released code of
USF (Liu et al. 2024). Only those that the predictor ranks best are evaluated. The predictor is a
small perceptron on the decisions as numbers, trained to order pairs of schedules (hinge loss on the
difference of scores); the paper has a recurrent network over the steps in its place.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from shoal.sampling.core.schedules import Schedule
from shoal.sampling.diffusion import grids
from shoal.sampling.diffusion._decisions import (
    FORMS,
    MAX_ORDER,
    RELAXATIONS,
    SolverSchedule,
    Step,
    Update,
    multistep_schedule,
)

_CROSSOVER, _PER_STEP, _CHANGE, _MOVE = 0.5, 0.5, 0.3, 0.05
_ORDERS, _ORDER_RATES = (1, 2, 3, 4), (0.2, 0.4, 0.3, 0.1)
_TRAINING_STEPS, _MARGIN = 300, 0.1


class Space(NamedTuple):
    """What schedules may be: number of calls, forms of prediction, first steps without a call."""

    num_calls: int
    forms: tuple[str, ...]
    firsts: tuple[str | None, ...]


def seeds(space: Space, schedule: Schedule) -> list[SolverSchedule]:
    """Return schedules of known solvers on common grids."""
    rules = [grids.power(2), grids.power(1.5), grids.polynomial(1), grids.karras()]
    found = []
    for first in space.firsts:
        num = space.num_calls + (first is not None)
        for rule in rules:
            clock = tuple(grids.half_log_snrs(schedule, rule, num).tolist())
            for form in space.forms:
                for order in (1, 2, 3):
                    named = multistep_schedule(
                        num, order, form, relaxation="bh2" if form == "data" else None,
                        corrector=None if order == 1 else int(form != "v3"),
                    )  # fmt: skip
                    found.append(repair(named._replace(half_log_snr=clock, first=first), space))
    return found


def child(
    rng: np.random.Generator, mother: SolverSchedule, father: SolverSchedule, space: Space
) -> SolverSchedule:
    """Mix two schedules, or take the first, and change some decisions."""
    assert mother.half_log_snr is not None
    assert father.half_log_snr is not None
    clock, steps, first = np.array(mother.half_log_snr), mother.steps, mother.first
    if rng.random() < _CROSSOVER:
        if rng.random() < 0.5:
            share = np.linspace(0, 1, len(clock))
            theirs = np.linspace(0, 1, len(father.half_log_snr))
            clock = np.interp(share, theirs, np.array(father.half_log_snr))
        if rng.random() < _PER_STEP:
            pairs = zip(steps, (*father.steps, *steps[len(father.steps) :]), strict=False)
            steps = tuple(pair[int(rng.integers(2))] for pair in pairs)
    gaps = np.diff(clock)
    moved = clock[1:-1] + _MOVE * rng.normal(size=len(gaps) - 1) * (gaps[:-1] + gaps[1:])
    clock[1:-1] = np.where(rng.random(len(moved)) < _CHANGE, moved, clock[1:-1])
    clock[1:-1] = np.sort(np.clip(clock[1:-1], *np.sort(clock[[0, -1]])))[:: int(np.sign(gaps[0]))]
    if rng.random() < _CHANGE:
        first = space.firsts[int(rng.integers(len(space.firsts)))]
    steps = tuple(_change(rng, step, space) for step in steps)
    return repair(SolverSchedule(steps, tuple(clock.tolist()), first), space)


def repair(schedule: SolverSchedule, space: Space) -> SolverSchedule:
    """Return the nearest schedule that can be carried out in the calls there are."""
    assert schedule.half_log_snr is not None
    num = space.num_calls + (schedule.first is not None)
    clock, steps = np.array(schedule.half_log_snr), list(schedule.steps)
    if len(steps) != num or (np.abs(np.diff(clock)) < 1e-3).any():
        at = np.linspace(0, 1, len(clock))
        clock = np.interp(np.linspace(0, 1, num + 1), at, clock)
        clock = clock + 1e-2 * (np.linspace(clock[0], clock[-1], num + 1) - clock)
        steps = [steps[round(i * (len(steps) - 1) / max(num - 1, 1))] for i in range(num)]
    for i, step in enumerate(steps):
        corrector = step.corrector if i < num - 1 else None
        update = _lower(step.update, i + 1)
        if corrector is not None:
            corrector = _lower(corrector, min(i + 2, update.order + 1, MAX_ORDER))
        steps[i] = step._replace(update=update, corrector=corrector)
    return SolverSchedule(tuple(steps), tuple(clock.tolist()), schedule.first)


def features(schedule: SolverSchedule, space: Space) -> np.ndarray:
    """Return the decisions as numbers, of one length for a space."""
    found = np.zeros((space.num_calls + 1, 2 + len(FORMS) + 10 + len(RELAXATIONS)))
    clock = np.array(schedule.half_log_snr)
    for i, step in enumerate(schedule.steps):
        update, kind = step.update, step.update.relaxation
        found[i, :2] = clock[i + 1], clock[i + 1] - clock[i]
        found[i, 2 + FORMS.index(step.form)] = 1
        rest = found[i, 2 + len(FORMS) :]
        rest[update.order - 1] = 1
        rest[4] = update.active is not None
        rest[5] = kind if isinstance(kind, float) else 0
        rest[6] = 0 if step.corrector is None else step.corrector.order
        rest[7] = schedule.first == "noise"
        rest[8] = schedule.first == "data"
        if isinstance(kind, str):
            rest[10 + RELAXATIONS.index(kind)] = 1
    return found.ravel()


def ranking(
    key: jax.Array, seen: np.ndarray, scores: np.ndarray, capacity: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Train a predictor on ``seen``, and return it: less is better.

    Arrays are padded to ``capacity``, so that one compiled program serves all of a search.
    """
    shift, scale = seen.mean(0), seen.std(0) + 1e-6
    normal = lambda rows: jnp.asarray((rows - shift) / scale, jnp.float32)
    pad = capacity - len(seen)
    rows = jnp.pad(normal(seen), ((0, pad), (0, 0)))
    logs = jnp.pad(jnp.asarray(np.log(scores), jnp.float32), (0, pad), constant_values=jnp.nan)
    network = _train(key, rows, logs)
    return lambda more: np.asarray(jax.vmap(network)(normal(more)))


@eqx.filter_jit
def _train(key: jax.Array, rows: jax.Array, logs: jax.Array) -> Any:
    network = eqx.nn.MLP(rows.shape[1], "scalar", 64, 2, key=key)
    arrays, static = eqx.partition(network, eqx.is_array)
    optimiser = optax.adamw(3e-3)
    # NaN compares false: pairs with padding do not count.
    worse = logs[:, None] > logs[None]

    def loss(arrays: Any) -> jax.Array:
        score = jax.vmap(eqx.combine(arrays, static))(rows)
        return jnp.sum(jax.nn.relu(_MARGIN - (score[:, None] - score)) * worse) / jnp.sum(worse)

    def iterate(carry: Any, _: None) -> Any:
        arrays, state = carry
        updates, state = optimiser.update(jax.grad(loss)(arrays), state, arrays)
        return (optax.apply_updates(arrays, updates), state), None

    start = (arrays, optimiser.init(arrays))
    (arrays, _), _ = jax.lax.scan(iterate, start, length=_TRAINING_STEPS)
    return eqx.combine(arrays, static)


def _change(rng: np.random.Generator, step: Step, space: Space) -> Step:
    update = step.update
    if rng.random() < _CHANGE:
        order = int(rng.choice(_ORDERS, p=_ORDER_RATES))
        pseudo = tuple(range(1, order)) if rng.random() < 0.5 else None
        update = Update(order, pseudo, update.relaxation)
    form = step.form
    if rng.random() < _CHANGE:
        form = space.forms[int(rng.integers(len(space.forms)))]
    relaxation = update.relaxation
    if rng.random() < _CHANGE:
        relaxation = float(0.1 * rng.normal())
        if form != "v3" and rng.random() < 0.5:
            relaxation = str(rng.choice(RELAXATIONS))
    if isinstance(relaxation, str) and form == "v3":
        relaxation = None
    corrector = step.corrector
    if rng.random() < _CHANGE:
        corrector = Update(update.order + int(rng.integers(2))) if rng.random() < 0.5 else None
    if corrector is not None and isinstance(corrector.relaxation, str) and form == "v3":
        corrector = corrector._replace(relaxation=None)
    return Step(form, update._replace(relaxation=relaxation), corrector=corrector)


def _lower(update: Update, highest: int) -> Update:
    """Return the update of an order that as many points allow."""
    order = max(1, min(update.order, highest))
    counts = update.active
    if counts is not None:
        counts = tuple(min(max(m, k), highest - 1) for k, m in enumerate(counts[: order - 1], 1))
    return Update(order, counts, update.relaxation)
