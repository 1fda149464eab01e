"""Seeded bugs of the warm-up: step sizes, metric, windows, the borrowed accept-reject step."""

from mutants.table import found_by

TESTS = "inference/test_warmup.py"
WARMUP = "shoal.inference.warmup"

BUGS = (
    *found_by(
        TESTS,
        "test_step_sizes_and_metric_are_those_of_stan_s_formulas",
        ("diagonal",),
        (
            "last step size for the average",
            WARMUP,
            "jnp.exp(state.step_size.log_step_size_avg)",
            "jnp.exp(state.step_size.log_step_size)",
        ),
        (
            "averaged step size while tuning",
            WARMUP,
            "jnp.exp(step_size.log_step_size))\n        return",
            "jnp.exp(step_size.log_step_size_avg))\n        return",
        ),
        (
            "rejection for acceptance",
            WARMUP,
            "(state.step_size, rate)",
            "(state.step_size, 1 - rate)",
        ),
        (
            "acceptance of all chains averaged",
            WARMUP,
            "(state.step_size, rate)",
            "(state.step_size, jnp.mean(rate) + 0 * rate)",
        ),
        (
            "metric learnt in the fast phases",
            WARMUP,
            "self.is_slow[state.step]",
            "~self.is_slow[state.step]",
        ),
        ("metric learnt a step late", WARMUP, "(m, states.position)", "(m, state.chains.position)"),
        (
            "window ends a step late",
            WARMUP,
            "self.is_window_end[state.step]",
            "self.is_window_end[state.step - 1]",
        ),
        (
            "step size not restarted",
            WARMUP,
            "jax.vmap(lambda s: averaging[0](averaging[2](s)))(step_size)",
            "step_size",
        ),
        (
            "restarted from the last step size",
            WARMUP,
            "averaging[0](averaging[2](s))",
            "averaging[0](jnp.exp(s.log_step_size))",
        ),
        (
            "mass for its inverse",
            WARMUP,
            "_with_metric(sampler, metric.inverse_mass_matrix)",
            "_with_metric(sampler, 1 / metric.inverse_mass_matrix)",
        ),
        (
            "window begins with the last one's draws",
            WARMUP,
            "metric = jax.vmap(adaptation[2])(metric)",
            "metric = jax.vmap(adaptation[2])(metric)._replace(wc_state=metric.wc_state)",
        ),
    ),
    *found_by(
        TESTS,
        "test_a_given_metric_is_where_tuning_starts",
        (),
        ("factor for the metric", WARMUP, "else factor**2", "else factor"),
        (
            "diagonal for its inverse",
            WARMUP,
            "jnp.diagonal(value) if",
            "1 / jnp.diagonal(value) if",
        ),
    ),
    *found_by(
        TESTS,
        "z_borrowed_acceptance",
        (),
        (
            "unadjusted sampler left alone",
            WARMUP,
            "accept = uniform < rate",
            "accept = uniform < 1 + rate",
        ),
        (
            "accepted where it should be rejected",
            WARMUP,
            "accept = uniform < rate",
            "accept = uniform > rate",
        ),
        (
            "one number for all chains",
            WARMUP,
            "particle_keys(key, -1 - self.chains.ids)",
            "particle_keys(key, 0 * self.chains.ids - 1)",
        ),
        (
            "a chain's own key used twice",
            WARMUP,
            "particle_keys(key, -1 - self.chains.ids)",
            "particle_keys(key, self.chains.ids)",
        ),
    ),
)
