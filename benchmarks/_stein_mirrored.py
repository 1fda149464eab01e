"""Mirrored Stein samplers: the sparse Dirichlet law, the cost of a step, natural gradients.

The peer of a step is the authors' formula as they evaluate it, with einsum over arrays n x n x k.
Figures of the sparse Dirichlet law are medians over starts: at 500 iterations of RMSprop with a
constant rate some starts are still on their way, in the authors' form as in this one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _harness import Report, interleave

from shoal.sampling import stein
from shoal.sampling.core import mirror
from shoal.sampling.core.minibatches import ArrayMinibatches, from_arrays

ALPHA = 0.1 + np.array([90.0, 5.0, 5.0, *[0.0] * 17])
JITTER = 1e-5


def sparse_dirichlet(theta: jax.Array) -> jax.Array:
    """Log density of the Dirichlet law of twenty probabilities, three of which count."""
    return jnp.sum(jnp.asarray(ALPHA - 1, theta.dtype) * jnp.log(theta))


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return 2 E|X - Y| - E|X - X'| - E|Y - Y'|, all pairs counted."""

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
        return float(np.sqrt(np.maximum(squares, 0)).mean())

    return 2 * mean(x, y) - mean(x, x) - mean(y, y)


def final(sampler: Any, starts: jax.Array, num_steps: int) -> np.ndarray:
    """Return the particles after some steps, for each of several starts."""
    algorithm = sampler(sparse_dirichlet)

    def run(start: jax.Array) -> jax.Array:
        step = lambda state, _: (algorithm.step(jax.random.key(0), state)[0], None)
        return jax.lax.scan(step, algorithm.init(start), length=num_steps)[0].position

    return np.asarray(jax.jit(jax.vmap(run))(starts), np.float64)


def rmsprop(rate: Any) -> optax.GradientTransformation:
    return optax.rmsprop(rate, decay=0.9, eps=1e-7, eps_in_sqrt=False)


def official_direction(theta: jax.Array, score: jax.Array, h: Any) -> jax.Array:
    """Return SVMD's direction on the simplex by the authors' einsums, truncation 0.998.

    ``theta`` are all m probabilities, ``score`` the k = m - 1 derivatives along the simplex.
    """
    inner, num = theta[:, :-1], len(theta)
    eye = jnp.eye(inner.shape[1])
    inverse = inner[:, :, None] * eye - inner[:, :, None] * inner[:, None]
    hessian = eye / inner[:, :, None] + 1 / theta[:, -1, None, None]
    divergence = 1 - theta.shape[1] * inner
    difference = theta[:, None] - theta
    base = 1 + jnp.sum(difference**2, -1) / h
    slopes = -(base**-1.5)[:, :, None] * (difference[..., :-1] - difference[..., -1:]) / h
    values, vectors = jnp.linalg.eigh(base**-0.5 + JITTER * jnp.eye(num))
    values, vectors = values[::-1] / num, vectors[:, ::-1]
    share = values / values.sum()
    root = jnp.where(jnp.cumsum(share) - share < 0.998, jnp.sqrt(values), 0)
    u = jnp.sqrt(num) * vectors
    slope_u = jnp.einsum("lpa,pr->lra", slopes, u) / (num * values[:, None])
    half = jnp.einsum("ir,r,tr->it", u, root, u)
    slope_half = jnp.einsum("tr,r,lra->tla", u, root, slope_u)
    kernel = jnp.einsum("it,tab,tl->ilab", half, hessian, half) / num
    total = jnp.einsum("ilab,lbc,lc->ia", kernel, inverse, score)
    total += jnp.einsum("ilab,lb->ia", kernel, divergence)
    moved = jnp.einsum("lbc,tlc->tlb", inverse, slope_half)
    total += jnp.einsum("it,tab,tlb->ia", half, hessian, moved) / num
    return total / num


