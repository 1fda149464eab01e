"""Analytic densities against quadrature, SciPy, finite differences and their own draws.

Statistical checks have fixed keys. Each z-statistic fails a right density with probability 2e-7
(two-sided, 5.2) and each Kolmogorov-Smirnov test with probability 1e-6; with the fewer than 200
statistics of this file a false alarm, over the choice of keys, has probability below 1e-4.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from shoal.models.densities import (
    Banana,
    Density,
    Dirichlet,
    Funnel,
    Gaussian,
    GaussianMixture,
    StudentT,
    UnconstrainedDirichlet,
    skewed_mixture,
)

pytestmark = pytest.mark.quick_compiler

MEAN = np.array([1.0, -2.0, 0.5])
COVARIANCE = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])
SPREADS = np.stack([COVARIANCE, np.diag([0.3, 2.0, 1.0]), COVARIANCE[::-1, ::-1]])
WEIGHTS = np.array([1.0, 0.0, 2.5])
CENTRES = np.array([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0], [3.0, -1.0, 2.0]])
ALPHA = np.array([2.0, 3.5, 1.5, 4.0])


def normal_mixture_logpdf(x: np.ndarray) -> np.ndarray:
    parts = [
        w / WEIGHTS.sum() * stats.multivariate_normal(m, c).pdf(x)
        for w, m, c in zip(WEIGHTS, CENTRES, SPREADS, strict=True)
    ]
    return np.log(np.sum(parts, axis=0))


def skewed_logpdf(x: np.ndarray) -> np.ndarray:
    covariance = [[1.0, 0.8], [0.8, 1.0]]
    right = stats.multivariate_normal([1.5, 0.0], covariance).pdf(x)
    left = stats.multivariate_normal([-1.5, 0.0], covariance).pdf(x)
    return np.log(0.7 * right + 0.3 * left)


def banana_logpdf(x: np.ndarray) -> np.ndarray:
    bent = x[:, 1] + 0.2 * (x[:, 0] ** 2 - 4.0)
    rest = stats.norm.logpdf(x[:, 2:]).sum(1)
    return stats.norm.logpdf(x[:, 0], scale=2.0) + stats.norm.logpdf(bent) + rest


def funnel_logpdf(x: np.ndarray) -> np.ndarray:
    conditional = stats.norm.logpdf(x[:, 1:], scale=np.exp(x[:, :1] / 2)).sum(1)
    return stats.norm.logpdf(x[:, 0], scale=1.2) + conditional


def log_odds_logpdf(x: np.ndarray) -> np.ndarray:
    odds = np.exp(np.column_stack([x, np.zeros(len(x))]))
    proportions = odds / odds.sum(1, keepdims=True)
    return stats.dirichlet(ALPHA).logpdf(proportions[:, :-1].T) + np.log(proportions).sum(1)


CASES: dict[str, tuple[Callable[[Any], Density], Callable[[np.ndarray], np.ndarray]]] = {
    "isotropic": (
        lambda dtype: Gaussian(MEAN, 0.7, dtype=dtype),
        stats.multivariate_normal(MEAN, 0.7).logpdf,
    ),
    "diagonal": (
        lambda dtype: Gaussian(MEAN, [0.1, 1.0, 9.0], dtype=dtype),
        stats.multivariate_normal(MEAN, np.diag([0.1, 1.0, 9.0])).logpdf,
    ),
    "dense": (
        lambda dtype: Gaussian(MEAN, COVARIANCE, dtype=dtype),
        stats.multivariate_normal(MEAN, COVARIANCE).logpdf,
    ),
    "mixture": (
        lambda dtype: GaussianMixture(WEIGHTS, CENTRES, SPREADS, dtype=dtype),
        normal_mixture_logpdf,
    ),
    "skewed": (lambda dtype: skewed_mixture(dtype=dtype), skewed_logpdf),
    "banana": (
        lambda dtype: Banana(dim=4, scale=2.0, curvature=0.2, dtype=dtype),
        banana_logpdf,
    ),
    "funnel": (lambda dtype: Funnel(dim=4, scale=1.2, dtype=dtype), funnel_logpdf),
    "dirichlet": (
        lambda dtype: Dirichlet(ALPHA, dtype=dtype),
        lambda x: stats.dirichlet(ALPHA).logpdf(x.T),
    ),
    "log odds": (lambda dtype: UnconstrainedDirichlet(ALPHA, dtype=dtype), log_odds_logpdf),
    "student": (
        lambda dtype: StudentT(12.0, MEAN, COVARIANCE, dtype=dtype),
        stats.multivariate_t(MEAN, COVARIANCE, df=12.0).logpdf,
    ),
}
every_case = pytest.mark.parametrize("name", CASES)
both_precisions = pytest.mark.parametrize("dtype", ["float32", "float64"])


NUM = 20_000


@functools.partial(jax.jit, static_argnames="num")
def draw(density: Density, key: jax.Array, num: int = NUM) -> jax.Array:
    return density.sample(key, num)


@jax.jit
def evaluate(density: Density, x: jax.Array) -> jax.Array:
    """Normalised log densities of the rows of x."""
    return jax.vmap(density.log_density)(x) - density.log_normalizer


@jax.jit
def differentiate(density: Density, x: jax.Array) -> tuple[Density, jax.Array]:
    return jax.grad(lambda density, x: evaluate(density, x).sum(), (0, 1))(density, x)


def kolmogorov_smirnov(draws: jax.Array, cdf: Callable[[np.ndarray], np.ndarray]) -> None:
    assert stats.kstest(np.asarray(draws, np.float64), cdf).pvalue > 1e-6


@every_case
@both_precisions
def test_normalised_density_equals_an_independent_one(name: str, dtype: str) -> None:
    make, logpdf = CASES[name]
    points = np.asarray(draw(make("float32"), jax.random.key(1)))
    with jax.enable_x64(dtype == "float64"):
        density = make(dtype)
        x = jnp.asarray(points, dtype)
        ours = evaluate(density, x)
        drawn = jax.eval_shape(lambda: density.sample(jax.random.key(1), 3))
        assert drawn.shape == (3, density.dim)
        assert drawn.dtype == ours.dtype == dtype
        assert density.mean.dtype == density.covariance.dtype == density.log_normalizer.dtype
        assert density.mean.dtype == dtype
    tolerance = 3e-5 if dtype == "float32" else 1e-11
    theirs = logpdf(np.asarray(x, np.float64))
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=tolerance, atol=tolerance)


@every_case
def test_draws_have_the_stated_mean_and_covariance(name: str) -> None:
    density = CASES[name][0]("float32")
    x = np.asarray(draw(density, jax.random.key(2)), np.float64)
    centred = x - np.asarray(density.mean)
    products = (centred[:, :, None] * centred[:, None, :]).reshape(NUM, -1)
    for values, truth in ((x, density.mean), (products, density.covariance.ravel())):
        z = (values.mean(0) - np.asarray(truth)) / (values.std(0) / np.sqrt(NUM))
        assert np.abs(z).max() < 5.2


@every_case
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    rng = np.random.default_rng(8)
    points = np.asarray(draw(CASES[name][0]("float32"), jax.random.key(3)))[:7]
    with jax.enable_x64(True):
        density = CASES[name][0]("float64")
        x = jnp.asarray(points, jnp.float64)
        at = (density, x)
        score = differentiate(*at)
        for moved in range(2):
            # Along a random direction in the parameters, or in the points.
            tangent = [jax.tree.map(lambda leaf: np.zeros(leaf.shape), part) for part in at]
            tangent[moved] = jax.tree.map(
                lambda leaf: rng.normal(size=leaf.shape) * leaf, at[moved]
            )

            def value(h: float, tangent: Any = tangent) -> float:
                shifted = jax.tree.map(lambda leaf, t: leaf + h * t, at, tuple(tangent))
                return float(evaluate(*shifted).sum())

            h = 1e-4
            slope = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
            products = jax.tree.map(lambda g, t: float(np.vdot(g, t)), score, tuple(tangent))
            np.testing.assert_allclose(sum(jax.tree.leaves(products)), slope, rtol=1e-7)


@every_case
def test_transformations_agree_and_new_parameters_compile_nothing(name: str) -> None:
    density = CASES[name][0]("float32")
    x = draw(density, jax.random.key(4))
    traces = 0

    @jax.jit
    def compiled(density: Density, x: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return density.log_density(x)

    together = evaluate(density, x)[:5] + density.log_normalizer
    one_by_one = jnp.stack([compiled(density, row) for row in x[:5]])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(density.log_density(x[0]), one_by_one[0], rtol=1e-5, atol=1e-5)
    other = jax.tree.map(lambda leaf: leaf * 1.25, density)
    assert compiled(other, x[0]) != one_by_one[0]
    assert traces == 1
    # A stack of densities, one for each point.
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), density, other)
    mapped = jax.jit(jax.vmap(lambda density, x: density.log_density(x)))(stack, x[:2])
    wanted = [one_by_one[0], compiled(other, x[1])]
    np.testing.assert_allclose(mapped, wanted, rtol=1e-5, atol=1e-5)


def test_the_same_key_gives_the_same_draws_compiled_or_not() -> None:
    for name in ("dense", "mixture", "banana", "funnel"):
        density = CASES[name][0]("float32")
        eager = density.sample(jax.random.key(4), NUM)
        np.testing.assert_allclose(eager, draw(density, jax.random.key(4)), rtol=1e-5, atol=1e-5)


LINE = [
    Gaussian([0.3], 2.0),
    GaussianMixture([1.0, 3.0], [[-2.0], [1.0]], 0.5),
    Dirichlet([2.5, 1.5]),
    UnconstrainedDirichlet([0.6, 1.7]),
    StudentT(1.5, [0.5], 2.0),
]
PLANE = [
    Gaussian([0.0, 1.0], [[1.0, 0.7], [0.7, 1.5]]),
    GaussianMixture([2.0, 1.0], [[0.0, 0.0], [2.0, 1.0]], [[1.0, 0.3], [0.3, 0.6]]),
    Banana(scale=1.5, curvature=0.4),
    Funnel(dim=2, scale=1.0),
    UnconstrainedDirichlet([2.0, 0.8, 1.5]),
    StudentT(3.0, [0.0, 0.5], [[1.0, -0.4], [-0.4, 0.8]]),
]


def in_float64(density: Density) -> Density:
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), density)


@pytest.mark.parametrize("density", LINE, ids=lambda density: type(density).__name__)
def test_normaliser_on_the_line(density: Density) -> None:
    low, high = (0, 1) if isinstance(density, Dirichlet) else (-np.inf, np.inf)
    with jax.enable_x64(True):
        density = in_float64(density)

        def value(x: float) -> float:
            return float(np.exp(evaluate(density, np.full((1, 1), x))[0]))

        total, _ = integrate.quad(value, low, high, epsabs=1e-9)
    assert abs(total - 1) < 1e-7


@pytest.mark.parametrize("density", PLANE, ids=lambda density: type(density).__name__)
def test_normaliser_on_the_plane(density: Density) -> None:
    with jax.enable_x64(True):
        density = in_float64(density)
        # The trapezium rule in t with x = sinh(t) reaches far out and converges geometrically.
        t = np.linspace(-7, 7, 801)
        x, weight = np.sinh(t), np.cosh(t) * (t[1] - t[0])

        points = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
        values = np.exp(evaluate(density, points))
    assert abs(weight @ values.reshape(801, 801) @ weight - 1) < 1e-6


def test_normaliser_on_the_simplex() -> None:
    # With whole concentrations the density is a polynomial, which Gauss's rule integrates exactly.
    nodes, weights = np.polynomial.legendre.leggauss(12)
    u, v = np.meshgrid((nodes + 1) / 2, (nodes + 1) / 2)
    x = np.stack([u, (1 - u) * v], axis=-1).reshape(-1, 2)
    area = (np.outer(weights, weights) / 4 * (1 - u)).ravel()
    with jax.enable_x64(True):
        density = Dirichlet([2.0, 3.0, 4.0])
        assert abs(area @ np.exp(evaluate(density, x)) - 1) < 1e-12


def test_draws_follow_their_density() -> None:
    key = jax.random.key(5)
    for name in ("isotropic", "diagonal", "dense"):
        density = CASES[name][0]("float32")
        squared = -2 * (evaluate(density, draw(density, key)) + density.log_normalizer)
        kolmogorov_smirnov(squared, stats.chi2(3).cdf)

    student = StudentT(1.3, MEAN, COVARIANCE)
    draws = draw(student, key)
    squared = -2 * jax.vmap(student.gaussian.log_density)(draws)
    kolmogorov_smirnov(squared / 3, stats.f(3, 1.3).cdf)
    kolmogorov_smirnov(draws[:, 1], stats.t(1.3, MEAN[1], np.sqrt(COVARIANCE[1, 1])).cdf)

    direction = np.array([0.5, -1.0, 2.0])
    projected = draw(CASES["mixture"][0]("float32"), key) @ direction
    parts = [
        stats.norm(direction @ m, np.sqrt(direction @ c @ direction))
        for m, c in zip(CENTRES, SPREADS, strict=True)
    ]
    shares = WEIGHTS / WEIGHTS.sum()
    kolmogorov_smirnov(
        projected, lambda x: sum(w * p.cdf(x) for w, p in zip(shares, parts, strict=True))
    )

    x = draw(Banana(dim=3), key)
    kolmogorov_smirnov(x[:, 0], stats.norm(scale=10).cdf)
    kolmogorov_smirnov(x[:, 1] + 0.03 * (x[:, 0] ** 2 - 100), stats.norm.cdf)
    kolmogorov_smirnov(x[:, 2], stats.norm.cdf)

    x = draw(Funnel(), key)
    assert x.shape == (NUM, 10)
    kolmogorov_smirnov(x[:, 0], stats.norm(scale=3).cdf)
    kolmogorov_smirnov(jnp.sum((x[:, 1:] * jnp.exp(-x[:, :1] / 2)) ** 2, 1), stats.chi2(9).cdf)

    for i, x in enumerate(draw(CASES["dirichlet"][0]("float32"), key).T):
        kolmogorov_smirnov(x, stats.beta(ALPHA[i], ALPHA.sum() - ALPHA[i]).cdf)
    density = UnconstrainedDirichlet(ALPHA)
    for i, x in enumerate(density.to_simplex(draw(density, key)).T):
        kolmogorov_smirnov(x, stats.beta(ALPHA[i], ALPHA.sum() - ALPHA[i]).cdf)


def test_log_odds_are_a_change_of_variables_of_the_simplex() -> None:
    with jax.enable_x64(True):
        inner, outer = Dirichlet(ALPHA), UnconstrainedDirichlet(ALPHA)
        eta = jnp.array([0.3, -1.0, 0.8])
        log_jacobian = jnp.linalg.slogdet(jax.jacobian(outer.to_simplex)(eta))[1]
        # Compared with the Jacobian matrix of the map that draws are sent through.
        pulled_back = inner.log_density(outer.to_simplex(eta)) + log_jacobian
        np.testing.assert_allclose(outer.log_density(eta), pulled_back, rtol=1e-13)


def test_gradient_passes_through_the_parameters() -> None:
    def log_likelihood(covariance: jax.Array) -> jax.Array:
        density = Gaussian(jnp.array(MEAN), covariance)
        return density.log_density(jnp.zeros(3)) - density.log_normalizer

    with jax.enable_x64(True):
        ours = np.asarray(jax.jit(jax.grad(log_likelihood))(jnp.array(COVARIANCE)))
    precision = np.linalg.inv(COVARIANCE)
    pulled = precision @ MEAN
    wanted = (np.outer(pulled, pulled) - precision) / 2
    np.testing.assert_allclose((ours + ours.T) / 2, wanted, rtol=1e-10)
