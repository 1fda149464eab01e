"""Seeded bugs of reductions over pairs: tiles, padding, centring, diagonal, softmax."""

from mutants.table import found_by

TESTS = "sampling/core/test_pairwise.py"
DERIVATIVES = "sampling/core/test_pairwise_derivatives.py"
PROGRAMS = "sampling/core/test_pairwise_programs.py"
SUMS = "shoal.sampling.core._kernel_sums"
SOFTMAX = "shoal.sampling.core._softmax"
TILES = "shoal.sampling.core._tiles"
PAIRWISE = "shoal.sampling.core.pairwise"
BRUTE_FORCE = "test_kernel_sums_are_the_brute_force_ones"
DIGITS = "test_float32_keeps_its_digits_at_an_offset_of_a_thousand"
DIAGONAL = "test_double_sums_with_and_without_the_diagonal"
SCIPY = "test_softmax_is_scipy_s_with_keys_of_no_weight"

BUGS = (
    *found_by(
        TESTS,
        BRUTE_FORCE,
        ("rbf", 6),
        ("gradient away from x", SUMS, "centred_x = -0.5 *", "centred_x = 0.5 *"),
        ("gradient of half the size", SUMS, "slope = 2 * w *", "slope = w *"),
        (
            "one centre for keys alone",
            SUMS,
            "x, y = x - centre, y - centre",
            "x, y = x, y - centre",
        ),
        ("values not weighted beside gradients", SUMS, ".add(weights.values)", ".add(1.0)"),
        (
            "first column block left out",
            TILES,
            "empty, columns)[0]",
            "empty, jax.tree.map(lambda leaf: leaf[1:], columns))[0]",
        ),
        (
            "first column block twice",
            TILES,
            "empty, columns)[0]",
            "tile(parameters, row_block, *first), columns)[0]",
        ),
        (
            "padding column counted",
            TILES,
            "_pad(weights, column_side, reduction.padding)",
            "_pad(weights, column_side)",
        ),
        (
            "threshold is a distance",
            SUMS,
            "jnp.where(q <= threshold",
            "jnp.where(q <= threshold**2",
        ),
    ),
    *found_by(
        TESTS,
        BRUTE_FORCE,
        ("imq", 6),
        (
            "curvature for slope",
            SUMS,
            "broadcast_to(jet.q, q.shape)",
            "broadcast_to(jet.qq, q.shape)",
        ),
        (
            "values forgotten beside gradients",
            SUMS,
            ".add(dot(value, weights.values))",
            ".add(0.0)",
        ),
    ),
    *found_by(
        TESTS,
        BRUTE_FORCE,
        ("linear", 6),
        ("inner product's gradient is y", SUMS, 'rows["x"] * dot(', 'points["y"].mean(0) * dot('),
    ),
    *found_by(
        TESTS,
        BRUTE_FORCE,
        ("a function", 6),
        ("gradient in the first point", SUMS, "kernel(x, y + shift)", "kernel(x + shift, y)"),
    ),
    *found_by(
        TESTS,
        DIGITS,
        (100,),
        (
            "distances not centred",
            SUMS,
            "centre = fixed_mean(y)\n    x, y",
            "centre = 0 * fixed_mean(y)\n    x, y",
        ),
        (
            "averaged values not centred",
            SOFTMAX,
            "else fixed_mean(values)",
            "else 0 * fixed_mean(values)",
        ),
    ),
    *found_by(
        TESTS,
        DIAGONAL,
        (5,),
        (
            "all but the diagonal excluded",
            SUMS,
            '"index"][:, None] != points',
            '"index"][:, None] == points',
        ),
        (
            "diagonal of each tile excluded",
            SUMS,
            'keep = rows["index"][:, None] != points["index"]',
            'keep = ~jnp.eye(rows["index"].size, points["index"].size, dtype=bool)',
        ),
        (
            "diagonal counted as near",
            SUMS,
            "near = jnp.sum(_masked(keep, ",
            "near = jnp.sum(_masked(None, ",
        ),
        ("weights of rows ignored", PAIRWISE, "jnp.sum(w * total[:, 0])", "jnp.sum(total[:, 0])"),
    ),
    *found_by(
        TESTS,
        SCIPY,
        (0.5, 4),
        ("cost is the whole squared distance", SOFTMAX, "0.5 / epsilon, a", "1.0 / epsilon, a"),
        (
            "bias not divided by epsilon",
            SOFTMAX,
            "jnp.where(live, bias, 0) / epsilon",
            "jnp.where(live, bias, 0)",
        ),
        (
            "old blocks not scaled to the new peak",
            SOFTMAX,
            "total = scales[0] * left[1]",
            "total = left[1]",
        ),
        ("moments not scaled to the new peak", SOFTMAX, "scales[0][:, None] * left[2]", "left[2]"),
        (
            "padding key counts like a bias of zero",
            SOFTMAX,
            "identity, -jnp.inf)",
            "identity, 0.0)",
        ),
        (
            "peak left out of the log-normaliser",
            SOFTMAX,
            "log_total + _finite(peak))",
            "log_total)",
        ),
    ),
    *found_by(
        DERIVATIVES,
        "test_derivatives_in_every_argument_both_ways",
        ("logsumexp", 4),
        (
            "derivative stops at the centred points",
            SOFTMAX,
            "a, c = distance_factors(x, y)",
            "a, c = jax.lax.stop_gradient(distance_factors(x, y))",
        ),
    ),
    *found_by(
        DERIVATIVES,
        "test_second_derivatives_hold_where_points_coincide",
        (),
        (
            "clipped distance without its derivative",
            SUMS,
            "return q + jax.lax.stop_gradient(jnp.maximum(-q, 0))",
            "return jnp.maximum(q, 0)",
        ),
    ),
    *found_by(
        TESTS,
        "test_no_key_at_all_gives_minus_infinity_and_no_mean",
        (2,),
        (
            "0 * inf in the derivative of a dead key",
            SOFTMAX,
            "jnp.where(live, jnp.where(live, bias, 0) / epsilon, -jnp.inf)",
            "bias / epsilon",
        ),
    ),
    *found_by(
        PROGRAMS,
        "test_compiled_memory_of_derivatives_grows_with_points_not_pairs",
        ("both",),
        (
            "tiles kept for the backward pass",
            TILES,
            "tile = jax.checkpoint(reduction.tile, prevent_cse=False)",
            "tile = reduction.tile",
        ),
    ),
)
