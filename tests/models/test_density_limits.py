"""Analytic densities at their limits: ill conditions, far points, no moments, bad arguments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.models import densities
from shoal.models.densities import (
    Banana,
    Dirichlet,
    Funnel,
    Gaussian,
    GaussianMixture,
    StudentT,
    UnconstrainedDirichlet,
    ill_conditioned_gaussian,
    skewed_mixture,
)

pytestmark = pytest.mark.quick_compiler


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("condition_number", [1.0, 100.0, 1e6])
def test_ill_conditioned_gaussian_has_the_stated_spectrum(
    dtype: str, condition_number: float
) -> None:
    with jax.enable_x64(dtype == "float64"):
        density = ill_conditioned_gaussian(8, condition_number, jax.random.key(6), dtype=dtype)
        factor = np.asarray(density.scale, np.float64)
        log_normalizer = float(density.log_normalizer)
    assert density.scale.dtype == dtype
    eigenvalues = np.linalg.eigvalsh(factor @ factor.T)
    wanted = condition_number ** np.linspace(-0.5, 0.5, 8)
    tolerance = 1e-3 if dtype == "float32" else 1e-8
    np.testing.assert_allclose(eigenvalues, wanted, rtol=tolerance)
    np.testing.assert_allclose(log_normalizer, 4 * np.log(2 * np.pi), rtol=tolerance)


def test_axes_of_the_ill_conditioned_gaussian_depend_on_the_key_alone() -> None:
    def make(seed: int, dtype: str) -> np.ndarray:
        with jax.enable_x64(dtype == "float64"):
            density = ill_conditioned_gaussian(5, 50.0, jax.random.key(seed), dtype=dtype)
            return np.asarray(density.covariance)

    np.testing.assert_allclose(make(0, "float32"), make(0, "float64"), rtol=1e-4, atol=1e-5)
    assert np.abs(make(0, "float32") - make(1, "float32")).max() > 0.1
    traced = jax.jit(lambda key: ill_conditioned_gaussian(5, 50.0, key).covariance)
    np.testing.assert_allclose(traced(jax.random.key(0)), make(0, "float32"), rtol=1e-4, atol=1e-5)


def test_dirichlet_is_impossible_off_the_simplex_without_nan() -> None:
    density = Dirichlet([0.5, 2.0, 1.0])
    for x in ([0.7, 0.5], [-0.1, 0.5], [0.0, 0.5], [0.5, 0.5]):
        value, score = jax.value_and_grad(density.log_density)(jnp.array(x))
        assert value == -jnp.inf
        assert jnp.all(score == 0)


def test_small_concentrations_stay_finite_in_log_odds() -> None:
    density = UnconstrainedDirichlet([0.01, 0.02, 0.05])
    x = density.sample(jax.random.key(7), 20_000)
    assert jnp.all(jnp.isfinite(x))
    assert jnp.all(jnp.isfinite(jax.vmap(density.log_density)(x)))


def test_far_points_keep_a_finite_log_density_and_score() -> None:
    for density in (
        skewed_mixture(),
        StudentT(2.5, [0.0, 0.0]),
        UnconstrainedDirichlet([2.0, 3.5, 1.5]),
    ):
        value, score = jax.value_and_grad(density.log_density)(jnp.array([3e4, -2e4]))
        assert jnp.isfinite(value)
        assert jnp.isfinite(score).all()


def test_moments_of_the_student_that_do_not_exist_raise() -> None:
    with pytest.raises(ValueError, match="mean exists only for df > 1"):
        _ = StudentT(1.0, [0.0]).mean
    with pytest.raises(ValueError, match="covariance exists only for df > 2"):
        _ = StudentT(2.0, [0.0]).covariance
    assert jnp.isnan(jax.jit(lambda df: StudentT(df, jnp.zeros(1)).covariance)(2.0)).all()
    assert jnp.isfinite(StudentT(1.5, [0.0]).mean).all()


def test_dtype_follows_the_arrays_given() -> None:
    with jax.enable_x64(True):
        single = jnp.zeros(2, jnp.float32)
        assert Gaussian(single, 2.0).mean.dtype == jnp.float32
        assert Gaussian(single, np.eye(2)).mean.dtype == jnp.float64
        assert Gaussian([0, 0], 2).mean.dtype == jnp.float64
        assert Gaussian(np.zeros(2, int), 2).mean.dtype == jnp.float64
        assert Banana(dtype="float32").mean.dtype == jnp.float32
    assert Gaussian(np.zeros(2), np.eye(2)).mean.dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Gaussian([[0.0]]), ValueError, "mean must be"),
        (lambda: Gaussian([]), ValueError, "mean must be"),
        (lambda: Gaussian([0.0, np.nan]), ValueError, "mean must be finite"),
        (lambda: Gaussian(["a"]), TypeError, "mean must hold real numbers"),
        (lambda: Gaussian([0.0, 0.0], -1.0), ValueError, "covariance must be positive"),
        (lambda: Gaussian([0.0, 0.0], [1.0, 0.0]), ValueError, "covariance must be positive"),
        (lambda: Gaussian([0.0, 0.0], np.ones(3)), ValueError, "covariance must have shape"),
        (lambda: Gaussian([0.0, 0.0], [[1, 2], [2, 1]]), ValueError, "eigenvalue is -1"),
        (lambda: Gaussian([0.0, 0.0], [[1, 0.5], [0, 1]]), ValueError, "must be symmetric"),
        (lambda: Gaussian([0.0], dtype="float16"), ValueError, "dtype must be float32"),
        (lambda: Gaussian([0.0], dtype="float64"), ValueError, "needs jax_enable_x64"),
        (lambda: jax.jit(Gaussian)(jnp.zeros(2), jnp.ones(3)), ValueError, "covariance must have"),
        (lambda: GaussianMixture([1, -1], np.zeros((2, 2))), ValueError, "weights must not"),
        (lambda: GaussianMixture([0, 0], np.zeros((2, 2))), ValueError, "weights must not"),
        (lambda: GaussianMixture([1, 1], np.zeros((3, 2))), ValueError, "means must have a row"),
        (
            lambda: GaussianMixture([1, 1], np.zeros((2, 2)), np.ones((3, 2, 2))),
            ValueError,
            "covariances must have shape",
        ),
        (lambda: ill_conditioned_gaussian(1, 2.0, jax.random.key(0)), ValueError, "dim must be"),
        (lambda: ill_conditioned_gaussian(3, 0.5, jax.random.key(0)), ValueError, "condition_n"),
        (lambda: Banana(dim=1), ValueError, "dim must be at least 2, got 1"),
        (lambda: Banana(dim=2.5), TypeError, "dim must be an integer"),  # type: ignore[arg-type]
        (lambda: Banana(scale=0.0), ValueError, "scale must be positive"),
        (lambda: Funnel(dim=1), ValueError, "dim must be at least 2"),
        (lambda: Funnel(scale=-1.0), ValueError, "scale must be positive"),
        (lambda: Dirichlet([1.0]), ValueError, "at least 2 entries"),
        (lambda: Dirichlet([1.0, 0.0]), ValueError, "concentration must be positive"),
        (lambda: UnconstrainedDirichlet([1.0, np.inf]), ValueError, "concentration must be"),
        (lambda: StudentT(0.0, [0.0]), ValueError, "df must be positive"),
        (lambda: StudentT(3.0, [0.0], -1.0), ValueError, "scale_matrix must be positive"),
        (lambda: Gaussian([0.0]).sample(jax.random.key(0), -1), ValueError, "num must be"),
        (lambda: Funnel().log_density(jnp.zeros((5, 10))), ValueError, "x must be one point"),
    ],
)
def test_impossible_arguments_raise(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


def test_public_names() -> None:
    assert all(hasattr(densities, name) for name in densities.__all__)
