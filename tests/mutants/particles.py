"""Seeded bugs of ensembles: masks, weights, resampling."""

import numpy as np
from mutants.table import found_by

TESTS = "sampling/core/test_particles.py"
PARTICLES = "shoal.sampling.core.particles"

BUGS = (
    *found_by(
        TESTS,
        "test_a_particle_with_any_number_not_finite_stays_and_dies",
        (),
        ("the dead come back", PARTICLES, "moves = alive & finite", "moves = finite"),
        ("one finite number is enough", PARTICLES, "finite &= jnp.all(", "finite &= jnp.any("),
    ),
    *found_by(
        TESTS,
        "test_sums_over_pairs_are_those_of_the_living_alone",
        (np.nan,),
        (
            "the dead stay where they are",
            PARTICLES,
            "return jnp.where(_per_row(alive, leaf), leaf",
            "return jnp.where(True, leaf",
        ),
    ),
    *found_by(
        TESTS,
        "test_normalisation_and_effective_size_ignore_the_scale",
        (),
        (
            "weights not normalised",
            PARTICLES,
            "log_weights - jnp.where(dead, 0, total)",
            "log_weights",
        ),
        ("effective size of the weights' sum", PARTICLES, "logsumexp(2 * ", "logsumexp(1 * "),
    ),
    *found_by(
        TESTS,
        "test_dead_weights_become_uniform_not_nan",
        (),
        ("uniform weights of one", PARTICLES, "jnp.where(dead, uniform", "jnp.where(dead, 0.0"),
    ),
    *found_by(
        TESTS,
        "z_copies",
        (7,),
        (
            "resampling: always from the middle of a cell",
            PARTICLES,
            "jax.random.uniform(key, dtype=levels.dtype)",
            "0.5",
        ),
        (
            "resampling: points too close",
            PARTICLES,
            "dtype=levels.dtype)) / num",
            "dtype=levels.dtype)) / (num + 0.05)",
        ),
        (
            "resampling: by the roots of the weights",
            PARTICLES,
            "weights = jnp.exp(normal",
            "weights = jnp.sqrt(normal",
        ),
    ),
    *found_by(
        TESTS,
        "test_systematic_resampling_copies_floor_or_ceil",
        (7,),
        (
            "resampling: a number for each cell",
            PARTICLES,
            "jax.random.uniform(key, dtype=levels.dtype)",
            "jax.random.uniform(key, (num,), dtype=levels.dtype)",
        ),
    ),
    *found_by(
        TESTS,
        "test_resampling_never_picks_a_weightless_last_particle",
        (),
        (
            "resampling: rounding of partial sums",
            PARTICLES,
            "levels = levels / levels[-1]",
            "levels = levels",
        ),
    ),
)
