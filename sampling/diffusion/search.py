"""Search for the best solver of a model, for a given number of calls.

The error of a schedule of decisions (`usf`) is its root mean square distance from a high-precision
solution, over noises that it was not made on. The search has three stages.

1. Evolution of the discrete decisions from those of known solvers, in which a predictor of the
   ranking chooses what is evaluated (after Liu et al. 2024, S³). All schedules are tables of one
   shape, so that one compiled program evaluates whole generations.
2. Gradients for what is continuous, the times and relaxations: reverse mode through the run for the
   table, central differences in float64 for the table's dependence on them.
3. On request, all coefficients of the table: regressed step by step on exact paths, for many grids,
   and then moved together by gradient, with the times, down a loss that the few samples which jump
   to another mode do not dominate (see `_refine`). That is no schedule of decisions any more, but a
   solver of the same calls, and each weight is as many numbers as a sample has entries.

What is found is made for this model, schedule and number of calls. The score that is reported is
from held-out noises, which nothing was chosen by.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from shoal.sampling.core import _checks, random
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import Schedule, unit_scales
from shoal.sampling.diffusion import _evolution, _refine, grids
from shoal.sampling.diffusion._decisions import SolverSchedule, check_schedule
from shoal.sampling.diffusion._refine import Samples
from shoal.sampling.diffusion._tables import Table, Tabled, errors, reference, run_table, tabulate
from shoal.sampling.diffusion.solver import LinearSolver
from shoal.sampling.diffusion.statistics import Statistics
from shoal.sampling.diffusion.usf import Unified, usf

REFINEMENTS = (None, "schedule", "coefficients")
_NUM_PARENTS, _SURPLUS, _AT_ONCE = 15, 8, 6
_STEP, _CHECK_EVERY = 1e-4, 5
_NUM_REFERENCE, _NUM_REGRESSED = 100, 8192
_EXPONENTS = (1.25, 1.5, 2.0)


class SearchResult(NamedTuple):
    """What a search has found.

    Attributes
    ----------
    solver
        For `solve`, with ``num_steps`` calls and any grid of the schedule's ends.
    schedule
        The best schedule of decisions; that of ``solver`` unless coefficients were refined.
    score
        Root mean square error of ``solver`` on held-out noises.
    median
        Median over these of the error of one sample, which single jumps to another mode do not
        dominate.
    schedule_score
        ``score`` of ``schedule``.
    start_score
        ``score`` of what the search began with: the best known solver on the training noises, or
        ``start``.
    history
        Least error so far on the training noises after each evaluation of the evolution.
    """

    solver: LinearSolver
    schedule: SolverSchedule
    score: float
    median: float
    schedule_score: float
    start_score: float
    history: np.ndarray


class Bench(NamedTuple):
    """What schedules are evaluated with."""

    denoiser: Denoiser
    statistics: Statistics | None
    mean: Any
    shape: tuple[int, ...]
    at_once: int

    def tables(self, schedules: list[SolverSchedule]) -> Table:
        """Return the tables of schedules, stacked, in float64."""
        tables = [tabulate(self.solver(one), self.shape) for one in schedules]
        return jax.tree.map(lambda *parts: np.stack(parts), *tables)

    def solver(self, schedule: SolverSchedule) -> Unified:
        """Return the solver of a schedule."""
        return usf(schedule, statistics=self.statistics, mean=self.mean)

    def scores(self, schedules: list[SolverSchedule], samples: Samples) -> np.ndarray:
        """Return root mean square errors, some thousand for solvers that blow up."""
        cast = lambda part: jnp.asarray(part, samples.start.dtype)
        found = list[float]()
        for i in range(0, len(schedules), self.at_once):
            # Always as many, so that one compiled program serves.
            some = (schedules[i : i + self.at_once] * self.at_once)[: self.at_once]
            squares = errors(self.denoiser, jax.tree.map(cast, self.tables(some)), *samples)
            found.extend(np.sqrt(np.asarray(squares, np.float64).mean(1)))
        scores = np.array(found[: len(schedules)])
        return np.where(np.isfinite(scores), scores, 1e3)


def search_schedule(
    key: jax.Array, denoiser: Denoiser, schedule: Schedule, num_steps: int,
    shape: tuple[int, ...], *, statistics: Statistics | None = None, mean: Any = None,
    start: SolverSchedule | None = None, num_samples: int = 256, num_heldout: int = 1024,
    num_generations: int = 8, population: int = 24, num_descents: int = 60,
    refine: str | None = "schedule", per_entry: bool = True, num_refine_samples: int = 8192,
    num_refine_trials: int = 80, num_refine_steps: int = 800, learning_rate: float = 5e-5,
    batch_size: int = 256, dtype: Any = jnp.float32,
) -> SearchResult:  # fmt: skip
    """Search for the best solver with ``num_steps`` calls of a denoiser.

    Parameters
    ----------
    key
        Typed key; the result is a function of it.
    denoiser, schedule
        The model, and where it is solved: from t_max to t_min, both finite in λ.
    num_steps
        Calls of the denoiser.
    shape
        Shape of a sample.
    statistics
        Of `estimate_statistics`: then steps may be DPM-Solver-v3's, entry by entry.
    mean
        Mean of the data, a scalar or of ``shape``: then the first call may be saved by it.
    start
        A schedule with its own λ to start from, beside known solvers.
    num_samples
        Noises in training, and as many that choose among the iterates of gradients.
    num_heldout
        Noises for the final score.
    num_generations, population
        Rounds of the evolution, and schedules evaluated in each.
    num_descents
        Steps of gradients on times and relaxations.
    refine
        None for the evolution alone, ``"schedule"`` for times and relaxations, or
        ``"coefficients"`` for these and then all coefficients of the table.
    per_entry
        Whether refined coefficients may differ between the entries of a sample.
    num_refine_samples, num_refine_trials, num_refine_steps, learning_rate
        For refined coefficients: noises, of which a tenth chooses; grids tried; steps of gradients
        and their size, which is for the logarithms of the gaps between times 20 times that.
    batch_size
        Noises in one batch, and samples run side by side.
    dtype
        In which networks are called.

    Returns
    -------
    SearchResult
        Solver, schedule, scores and history.

    Raises
    ------
    TypeError, ValueError
        For impossible arguments.

    References
    ----------
    Liu, Ning, Lin, Yang and Wang (2024), A unified sampling framework for solver searching of
    diffusion probabilistic models, section 4.

    Examples
    --------
    >>> from shoal.sampling.diffusion import vp_linear
    >>> denoiser = Denoiser(lambda x, t: 0.1 * x, "data", vp_linear())
    >>> found = search_schedule(
    ...     jax.random.key(0), denoiser, vp_linear(), 2, (1,), num_generations=1, population=2,
    ...     num_samples=16, num_heldout=16, refine=None,
    ... )
    >>> found.score <= found.start_score
    True
    """
    random.check_key(key)
    bench, space, clock = _prepare(
        denoiser, schedule, num_steps, shape, statistics, mean, start, refine, batch_size
    )
    num_samples = _checks.integer("num_samples", num_samples)
    num_generations = _checks.integer("num_generations", num_generations, 0)
    population = _checks.integer("population", population)
    num_descents = _checks.integer("num_descents", num_descents, 0)
    num_heldout = _checks.integer("num_heldout", num_heldout)
    num_refine_samples = _checks.integer("num_refine_samples", num_refine_samples, 20)
    num_refine_trials = _checks.integer("num_refine_trials", num_refine_trials, 0)
    num_refine_steps = _checks.integer("num_refine_steps", num_refine_steps)
    rate = float(_checks.real_parameter("learning_rate", learning_rate, 0.0, scalar=True))
    _checks.check_flag("per_entry", per_entry)
    dtype = _checks.floating_dtype("dtype", dtype)
    sizes = (num_samples, num_samples, num_heldout)
    *keys, key = jax.random.split(key, 5)
    draw = lambda key, num: _draw(bench.denoiser, clock, key, num, shape, dtype, batch_size)
    train, valid, heldout = (draw(k, n) for k, n in zip(keys, sizes, strict=False))
    given = [] if start is None else [start]
    first = given + _evolution.seeds(space, schedule)
    scores = bench.scores(first, train)
    begun = start or first[int(np.argmin(scores))]
    best, history = _evolve(
        keys[3], bench, space, first, scores, train, num_generations, population
    )
    if refine is not None:
        best = _descend(bench, best, train, valid, num_descents)
    solver: LinearSolver = bench.solver(best)
    table = tabulate(bench.solver(best), shape)
    schedule_score, _ = _judge(bench, table, heldout)
    if refine == "coefficients":
        more = draw(jax.random.fold_in(key, 0), num_refine_samples)
        table = _coefficients(
            bench, schedule, best, more, per_entry, key, num_refine_trials, num_refine_steps, rate,
            batch_size,
        )  # fmt: skip
        solver = Tabled(table)
    score, median = _judge(bench, table, heldout)
    start_score, _ = _judge(bench, tabulate(bench.solver(begun), shape), heldout)
    return SearchResult(solver, best, score, median, schedule_score, start_score, history)


def _prepare(
    denoiser: Any, schedule: Any, num_steps: Any, shape: Any, statistics: Any, mean: Any,
    start: Any, refine: Any, batch_size: Any,
) -> tuple[Bench, _evolution.Space, np.ndarray]:  # fmt: skip
    """Check arguments; return the bench, the space of schedules, and λ at both ends."""
    if not isinstance(denoiser, Denoiser):
        raise TypeError(f"denoiser must be a Denoiser, got {type(denoiser).__name__}")
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a Schedule, got {type(schedule).__name__}")
    num_steps = _checks.integer("num_steps", num_steps)
    if not isinstance(shape, tuple):
        raise TypeError(f"shape must be a tuple of integers, got {shape!r}")
    for size in shape:
        _checks.integer("shape", size)
    if statistics is not None and not isinstance(statistics, Statistics):
        raise TypeError(f"statistics must be Statistics, got {type(statistics).__name__}")
    if mean is not None:
        mean = np.asarray(_checks.real_parameter("mean", mean), np.float64)
        if np.broadcast_shapes(mean.shape, shape) != shape:
            raise ValueError(f"mean must have the shape of a sample, {shape}; got {mean.shape}")
    _checks.choice("refine", refine, REFINEMENTS)
    batch_size = _checks.integer("batch_size", batch_size)
    clock = grids.half_log_snrs(schedule, "logsnr", 1)
    if start is not None:
        check_schedule(start)
        if start.half_log_snr is None or start.num_calls != num_steps:
            raise ValueError(
                f"start must have its own half_log_snr and {num_steps} calls, got "
                f"{start.half_log_snr} and {start.num_calls}"
            )
    bench = Bench(denoiser.on(schedule), statistics, mean, shape, _AT_ONCE)
    forms = ("data", "noise") if statistics is None else ("data", "noise", "v3")
    firsts = (None, "noise") if mean is None else (None, "noise", "data")
    return bench, _evolution.Space(num_steps, forms, firsts), clock


def _draw(
    denoiser: Denoiser, clock: np.ndarray, key: jax.Array, num: int, shape: tuple[int, ...],
    dtype: Any, batch_size: int,
) -> Samples:  # fmt: skip
    """Draw starts at unit variance and find where they lead."""
    start = unit_scales(clock[0])[1] * jax.random.normal(key, (num, *shape), dtype)
    ends = jnp.asarray(clock, dtype)
    batches = [start[i : i + batch_size] for i in range(0, num, batch_size)]
    solved = [reference(denoiser, x, ends, _NUM_REFERENCE)[-1] for x in batches]
    return Samples(start, jnp.concatenate(solved))


def _evolve(
    key: jax.Array, bench: Bench, space: _evolution.Space, first: list[SolverSchedule],
    scores: np.ndarray, train: Samples, num_generations: int, population: int,
) -> tuple[SolverSchedule, np.ndarray]:  # fmt: skip
    """Return the best schedule and the least score after each evaluation."""
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    known, scores = list(first), np.array(scores)
    capacity = len(known) + num_generations * population
    for generation in range(num_generations):
        seen = np.stack([_evolution.features(one, space) for one in known])
        rank = _evolution.ranking(jax.random.fold_in(key, generation), seen, scores, capacity)
        parents = [known[i] for i in np.argsort(scores)[:_NUM_PARENTS]]
        pick = lambda parents=parents: parents[int(rng.integers(len(parents)))]
        children = [
            _evolution.child(rng, pick(), pick(), space) for _ in range(_SURPLUS * population)
        ]
        order = np.argsort(rank(np.stack([_evolution.features(c, space) for c in children])))
        chosen = [children[i] for i in order[:population]]
        known += chosen
        scores = np.append(scores, bench.scores(chosen, train))
    return known[int(np.argmin(scores))], np.minimum.accumulate(scores)


def _descend(
    bench: Bench, schedule: SolverSchedule, train: Samples, valid: Samples, num_steps: int
) -> SolverSchedule:
    """Move times and relaxations down the gradient; the best on ``valid`` stays."""
    free = np.zeros(len(schedule.steps) - 1 + len(_relaxed(schedule)))
    optimiser = optax.adam(optax.cosine_decay_schedule(0.03, max(num_steps, 1)))
    state = optimiser.init(jnp.asarray(free))
    best, best_score = schedule, bench.scores([schedule], valid)[0]
    for i in range(num_steps):
        slope = _gradient(bench, schedule, free, train)
        if not np.isfinite(slope).all():
            break
        updates, state = optimiser.update(jnp.asarray(slope), state)
        free = free + np.asarray(updates, np.float64)
        if i % _CHECK_EVERY == _CHECK_EVERY - 1 or i == num_steps - 1:
            moved = _moved(schedule, free)
            score = bench.scores([moved], valid)[0]
            if score < best_score:
                best, best_score = moved, score
    return best


def _gradient(
    bench: Bench, schedule: SolverSchedule, free: np.ndarray, samples: Samples
) -> np.ndarray:
    """Return the gradient of the logarithm of the mean squared error with respect to ``free``."""
    cast = lambda part: jnp.asarray(part, samples.start.dtype)
    tables = lambda free: tabulate(bench.solver(_moved(schedule, free)), bench.shape)
    towards = _slope(bench.denoiser, jax.tree.map(cast, tables(free)), samples)
    found = []
    for shift in _STEP * np.eye(len(free)):
        pairs = zip(tables(free + shift), tables(free - shift), strict=True)
        slopes = [(after - before) / (2 * _STEP) for after, before in pairs]
        found.append(
            sum(np.sum(np.asarray(g, np.float64) * s) for g, s in zip(towards, slopes, strict=True))
        )
    return np.array(found)


@eqx.filter_jit
def _slope(denoiser: Denoiser, table: Table, samples: Samples) -> Table:
    """Return the gradient of the logarithm of the mean squared error with respect to a table."""
    apart = lambda table: run_table(denoiser, table, samples.start) - samples.end
    return jax.grad(lambda table: jnp.log(jnp.mean(apart(table) ** 2)))(table)


def _relaxed(schedule: SolverSchedule) -> list[int]:
    """Return the steps whose relaxation is a number, or may be one."""
    updates = [step.update for step in schedule.steps]
    return [i for i, u in enumerate(updates) if u.order > 1 and not isinstance(u.relaxation, str)]


def _moved(schedule: SolverSchedule, free: np.ndarray) -> SolverSchedule:
    """Return the schedule with other times, by logarithms of λ's gaps, and relaxations."""
    clock, steps = np.array(schedule.half_log_snr), list(schedule.steps)
    num = len(steps) - 1
    gaps = np.diff(clock) * np.exp(np.append(free[:num], 0.0))
    inner = clock[0] + (clock[-1] - clock[0]) * np.cumsum(gaps)[:-1] / gaps.sum()
    for i, more in zip(_relaxed(schedule), free[num:], strict=True):
        update = steps[i].update
        moved = update._replace(relaxation=float((update.relaxation or 0.0) + more))
        steps[i] = steps[i]._replace(update=moved)
    clock = np.array([clock[0], *inner, clock[-1]])
    return SolverSchedule(tuple(steps), tuple(clock.tolist()), schedule.first)


