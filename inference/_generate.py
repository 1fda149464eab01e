"""Samples from a diffusion model, any number of them, through the driver.

One step of the driver is one batch of samples: their starts are drawn, a solver carries them to the
data, and they are put beside those of the batches before. So generation has what every long run
has: a progress line, an end on Ctrl-C that keeps the finished batches, checkpoints, devices. All
that is random in a sample depends on the key and the sample's number alone.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from shoal import _canary
from shoal.inference._journal import Checkpoint
from shoal.inference._work import Finished
from shoal.inference.devices import Layout
from shoal.inference.progress import Progress
from shoal.inference.run import run
from shoal.sampling.core import _checks
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.random import check_key, normal
from shoal.sampling.core.schedules import Schedule
from shoal.sampling.diffusion.grids import half_log_snrs
from shoal.sampling.diffusion.solver import Record, Solver, solve

_LARGEST_BATCH = 1024
_MOST_NAMED = 5


class Generated(NamedTuple):
    """What `generate` returns; all arrays are NumPy's.

    Attributes
    ----------
    samples
        Shape ``(n, *shape)``; a sample that failed is NaN. n is less than was asked for if the run
        was interrupted.
    record
        `shoal.sampling.diffusion.Record`: times, calls of a network for each sample, where samples
        failed and, on request, the trajectory ``(num_calls + 1, n, *shape)``.
    outcome
        ``"completed"`` or ``"interrupted"``.
    seconds, compile_seconds
        Wall time of generating and of compiling.
    """

    samples: np.ndarray
    record: Record
    outcome: str
    seconds: float
    compile_seconds: float


class GenerationWarning(UserWarning):
    """Samples were generated, but something in them deserves attention."""


class GenerationError(RuntimeError):
    """Samples failed and ``on_failure="raise"``; ``generated`` holds all there is."""

    def __init__(self, message: str, generated: Generated) -> None:
        super().__init__(message)
        self.generated = generated


def generate(
    key: jax.Array,
    denoiser: Denoiser | Callable[[Any], Denoiser],
    schedule: Schedule,
    solver: Solver,
    num_steps: int,
    shape: tuple[int, ...],
    *,
    num_samples: int,
    condition: Any = None,
    grid: Any = "logsnr",
    lower_order_final: bool = True,
    batch_size: int | None = None,
    dtype: Any = None,
    trajectory: bool = False,
    progress: bool | Callable[[Progress], Any] = True,
    checkpoint: str | Path | Checkpoint | None = None,
    mesh: Mesh | None = None,
    on_failure: str = "warn",
) -> Generated:
    """Draw samples from a diffusion model.

    Sample i starts at sigma(t_max) z_i with z_i standard normal. z_i, and the noise of a stochastic
    solver, are functions of ``key`` and i: they are the same in batches of any size, on any number
    of devices, in an interrupted run and in a longer one. So are the samples, but for the rounding
    of a network that XLA evaluates in another order for another size of batch, and for an adaptive
    solver whose steps suit a whole batch. The first Ctrl-C (SIGINT) or SIGTERM ends the run after
    the batches under way.

    Parameters
    ----------
    key
        Typed key of shape ``()``, such as ``jax.random.key(0)``.
    denoiser
        `Denoiser`; one without a schedule is taken to be trained on ``schedule``. With
        ``condition``, a function that returns the `Denoiser` of a batch of it, such as
        ``network.as_denoiser``; arrays in a function that is a pytree (an Equinox module, or a
        method of one) are arguments of the compiled program.
    schedule
        Noise schedule, in whose coordinates the samples are.
    solver
        `ddim`, `dpm_solver_pp`, `unipc`, ... of `shoal.sampling.diffusion`.
    num_steps
        Number of evaluations of the denoiser for each sample.
    shape
        Shape of one sample.
    num_samples
        How many.
    condition
        What each sample is to be, labels for example: a pytree of arrays of shape
        ``(num_samples, ...)``.
    grid, lower_order_final, trajectory
        As in `shoal.sampling.diffusion.solve`.
    batch_size
        Samples carried at a time, at most 1024 by default. The last batch is computed in full, and
        cut. A run is interrupted and saved between batches.
    dtype
        float32 or float64, JAX's default float when None.
    progress
        True for a live line (its steps are batches), False for silence, or a function that receives
        a `Progress`.
    checkpoint
        Folder to save the run to, or a `Checkpoint` that says more. The same call with the same
        folder continues where the run was, bit for bit; unless there is a ``condition``,
        ``num_samples`` may be larger, with the same ``batch_size``.
    mesh
        Mesh of one axis over whose devices each batch is split.
    on_failure
        When samples failed, because the denoiser returned NaN or infinity: ``"warn"``
        (`GenerationWarning`), ``"raise"`` (`GenerationError`, which holds what was done) or
        ``"ignore"``. They are NaN in ``samples`` anyhow, and ``record.failed_at`` tells the step.

    Returns
    -------
    Generated

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible, or ``checkpoint`` holds another run.
    BlockingIOError
        If another process works in ``checkpoint``.

    Examples
    --------
    Data that are normal with deviation 0.5:

    >>> import jax
    >>> from shoal import generate
    >>> from shoal.sampling.core.denoiser import Denoiser
    >>> from shoal.sampling.diffusion import ddim, edm
    >>> denoiser = Denoiser(lambda x, t: x * 0.25 / (0.25 + t**2), "data")
    >>> generated = generate(
    ...     jax.random.key(0), denoiser, edm(), ddim(), 50, (2,), num_samples=3000, progress=False
    ... )
    >>> generated.samples.shape, round(float(generated.samples.std()), 1)
    ((3000, 2), 0.5)
    >>> generated.record.num_calls[:3]
    array([50, 50, 50], dtype=int32)
    """
    check_key(key)
    num_samples = _checks.integer("num_samples", num_samples)
    if batch_size is not None:
        batch_size = _checks.integer("batch_size", batch_size)
    batch_size = min(num_samples, batch_size or _LARGEST_BATCH)
    if on_failure not in ("warn", "raise", "ignore"):
        raise ValueError(f"on_failure must be 'warn', 'raise' or 'ignore', got {on_failure!r}")
    settings = _settings(
        schedule, num_steps, batch_size, shape, dtype, grid, lower_order_final, trajectory
    )
    _check_models(denoiser, solver, condition is not None)
    condition = _in_batches(condition, num_samples, batch_size)
    _canary.warn_if_wrong()
    batches = _Batches(key, denoiser, solver, condition, settings)
    finished = run(
        key, batches, batches.init(), -(-num_samples // batch_size), keep=_keep, tally=_tally,
        phase="generating", describe=_describe, progress=progress, checkpoint=checkpoint,
        mesh=mesh, on_failure="ignore",
    )  # fmt: skip
    generated = _collect(finished, num_samples)
    problems = _problems(generated, num_samples)
    if problems and on_failure == "raise" and generated.outcome != "interrupted":
        raise GenerationError("; ".join(problems), generated)
    if problems and on_failure != "ignore":
        warnings.warn("; ".join(problems), GenerationWarning, stacklevel=2)
    return generated


class _Settings(NamedTuple):
    """What is known when the program is compiled."""

    schedule: Schedule
    num_steps: int
    batch_size: int
    shape: tuple[int, ...]
    dtype: np.dtype
    grid: Any
    lower_order_final: bool
    trajectory: bool


class _State(NamedTuple):
    """Where the run is: the lanes of a batch, the number of the next one, times of the last."""

    lane: jax.Array
    batch: jax.Array
    times: jax.Array
    half_log_snr: jax.Array


class _Info(NamedTuple):
    """A batch; all with a leading axis of lanes."""

    samples: jax.Array
    num_calls: jax.Array
    failed_at: jax.Array
    trajectory: jax.Array | None


class _Batches(eqx.Module):
    """The algorithm whose step is a batch; ``condition`` is ``(batch_size, num_batches, ...)``."""

    key: jax.Array
    denoiser: Any
    solver: Any
    condition: Any
    settings: _Settings = eqx.field(static=True)

    def init(self) -> _State:
        """Return the state before the first batch."""
        lane = jnp.arange(self.settings.batch_size, dtype=jnp.int32)
        first = jnp.zeros((), jnp.int32)
        _, record = eqx.filter_eval_shape(_Batches._solve, self, lane, first)
        unknown = jnp.full(record.times.shape, jnp.nan, record.times.dtype)
        return _State(lane, first, unknown, unknown)

    def layout(self, state: _State) -> Layout:
        """Tell the driver that lanes are independent of each other."""
        algorithm: Any = _Batches(False, False, False, True, self.settings)  # type: ignore[arg-type]
        return Layout(algorithm, _State(True, False, False, False))  # type: ignore[arg-type]

    def step(self, key: jax.Array, state: _State) -> tuple[_State, _Info]:
        """Generate a batch. The driver's key is of the step; samples have their own."""
        samples, record = self._solve(state.lane, state.batch)
        is_finite = jnp.all(jnp.isfinite(samples), tuple(range(1, samples.ndim)))
        # Finite predictions can still add up to infinity: that shows in the result.
        last = record.times.shape[0] - 1
        failed_at = jnp.where((record.failed_at < 0) & ~is_finite, last, record.failed_at)
        is_lost = (failed_at >= 0).reshape(-1, *[1] * (samples.ndim - 1))
        trajectory = None
        if record.trajectory is not None:
            trajectory = jnp.moveaxis(record.trajectory, 0, 1)
        info = _Info(jnp.where(is_lost, jnp.nan, samples), record.num_calls, failed_at, trajectory)
        return _State(state.lane, state.batch + 1, record.times, record.half_log_snr), info

    def _solve(self, lane: jax.Array, batch: jax.Array) -> tuple[jax.Array, Record]:
        """Carry the samples of a batch from noise to data."""
        schedule, num_steps, batch_size, shape, dtype, grid, lower, trajectory = self.settings
        ids = batch * batch_size + lane
        key_start, key_solver = jax.random.split(self.key)
        is_times = isinstance(grid, tuple)
        first = schedule.half_log_snr(grid[0]) if is_times else half_log_snrs(schedule, grid, 1)[0]
        start = schedule.scales(np.float64(first))[1]
        noise = normal(key_start, ids, 0, shape, dtype) * jnp.asarray(start, dtype)
        denoiser = self.denoiser
        if self.condition is not None:
            denoiser = denoiser(jax.tree.map(lambda leaf: leaf[:, batch], self.condition))
        return solve(
            denoiser, schedule, self.solver, noise, num_steps, grid, lower,
            key=key_solver, ids=ids, trajectory=trajectory,
        )  # fmt: skip


