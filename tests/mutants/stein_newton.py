"""Seeded bugs of Stein samplers with a metric, of Newton's steps and of projections."""

from mutants.table import found_by

MATRIX = "sampling/stein/test_matrix.py"
NEWTON = "sampling/stein/test_newton.py"
PROJECTED = "sampling/stein/test_projected.py"
METRIC = "shoal.sampling.stein._metric"
FAMILY = "shoal.sampling.stein."

BUGS = (
    *found_by(
        MATRIX,
        "test_the_average_is_the_double_loop",
        (),
        (
            "negative curvature kept",
            METRIC,
            "jnp.maximum(values, 0)",
            "values",
        ),
        (
            "moves not mapped back",
            METRIC,
            "lower=True, trans=1).T",
            "lower=True).T",
        ),
    ),
    *found_by(
        MATRIX,
        "test_the_mixture_is_its_double_loops",
        (),
        (
            "weights without their volume",
            FAMILY + "matrix",
            "jnp.sum(jnp.log(jnp.diagonal(white.factor))) - spread / 2",
            "-spread / 2",
        ),
        (
            "gradients of the weights left out",
            FAMILY + "matrix",
            "score + pull - dot(points - center, matrix)",
            "score",
        ),
    ),
    *found_by(
        MATRIX,
        "test_the_metric_is_an_average_over_batches",
        (),
        (
            "averages that begin at zero",
            FAMILY + "matrix",
            "jnp.minimum(count / (count + 1), jnp.asarray(decay, mean.dtype))",
            "jnp.asarray(decay, mean.dtype)",
        ),
    ),
    *found_by(
        NEWTON,
        "test_the_step_with_blocks_is_the_double_loop",
        (),
        (
            "a sum of outer products instead of a mean",
            FAMILY + "newton",
            "weights = slopes**2 / count",
            "weights = slopes**2",
        ),
        (
            "kernel without its dimension",
            FAMILY + "newton",
            "squared_distances(*distance_factors(points, points)) / dim",
            "squared_distances(*distance_factors(points, points))",
        ),
        (
            "curvatures weighted by the kernel",
            FAMILY + "newton",
            "values**2 / count, curvature",
            "values / count, curvature",
        ),
    ),
    *found_by(
        NEWTON,
        "test_the_full_step_is_the_dense_solution",
        (),
        (
            "coefficients for moves",
            FAMILY + "newton",
            "white.back(dot(system.kernel, system.solve(right, num_iterations)))",
            "white.back(system.solve(right, num_iterations))",
        ),
        (
            "spread of all particles",
            FAMILY + "newton",
            '_einsum("iab,ib->ia", self.spread, vectors)',
            '_einsum("jab,ib->ia", self.spread, vectors)',
        ),
    ),
    *found_by(
        NEWTON,
        "z_noise",
        (),
        (
            "noise not shared out among the particles",
            FAMILY + "newton",
            "jnp.sqrt(2 * jnp.asarray(step_size, phi.dtype) / ensemble.num_alive)",
            "jnp.sqrt(2 * jnp.asarray(step_size, phi.dtype))",
        ),
    ),
    *found_by(
        PROJECTED,
        "test_the_subspace_is_that_of_the_generalised_eigenvectors_and_svgd_runs_in_it",
        (),
        (
            "score of the posterior for that of the likelihood",
            FAMILY + "projected",
            "ensemble.score + ensemble.points, 0)",
            "ensemble.score, 0)",
        ),
        (
            "singular values for eigenvalues",
            FAMILY + "projected",
            "singular[:num_dims] ** 2",
            "singular[:num_dims]",
        ),
    ),
    *found_by(
        PROJECTED,
        "test_a_posterior_with_two_informed_directions",
        (),
        (
            "updates off the subspace",
            FAMILY + "projected",
            "bandwidth=h, basis=basis)",
            "bandwidth=h)",
        ),
    ),
    *found_by(
        PROJECTED,
        "test_projectors_climb_the_discrepancy_and_particles_follow",
        (),
        (
            "projectors go downhill",
            FAMILY + "grassmann",
            "step * uphill +",
            "-step * uphill +",
        ),
        (
            "moves along the span",
            FAMILY + "grassmann",
            "jnp.linalg.qr(projector + tangent)",
            "jnp.linalg.qr(projector + move)",
        ),
        (
            "particles move first",
            FAMILY + "grassmann",
            "direction_inside(kernel, ensemble, moved,",
            "direction_inside(kernel, ensemble, projector,",
        ),
    ),
    *found_by(
        PROJECTED,
        "z_tangents",
        (),
        (
            "noise without its two",
            FAMILY + "grassmann",
            "jnp.sqrt(2 * heat * step)",
            "jnp.sqrt(heat * step)",
        ),
    ),
)
