"""Seeded bugs of ABOBA, GHMC and MALT, found by their laws and stationary covariances."""

from mutants.table import Bug, found_by

LAWS = "sampling/langevin/test_laws.py"
SPLITTINGS = "sampling/langevin/test_kinetic.py"
ADJUSTED = "sampling/langevin/test_adjusted_kinetic.py"
KINETIC = "shoal.sampling.langevin.kinetic"
MIDPOINT = "shoal.sampling.langevin._midpoint"
MODULE = "shoal.sampling.langevin.adjusted_kinetic"

BUGS: tuple[Bug, ...] = (
    *found_by(
        LAWS,
        "z_law",
        ("aboba", "dense"),
        ("aboba: another word", KINETIC, '_sampler("ABOBA"', '_sampler("BABO"'),
        (
            "aboba: position of the gradient kept",
            KINETIC,
            "MidpointState(unravel(end.position)",
            "MidpointState(unravel(at)",
        ),
    ),
    *found_by(
        SPLITTINGS,
        "test_aboba_reports_the_energy_error_from_middle_to_middle",
        (),
        ("aboba: work over half the step", MIDPOINT, "t**2 / 8", "t**2 / 32"),
        (
            "aboba: evaluation never renewed",
            KINETIC,
            "Evaluation(at, end.log_density, end.score)",
            "Evaluation(x, end.log_density, end.score)",
        ),
    ),
    *found_by(
        ADJUSTED,
        "z_law",
        ("ghmc",),
        (
            "ghmc: no reversal on rejection",
            MODULE,
            "state._replace(momentum=-momentum)",
            "state._replace(momentum=momentum)",
        ),
        (
            "ghmc: momentum before the refreshment kept on rejection",
            MODULE,
            "state._replace(momentum=-momentum)",
            "state._replace(momentum=-state.momentum)",
        ),
        (
            "ghmc: refreshment in the energy error",
            MODULE,
            "energy_error = end.work - start.work - (end",
            "energy_error = 0.8 * end.work - start.work - (end",
        ),
        (
            "ghmc: one key for noise and acceptance",
            MODULE,
            "key_noise, key_accept = jax.random.split(key)",
            "key_noise = key_accept = key",
        ),
        ("ghmc: noise too large", MODULE, "(1 - decay) * (1 + decay)", "2 * (1 - decay)"),
        (
            "ghmc: end of the kick forgotten",
            MODULE,
            "w = leap.momentum + kick",
            "w = leap.momentum",
        ),
    ),
    *found_by(
        ADJUSTED,
        "z_law",
        ("malt",),
        (
            "malt: work of the last step only",
            MODULE,
            "work = leap.work + jnp.sum",
            "work = jnp.sum",
        ),
        (
            "malt: momentum lost between the steps",
            MODULE,
            "leap._replace(momentum=momentum))",
            "leap._replace(momentum=momentum, pull=0 * leap.pull))",
        ),
        (
            "malt: first momentum too cold",
            MODULE,
            "jnp.where(i == 0, 0, decay)",
            "jnp.where(i == 0, 1, decay)",
        ),
        ("malt: one noise for all steps", MODULE, "jax.random.fold_in(key_noise, i)", "key_noise"),
    ),
)