def covertype_like(num: int = 40_000, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return 55 features, the last of them one, labels, and the same for a test set of a quarter.

    Like the forest cover types: ten correlated numbers of unequal scales, one of four areas and one
    of forty soils, a few of which are frequent, all others rare.
    """
    rng = np.random.default_rng(seed)
    total = num + num // 4
    scales = np.geomspace(0.1, 1, 10)
    numbers = rng.normal(size=(total, 10)) @ (np.eye(10) + rng.normal(size=(10, 10)) / 10**0.5)
    soils = np.arange(1, 41.0) ** -1.5
    groups = [np.array([0.45, 0.05, 0.44, 0.06]), soils / soils.sum()]
    indicators = [np.eye(p.size)[rng.choice(p.size, total, p=p)] for p in groups]
    features = np.concatenate([numbers * scales, *indicators, np.ones((total, 1))], 1)
    weights = rng.normal(size=55) * np.concatenate([0.4 / scales, np.full(45, 0.7)])
    labels = rng.uniform(size=total) < 1 / (1 + np.exp(-features @ weights))
    single = lambda array: array.astype(np.float32)
    return tuple(map(single, (features[:num], labels[:num], features[num:], labels[num:])))


def log_prior(w: jax.Array) -> jax.Array:
    return -0.5 * jnp.sum(w**2)


def log_likelihood(w: jax.Array, batch: Any) -> jax.Array:
    features, labels = batch
    return -jax.nn.softplus(jnp.where(labels > 0.5, -1.0, 1.0) * (features @ w))


def logistic(features: np.ndarray, labels: np.ndarray, batch_size: int = 256) -> ArrayMinibatches:
    return from_arrays(log_prior, log_likelihood, (features, labels), batch_size)


def predict(w: jax.Array, batch: Any) -> jax.Array:
    return batch[0] @ w


def variance(f: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(f) * jax.nn.sigmoid(-f)


def test_curve(sampler: Any, data: tuple[np.ndarray, ...], num_steps: int) -> np.ndarray:
    """Return the log likelihood of the test set, a mean, by the ensemble's mean, for each step."""
    features, labels, *test = map(jnp.asarray, data)
    algorithm = sampler(logistic(features, labels))
    start = 0.1 * jax.random.normal(jax.random.key(1), (20, features.shape[1]))

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        state, _ = algorithm.step(key, state)
        logs = jax.vmap(lambda w: log_likelihood(w, test))(state.position)
        return state, jnp.mean(jax.nn.logsumexp(logs, 0) - jnp.log(len(logs)))

    keys = jax.random.split(jax.random.key(2), num_steps)
    run = jax.jit(lambda s: jax.lax.scan(step, algorithm.init(s, jax.random.key(3)), keys)[1])
    return np.asarray(run(start))


def bayes(data: tuple[np.ndarray, ...]) -> float:
    """Return the log likelihood of the test set at the mode: 40 000 rows leave no doubt of it."""
    features, labels, *test = (np.asarray(array, np.float64) for array in data)
    w = np.zeros(features.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-features @ w))
        fisher = features.T @ (features * (p * (1 - p))[:, None]) + np.eye(len(w))
        w += np.linalg.solve(fisher, features.T @ (labels - p) - w)
    signed = np.where(test[1] > 0.5, -1.0, 1.0) * (test[0] @ w)
    return float(-np.logaddexp(0, signed).mean())


def first_within(curve: np.ndarray, level: float) -> int:
    """Return the number of updates after which a curve first reaches a level."""
    reached = np.flatnonzero(curve >= level)
    return int(reached[0]) + 1 if reached.size else len(curve) + 1


def natural_gradient(num_rows: int) -> Any:
    """Return SVNG as in the paper's experiment: damped by 0.01 of a row's weight, rate 0.5."""
    fisher = stein.gauss_newton(predict, variance, weight=num_rows / 256)
    return stein.svng(fisher, None, optax.sgd(0.5), damping=0.01 * num_rows)


def averaged_metric(num_rows: int) -> Any:
    """Return matrix-valued SVGD with the average of that Fisher's information, at the same rate."""
    fisher = stein.gauss_newton(predict, variance, weight=num_rows / 256)
    return stein.matrix_svgd(
        None, optax.sgd(0.5), curvature=fisher, decay=0.95, damping=0.01 * num_rows
    )


