"""Seeded bugs of the exponential integrators, found by laws, covariances and strong orders."""

import numpy as np
from mutants.table import Bug, found_by

TESTS = "sampling/langevin/test_exponential.py"
SAMPLERS = "shoal.sampling.langevin.exponential"
SCHEMES = "shoal.sampling.langevin._exponential_schemes"
COEFFICIENTS = "shoal.sampling.langevin._exponential_coefficients"
COVARIANCE = "test_stationary_covariance_on_a_gaussian_is_the_exact_one"
ORDER = "test_strong_order_by_slope_with_common_noise"

BUGS: tuple[Bug, ...] = (
    *found_by(
        TESTS,
        "z_law",
        ("ubu",),
        ("ubu: one noise for both areas", SAMPLERS, "(len(levy), dim)", "(1, dim)"),
        ("ubu: space-time area twelve times too wide", SAMPLERS, "[1, 1 / 12,", "[1, 1,"),
        (
            "ubu: metric missing in the noise",
            SCHEMES,
            "metric.color(a * w + a_half * f + r * (b * W + p * H))",
            "metric.color(a * w + a_half * f) + r * (b * W + p * H)",
        ),
        (
            "ubu: push over the time alone",
            COEFFICIENTS,
            "t**2 / h * _series_or",
            "t * _series_or",
        ),
        (
            "ubu: momentum reversed",
            SAMPLERS,
            "(new.position), new.momentum",
            "(new.position), -new.momentum",
        ),
    ),
    *found_by(
        TESTS,
        COVARIANCE,
        ("align",),
        (
            "align: force of the start held",
            SCHEMES,
            "local_error = b * (g_new - g)",
            "local_error = 0 * b * (g_new - g)",
        ),
    ),
    *found_by(
        TESTS,
        ORDER,
        ("should", 3),
        (
            "should: areas never combined",
            SCHEMES,
            "+ second_area(h, c) * K",
            "- second_area(h, c) * K",
        ),
        ("should: weights of the trapezoid", SCHEMES, "b * (g + 2 * h * g_inner) / 3", "b * g"),
    ),
    *found_by(
        TESTS,
        ORDER,
        ("quicsort", 3),
        (
            "quicsort: late point without the early force",
            SCHEMES,
            "+ glide(h / 3, c) * f_early",
            "",
        ),
        (
            "quicsort: jump back with the wrong sign",
            SCHEMES,
            "a / h * k - r * (H - 6 * K)",
            "a / h * k - r * (H + 6 * K)",
        ),
    ),
    *found_by(
        TESTS,
        "test_coefficients_against_ninety_digits",
        ("second_area", np.float32, 2e-4),
        ("a series of five terms", COEFFICIENTS, "_NUM_TERMS = 18", "_NUM_TERMS = 5"),
    ),
)
