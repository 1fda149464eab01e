"""Seeded bugs of the samplers with estimated scores, their estimators and their minibatches."""

from mutants.table import found_by

TESTS = "sampling/langevin/test_stochastic.py"
TARGETS = "inference/test_minibatch.py"
SGLD = "shoal.sampling.langevin.stochastic"
KINETIC = "shoal.sampling.langevin.stochastic_kinetic"
ESTIMATORS = "shoal.sampling.langevin.gradient_estimators"
MINIBATCHES = "shoal.sampling.core.minibatches"
MODELS = "shoal.inference.minibatch"
UNBIASED = "test_the_mean_over_all_batches_is_what_all_the_data_say"

BUGS = (
    *found_by(
        TESTS,
        "z_law",
        ("sgld",),
        (
            "one key for noise and batch",
            SGLD,
            "key_noise, key_batch = jax.random.split(key)",
            "key_noise = key_batch = key",
        ),
        (
            "the same batch in every step",
            SGLD,
            "next_batch(density, key_batch, batch)",
            "next_batch(density, jax.random.key(0), batch)",
        ),
        ("temperature forgotten", SGLD, "2 * h * jnp.asarray(temperature, x.dtype)", "2 * h"),
    ),
    *found_by(
        TESTS,
        "z_law",
        ("sghmc",),
        (
            "gradient noise taken for its share per unit of time",
            KINETIC,
            "share * h**2 *",
            "share * h *",
        ),
        (
            "momentum damped over half a step",
            KINETIC,
            "jnp.exp(-z * h) * w",
            "jnp.exp(-z * h / 2) * w",
        ),
    ),
    *found_by(
        TESTS,
        "test_the_thermostat_finds_the_temperature_that_friction_alone_misses",
        (),
        (
            "thermostat by the kinetic energy",
            KINETIC,
            "excess = jnp.mean(w**2)",
            "excess = jnp.mean(w**2) / 2",
        ),
    ),
    *found_by(
        TESTS,
        UNBIASED,
        ("plain",),
        (
            "prior scaled with the likelihood",
            MINIBATCHES,
            "prior + minibatches.num_data / size * jnp.sum(terms)",
            "minibatches.num_data / size * (prior + jnp.sum(terms))",
        ),
    ),
    *found_by(
        TESTS,
        UNBIASED,
        ("control variates",),
        ("correction with the wrong sign", ESTIMATORS, "e + (h - t)", "e + (t - h)"),
    ),
    *found_by(
        TESTS,
        "test_svrg_goes_through_all_the_data_only_when_it_is_due",
        (),
        (
            "renewal a step late",
            ESTIMATORS,
            "is_due = memory.age >= self.refresh_every",
            "is_due = memory.age > self.refresh_every",
        ),
    ),
    *found_by(
        TESTS,
        "z_subsets",
        (),
        ("last row never drawn", MINIBATCHES, "0, last + 1,", "0, last,"),
    ),
    *found_by(
        TARGETS,
        "test_the_mean_over_all_batches_is_the_model_without_subsampling",
        ("indexed",),
        (
            "full density from the first rows",
            MODELS,
            "jnp.arange(size)",
            "jnp.arange(size) // 2",
        ),
    ),
)