def add_rows(report: Report) -> None:
    _quality(report)
    for num in (50, 200):
        _step(report, num)
    _natural(report)


def _quality(report: Report) -> None:
    rng = np.random.default_rng(100)
    num_starts = report.options.rounds(16, 4)
    starts = rng.dirichlet(np.full(20, 5.0), (num_starts, 50))
    draws = rng.dirichlet(ALPHA, 2000)[:, :-1]
    decayed = optax.cosine_decay_schedule(0.1, 500, 0.02)
    exact = ALPHA[0] / ALPHA.sum()
    iid = np.median([energy_distance(rng.dirichlet(ALPHA, 50)[:, :-1], draws) for _ in range(50)])
    for bits in (64, 32):
        with jax.enable_x64(bits == 64):
            given = jnp.asarray(starts, f"float{bits}")
            options = {"truncation": 0.998, "bandwidth": "median_all"}
            samplers = {
                "SVMD": stein.svmd(mirror.simplex(), None, rmsprop(0.1), **options),
                "SVMD, rate decayed": stein.svmd(
                    mirror.simplex(), None, rmsprop(decayed), **options
                ),
                "MSVGD": stein.msvgd(
                    mirror.simplex(), None, rmsprop(decayed), bandwidth="median_all"
                ),
            }
            for name, sampler in samplers.items():
                ends = final(sampler, given, 500)
                distance = np.median([energy_distance(x[:, :-1], draws) for x in ends])
                error = np.median(np.abs(ends[:, :, 0].mean(1) - exact))
                bars = {"MSVGD": (None, None), "SVMD": (1.0, None)}.get(name, (1.0, 1.0))
                row = f"sparse Dirichlet, float{bits}, {name}: "
                limits = f"energy distance / 0.001 (50 draws have {iid:.4f})", "error of E / 0.002"
                for what, value, most, bar in zip(
                    limits, (distance, error), (1e-3, 2e-3), bars, strict=True
                ):
                    report.row(row + what, value, most, value / most, bar)


def _step(report: Report, num: int) -> None:
    with jax.enable_x64(True):
        theta = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(21), num))
        sampler = stein.svmd(
            mirror.simplex(), None, optax.sgd(1.0), bandwidth=0.1, truncation=0.998, jitter=JITTER
        )
        algorithm = sampler(lambda p: jnp.sum(3.0 * jnp.log(p)))
        state, key = algorithm.init(theta), jax.random.key(0)
        # Scores, the optimiser and the map back are in ours alone.
        score = 3.0 / theta[:, :-1] - 3.0 / theta[:, -1:]
        step = jax.jit(lambda state: algorithm.step(key, state)[0].dual)
        peer = jax.jit(lambda theta, score: official_direction(theta, score, 0.1))
        wanted = peer(theta, score)
        error = jnp.max(jnp.abs(step(state) - state.dual - wanted)) / jnp.max(jnp.abs(wanted))
        if error > 1e-10:
            raise RuntimeError(f"the two directions differ by {error}")
        seconds = interleave(
            {"ours": lambda: step(state), "peer": lambda: peer(theta, score)},
            report.options.rounds(20, 6),
        )
    report.ratio(f"SVMD, n = {num}, k = 20, seconds: ours / einsum of the authors", seconds, 0.25)


def _natural(report: Report) -> None:
    data = covertype_like()
    num_rows, level = len(data[0]), bayes(data) - 0.01
    updates = lambda sampler, num: first_within(test_curve(sampler, data, num), level)
    ours = {
        "SVNG": updates(natural_gradient(num_rows), 100),
        "matrix-valued SVGD": updates(averaged_metric(num_rows), 100),
    }
    rates = {f"rate {rate}": optax.sgd(rate * 20 / num_rows) for rate in (1.0, 0.3, 0.1)}
    for name, optimizer in {**rates, "Adam, rate 0.05": None}.items():
        peer = updates(stein.svgd(None, optimizer), 300)
        for method, count in ours.items():
            row = f"updates to Bayes - 0.01 (301: not reached), {method} / SVGD, {name}"
            report.row(row, count, peer, count / peer, 0.2)
