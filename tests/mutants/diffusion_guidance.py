"""Seeded bugs of guidance and of manifold projection."""

from mutants.table import found_by

from shoal.sampling.core.schedules import flow

TESTS = "sampling/diffusion/test_guidance.py"
GUIDED = "shoal.sampling.diffusion._guided"
MANIFOLD = "shoal.sampling.diffusion.manifold"

BUGS = (
    *found_by(
        TESTS,
        "test_classifier_free_is_one_call_on_both_halves",
        (),
        (
            "classifier-free: the other convention of the scale",
            GUIDED,
            "return unconditional + scale * (conditional - unconditional)\n",
            "return conditional + scale * (conditional - unconditional)\n",
        ),
        (
            "classifier-free: halves of the batch exchanged",
            GUIDED,
            "conditional, unconditional = jnp.split",
            "unconditional, conditional = jnp.split",
        ),
    ),
    *found_by(
        TESTS,
        "test_two_denoisers_of_any_form_are_combined",
        (),
        (
            "combine: position not at unit variance for the other schedule",
            GUIDED,
            "x / jnp.hypot(alpha, sigma)",
            "x",
        ),
    ),
    *found_by(
        TESTS,
        "test_exact_classifier_is_classifier_free_guidance",
        (),
        (
            "classifier: the step of the noise for that of the data",
            GUIDED,
            "(sigma**2 / alpha)\n        return _data",
            "(sigma**2)\n        return _data",
        ),
    ),
    *found_by(
        TESTS,
        "test_reconstruction_is_exact_for_gaussian_data",
        (flow(),),
        (
            "reconstruction: gradient at the data, not through the denoiser",
            GUIDED,
            'gradient, data = _gradient("log_likelihood", value, x)',
            'data = value(x)[1]\n        gradient, _ = _gradient("log_likelihood", lambda data: '
            "(self.log_likelihood(data, sigma / alpha), None), data)",
        ),
        (
            "reconstruction: likelihood told sigma for sigma / alpha",
            GUIDED,
            "self.log_likelihood(data, sigma / alpha)",
            "self.log_likelihood(data, sigma)",
        ),
    ),
    *found_by(
        TESTS,
        "test_threshold_is_per_sample_and_keeps_small_predictions",
        (),
        (
            "threshold: one bound for the batch",
            GUIDED,
            "axes = tuple(range(1, x.ndim))\n        largest",
            "axes = tuple(range(x.ndim))\n        largest",
        ),
    ),
    *found_by(
        TESTS,
        "test_projected_step_is_its_equations",
        (),
        (
            "projection: both velocities at the same point",
            MANIFOLD,
            "velocity(conditional, y)",
            "velocity(conditional, z)",
        ),
        (
            "projection: a whole step for half a step",
            MANIFOLD,
            "y = z - 0.5 * step",
            "y = z - step",
        ),
        (
            "acceleration: shares exchanged",
            MANIFOLD,
            "(1 - share) * image + share * old_image",
            "share * image + (1 - share) * old_image",
        ),
    ),
    *found_by(
        TESTS,
        "test_projection_has_no_units_and_names_what_failed",
        (),
        (
            "acceleration: a ridge that has units",
            MANIFOLD,
            "ridge * 0.5 * (dot(shift, shift) + dot(old_shift, old_shift))",
            "ridge",
        ),
    ),
)
