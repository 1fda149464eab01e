"""Seeded bugs of the random numbers: by key, particle and step, and nothing else."""

from mutants.table import found_by

TESTS = "sampling/core/test_random.py"
RANDOM = "shoal.sampling.core.random"

BUGS = (
    *found_by(
        TESTS,
        "test_normal_is_the_documented_function_of_key_particle_and_step",
        (),
        (
            "a particle's place for its id",
            RANDOM,
            "fold_in, (None, 0))(key, particle_ids)",
            "fold_in, (None, 0))(key, jnp.arange(len(particle_ids)))",
        ),
        (
            "keys split by the number of particles",
            RANDOM,
            "jax.vmap(jax.random.fold_in, (None, 0))(key, particle_ids)",
            "jax.random.split(key, len(particle_ids))",
        ),
        (
            "steps counted from one",
            RANDOM,
            "fold_in(key, _as_step(step))",
            "fold_in(key, step + 1)",
        ),
    ),
    *found_by(
        TESTS,
        "test_particles_and_steps_do_not_share_numbers",
        (),
        (
            "step not folded in",
            RANDOM,
            "particle_keys(step_key(key, step), particle_ids)",
            "particle_keys(key, particle_ids)",
        ),
        (
            "particle not folded in",
            RANDOM,
            "particle_keys(step_key(key, step), particle_ids)",
            "particle_keys(step_key(key, step), 0 * particle_ids)",
        ),
        (
            "step and particle added up",
            RANDOM,
            "particle_keys(step_key(key, step), particle_ids)",
            "particle_keys(key, particle_ids + step)",
        ),
    ),
    *found_by(
        TESTS,
        "z_normal",
        (),
        ("logistic, not normal", RANDOM, "jax.random.normal(k, ", "0.55 * jax.random.logistic(k, "),
        (
            "one number for all entries",
            RANDOM,
            "jax.random.normal(k, sizes, dtype)",
            "jnp.full(sizes, jax.random.normal(k))",
        ),
    ),
)
