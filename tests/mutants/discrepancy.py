"""Seeded bugs of discrepancies: moments, transport, pair sums, neighbours, classes."""

from mutants.table import found_by

TESTS = "inference/test_discrepancy.py"
PAIRED = "shoal.inference._paired_error"
TRANSPORT = "shoal.inference._transport"
KERNEL = "shoal.inference._kernel_discrepancy"
MEMORISATION = "shoal.inference._memorisation"
COPIES = "test_copies_are_memorised_and_few_copies_are_counted"
FORMULA = "test_frechet_distance_is_the_formula_also_of_few_samples"
NEIGHBOURS = "test_nearest_neighbours_are_those_of_a_double_loop_and_copies_are_at_zero"

BUGS = (
    *found_by(
        TESTS,
        "test_one_sample_in_the_wrong_mode_makes_the_rmse_and_not_the_median",
        (),
        ("mean for median", PAIRED, "jnp.median(", "jnp.mean("),
        ("sum over coordinates", PAIRED, "jnp.mean(_squares(samples, reference), axis=1)",
         "jnp.sum(_squares(samples, reference), axis=1)"),
    ),
    *found_by(
        TESTS,
        FORMULA,
        (40, 1e-25),
        ("covariance divided by n", TRANSPORT, "np.sqrt(len(x) - 1)", "np.sqrt(len(x))"),
        ("roots not turned onto each other", TRANSPORT, "root @ (left @ right)", "root"),
        ("mean left out", TRANSPORT, "(x.mean(axis=0) - mean) ** 2", "0 * mean"),
    ),
    *found_by(
        TESTS,
        "test_on_a_line_it_is_the_wasserstein_distance_of_any_two_sizes",
        (4, 2.5),
        ("the next quantile", TRANSPORT, "return (ends - 1) // n, (", "return ends // n, ("),
        ("every gap counts the same", TRANSPORT, "mass.astype(gap.dtype)", "1 / len(mass)"),
        ("not sorted", TRANSPORT, "(jnp.sort(dot(", "((dot("),
        ("without the root", TRANSPORT, " ** (1 / power)", ""),
    ),
    *found_by(
        TESTS,
        "z_shift",
        (),
        ("directions not of unit length", TRANSPORT, "directions /= jnp.linalg.norm",
         "directions /= 0.9 * jnp.linalg.norm"),
        ("uniform in a cube", TRANSPORT, "jax.random.normal(key, (num_projections, x.shape[1])",
         "jax.random.uniform(key, (num_projections, x.shape[1])"),
    ),
    *found_by(
        TESTS,
        "test_mmd_and_energy_are_their_double_loops",
        ("energy", True),
        ("pairs counted with the diagonal", KERNEL, "(len(points) - unbiased)", "len(points)"),
        ("cross term once", KERNEL, "- 2 * across", "- across"),
    ),
    *found_by(
        TESTS,
        "test_mmd_and_energy_are_their_double_loops",
        ("rbf", False),
        ("diagonal left out of all pairs", KERNEL, "exclude_diagonal=skip_diagonal",
         "exclude_diagonal=True"),
    ),
    *found_by(
        TESTS,
        NEIGHBOURS,
        (),
        ("the later block's", MEMORISATION, "is_nearer = b[0] < a[0]", "is_nearer = b[0] < 1e9"),
        ("place within the block", MEMORISATION, 'points["index"][jnp.argmin(q, axis=1)]',
         "jnp.argmin(q, axis=1).astype(jnp.int32)"),
    ),
    *found_by(
        TESTS,
        COPIES,
        (),
        ("the other side", MEMORISATION, 'alternative="less"', 'alternative="greater"'),
        ("both sides", MEMORISATION, 'alternative="less"', 'alternative="two-sided"'),
        ("ratio upside down", MEMORISATION, "sample_median / held_out_median,",
         "held_out_median / sample_median,"),
        ("nearer than the median", MEMORISATION, "near < usual.min()", "near < held_out_median"),
    ),
)  # fmt: skip
