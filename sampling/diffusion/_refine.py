"""All coefficients of a table: regressed on exact paths step by step, then moved together.

A step is written so that it means the same when its λ move,

    x_{i+1} = (sigma_{i+1} / sigma_i) c_{i1} x_i
              + alpha_{i+1} (1 - e^{-h}) (c_{i0} + Σ_{j <= i} c_{i,j+2} m_j),

h = λ_{i+1} - λ_i. Given exact positions at all λ the coefficients of a step are a linear regression
on what the steps before it lead to: one pass, no iteration, every entry of a sample by itself or
all alike. Being cheap, it is done for many λ, which an evolution strategy moves: where the steps
are decides most. From there gradients of the error at the end, through the whole run, move all
coefficients and all λ; the regressions' own covariances make the problem well conditioned. Most of
the squared error is in few samples, those so near a border between modes that the solver takes them
to the other one. Their gradients are huge and say little, so what descends is, for an error e of a
sample and half the median error c at the beginning,

    E sqrt(sqrt(e² + c²)),

which rises so slowly with e that no few samples decide where it goes. Batches are drawn half
evenly, half in proportion to this loss, and weighted so that the gradient is unbiased. The first of
the steps calls nothing: where x is nearly all noise a line through it says as much.
"""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion._tables import Table, reference

_RIDGE = 1e-6
_NUM_POINTS, _NUM_INNER = 65, 2
_FIRST_STEP = 0.25
_NUM_CHECKS = 10
_AVERAGE = 0.01
_POWER = 0.5
# Logarithms of gaps move by more than coefficients do, which are in units of uncorrelated columns.
_TIMES_RATE = 20.0


class Fitted(NamedTuple):
    """Coefficients c of all steps, with N calls of N + 1 steps.

    Attributes
    ----------
    half_log_snr
        λ of the start and of the ends of all steps, ``(N + 2,)``.
    coefficients
        ``(N + 1, N + 2, *shape)``.
    conditioner
        Triangular matrices ``(N + 1, *shape, N + 2, N + 2)``: coefficients change by their product
        with what gradients move.
    """

    half_log_snr: np.ndarray
    coefficients: np.ndarray
    conditioner: np.ndarray


class Samples(NamedTuple):
    """Starts at unit variance and where they exactly lead, both ``(n, ...)``."""

    start: jax.Array
    end: jax.Array


class Paths(NamedTuple):
    """Exact solutions at evenly spaced λ, ``(P,)``: positions and dx/dλ, ``(P, n, ...)``."""

    half_log_snr: jax.Array
    positions: jax.Array
    slopes: jax.Array


def solve_paths(denoiser: Denoiser, clock: np.ndarray, start: jax.Array, batch_size: int) -> Paths:
    """Solve from ``start`` between the ends of ``clock``."""
    at = jnp.asarray(np.linspace(clock[0], clock[-1], _NUM_POINTS), start.dtype)
    batches = [start[i : i + batch_size] for i in range(0, len(start), batch_size)]
    solved = [_path(denoiser, x, at) for x in batches]
    return Paths(at, *(jnp.concatenate(part, axis=1) for part in zip(*solved, strict=True)))


def place(
    denoiser: Denoiser, clocks: list[np.ndarray], paths: Paths, per_entry: bool, batch_size: int,
    num_trials: int, rng: np.random.Generator,
) -> Fitted:  # fmt: skip
    """Regress on the best of some grids and of ``num_trials`` more, found by evolution."""
    trial = lambda clock: regress(denoiser, clock, paths, per_entry, batch_size)
    fits = [trial(clock) for clock in clocks]
    (best, score), step = min(fits, key=lambda fit: fit[1]), _FIRST_STEP
    for i in range(num_trials):
        gaps = np.diff(best.half_log_snr)
        moves = rng.normal(size=len(gaps))
        if i % 2 and len(gaps) > 2:  # neighbours together
            moves = 1.6 * np.convolve(moves, [0.25, 0.5, 0.25], "same")
        gaps = gaps * np.exp(step * moves)
        clock = np.append(0.0, np.cumsum(gaps) / gaps.sum())
        found = trial(best.half_log_snr[[0, -1]] @ np.stack([1 - clock, clock]))
        # The one-fifth rule: steps grow when they succeed, and shrink when they fail.
        step *= 1.3 if found[1] < score else 1.3**-0.25
        best, score = min((best, score), found, key=lambda fit: fit[1])
    return best


