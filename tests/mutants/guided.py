"""Seeded bugs of guided sampling, local entropy, OU processes and the natural gradient."""

from mutants.table import found_by

PLACE = "sampling/langevin/test_"
GUIDED = "shoal.sampling.langevin.guided"
ENTROPY = "shoal.sampling.langevin.local_entropy"
OU = "shoal.sampling.langevin.ornstein_uhlenbeck"
LAW = "shoal.sampling.langevin._affine_law"
NATURAL = "shoal.sampling.langevin.natural_gradient"

BUGS = (
    *found_by(
        f"{PLACE}guided.py",
        "z_quadratic",
        (),
        (
            "guided: gradient times s/2 in place of 1 - √(1 - s)",
            GUIDED,
            "move = (1 - here.decay) * push",
            "move = here.variance / 2 * push",
        ),
        ("guided: temperature multiplies", GUIDED, "pull = 1 / jnp.as", "pull = jnp.as"),
    ),
    *found_by(
        f"{PLACE}guided.py",
        "z_clock",
        (),
        ("clock: no correction", GUIDED, "pull + slope / speed", "pull"),
        ("clock: released code's sign", GUIDED, "pull + slope / speed", "pull - slope / speed"),
    ),
    *found_by(
        f"{PLACE}guided.py",
        "z_adjusted",
        (True,),
        (
            "guided, adjusted: prior not in the ratio",
            GUIDED,
            "change = change + _prior_change(here, there, x, y)",
            "pass",
        ),
        ("guided, adjusted: half the correction", GUIDED, "x.size / 2 *", "x.size / 4 *"),
        ("guided, adjusted: sign of the reverse move", GUIDED, "x - there.d", "there.d"),
    ),
    *found_by(
        f"{PLACE}local_entropy.py",
        "test_quadratic_at_zero_temperature",
        (3.0, 0.05),
        ("local entropy: towards the mean", ENTROPY, "unravel(-gamma", "unravel(gamma"),
        ("local entropy: no pull", ENTROPY, "decay * distance - slope", "distance - slope"),
    ),
    *found_by(
        f"{PLACE}local_entropy.py",
        "test_one_step_moves_by_the_gradient_it_was_given",
        (),
        ("local entropy: start in the average", ENTROPY, "/ (1 - weight**num_steps)", ""),
    ),
    *found_by(
        f"{PLACE}local_entropy.py",
        "z_noisy_mean",
        (),
        ("local entropy: noise of the wrong spread", ENTROPY, "-2 * gamma * h", "-gamma * h"),
    ),
    *found_by(
        f"{PLACE}ornstein_uhlenbeck.py",
        "test_transition_is_exact",
        ("general", 0.7),
        ("OU: A for its transpose", LAW, "block_diag(-drift, drift.T", "block_diag(-drift, drift"),
        ("OU: one doubling short", LAW, "(0, halvings,", "(1, halvings,"),
        ("OU: noise doubled without decay", LAW, "after @ covariance @ after.T", "covariance"),
    ),
    *found_by(
        f"{PLACE}ornstein_uhlenbeck.py",
        "test_directions_without_drift_diffuse",
        (),
        ("OU: nothing diffuses without drift", LAW, "rate == 0, t,", "rate == 0, 0 * t,"),
    ),
    *found_by(
        f"{PLACE}ornstein_uhlenbeck.py",
        "z_solve",
        ("symmetric",),
        ("OU: errors of independent draws", OU, "zero], [step[0], eye]", "zero], [zero, eye]"),
    ),
    *found_by(
        f"{PLACE}ornstein_uhlenbeck.py",
        "z_inverse",
        (),
        ("OU: no cross term in the error", OU, "jnp.sqrt(squares + crosses)", "jnp.sqrt(squares)"),
    ),
    *found_by(
        f"{PLACE}ornstein_uhlenbeck.py",
        "z_natural_gradient_noise",
        (),
        ("natural gradient: half the noise", NATURAL, "jnp.sqrt(2 * warmth", "jnp.sqrt(warmth"),
        (
            "natural gradient: no noise outside of F",
            NATURAL,
            "outside @ vectors",
            "outside[:2] @ vectors[:2]",
        ),
    ),
    *found_by(
        f"{PLACE}ornstein_uhlenbeck.py",
        "test_natural_gradient_remembers_its_direction",
        (),
        ("natural gradient: forgets", NATURAL, "key, direction)", "key, state.direction)"),
    ),
)  # fmt: skip