def _coefficients(
    bench: Bench, schedule: Schedule, best: SolverSchedule, samples: Samples, per_entry: bool,
    key: jax.Array, num_trials: int, num_steps: int, rate: float, batch_size: int,
) -> Table:  # fmt: skip
    """Fit all coefficients where an evolution of times places steps, then move both by gradient."""
    num_valid = max(1, len(samples.start) // 10)
    regressed = samples.start[num_valid : num_valid + _NUM_REGRESSED]
    num = best.num_calls + 1
    clocks = [grids.half_log_snrs(schedule, grids.power(e), num) for e in _EXPONENTS]
    if best.first is not None:
        clocks.append(np.array(best.half_log_snr))
    paths = _refine.solve_paths(bench.denoiser, clocks[0], regressed, batch_size)
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    fit = _refine.place(bench.denoiser, clocks, paths, per_entry, batch_size, num_trials, rng)
    fit, _ = _refine.descend(
        bench.denoiser, fit, samples, num_valid, key, num_steps, rate, batch_size
    )
    return _refine.absolute(fit)


def _judge(bench: Bench, table: Table, samples: Samples) -> tuple[float, float]:
    """Return root mean square error and median over samples of their own."""
    one = jax.tree.map(lambda part: jnp.asarray(part[None], samples.start.dtype), table)
    found = np.asarray(errors(bench.denoiser, one, *samples)[0], np.float64)
    return float(np.sqrt(found.mean())), float(np.median(np.sqrt(found)))