def regress(
    denoiser: Denoiser, clock: np.ndarray, paths: Paths, per_entry: bool, batch_size: int
) -> tuple[Fitted, float]:
    """Fit one step after the other to exact paths; return also the error at the end."""
    x = paths.positions[0]
    num, event = len(clock) - 2, x.shape[1:]
    cast = lambda value: jnp.asarray(value, x.dtype)
    shape = event if per_entry else ()
    seen = jnp.zeros((num, *x.shape), x.dtype)
    coefficients = np.zeros((num + 1, num + 2, *shape))
    conditioner = np.zeros((num + 1, *shape, num + 2, num + 2))
    for i in range(num + 1):
        ends, size = cast(clock[i : i + 2]), i + 2
        if i:
            seen = seen.at[i - 1].set(_predict(denoiser, x, ends[0], batch_size))
        columns = _columns(x, seen, ends)
        exact = paths.positions[-1]
        if i < num:
            exact = _between(paths, ends[1])
        found, matrix = _least_squares(np.asarray(columns[:size]), np.asarray(exact), per_entry)
        coefficients[i, :size] = np.moveaxis(found.reshape(*shape, size), -1, 0)
        conditioner[i][..., :size, :size] = matrix.reshape(*shape, size, size)
        x = _combine(cast(coefficients[i]), columns)
    error = float(jnp.sqrt(jnp.mean((x - paths.positions[-1]) ** 2)))
    fitted = Fitted(clock, coefficients, conditioner)
    return fitted, error if np.isfinite(error) else np.inf


