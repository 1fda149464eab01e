"""Seeded bugs of the Langevin samplers, each found by the sampler's exactly known law."""

from mutants.table import Bug, found_by

LAWS = "sampling/langevin/test_laws.py"
OVERDAMPED = "shoal.sampling.langevin.overdamped"
KINETIC = "shoal.sampling.langevin.kinetic"
ACCEPT = "shoal.sampling.langevin._accept"
METRIC = "shoal.sampling.langevin.metric"


def law(samplers: str, metric: str, *rows: tuple[str, str, str, str]) -> list[Bug]:
    """Make rows for each sampler."""
    return [
        bug
        for sampler in samplers.split()
        for name, *edit in rows
        for bug in found_by(LAWS, "z_law", (sampler, metric), (f"{sampler}: {name}", *edit))
    ]


BUGS = (
    *law(
        "mala",
        "identity",
        (
            "no accept step",
            ACCEPT,
            "(jnp.log(uniform) <= log_acceptance) & (status == Status.OK)",
            "status == Status.OK",
        ),
        (
            "symmetric ratio",
            OVERDAMPED,
            "value - state.log_density - change",
            "value - state.log_density",
        ),
        (
            "forward and reverse swapped",
            OVERDAMPED,
            "value - state.log_density - change",
            "value - state.log_density + change",
        ),
        (
            "old gradient in the reverse move",
            OVERDAMPED,
            "(y - x) * (state.score + score) / 2 + h / 4 * norms",
            "(y - x) * state.score",
        ),
        (
            "acceptance to the power 0.9",
            ACCEPT,
            "<= log_acceptance)",
            "<= 0.9 * log_acceptance)",
        ),
        (
            "one key for noise and acceptance",
            OVERDAMPED,
            "key_noise, key_accept = jax.random.split(key)",
            "key_noise = key_accept = key",
        ),
        (
            "gradient of the rejected point kept",
            ACCEPT,
            "jnp.where(is_accepted, a, b), new, old)",
            "jnp.where(is_accepted, a, b), new, old)._replace(score=new.score)",
        ),
        (
            "log density of the rejected point kept",
            ACCEPT,
            "jnp.where(is_accepted, a, b), new, old)",
            "jnp.where(is_accepted, a, b), new, old)._replace(log_density=new.log_density)",
        ),
        (
            "gradient never renewed",
            OVERDAMPED,
            "OverdampedState(unravel(y), value, score), log_acceptance",
            "OverdampedState(unravel(y), value, state.score), log_acceptance",
        ),
        ("noise too small", OVERDAMPED, "jnp.sqrt(2 * h) * noise", "jnp.sqrt(h) * noise"),
    ),
    *law(
        "mala",
        "diagonal",
        (
            "metric missing in the norms",
            OVERDAMPED,
            "metric.whiten(score) ** 2 - pull**2",
            "score**2 - state.score**2",
        ),
    ),
    *law(
        "mala",
        "dense",
        (
            "metric missing in the noise",
            OVERDAMPED,
            "metric.color(h * pull + jnp.sqrt(2 * h) * noise)",
            "metric.color(h * pull) + jnp.sqrt(2 * h) * noise",
        ),
        (
            "factor for its transpose in Lᵀs",
            METRIC,
            "covector @ self.factor",
            "self.factor @ covector",
        ),
    ),
    *law(
        "ula",
        "diagonal",
        ("drift halved", OVERDAMPED, "color(h * pull", "color(h / 2 * pull"),
        ("drift away from the mode", OVERDAMPED, "color(h * pull", "color(-0.2 * h * pull"),
        ("noise too small", OVERDAMPED, "jnp.sqrt(2 * h) * noise", "jnp.sqrt(h) * noise"),
        (
            "gradient never renewed",
            OVERDAMPED,
            "OverdampedState(unravel(y), value, score), log_acceptance",
            "OverdampedState(unravel(y), value, state.score), log_acceptance",
        ),
        (
            "metric missing in the drift",
            OVERDAMPED,
            "pull = metric.whiten(state.score)",
            "pull = state.score",
        ),
        (
            "one noise for all coordinates",
            OVERDAMPED,
            "jax.random.normal(key, x.shape, x.dtype)",
            "jax.random.normal(key, (), x.dtype)",
        ),
        (
            "one noise for all particles and steps",
            OVERDAMPED,
            "jax.random.normal(key, x.shape, x.dtype)",
            "jax.random.normal(jax.random.key(0), x.shape, x.dtype)",
        ),
        (
            "noise not normal",
            OVERDAMPED,
            "jax.random.normal(key, x.shape, x.dtype)",
            "jax.random.rademacher(key, x.shape, x.dtype)",
        ),
    ),
    *law(
        "ula",
        "dense",
        (
            "metric missing in the noise",
            OVERDAMPED,
            "metric.color(h * pull + jnp.sqrt(2 * h) * noise)",
            "metric.color(h * pull) + jnp.sqrt(2 * h) * noise",
        ),
        ("factor for its transpose in L ξ", METRIC, "self.factor @ white", "white @ self.factor"),
    ),
    *law(
        "baoab obabo",
        "diagonal",
        ("kick twice as strong", KINETIC, "kick = t * metric", "kick = 2 * t * metric"),
        ("half a step of friction", KINETIC, "* h / word.count", "* (h / 2) / word.count"),
        ("noise of half the friction", KINETIC, "jnp.expm1(-2 * decay)", "jnp.expm1(-decay)"),
        (
            "gradient of the last step kept",
            KINETIC,
            "KineticState(x, w, value, score)",
            "KineticState(x, w, value, state.score)",
        ),
        ("metric missing in the kick", KINETIC, "metric.whiten(score)", "score"),
    ),
    *law(
        "baoab",
        "diagonal",
        (
            "second drift missing",
            KINETIC,
            "x = x + t * metric.color(w)",
            "x = x + (0 if score_is_stale else t) * metric.color(w)",
        ),
        ("metric missing in the drift", KINETIC, "metric.color(w)", "w"),
        (
            "momentum reversed after the step",
            KINETIC,
            "(x, w, value, score)",
            "(x, -w, value, score)",
        ),
        (
            "damping and noise swapped",
            KINETIC,
            "jnp.exp(-decay) * w + jnp.sqrt(-jnp.expm1(-2 * decay)) * next(draws)",
            "jnp.sqrt(-jnp.expm1(-2 * decay)) * w + jnp.exp(-decay) * next(draws)",
        ),
        ("another word", KINETIC, '_sampler("BAOAB"', '_sampler("ABOBA"'),
    ),
    *law(
        "baoab",
        "dense",
        ("factor for its transpose in L w", METRIC, "self.factor @ white", "white @ self.factor"),
    ),
    *law(
        "obabo",
        "diagonal",
        ("drift against the momentum", KINETIC, "x = x + t * metric", "x = x - t * metric"),
        (
            "gradient never renewed",
            KINETIC,
            "            if score_is_stale:",
            "            if False:",
        ),
        (
            "one noise for all coordinates",
            KINETIC,
            '(word.count("O"), *x.shape), x.dtype)',
            '(word.count("O"), 1), x.dtype)',
        ),
        ("one noise for both halves", KINETIC, "* next(draws)", "* noise[0]"),
        ("another word", KINETIC, '_sampler("OBABO"', '_sampler("OABAO"'),
        ("momentum too cold at the start", KINETIC, "return jax", "return 0.9 * jax"),
    ),
    *law(
        "obabo",
        "dense",
        (
            "factor for its transpose in Lᵀs",
            METRIC,
            "covector @ self.factor",
            "self.factor @ covector",
        ),
    ),
)
