"""Seeded bugs of the statistical tests themselves: scales, pairing, laws, ranks, rounds."""

from mutants.table import found_by

TESTS = "inference/test_diagnostics.py"
RANK_TESTS = "inference/test_rank_test.py"
LAWS = "sampling/langevin/test_laws.py"
MOMENTS = "shoal.inference._moment_tests"
FEATURES = "shoal.inference._features"
PARTICLES = "shoal.inference._particles_under_test"
LINEAR = "shoal.inference._linear_gaussian"
RANKS = "shoal.inference._rank_test"
ROUNDS = "shoal.inference._sequential_test"

BUGS = (
    *found_by(
        TESTS,
        "TestInvariance.test_z_is_that_of_the_paired_differences",
        (),
        (
            "start of another particle: not paired",
            MOMENTS,
            "(measure.function, starts, ends)",
            "(measure.function, jax.tree.map(lambda leaf: leaf[::-1], starts), ends)",
        ),
        (
            "standard deviation for standard error",
            MOMENTS,
            "max(count - 1, 1) / max(count, 1))",
            "max(count - 1, 1))",
        ),
        (
            "antisymmetric feature with a plus",
            FEATURES,
            "u[i] * v[j] - v[i] * u[j]",
            "u[i] * v[j] + v[i] * u[j]",
        ),
        (
            "spread between batches forgotten",
            MOMENTS,
            " + shift**2 * count * len(block) / total",
            "",
        ),
        (
            "padding of the last batch counted",
            MOMENTS,
            "np.asarray(values, np.float64)[:size]",
            "np.asarray(values, np.float64)",
        ),
    ),
    *found_by(
        TESTS,
        "z_of_invariance_z",
        (),
        (
            "one key for all particles",
            PARTICLES,
            "fold_in(step_key(key, step + 1), particle)",
            "fold_in(step_key(key, step + 1), 0)",
        ),
    ),
    *found_by(
        TESTS,
        "TestInvariance.test_p_values_are_two_sided_and_corrected",
        (),
        (
            "one-sided p values",
            MOMENTS,
            "erfc(np.abs(self.z) / math.sqrt(2))",
            "erfc(np.abs(self.z) / math.sqrt(2)) / 2",
        ),
        (
            "no correction for many features",
            MOMENTS,
            "self.p_values.size * self.p_values.min()",
            "self.p_values.min()",
        ),
    ),
    *found_by(
        TESTS,
        "TestInvariance.test_rounding_of_a_conserved_quantity_is_no_error",
        (),
        ("rounding taken for an error", FEATURES, "rounding = 16 *", "rounding = 0 *"),
    ),
    *found_by(
        TESTS,
        "TestInvariance.test_values_that_are_not_finite_fail_and_are_counted",
        (),
        (
            "lost particles pass",
            MOMENTS,
            "<= self.threshold and not self.num_nonfinite and",
            "<= self.threshold and",
        ),
    ),
    *found_by(
        LAWS,
        "z_law",
        ("obabo", "diagonal"),
        (
            "start and first step share a key",
            PARTICLES,
            "step_key(key, step + 1)",
            "step_key(key, step)",
        ),
    ),
    *found_by(
        LAWS,
        "z_law",
        ("ula", "dense"),
        (
            "law of the end without the start",
            LINEAR,
            "residual = stationary - power @ stationary @ power.T",
            "residual = stationary",
        ),
        (
            "one step too few",
            LINEAR,
            "matrix_power(f, num_steps)",
            "matrix_power(f, num_steps - 1)",
        ),
        (
            "transition transposed",
            LINEAR,
            "v - times(self.transition, u)",
            "v - times(self.transition.T, u)",
        ),
        ("fourth moment of a standard normal is one", LINEAR, "r**4 - 3", "r**4 - 1"),
    ),
    *found_by(
        RANK_TESTS,
        "TestRank.test_ties_are_broken_evenly",
        (),
        ("degrees of freedom not reduced", RANKS, "chdtrc(num_states - 1,", "chdtrc(num_states,"),
        (
            "ties always last",
            RANKS,
            "randint(key_ties, first.shape, 0, equal + 1)",
            "randint(key_ties, first.shape, 0, 1)",
        ),
    ),
    *found_by(
        RANK_TESTS,
        "z_ranks",
        (),
        (
            "backward from where the chain went",
            RANKS,
            "jnp.where(turn, a, b), state, current)",
            "jnp.where(turn, b, b), state, current)",
        ),
    ),
    *found_by(
        RANK_TESTS,
        "TestSequential.test_rounds_follow_the_algorithm",
        (),
        ("passed a little early", ROUNDS, "found[-1] > gamma + beta", "found[-1] > gamma"),
        ("wrong power", ROUNDS, "beta ** (1 / num_rounds)", "beta ** (1 / (num_rounds - 1))"),
        ("samples grow in every round", ROUNDS, "if i == 0:", "if i >= 0:"),
    ),
    *found_by(
        RANK_TESTS,
        "TestSequential.test_rounds_have_their_own_keys",
        (),
        ("rounds repeat one sample", ROUNDS, "jax.random.fold_in(key, i)", "key"),
    ),
)
