"""Seeded bugs of the analytic densities: log density, normaliser, moments, draws."""

import functools
from typing import Any

import jax
import numpy as np
from mutants.seeding import execute
from mutants.table import found_by

HERE = "mutants/densities.py"
TESTS = "models/test_densities.py"
GAUSSIAN = "shoal.models._gaussian"
CURVED = "shoal.models._curved"
DIRICHLET = "shoal.models._dirichlet"
STUDENT = "shoal.models._student_t"
DENSITY = "test_normalised_density_equals_an_independent_one"


@functools.cache
def tests_of_densities() -> Any:
    return execute(TESTS)


def z_moments(key: jax.Array, name: str) -> np.ndarray:
    """Mean and covariance of draws against the stated ones."""
    tests = tests_of_densities()
    density = tests.CASES[name][0]("float32")
    x = np.asarray(tests.draw(density, key), np.float64)
    centred = x - np.asarray(density.mean)
    i, j = np.triu_indices(density.dim)
    products = centred[:, i] * centred[:, j] - np.asarray(density.covariance)[i, j]
    values = np.concatenate([centred, products], axis=1)
    return values.mean(0) / (values.std(0) / np.sqrt(len(x)))


BUGS = (
    *found_by(
        TESTS,
        DENSITY,
        ("dense", "float64"),
        (
            "Gaussian: log determinant of the factor doubled",
            GAUSSIAN,
            "_LOG_2PI / 2 + jnp.sum(jnp.log(jnp.broad",
            "_LOG_2PI / 2 + 2 * jnp.sum(jnp.log(jnp.broad",
        ),
        (
            "Gaussian: factor for its inverse",
            GAUSSIAN,
            "inverse_factor(scale) if scale.ndim == 2",
            "scale if scale.ndim == 2",
        ),
    ),
    *found_by(
        TESTS,
        DENSITY,
        ("mixture", "float64"),
        (
            "mixture: no determinants",
            GAUSSIAN,
            "axis=1) / 2 - log_det - self.dim",
            "axis=1) / 2 - self.dim",
        ),
        (
            "mixture: components alike",
            GAUSSIAN,
            "logsumexp(logs, b=self.weights)",
            "logsumexp(logs, b=self.weights > 0)",
        ),
    ),
    *found_by(
        TESTS,
        DENSITY,
        ("funnel", "float64"),
        ("funnel: deviation for variance", CURVED, "jnp.exp(-x[0] / 2)", "jnp.exp(-x[0])"),
        ("funnel: normaliser of the rest missing", CURVED, "** 2 + (self.dim - 1) * x[0]", "** 2"),
    ),
    *found_by(
        TESTS,
        DENSITY,
        ("log odds", "float64"),
        (
            "log odds: Jacobian missing",
            DIRICHLET,
            "jnp.sum(self.concentration * jax.nn.log_softmax",
            "jnp.sum((self.concentration - 1) * jax.nn.log_softmax",
        ),
    ),
    *found_by(
        TESTS,
        DENSITY,
        ("student", "float64"),
        (
            "student: power without the dimension",
            STUDENT,
            "-(self.df + self.dim) / 2 * jnp.log1p",
            "-(self.df + 1) / 2 * jnp.log1p",
        ),
    ),
    *found_by(
        HERE,
        "z_moments",
        ("dense",),
        (
            "Gaussian: draws by the transposed factor",
            GAUSSIAN,
            "self.loc + jnp.matmul(noise, self.scale.T",
            "self.loc + jnp.matmul(noise, self.scale",
        ),
    ),
    *found_by(
        HERE,
        "z_moments",
        ("mixture",),
        (
            "mixture: covariance within the components alone",
            GAUSSIAN,
            "(self.locs - self.mean)[:, :, None]",
            "0 * (self.locs - self.mean)[:, :, None]",
        ),
        (
            "mixture: moments with weights that do not sum to one",
            GAUSSIAN,
            "self.weights / jnp.sum(self.weights)",
            "self.weights",
        ),
        (
            "mixture: components drawn by the weights' exponentials",
            GAUSSIAN,
            "jnp.log(self.weights), shape",
            "self.weights, shape",
        ),
    ),
    *found_by(
        HERE,
        "z_moments",
        ("banana",),
        ("banana: variance of the bent coordinate", CURVED, "bent = 1 + 2 *", "bent = 1 + 1 *"),
        (
            "banana: draws bent the other way",
            CURVED,
            ".add(-self.curvature * (x[:, 0] ** 2 - self.scale**2))",
            ".add(-self.curvature * (x[:, 0] ** 2 + self.scale**2))",
        ),
    ),
    *found_by(
        HERE,
        "z_moments",
        ("dirichlet",),
        (
            "Dirichlet: covariance misses one",
            DIRICHLET,
            "/ (1 + jnp.sum(self.concentration))",
            "/ jnp.sum(self.concentration)",
        ),
    ),
    *found_by(
        HERE,
        "z_moments",
        ("log odds",),
        (
            "log odds: variance without the last",
            DIRICHLET,
            "jnp.diag(variances[:-1]) + variances[-1]",
            "jnp.diag(variances[:-1] + variances[-1])",
        ),
    ),
    *found_by(
        HERE,
        "z_moments",
        ("student",),
        (
            "student: scale matrix for covariance",
            STUDENT,
            "factor = self.df / jnp.where(exists, self.df - 2, jnp.nan)",
            "factor = 1.0",
        ),
        (
            "student: a chi-square for each coordinate's half",
            STUDENT,
            "jnp.exp(-log_chi2 / 2)",
            "jnp.exp(-log_chi2)",
        ),
    ),
)
