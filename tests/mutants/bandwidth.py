"""Seeded bugs of bandwidth rules and of the tracked median."""

from mutants.table import found_by

TESTS = "sampling/core/test_bandwidth.py"
BANDWIDTH = "shoal.sampling.core.bandwidth"
SORTED = "test_rules_are_the_sorted_ones_for_even_and_odd_numbers"
DEGENERATE = "test_degenerate_clouds_have_a_positive_bandwidth"

BUGS = (
    *found_by(
        TESTS,
        SORTED,
        (7,),
        (
            "lower middle of an odd number",
            BANDWIDTH,
            "return (pairs + 1) // 2, np",
            "return pairs // 2, np",
        ),
        (
            "zeros of the diagonal not taken off",
            BANDWIDTH,
            "-(-(rank - num) // 2)",
            "-(-rank // 2)",
        ),
        ("log n for log(n + 1)", BANDWIDTH, "jnp.log1p(size)", "jnp.log(size)"),
        ("log(n + 1) for log n", BANDWIDTH, "** 2 / jnp.log(size)", "** 2 / jnp.log1p(size)"),
    ),
    *found_by(
        TESTS,
        SORTED,
        (8,),
        (
            "diagonal among the pairs",
            BANDWIDTH,
            "rows[1][:, None] == points[1], jnp.inf",
            "rows[1][:, None] == points[1], 0",
        ),
        ("one middle of an even number", BANDWIDTH, "_digits(wanted[1] + 2)", "_digits(wanted[1])"),
        (
            "median of squares, not squared median",
            BANDWIDTH,
            "((jnp.sqrt(first) + jnp.sqrt(second)) / 2) ** 2",
            "(first + second) / 2",
        ),
        ("the other one of two middles", BANDWIDTH, "total - total // 2 + 1", "total - total // 2"),
    ),
    *found_by(
        TESTS,
        DEGENERATE,
        ("median_all",),
        ("zero where particles coincide", BANDWIDTH, "(median < smallest) | (count", "(count"),
        ("rounding taken for distance", BANDWIDTH, "q <= noise * norms", "q <= 0 * norms"),
        (
            "a lost particle is not told",
            BANDWIDTH,
            "finite = jnp.all(jnp.isfinite(particles))",
            "finite = True",
        ),
    ),
    *found_by(
        TESTS,
        "test_counts_beyond_32_bits_are_compared_exactly",
        (),
        ("carry lost beyond 32 bits", BANDWIDTH, "jnp.sum(high) + carried", "jnp.sum(high)"),
    ),
    *found_by(
        TESTS,
        "test_tracked_bandwidth_is_the_rule_with_the_diagonal_left_out",
        (),
        (
            "tracked: a point is near itself",
            BANDWIDTH,
            "where(where, near - 1, rest",
            "where(where, near, rest",
        ),
        (
            "tracked: not divided by log n",
            BANDWIDTH,
            "self.threshold / jnp.log(size)",
            "self.threshold",
        ),
        (
            "tracked: away from the median",
            BANDWIDTH,
            "jnp.clip(-score / slope",
            "jnp.clip(score / slope",
        ),
    ),
)
