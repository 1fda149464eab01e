"""Seeded bugs of Stein discrepancies: the kernel, its sums, thinning, weights, points, results."""

from mutants.table import found_by

TESTS = "inference/test_stein_discrepancy.py"
SUMS = "shoal.sampling.core._stein_sums"
KSD = "shoal.inference._stein_discrepancy"
THINNING = "shoal.inference._stein_thinning"
WEIGHTS = "shoal.inference._stein_weights"
POINTS = "shoal.inference._stein_points"
RESULT = "shoal.inference._stein_result"
OPERATOR = "test_the_kernel_is_steins_operator_on_both_arguments"
REFERENCE = "test_thinning_chooses_what_the_reference_chooses"

BUGS = (
    *found_by(
        TESTS,
        OPERATOR,
        ("imq",),
        ("curvature halved", SUMS, "- 4 * q * jet.qq", "- 2 * q * jet.qq"),
        ("trace left out", SUMS, "product_x + dim", "product_x"),
        ("sum of scores in the slopes", SUMS, "[-scores_x, -x,", "[scores_x, -x,"),
        ("diagonal kept", SUMS, 'rows["index"][:, None] != points["index"]', "True"),
        ("mirrored tiles left out", SUMS, "jnp.where(i == j, here, 2 * here)", "here"),
        ("pairs counted with the diagonal", KSD, " / (1 - jnp.sum(w**2))", ""),
    ),
    *found_by(
        TESTS,
        "test_float32_keeps_its_digits_far_from_the_origin",
        (),
        ("slopes off centre", SUMS, "    x, y = -0.5 * a[:, :dim], c[:, :dim]\n", ""),
    ),
    *found_by(
        TESTS,
        "test_the_bandwidth_is_the_median_of_the_samples",
        (),
        ("median of other pairs", KSD, '"median_all"', '"median_offdiag_log"'),
    ),
    *found_by(
        TESTS,
        REFERENCE,
        ("smpcov",),
        ("the first choice alone counts in full", THINNING, "objective + 2 * column(best)",
         "objective + column(best)"),
        ("standard deviations", THINNING, "jnp.mean(jnp.abs(x - jnp.mean(x, axis=0)), axis=0)",
         "jnp.std(x, axis=0)"),
        ("trace of the identity", THINNING, "jnp.sum(root**2)", "x.shape[1]"),
        ("preconditioned once", THINNING, "(x @ root @ root.T).T", "(x @ root).T"),
    ),
    *found_by(
        TESTS,
        REFERENCE,
        ("sclmed",),
        ("logarithm in the wrong name", THINNING, 'if name == "med"', 'if name == "sclmed"'),
    ),
    *found_by(
        TESTS,
        "test_weights_are_the_best_there_are",
        (),
        ("half the gap", WEIGHTS, "return 2 * (", "return ("),
        ("steps too long", WEIGHTS, "rate = 1 / (_MARGIN", "rate = 4 / (_MARGIN"),
    ),
    *found_by(
        TESTS,
        "test_points_are_laid_where_a_grid_finds_the_least",
        (),
        ("own term in full", POINTS, "stein_diagonal(kernel, s) / 2 + others",
         "stein_diagonal(kernel, s) + others"),
    ),
    *found_by(
        TESTS,
        "test_descent_beats_independent_draws",
        (),
        ("scores held fixed", POINTS, "        s = score(x)\n",
         "        s = jax.lax.stop_gradient(score(x))\n"),
    ),
    *found_by(
        TESTS,
        "test_a_results_discrepancy_is_that_of_its_unconstrained_scaled_draws",
        (),
        ("scores not scaled", RESULT, "x / scale, s * scale", "x / scale, s"),
        ("chains count in full", RESULT, "weights.ravel() / len(x)", "weights.ravel()"),
        ("scale of every draw", RESULT, "jnp.abs(x[:, ::step] - mean(x[:, ::step]))",
         "jnp.abs(x[:, ::step])"),
    ),
)  # fmt: skip