def _keep(state: _State, info: _Info) -> _Info:
    return info


def _tally(state: _State, info: _Info) -> jax.Array:
    return (info.failed_at >= 0).astype(jnp.int32)


def _describe(tally: np.ndarray, steps: int) -> str:
    failed = tally.sum() / (steps * tally.size)
    return f"{failed:.1%} of samples failed" if failed else ""


def _settings(
    schedule: Any, num_steps: Any, batch_size: int, shape: Any, dtype: Any, grid: Any, lower: Any,
    trajectory: Any,
) -> _Settings:  # fmt: skip
    """Check what `solve` would not, or not by this name."""
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a Schedule, got {type(schedule).__name__}")
    if not isinstance(shape, tuple | list):
        raise TypeError(f"shape must be a tuple of integers, got {shape!r}")
    sizes = tuple(_checks.integer(f"shape={shape}: a size", size) for size in shape)
    _checks.check_flag("trajectory", trajectory)
    if not isinstance(grid, str) and not callable(grid):
        times = np.asarray(_checks.real_values("grid", grid), np.float64)
        if times.ndim != 1 or len(times) < 2 or not (np.diff(times) < 0).all():
            raise ValueError(
                "grid must be a name, a rule, or times (n,) that fall from noise to data, "
                f"got {grid!r}"
            )
        grid = tuple(times.tolist())
    dtype = _checks.floating_dtype("dtype", dtype)
    if dtype not in (np.float32, np.float64) or jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(f"dtype must be float32, or float64 with jax_enable_x64; got {dtype}")
    return _Settings(
        schedule, _checks.integer("num_steps", num_steps), batch_size, sizes, dtype, grid, lower,
        trajectory,
    )  # fmt: skip


