"""Seeded bugs of the estimated bias and of the rating of efficiency."""

from mutants.table import found_by

TESTS = "inference/test_bias.py"
SUMMARY = "inference/test_summary.py"
BIAS = "shoal.inference.bias"
TABLE = "shoal.inference.summary"
CALIBRATED = "test_standard_errors_are_calibrated"
CORRELATED = "test_correlation_adds_no_bias_and_hides_none"
KNOWN = "test_known_errors_are_found"
SCORES = "test_scores_are_those_of_the_target_where_the_chain_is"
RATED = "test_efficiency_is_rated_only_of_chains_that_are_long_enough_and_agree"
SENTENCE = "test_the_sentence"

BUGS = (
    *found_by(
        TESTS,
        CALIBRATED,
        (0.5, 1),
        ("errors as if draws were batches", BIAS, "_BATCHES = 20", "_BATCHES = 100"),
        ("error of the sum", BIAS, "len(batch) ** 0.5 for", "len(batch) for"),
    ),
    *found_by(
        TESTS,
        CORRELATED,
        (),
        (
            "the correlation of the same draws",
            BIAS,
            "_correlation(pieces, other, length)",
            "_correlation(pieces, half, length)",
        ),
        ("correlation ignored", BIAS, "_LARGEST_MATRIX = 512", "_LARGEST_MATRIX = 5"),
    ),
    *found_by(
        TESTS,
        KNOWN,
        ("Gumbel, shifted",),
        ("a shift is missed", BIAS, "2 * slope * x + square * along", "0 * x"),
        ("a field without its divergence", BIAS, "slope + x * along", "x * along"),
    ),
    *found_by(
        TESTS,
        KNOWN,
        ("too wide",),
        ("relative to the draws", BIAS, "/ true_variance - 1", "- true_variance"),
        ("scores not in standard units", BIAS, "s[part] * scale", "s[part] / scale"),
    ),
    *found_by(
        TESTS,
        SCORES,
        ("mala",),
        ("exact samplers have bias too", BIAS, "not sampler.is_adjusted", "True"),
    ),
    *found_by(
        TESTS,
        SCORES,
        ("myula",),
        ("the score of a smoothed density", BIAS, '.get("prox")', '.get("")'),
    ),
    *found_by(
        TESTS,
        SENTENCE,
        (),
        ("noise is left in", BIAS, "bias**2 - error**2", "bias**2"),
        ("the largest has no sign", BIAS, "np.argmax(np.abs(variance))", "np.argmax(variance)"),
    ),
    *found_by(
        SUMMARY,
        RATED,
        (),
        ("rated however few", TABLE, "_RATED_ESS = 400", "_RATED_ESS = 0"),
        ("rated though chains disagree", TABLE, "r_hat.max() >= _R_HAT", "r_hat.min() > 2"),
        (
            "warm-up is free",
            TABLE,
            "self.num_gradients + self.num_gradients_warmup",
            "self.num_gradients",
        ),
        ("the best scalar's", TABLE, "1000 * ess.min() / cost", "1000 * ess.max() / cost"),
    ),
)
