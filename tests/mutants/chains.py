"""Seeded bugs of chains side by side: keys, parameters, the guard, what a step reports."""

from mutants.table import found_by

TESTS = "inference/test_chains.py"
CHAINS = "shoal.inference.chains"
KEYS = "test_every_chain_has_its_own_key_and_parameters"
GUARD = "test_a_step_into_what_is_not_finite_is_undone"

BUGS = (
    *found_by(
        TESTS,
        KEYS,
        (),
        (
            "one key for all chains",
            CHAINS,
            "particle_keys(key, self.ids), states)",
            "particle_keys(key, 0 * self.ids), states)",
        ),
        (
            "a chain's place for its id",
            CHAINS,
            "particle_keys(key, self.ids), states)",
            "particle_keys(key, jnp.arange(self.ids.size)), states)",
        ),
        (
            "one key for all starts",
            CHAINS,
            "positions, particle_keys(key, self.ids))",
            "positions, particle_keys(key, 0 * self.ids))",
        ),
        (
            "parameters of the first chain for all",
            CHAINS,
            "vmap(one)(self.sampler, particle_keys",
            "vmap(one)(jax.tree.map(lambda leaf: 0 * leaf + leaf[0], self.sampler), particle_keys",
        ),
    ),
    *found_by(
        TESTS,
        GUARD,
        (),
        (
            "no guard",
            CHAINS,
            "return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old), status",
            "return new, status",
        ),
        (
            "one finite number is enough",
            CHAINS,
            "jnp.isfinite(leaf).all()",
            "jnp.isfinite(leaf).any()",
        ),
        (
            "log density not looked at",
            CHAINS,
            "finite = finite & jnp.isfinite(log_density)",
            "finite = finite & True",
        ),
        (
            "the algorithm's own warning ignored",
            CHAINS,
            "finite = finite & info.nonans",
            "finite = finite & True",
        ),
        ("divergence not told", CHAINS, 'getattr(info, "is_divergent", False)', "False"),
        ("acceptance is NaN", CHAINS, "jnp.where(jnp.isnan(rate), 0, rate)", "rate"),
        (
            "log density of the point left",
            CHAINS,
            '["lp"] = log_density_of(new)',
            '["lp"] = log_density_of(old)',
        ),
        ("moved when every number changed", CHAINS, "jnp.any(a != b)", "jnp.all(a != b)"),
    ),
)