def _in_batches(condition: Any, num_samples: int, batch_size: int) -> Any:
    """Bring leaves ``(num_samples, ...)`` to ``(batch_size, num_batches, ...)``."""
    if condition is None:
        return None
    rows = np.minimum(np.arange(-(-num_samples // batch_size) * batch_size), num_samples - 1)

    def cut(leaf: Any) -> jax.Array:
        if np.shape(leaf)[:1] != (num_samples,):
            raise ValueError(
                f"condition must hold arrays of shape ({num_samples}, ...), one entry for each "
                f"sample; got shape {np.shape(leaf)}"
            )
        leaf = jnp.asarray(leaf)[rows]
        return jnp.swapaxes(leaf.reshape(-1, batch_size, *leaf.shape[1:]), 0, 1)

    if not jax.tree.leaves(condition):
        raise ValueError(f"condition must hold arrays, got {condition!r}")
    return jax.tree.map(cut, condition)


def _check_models(denoiser: Any, solver: Any, is_conditional: bool) -> None:
    if not is_conditional and not isinstance(denoiser, Denoiser):
        raise TypeError(
            f"denoiser must be a Denoiser, got {type(denoiser).__name__}; a function of a "
            "condition needs condition"
        )
    if is_conditional and not callable(denoiser):
        raise TypeError(
            "denoiser must be a function of condition that returns a Denoiser, got "
            f"{type(denoiser).__name__}"
        )
    if not callable(getattr(solver, "run", None)):
        raise TypeError(f"solver must be a solver such as ddim(), got {type(solver).__name__}")


def _collect(finished: Finished, num_samples: int) -> Generated:
    """Put batches side by side on the host, without what the last one has too many."""

    def flat(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        return leaf.reshape(-1, *leaf.shape[2:])[:num_samples]

    samples, num_calls, failed_at, trajectory = jax.tree.map(flat, finished.kept)
    if trajectory is not None:
        trajectory = np.moveaxis(trajectory, 0, 1)
    times, half_log_snr, *_ = jax.tree.map(np.asarray, finished.state[2:])
    record = Record(times, half_log_snr, num_calls, failed_at, trajectory)
    return Generated(samples, record, finished.outcome, finished.seconds, finished.compile_seconds)


def _problems(generated: Generated, num_samples: int) -> list[str]:
    """Say which samples failed and where, and how far an interrupted run came."""
    record, problems = generated.record, []
    num = len(generated.samples)
    failed = np.asarray(record.failed_at)
    last = len(record.times) - 1
    for step in np.unique(failed[failed >= 0]):
        ids = np.flatnonzero(failed == step)
        named = ", ".join(map(str, ids[:_MOST_NAMED])) + ", ..." * (len(ids) > _MOST_NAMED)
        what = f"there is no finite result after {step} evaluations"
        if step < last:
            what = (
                f"the denoiser returned NaN or infinity in step {step} (from 0), at time "
                f"{record.times[step]:.4g}"
            )
        problems.append(f"{len(ids)} of {num} samples are lost: {what} (samples {named})")
    if generated.outcome == "interrupted":
        problems.append(f"interrupted after {num} of {num_samples} samples")
    return problems
