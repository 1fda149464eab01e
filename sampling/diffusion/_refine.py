"""All coefficients of a table: regressed on exact paths step by step, then moved together.

A step is written so that it means the same when its λ move,

    x_{i+1} = (sigma_{i+1} / sigma_i) c_{i1} x_i
              + alpha_{i+1} (1 - e^{-h}) (c_{i0} + Σ_{j <= i} c_{i,j+2} m_j),

h = λ_{i+1} - λ_i. Given exact positions at all λ the coefficients of a step are a linear regression
on what the steps before it lead to: one pass, no iteration, every entry of a sample by itself or
all alike. From there gradients of the error at the end, through the whole run, move all
coefficients and all λ; the regressions' own covariances make the problem well conditioned. Most of
the error is in few samples, those near a border between modes: batches are drawn half evenly, half
in proportion to the squared error, and weighted so that the gradient is unbiased. The
first of the steps calls nothing: where x is nearly all noise a line through it says as much.
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
_NUM_INNER = 16
_NUM_CHECKS = 25


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


def regress(
    denoiser: Denoiser, clock: np.ndarray, start: jax.Array, per_entry: bool, batch_size: int
) -> Fitted:
    """Fit one step after the other to exact paths from ``start``."""
    num, event = len(clock) - 2, start.shape[1:]
    cast = lambda value: jnp.asarray(value, start.dtype)
    batches = [start[i : i + batch_size] for i in range(0, len(start), batch_size)]
    paths = [reference(denoiser, x, cast(clock), _NUM_INNER) for x in batches]
    seen = [jnp.zeros((num, *x.shape), x.dtype) for x in batches]
    shape = event if per_entry else ()
    over = "n..." if per_entry else "n"
    coefficients = np.zeros((num + 1, num + 2, *shape))
    conditioner = np.zeros((num + 1, *shape, num + 2, num + 2))
    for i in range(num + 1):
        if i:
            at = cast(clock[i])
            pairs = zip(seen, batches, strict=True)
            seen = [s.at[i - 1].set(_predict(denoiser, x, at)) for s, x in pairs]
        gram, right = 0.0, 0.0
        for x, s, path in zip(batches, seen, paths, strict=True):
            columns = np.asarray(_columns(x, s, cast(clock[i : i + 2])), np.float64)[: i + 2]
            target = np.asarray(path[i + 1], np.float64)
            if not per_entry:
                columns, target = columns.reshape(i + 2, -1), target.reshape(-1)
            gram = gram + np.einsum(f"i{over},j{over}->{over[1:]}ij", columns, columns)
            right = right + np.einsum(f"i{over},{over}->{over[1:]}i", columns, target)
        size = len(start) * (1 if per_entry else int(np.prod(event)))
        found, matrix = _solve(np.asarray(gram) / size, np.asarray(right) / size)
        coefficients[i, : i + 2] = np.moveaxis(found, -1, 0)
        conditioner[i][..., : i + 2, : i + 2] = matrix
        step = cast(coefficients[i])
        batches = [
            _combine(step, _columns(x, s, cast(clock[i : i + 2])))
            for x, s in zip(batches, seen, strict=True)
        ]
    return Fitted(clock, coefficients, conditioner)


def descend(
    denoiser: Denoiser, fitted: Fitted, train: Samples, valid: Samples,
    key: jax.Array, num_steps: int, learning_rate: float, batch_size: int,
) -> tuple[Fitted, np.ndarray]:  # fmt: skip
    """Move coefficients and λ down the mean squared error at the end; the best on ``valid`` stays.

    Returns also the error on ``valid``, root mean square, at each check.
    """
    cast = lambda value: jnp.asarray(value, train.start.dtype)
    base = tuple(cast(part) for part in fitted)
    parameters = (
        jnp.zeros_like(base[1]),
        jnp.zeros(len(fitted.half_log_snr) - 2, base[0].dtype),
    )
    rate = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(num_steps // 20, 1), num_steps)
    scaled = lambda factor: optax.chain(
        optax.adam(1.0, b2=0.999), optax.scale_by_schedule(lambda i: factor * rate(i))
    )
    rates = {"coefficients": scaled(learning_rate), "times": scaled(3 * learning_rate)}
    optimiser = optax.multi_transform(rates, ("coefficients", "times"))
    state = optimiser.init(parameters)
    judge = functools.partial(_errors, denoiser, base, at_once=batch_size)
    score = lambda parameters: float(jnp.sqrt(jnp.mean(judge(valid, parameters))))
    best, history = (score(parameters), parameters), list[float]()
    num_checks = min(_NUM_CHECKS, num_steps)
    for i in range(num_checks):
        wrong = judge(train, parameters)
        parameters, state = _iterate(
            denoiser, base, optimiser, train, 0.5 + 0.5 * wrong / jnp.mean(wrong),
            (parameters, state), jax.random.fold_in(key, i), -(-num_steps // num_checks),
            batch_size,
        )  # fmt: skip
        history.append(score(parameters))
        if history[-1] < best[0]:
            best = history[-1], parameters
    clock, coefficients = (np.asarray(part, np.float64) for part in _moved(base, best[1]))
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
def _predict(denoiser: Denoiser, x: jax.Array, half_log_snr: jax.Array) -> jax.Array:
    return denoiser.data(x, half_log_snr)


def _solve(gram: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients, and the matrix by which changes of them become uncorrelated."""
    size = gram.shape[-1]
    mean = np.trace(gram, axis1=-2, axis2=-1)[..., None, None] / size
    gram = gram + _RIDGE * mean * np.eye(size)
    found = np.linalg.solve(gram, right[..., None])[..., 0]
    return found, np.swapaxes(np.linalg.inv(np.linalg.cholesky(gram)), -1, -2)


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
def _errors(
    denoiser: Denoiser, base: tuple, samples: Samples, parameters: tuple, at_once: int
) -> jax.Array:
    """Return the mean squared error of each sample."""

    def one(sample: Samples) -> jax.Array:
        end = _run(denoiser, base, parameters, sample.start[None])[0]
        return jnp.mean((end - sample.end) ** 2)

    return jax.lax.map(one, samples, batch_size=at_once)


@eqx.filter_jit
def _iterate(
    denoiser: Denoiser, base: tuple, optimiser: Any, train: Samples, odds: jax.Array, carry: Any,
    key: jax.Array, num: int, batch_size: int,
) -> Any:  # fmt: skip
    """Take ``num`` steps with batches drawn in proportion to ``odds``, whose mean is 1."""
    edges = jnp.cumsum(odds)

    def loss(parameters: tuple, some: jax.Array) -> jax.Array:
        ends = _run(denoiser, base, parameters, train.start[some])
        wrong = jnp.mean((ends - train.end[some]) ** 2, tuple(range(1, ends.ndim)))
        return jnp.mean(wrong / odds[some])

    def iterate(carry: tuple, key: jax.Array) -> tuple:
        parameters, state = carry
        at = edges[-1] * jax.random.uniform(key, (batch_size,), edges.dtype)
        some = jnp.minimum(jnp.searchsorted(edges, at), len(odds) - 1)
        updates, state = optimiser.update(jax.grad(loss)(parameters, some), state, parameters)
        return (optax.apply_updates(parameters, updates), state), None

    return jax.lax.scan(iterate, carry, jax.random.split(key, num))[0]
