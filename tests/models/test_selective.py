"""The randomised LASSO against scikit-learn's, the conditional law by its definition, intervals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import Lasso

from shoal.models import selective

pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(3)
NUM, DIM = 60, 12


def data(effect, dtype):
    X = jax.random.normal(KEY, (NUM, DIM), dtype) / NUM**0.5
    noise = jax.random.normal(jax.random.fold_in(KEY, 1), (NUM,), dtype)
    return X, X[:, :2] @ jnp.asarray([effect, -effect], dtype) + noise


def test_the_solution_is_scikit_learns_on_augmented_data(x64):
    X, y = data(3.0, jnp.float64)
    problem = selective._solve(KEY, X, y, 0.7, 0.25)
    # |y - X b|^2/2 + ridge |b|^2/2 - omega.b is a sum of squares with DIM more rows.
    root = np.sqrt(float(problem.ridge))
    rows = np.concatenate([X, root * np.eye(DIM)])
    values = np.concatenate([y, problem.noise / root])
    lasso = Lasso(float(problem.penalty) / len(rows), fit_intercept=False, tol=1e-14)
    expected = lasso.fit(rows, values).coef_
    assert 0 < np.count_nonzero(expected) < DIM
    np.testing.assert_allclose(problem.solution, expected, atol=1e-9)


def test_the_law_of_the_magnitudes_is_its_definition(x64):
    X, y = data(3.0, jnp.float64)
    found = selective.randomized_lasso(KEY, X, y)
    problem = selective._solve(KEY, X, y, 0.7, 0.25)
    beta, lam = np.asarray(problem.solution), float(problem.penalty)
    E = np.asarray(found.active)
    signs = np.sign(beta[E])
    B = np.array(X.T @ X[:, E])
    B[E, np.arange(len(E))] += float(problem.ridge)
    B = B * signs
    u = np.array(X.T @ (y - X @ beta) + problem.noise)
    u[E] = lam * signs
    r = u - np.asarray(X.T @ y)
    # Optimality: the noise is what the selection says it was, and subgradients are within bounds.
    np.testing.assert_allclose(B @ np.abs(beta[E]) + r, problem.noise, atol=1e-9)
    assert (np.abs(np.delete(u, E)) <= lam).all()
    points = np.abs(np.random.default_rng(0).normal(size=(2, len(E))))
    squares = ((points @ B.T + r) ** 2).sum(1)
    change = found.log_density(points[0]) - found.log_density(points[1])
    np.testing.assert_allclose(
        change, (squares[1] - squares[0]) / (2 * float(found.scale) ** 2), rtol=1e-9
    )
    # The slope: how the law moves with the estimate, other directions of y being fixed.
    covariance = np.asarray(found.covariance)
    step = np.asarray(X[:, E]) @ covariance[:, 0] / covariance[0, 0]
    moved = np.asarray(found.factor).T @ np.asarray(found.slope)[0]
    np.testing.assert_allclose(moved, -B.T @ np.asarray(X.T) @ step, atol=1e-9)


def test_where_the_selection_was_never_in_doubt_intervals_are_classical():
    # Orthogonal columns: shrinking the two that matter makes no other one look good.
    X = jnp.linalg.qr(data(0.0, jnp.float32)[0])[0]
    y = 60 * (X[:, 0] - X[:, 1]) + jax.random.normal(KEY, (NUM,))
    found = selective.randomized_lasso(KEY, X, y, penalty=5.0)
    assert found.active.tolist() == [0, 1]
    noise = found.scale * jax.random.normal(KEY, (2, 20_000))
    draws = jnp.linalg.solve(found.factor, noise - found.shift[:, None]).T
    assert (draws > 0).all()
    levels = jnp.array([0.8, 0.95])
    ends = selective.confidence_intervals(jax.random.key(9), found, draws, levels)
    spread = jnp.sqrt(jnp.diag(found.covariance))[:, None]
    standard = (ends - found.estimate[:, None]) / spread
    half = norm.ppf((1 + levels) / 2)[:, None, None]
    # Quantiles of 20,000 weighted draws: standard errors below 0.025 here, 5.2 of them, 8 ends.
    np.testing.assert_allclose(
        standard, half * np.array([-1.0, 1.0]) * np.ones((2, 2, 1)), atol=0.13
    )


def test_what_nothing_can_be_said_of_is_refused():
    X, y = data(3.0, jnp.float32)
    with pytest.raises(ValueError, match=r"no variable was selected with penalty=50"):
        selective.randomized_lasso(KEY, X, y, penalty=50.0)
    with pytest.raises(ValueError, match=r"more rows than columns"):
        selective.randomized_lasso(KEY, X[:5], y[:5])
