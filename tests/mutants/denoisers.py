"""Seeded bugs of schedules, conversions between predictions and exact denoisers."""

from mutants.table import found_by

EXACT = "models/test_denoisers_exact.py"
FORMS = "sampling/core/test_denoiser.py"
CLOCK = "sampling/core/test_schedules.py"
DENOISER = "shoal.sampling.core.denoiser"
SCHEDULES = "shoal.sampling.core.schedules"
MIXTURE = "shoal.models.denoisers._mixture"
EMPIRICAL = "shoal.models.denoisers._empirical"
SCHEDULE = "test_schedule_is_its_source_and_has_an_exact_inverse"

BUGS = (
    *found_by(
        EXACT,
        "test_mixture_is_the_sum_over_components",
        (),
        (
            "mixture: no determinants in the responsibilities",
            MIXTURE,
            "jnp.log(self.weights) - log_volume",
            "jnp.log(self.weights)",
        ),
        (
            "mixture: axes transposed",
            MIXTURE,
            "jnp.asarray(np.moveaxis(bases, 1, 0), dtype)",
            "jnp.asarray(np.moveaxis(bases, 2, 0), dtype)",
        ),
        (
            "mixture: means not about the common mean",
            MIXTURE,
            "flat - self.mean, self.means - self.mean",
            "flat - self.mean, self.means",
        ),
    ),
    *found_by(
        EXACT,
        "z_draws",
        ("full",),
        (
            "mixture: draws with variances for deviations",
            MIXTURE,
            "noise * jnp.sqrt(variances)",
            "noise * variances",
        ),
    ),
    *found_by(
        EXACT,
        "test_data_set_is_the_sum_over_its_points",
        (0.4,),
        (
            "data set: kernels do not widen the softmax",
            EMPIRICAL,
            "            points,\n            total,",
            "            points,\n            noise,",
        ),
        (
            "data set: shares of x and of the data exchanged",
            EMPIRICAL,
            "(smooth / total) * flat + (noise / total) * mean",
            "(noise / total) * flat + (smooth / total) * mean",
        ),
    ),
    *found_by(
        EXACT,
        "test_float32_is_accurate_and_finite_at_every_noise_and_distance",
        ("data set",),
        (
            "data set: squared distances overflow",
            EMPIRICAL,
            "return jnp.clip(x, -limit, limit)",
            "return x",
        ),
    ),
    *found_by(
        FORMS,
        "test_derivative_is_the_slope_along_the_flow",
        (),
        (
            "derivative: the flow without its drift",
            DENOISER,
            "alpha * (data - alpha * position)",
            "alpha * data",
        ),
    ),
    *found_by(
        FORMS,
        "test_conversions_from_each_form_to_each_form",
        (),
        (
            "velocity: the other sign of the data",
            DENOISER,
            "data = alpha * x - sigma * value",
            "data = alpha * x + sigma * value",
        ),
        (
            "flow: as if alpha + sigma were 1",
            DENOISER,
            "(x - sigma * value) / (alpha + sigma)",
            "(x - sigma * value)",
        ),
    ),
    *found_by(
        CLOCK,
        SCHEDULE,
        ("vp_linear",),
        (
            "linear rates: half the integral",
            SCHEDULES,
            "0.5 * slope * t)",
            "0.25 * slope * t)",
        ),
    ),
    *found_by(
        CLOCK,
        SCHEDULE,
        ("vp_discrete",),
        (
            "discrete steps: times start at 0",
            SCHEDULES,
            "np.arange(1, num + 1) / num",
            "np.arange(num) / num",
        ),
    ),
)