def descend(
    denoiser: Denoiser, fitted: Fitted, samples: Samples, num_valid: int, key: jax.Array,
    num_steps: int, learning_rate: float, batch_size: int,
) -> tuple[Fitted, np.ndarray]:  # fmt: skip
    """Move coefficients and λ down the loss at the end, see the module's head.

    The first ``num_valid`` samples only choose among iterates. Returns also the loss on them at
    each check.
    """
    dtype = samples.start.dtype
    base = tuple(jnp.asarray(part, dtype) for part in fitted)
    rate = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(num_steps // 20, 1), num_steps)
    scaled = lambda factor: optax.chain(
        optax.adam(1.0, b2=0.999), optax.scale_by_schedule(lambda i: factor * rate(i))
    )
    rates = {"coefficients": scaled(learning_rate), "times": scaled(_TIMES_RATE * learning_rate)}
    optimiser = optax.multi_transform(rates, ("coefficients", "times"))
    parameters = tuple(
        jnp.asarray(np.zeros(shape), dtype)
        for shape in (fitted.coefficients.shape, len(fitted.half_log_snr) - 2)
    )
    state = eqx.filter_jit(optimiser.init)(parameters)
    wrong = functools.partial(_wrong, denoiser, base, samples, batch_size)
    begun = wrong(parameters)
    floor = jnp.median(begun) / 4
    judge = functools.partial(_judge, num_valid, floor)
    carry = (parameters, parameters, state)
    score, odds = judge(begun)
    best, history = (float(score), parameters), list[float]()
    num_checks = min(_NUM_CHECKS, num_steps)
    for i in range(num_checks):
        carry = _iterate(
            denoiser, base, optimiser, samples, num_valid, floor, odds, carry, key, np.int32(i),
            -(-num_steps // num_checks), batch_size,
        )  # fmt: skip
        score, odds = judge(wrong(carry[0]))
        history.append(float(score))
        if history[-1] < best[0]:
            best = history[-1], carry[0]
    clock, coefficients = (np.array(part, np.float64) for part in _moved(base, best[1]))
    clock[[0, -1]] = fitted.half_log_snr[[0, -1]]
    return Fitted(clock, coefficients, fitted.conditioner), np.array(history)


def absolute(fitted: Fitted) -> Table:
    """Return the table that has these coefficients, in float64."""
    clock, coefficients = fitted.half_log_snr, fitted.coefficients
    num, shape = len(coefficients) - 1, coefficients.shape[2:]
    ratio, gain = _scales(clock[:2])
    first = np.stack([ratio * coefficients[0, 1], gain * coefficients[0, 0]])
    # Positions as combinations of the first one called at, of one, and of the predictions.
    unit = lambda index: np.eye(num + 2)[index].reshape(num + 2, *[1] * len(shape))
    x, rows = unit(0) + np.zeros((num + 2, *shape)), []
    for i in range(1, num + 1):
        ratio, gain = _scales(clock[i : i + 2])
        x = ratio * coefficients[i, 1] * x + gain * coefficients[i, 0] * unit(1)
        x = x + gain * sum(coefficients[i, j] * unit(j) for j in range(2, num + 2))
        rows.append(x)
    return Table(clock, first, np.stack(rows))


def _scales(ends: Any) -> tuple[Any, Any]:
    (alpha, sigma), xp = unit_scales(ends), jnp if isinstance(ends, jax.Array) else np
    return sigma[1] / sigma[0], alpha[1] * -xp.expm1(ends[0] - ends[1])


@jax.jit
def _columns(x: jax.Array, seen: jax.Array, ends: jax.Array) -> jax.Array:
    """Return what a step is a combination of, ``(S + 2, n, ...)``."""
    ratio, gain = _scales(ends)
    return jnp.concatenate([jnp.full_like(x, gain)[None], ratio * x[None], gain * seen])


@jax.jit
def _combine(coefficients: jax.Array, columns: jax.Array) -> jax.Array:
    shape = columns.shape[2:]
    wide = coefficients.reshape(len(columns), 1, *(coefficients.shape[1:] or [1] * len(shape)))
    return jnp.sum(wide * columns, axis=0)


@eqx.filter_jit
def _predict(
    denoiser: Denoiser, x: jax.Array, half_log_snr: jax.Array, batch_size: int
) -> jax.Array:
    one = lambda x: denoiser.data(x[None], half_log_snr)[0]
    return jax.lax.map(one, x, batch_size=batch_size)


@eqx.filter_jit
def _path(denoiser: Denoiser, x: jax.Array, grid: jax.Array) -> tuple[jax.Array, jax.Array]:
    positions = reference(denoiser, x, grid, _NUM_INNER)

    def slope(point: tuple[jax.Array, jax.Array]) -> jax.Array:
        at, x = point
        alpha, _ = unit_scales(at)
        return alpha * (denoiser.data(x, at) - alpha * x)

    return positions, jax.lax.map(slope, (grid, positions))


@jax.jit
def _between(paths: Paths, half_log_snr: jax.Array) -> jax.Array:
    """Return positions on the paths, by cubics with the exact slopes at both neighbours."""
    grid = paths.half_log_snr
    spacing = grid[1] - grid[0]
    low = jnp.clip(((half_log_snr - grid[0]) / spacing).astype(int), 0, len(grid) - 2)
    u = (half_log_snr - grid[low]) / spacing
    x, slope = paths.positions, paths.slopes
    left = (1 + 2 * u) * (1 - u) ** 2 * x[low] + u * (1 - u) ** 2 * spacing * slope[low]
    return left + (3 - 2 * u) * u**2 * x[low + 1] + (u - 1) * u**2 * spacing * slope[low + 1]


def _least_squares(
    columns: np.ndarray, exact: np.ndarray, per_entry: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Regress ``exact``, ``(n, ...)``, on ``columns``, ``(p, n, ...)``, for each entry or in all.

    Returns coefficients ``(entries, p)`` and matrices ``(entries, p, p)`` by which changes of them
    become uncorrelated.
    """
    size, num = columns.shape[:2]
    rows = (num, -1) if per_entry else (-1, 1)
    a = columns.reshape(size, *rows).T.astype(np.float64)
    b = exact.reshape(rows).T.astype(np.float64)
    gram = np.swapaxes(a, 1, 2) @ a / a.shape[1]
    right = np.swapaxes(a, 1, 2) @ b[..., None] / a.shape[1]
    mean = np.trace(gram, axis1=1, axis2=2)[:, None, None] / size
    gram = gram + _RIDGE * mean * np.eye(size)
    found = np.linalg.solve(gram, right)[..., 0]
    return found, np.swapaxes(np.linalg.inv(np.linalg.cholesky(gram)), 1, 2)


def _moved(base: tuple, parameters: tuple) -> tuple[jax.Array, jax.Array]:
    """Return λ and coefficients after the moves ``parameters``."""
    clock, coefficients, conditioner = base
    change, times = parameters
    gaps = jnp.log(jnp.diff(clock) * jnp.sign(clock[-1] - clock[0]))
    shares = jax.nn.softmax(gaps + jnp.append(times, 0.0))
    inner = clock[0] + (clock[-1] - clock[0]) * jnp.cumsum(shares)[:-1]
    pushed = jnp.einsum("s...ij,sj...->si...", conditioner, change)
    return jnp.concatenate([clock[:1], inner, clock[-1:]]), coefficients + pushed


def _run(denoiser: Denoiser, base: tuple, parameters: tuple, x: jax.Array) -> jax.Array:
    clock, coefficients = _moved(base, parameters)
    seen = jnp.zeros((len(clock) - 2, *x.shape), x.dtype)
    ends = jnp.stack([clock[:-1], clock[1:]], axis=1)
    x = _combine(coefficients[0], _columns(x, seen, ends[0]))

    def step(carry: tuple, row: tuple) -> tuple:
        x, seen = carry
        i, ends, coefficients = row
        seen = seen.at[i].set(denoiser.data(x, ends[0]))
        return (_combine(coefficients, _columns(x, seen, ends)), seen), None

    rows = (jnp.arange(len(seen)), ends[1:], coefficients[1:])
    return jax.lax.scan(step, (x, seen), rows)[0][0]


@eqx.filter_jit
def _wrong(
    denoiser: Denoiser, base: tuple, samples: Samples, at_once: int, parameters: tuple
) -> jax.Array:
    """Return the mean squared error of each sample."""

    def one(sample: Samples) -> jax.Array:
        end = _run(denoiser, base, parameters, sample.start[None])[0]
        return jnp.mean((end - sample.end) ** 2)

    return jax.lax.map(one, samples, batch_size=at_once)


def _loss(wrong: jax.Array, floor: jax.Array) -> jax.Array:
    return (wrong + floor) ** (_POWER / 2)


def _judge(num_valid: int, floor: jax.Array, wrong: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the loss on the first samples, and odds of mean 1 to draw each of the others."""
    losses = _loss(wrong, floor)
    train = losses[num_valid:]
    return jnp.mean(losses[:num_valid]), 0.5 + 0.5 * train / jnp.mean(train)


@eqx.filter_jit
def _iterate(
    denoiser: Denoiser, base: tuple, optimiser: Any, samples: Samples, num_valid: int,
    floor: jax.Array, odds: jax.Array, carry: Any, key: jax.Array, count: Any, num: int,
    batch_size: int,
) -> Any:  # fmt: skip
    """Take ``num`` steps with batches drawn in proportion to ``odds``, and average over them."""
    start, target = samples.start[num_valid:], samples.end[num_valid:]
    edges = jnp.cumsum(odds)

    def loss(parameters: tuple, some: jax.Array) -> jax.Array:
        ends = _run(denoiser, base, parameters, start[some])
        wrong = jnp.mean((ends - target[some]) ** 2, tuple(range(1, ends.ndim)))
        return jnp.mean(_loss(wrong, floor) / odds[some])

    def iterate(carry: tuple, key: jax.Array) -> tuple:
        average, parameters, state = carry
        at = edges[-1] * jax.random.uniform(key, (batch_size,), edges.dtype)
        some = jnp.minimum(jnp.searchsorted(edges, at), len(odds) - 1)
        updates, state = optimiser.update(jax.grad(loss)(parameters, some), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        average = optax.incremental_update(parameters, average, _AVERAGE)
        return (average, parameters, state), None

    keys = jax.random.split(jax.random.fold_in(key, count), num)
    return jax.lax.scan(iterate, carry, keys)[0]
