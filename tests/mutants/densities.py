"""Seeded bugs of the analytic densities: log density, normaliser, moments, draws."""

from mutants.table import found_by

TESTS = "models/test_densities.py"
GAUSSIAN = "shoal.models._gaussian"
CURVED = "shoal.models._curved"
DIRICHLET = "shoal.models._dirichlet"
STUDENT = "shoal.models._student_t"
MOMENTS = "test_draws_have_the_stated_mean_and_covariance"
DENSITY = "test_normalised_density_equals_an_independent_one"


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
        "test_log_odds_are_a_change_of_variables_of_the_simplex",
        (),
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
        TESTS,
        MOMENTS,
        ("dense",),
        (
            "Gaussian: draws by the transposed factor",
            GAUSSIAN,
            "self.loc + jnp.matmul(noise, self.scale.T",
            "self.loc + jnp.matmul(noise, self.scale",
        ),
    ),
    *found_by(
        TESTS,
        MOMENTS,
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
        TESTS,
        MOMENTS,
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
        TESTS,
        MOMENTS,
        ("dirichlet",),
        (
            "Dirichlet: covariance misses one",
            DIRICHLET,
            "/ (1 + jnp.sum(self.concentration))",
            "/ jnp.sum(self.concentration)",
        ),
    ),
    *found_by(
        TESTS,
        MOMENTS,
        ("log odds",),
        (
            "log odds: variance without the last",
            DIRICHLET,
            "jnp.diag(variances[:-1]) + variances[-1]",
            "jnp.diag(variances[:-1] + variances[-1])",
        ),
    ),
    *found_by(
        TESTS,
        MOMENTS,
        ("student",),
        (
            "student: scale matrix for covariance",
            STUDENT,
            "factor = self.df / jnp.where(exists, self.df - 2, jnp.nan)",
            "factor = 1.0",
        ),
    ),
)
