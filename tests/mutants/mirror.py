"""Seeded bugs of the mirror maps, and of NumPyro models on their sites' own spaces."""

from mutants.table import found_by

TESTS = "sampling/core/test_mirror"
CORE = "shoal.sampling.core._mirror_"
TARGET = "shoal.inference._mirrored_target"

BUGS = (
    *found_by(
        f"{TESTS}.py",
        "test_closed_forms_are_derivatives_of_the_potential",
        ("half space",),
        (
            "half-space: normal of any length",
            f"{CORE}half_space",
            "return normal / length, offset / length",
            "return normal, offset",
        ),
    ),
    *found_by(
        f"{TESTS}.py",
        "test_closed_forms_are_derivatives_of_the_potential",
        ("ball",),
        (
            "ball: volume of d dimensions only",
            f"{CORE}ball",
            "(0.5 * num_dims + 1) * log_square",
            "0.5 * num_dims * log_square",
        ),
        (
            "ball: radius missing in H",
            f"{CORE}ball",
            "(vector + along) / (depth * self._sphere(primal.dtype)[0])",
            "(vector + along) / depth",
        ),
    ),
    *found_by(
        f"{TESTS}.py",
        "test_closed_forms_are_derivatives_of_the_potential",
        ("polytope",),
        (
            "polytope: divergence without leverages",
            f"{CORE}polytope",
            "_sum_rows(basis, leverages)",
            "_sum_rows(basis, leverages**0)",
        ),
    ),
    *found_by(
        f"{TESTS}.py",
        "test_the_noise_has_the_covariance_of_the_hessian",
        ("half space",),
        (
            "half-space: noise of the inverse",
            f"{CORE}half_space",
            "jax.lax.rsqrt(self",
            "jnp.sqrt(self",
        ),
    ),
    *found_by(
        f"{TESTS}_product.py",
        "test_a_half_space_along_an_axis_is_an_orthant_in_it_however_near_the_plane",
        (),
        (
            "half-space: rounded away near the plane",
            f"{CORE}half_space",
            "jnp.where(terms > 1, doubt, 0)",
            "doubt + 1e-7",
        ),
    ),
    *found_by(
        f"{TESTS}_polytope.py",
        "test_the_solve_converges_far_out_and_has_all_its_derivatives",
        (),
        (
            "polytope: steps of full length",
            f"{CORE}polytope",
            "1 / (1 + size))\n        move",
            "1)\n        move",
        ),
        (
            "polytope: derivative in A without the move of the slacks",
            f"{CORE}polytope",
            "(1 / point.slacks) @ normals_dot + (pushed",
            "(1 / point.slacks) @ normals_dot + 0 * (pushed",
        ),
    ),
    *found_by(
        f"{TESTS}_product.py",
        "test_blocks_are_those_of_their_maps",
        (),
        (
            "product: one key for all blocks",
            f"{CORE}product",
            "one.hessian_noise(next(keys), theta)",
            "one.hessian_noise(key, theta)",
        ),
        (
            "product: volume of the first point of each block",
            f"{CORE}product",
            "jnp.sum(one.log_det_dual_hessian(eta), -1)",
            "one.log_det_dual_hessian(eta)[..., 0]",
        ),
    ),
    *found_by(
        "inference/test_mirrored_target.py",
        "test_the_dual_density_is_that_of_the_unconstrained_space",
        (),
        (
            "mirrored target: no Jacobian of other sites",
            TARGET,
            "(*log_probs.values(), *log_dets)",
            "log_probs.values()",
        ),
        (
            "mirrored target: bounds that another site moves",
            TARGET,
            "if not any(jax.tree.leaves(moved[name]))",
            "if moved",
        ),
        (
            "mirrored target: map in the model's order",
            TARGET,
            "in sorted(sites):",
            "in sites:",
        ),
        (
            "mirrored target: bound of a half-line dropped",
            TARGET,
            "mirror.orthant(low) if",
            "mirror.orthant() if",
        ),
        (
            "mirrored target: bounds of one step of a scan",
            TARGET,
            '"_scan_current_index" in site["infer"] and',
            "False and",
        ),
    ),
)
