"""Seeded bugs of mirrored Stein samplers and of the natural gradient."""

from mutants.table import found_by

MIRRORED = "sampling/stein/test_mirrored.py"
NATURAL = "sampling/stein/test_svng.py"
SUMS = "shoal.sampling.stein._mirror_sums"
ROWS = "shoal.sampling.stein._kernel_rows"
ADAPTIVE = "shoal.sampling.stein._adaptive_kernel"
SVNG = "shoal.sampling.stein.svng"

BUGS = (
    *found_by(
        MIRRORED,
        "test_one_step_is_the_sum_over_all_pairs",
        ("box",),
        (
            "the other particle left out of the repulsion",
            ROWS,
            "(along - slope) * weights",
            "slope * weights",
        ),
        (
            "root of the kernel not divided by its eigenvalue",
            ADAPTIVE,
            "root.apply(root.inverse, rows.repulsion)",
            "root.apply(root.scale, rows.repulsion)",
        ),
        (
            "one eigenvalue too few",
            ADAPTIVE,
            "jnp.cumsum(share) - share < truncation",
            "jnp.cumsum(share) < truncation",
        ),
        (
            "no Hessian in the kernel",
            ADAPTIVE,
            "hessians.multiply(inner))",
            "inner)",
        ),
        ("repulsion not scaled", ROWS, "found.repulsion * jax.lax.rsqrt", "found.repulsion + 0 *"),
    ),
    *found_by(
        MIRRORED,
        "test_one_step_is_the_sum_over_all_pairs",
        ("simplex",),
        (
            "inverse Hessian of the simplex without its second part",
            SUMS,
            "dot(weights * dot(points, vector), inner)",
            "0 * dot(weights * dot(points, vector), inner)",
        ),
        (
            "half of the derivative of H in the kernel",
            ADAPTIVE,
            "return total / num**2",
            "return total / num**2 / 2",
        ),
    ),
    *found_by(
        MIRRORED,
        "test_the_dead_have_no_influence",
        ("svmd",),
        (
            "eigenvalues of the dead",
            ADAPTIVE,
            "jnp.where(alive, 0, mark)",
            "jnp.where(alive, 0, 0)",
        ),
    ),
    *found_by(
        MIRRORED,
        "test_particles_at_the_boundary_move_by_numbers_that_have_squares",
        (),
        ("Hessian without a bound", SUMS, "tiny ** 0.45", "tiny ** 1.0"),
    ),
    *found_by(
        NATURAL,
        "test_two_steps_are_the_sums_over_all_pairs",
        ("known",),
        ("no divergence of the metric", SVNG, "ensemble.score - slope", "ensemble.score"),
        ("averages from a step late", SVNG, "ensemble.num_steps + 1.0", "ensemble.num_steps + 2.0"),
        ("moves of mirror descent", SVNG, "hessians.solve(found.phi)", "found.phi"),
    ),
)
