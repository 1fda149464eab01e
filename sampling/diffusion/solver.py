"""What a solver is, and the scan that executes every solver that is a table."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core import _checks, random
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import Schedule
from shoal.sampling.diffusion import grids, noise
from shoal.sampling.diffusion.program import DATA, DERIVATIVE, NOISE, ONE, Program

Steps: TypeAlias = Callable[[int], np.ndarray]


class Record(NamedTuple):
    """What a run of a solver was, beside its result.

    Attributes
    ----------
    times
        Times of the calls of the denoiser and of the result, ``(N + 1,)``.
    half_log_snr
        The same as λ = log(alpha / sigma).
    num_calls
        Calls of a network for each sample, counted as they were made, ``(n,)`` int32. A derivative
        counts as one more.
    failed_at
        The first call of the denoiser, from 0, that returned NaN or infinity for a sample, -1 if
        none did, ``(n,)`` int32. Samples that failed are not to be used.
    trajectory
        Positions at all times, ``(N + 1, n, ...)``, or None if not asked for.
    """

    times: jax.Array
    half_log_snr: jax.Array
    num_calls: jax.Array
    failed_at: jax.Array
    trajectory: jax.Array | None


class Problem(NamedTuple):
    """What a solver is given.

    Attributes
    ----------
    denoiser
        With a schedule, which need not be the one below.
    schedule
        Schedule of the start and the result.
    steps
        ``steps(n)``: λ of a grid with n intervals, float64 on the host.
    num_steps
        Evaluations of the denoiser to make, at most.
    lower_order_final
        Whether the last steps are of falling order.
    position
        Start, ``(n, ...)``.
    key, ids
        Key of the run or None, and number of each sample, ``(n,)``.
    trajectory
        Whether positions on the way are wanted.
    """

    denoiser: Denoiser
    schedule: Schedule
    steps: Steps
    num_steps: int
    lower_order_final: bool
    position: jax.Array
    key: jax.Array | None
    ids: jax.Array
    trajectory: bool

    def scale(self, half_log_snr: Any) -> Any:
        """Return what a position at unit variance, as solvers have them, is multiplied by."""
        alpha, sigma = self.schedule.scales(half_log_snr)
        return (alpha**2 + sigma**2) ** 0.5


class Solver(Protocol):
    """Anything that solves a `Problem`."""

    def run(self, problem: Problem) -> tuple[jax.Array, Record]:
        """Return the end point, ``(n, ...)``, and the record."""
        ...


class LinearSolver:
    """A solver that is a table. Its subclasses say how it is recorded."""

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        """Return the table for ``num_steps`` evaluations of the denoiser."""
        raise NotImplementedError

    def run(self, problem: Problem) -> tuple[jax.Array, Record]:
        """Execute the table."""
        program = self.program(problem.steps, problem.num_steps, problem.lower_order_final)
        return execute(program, problem)


def solve(
    denoiser: Denoiser, schedule: Schedule, solver: Solver, x_T: jax.Array, num_steps: int,
    grid: Any = "logsnr", lower_order_final: bool = True, *, key: jax.Array | None = None,
    ids: jax.Array | None = None, trajectory: bool = False,
) -> tuple[jax.Array, Record]:  # fmt: skip
    """Carry noise to data along the probability-flow equation, or its stochastic relative.

    Pure, and one compiled scan under ``jax.jit``.

    Parameters
    ----------
    denoiser
        `Denoiser`; one without a schedule is taken to be trained on ``schedule``.
    schedule
        Noise schedule, in whose coordinates ``x_T`` and the result are.
    solver
        `ddim`, `dpm_solver_pp`, `unipc`, ... of this package.
    x_T
        Start at the first time of the grid, ``(n, ...)``, float32 or float64: sigma(t_max) times
        standard normals.
    num_steps
        Number of evaluations of the denoiser.
    grid
        ``"logsnr"``, ``"uniform"``, ``"quadratic"``, ``"karras"``, a rule of `grids`, or times
        from noise to data. Times from data to noise encode.
    lower_order_final
        Lower the order over the last steps: steadier with few steps, but at most second order in
        all.
    key
        Typed key; needed by stochastic solvers.
    ids
        Number of each sample, ``(n,)`` integers, 0 to n - 1 if not given. Noise depends on ``key``
        and the number alone, so that a batch may be cut anywhere.
    trajectory
        Whether to return the positions on the way.

    Returns
    -------
    jax.Array
        Samples at the last time of the grid, ``(n, ...)``; they hold what noise is left there.
    Record
        Times, calls, failures and, on request, the trajectory.

    Raises
    ------
    TypeError, ValueError
        For impossible arguments.

    Examples
    --------
    Data that are normal with deviation 0.5:

    >>> from shoal.sampling.diffusion import dpm_solver_pp, edm
    >>> denoiser = Denoiser(lambda x, t: x * 0.25 / (0.25 + t**2), "data", edm())
    >>> noise = 80.0 * jax.random.normal(jax.random.key(0), (1000, 2))
    >>> x, record = solve(denoiser, edm(), dpm_solver_pp(2), noise, 20)
    >>> f"{x.std():.1f}", int(record.num_calls[0])
    ('0.5', 20)
    """
    if not isinstance(denoiser, Denoiser):
        raise TypeError(f"denoiser must be a Denoiser, got {type(denoiser).__name__}")
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a Schedule, got {type(schedule).__name__}")
    if not callable(getattr(solver, "run", None)):
        raise TypeError(f"solver must be a solver such as ddim(), got {type(solver).__name__}")
    event = np.shape(x_T)[1:]
    x_T = _checks.real_array("x_T", x_T, ("n", *event))
    _checks.check_flag("lower_order_final", lower_order_final)
    if key is not None:
        random.check_key(key)
    ids = jnp.arange(x_T.shape[0]) if ids is None else ids
    problem = Problem(
        denoiser.on(schedule), schedule, functools.partial(grids.half_log_snrs, schedule, grid),
        _checks.integer("num_steps", num_steps), lower_order_final, x_T, key, ids, trajectory,
    )  # fmt: skip
    return solver.run(problem)


def execute(program: Program, problem: Problem) -> tuple[jax.Array, Record]:
    """Run a program: one scan over its rows."""
    x = problem.position
    event = x.shape[1:]
    own = program.matrices.shape[3:]
    fits = len(own) <= len(event) and all(
        size in (1, other) for size, other in zip(own[::-1], event[::-1], strict=False)
    )
    if not fits:
        raise ValueError(
            f"the solver's coefficients are for samples of shape {own}, "
            f"x_T has samples of shape {event}"
        )
    if NOISE in program.inputs and problem.key is None:
        raise TypeError("key must be a typed key for this solver, which draws; got NoneType")
    check_reach(problem.denoiser, program.half_log_snr)
    clock, scale = program.half_log_snr, problem.scale(program.half_log_snr)
    cast = lambda array: jnp.asarray(array, x.dtype)
    is_path = not np.isnan(program.noise).all()
    # A row of such a program that draws nothing has no piece; any will do.
    pieces = np.where(np.isnan(program.noise), (0.0, 1.0, 1.0), program.noise)

    def draw(row: jax.Array, piece: jax.Array) -> jax.Array:
        assert problem.key is not None
        if is_path:
            return noise.increment(problem.key, problem.ids, piece, event)
        return random.normal(problem.key, problem.ids, row, event, x.dtype)

    structure, matrices = Structure.of(program)
    slots = None
    if structure.num_stored:
        slots = jnp.asarray(program.slots - len(structure.columns), jnp.int32)
    rows = (cast(matrices), cast(clock[:-1]), cast(pieces), slots)
    start = x / cast(scale[0])
    end, outcome = scan(structure, rows, problem.denoiser, start, draw, problem.trajectory)
    end = end * cast(scale[-1])
    trajectory = None
    if outcome.positions is not None:
        factors = cast(scale[:-1]).reshape(-1, *[1] * x.ndim)
        trajectory = jnp.concatenate([outcome.positions * factors, end[None]])
    calls = jnp.broadcast_to(outcome.num_calls, x.shape[:1])
    times = cast(problem.schedule.time(clock))
    return end, Record(times, cast(clock), calls, outcome.failed_at, trajectory)


class Structure(NamedTuple):
    """What of a program is known when it is compiled.

    Attributes
    ----------
    columns
        For each register that is computed the columns of the matrices that are ever used.
    copies
        For each of these whether it only takes over its one column.
    num_stored
        Number of the other registers, which come after: predictions of the data.
    inputs
        As in `Program`.
    """

    columns: tuple[tuple[int, ...], ...]
    copies: tuple[bool, ...]
    num_stored: int
    inputs: tuple[str, ...]

    @classmethod
    def of(cls, program: Program) -> tuple["Structure", np.ndarray]:
        """Return the structure, and the matrices with predictions in the registers they come to."""
        matrices, slots = program.matrices.copy(), program.slots
        num_registers = matrices.shape[1]
        if slots.size:
            matrices[np.arange(len(slots)), :, slots] = matrices[:, :, num_registers]
            matrices[:, :, num_registers] = 0.0
        first = min(slots.tolist(), default=num_registers)
        factors = np.moveaxis(matrices[:, :first], 0, 2)
        factors = factors.reshape(*factors.shape[:2], -1)
        used = [np.flatnonzero(row.any(1)).tolist() for row in factors]
        copies = tuple(
            len(columns) == 1 and bool((row[columns[0]] == 1).all())
            for row, columns in zip(factors, used, strict=True)
        )
        found = cls(tuple(map(tuple, used)), copies, num_registers - first, program.inputs)
        return found, matrices[:, :first]


class Outcome(NamedTuple):
    """What `scan` has seen: calls of networks, first failed row of each sample, positions."""

    num_calls: jax.Array
    failed_at: jax.Array
    positions: jax.Array | None


def scan(
    structure: Structure, rows: tuple[Any, ...], denoiser: Denoiser, position: jax.Array,
    draw: Callable[[jax.Array, jax.Array], jax.Array], trajectory: bool,
) -> tuple[jax.Array, Outcome]:  # fmt: skip
    """Execute rows ``(matrices, half_log_snr, noise, slots)`` from ``position`` at unit variance.

    A prediction is stored before anything is computed from it: nothing that the compiled loop
    writes over is then read any more, and it copies nothing.
    """
    num = len(structure.columns)
    zeros = jnp.zeros_like(position)

    def step(carry: Any, inputs: Any) -> Any:
        registers, stored, num_calls, failed_at, row = carry
        matrix, half_log_snr, piece, slot = inputs
        if DERIVATIVE in structure.inputs:
            data, derivative = denoiser.derivative(registers[0], half_log_snr)
            seen = {DATA: data, DERIVATIVE: derivative}
            num_calls = num_calls + denoiser.derivative_calls
        else:
            seen = {DATA: denoiser.data(registers[0], half_log_snr)}
        num_calls = num_calls + denoiser.num_calls
        event_axes = tuple(range(1, position.ndim))
        is_finite = jnp.all(jnp.isfinite(seen[DATA]), event_axes)
        failed_at = jnp.where((failed_at < 0) & ~is_finite, row, failed_at)
        if slot is not None:
            stored = jax.lax.dynamic_update_index_in_dim(stored, seen[DATA], slot, 0)
        if NOISE in structure.inputs:
            seen[NOISE] = draw(row, piece)
        if ONE in structure.inputs:
            seen[ONE] = jnp.ones_like(position)
        columns = (*registers, *stored, *(seen[name] for name in structure.inputs))

        def register(index: int) -> jax.Array:
            used = structure.columns[index]
            if not used:
                return zeros
            if structure.copies[index]:
                return columns[used[0]]
            return functools.reduce(jnp.add, (matrix[index, c] * columns[c] for c in used))

        after = tuple(register(index) for index in range(num))
        kept = registers[0] if trajectory else None
        return (after, stored, num_calls, failed_at, row + 1), kept

    failed_at = jnp.full(position.shape[:1], -1, jnp.int32)
    none = jnp.zeros((), jnp.int32)
    stored = jnp.zeros((structure.num_stored, *position.shape), position.dtype)
    carry = ((position, *[zeros] * (num - 1)), stored, none, failed_at, none)
    (registers, _, num_calls, failed_at, _), positions = jax.lax.scan(step, carry, rows)
    return registers[0], Outcome(num_calls, failed_at, positions)


def check_reach(denoiser: Denoiser, half_log_snr: np.ndarray) -> None:
    """Raise ``ValueError`` where a denoiser's own schedule has no finite scale for a call."""
    assert denoiser.schedule is not None
    with np.errstate(over="ignore"):
        scales = np.array(denoiser.schedule.scales(half_log_snr[:-1]))
        times = denoiser.schedule.time(half_log_snr[:-1])
    bad = ~(np.isfinite(scales).all(0) & np.isfinite(times))
    if denoiser.prediction in ("noise", "score"):
        bad |= scales[0] == 0
    if bad.any():
        raise ValueError(
            f"the denoiser cannot be called where log(alpha / sigma) is {half_log_snr[:-1][bad][0]}"
            f": its schedule is {type(denoiser.schedule).__name__}, its prediction "
            f"{denoiser.prediction!r}; start at a smaller t_max"
        )
