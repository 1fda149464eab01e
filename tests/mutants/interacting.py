"""Seeded bugs of parallel tempering, of interacting ensembles and of walks on graphs."""

from mutants.table import found_by

TEMPERING = "sampling/langevin/test_tempering.py"
ENSEMBLE = "sampling/langevin/test_ensemble.py"
GRAPH = "sampling/langevin/test_graph.py"
PARALLEL = "shoal.sampling.langevin.tempering"
REPLICAS = "shoal.sampling.langevin._replicas"
LADDER = "shoal.sampling.langevin._ladder"
STRETCH = "shoal.sampling.langevin._stretch_move"
INTERACTING = "shoal.sampling.langevin._interacting"
WALK = "shoal.sampling.langevin.graph"

BUGS = (
    *found_by(
        TEMPERING,
        "z_ladder",
        (),
        (
            "exchange ratio without the difference of temperatures",
            PARALLEL,
            "(betas[:-1] - betas[1:]) * (path.slope",
            "betas[:-1] * (path.slope",
        ),
        (
            "the same pairs in every step",
            PARALLEL,
            "rungs[:-1] % 2 == state.num_steps % 2",
            "rungs[:-1] % 2 == 0",
        ),
        (
            "walkers do not move with their points",
            PARALLEL,
            "state.last_end[source]",
            "state.last_end",
        ),
    ),
    *found_by(
        TEMPERING,
        "test_what_replicas_cache_is_that_of_their_rung",
        (),
        (
            "scores of another temperature after an exchange",
            REPLICAS,
            "path.base_score + beta[:, None] * path.slope_score",
            "path.base_score + path.slope_score",
        ),
    ),
    *found_by(
        TEMPERING,
        "z_law",
        ("reference",),
        (
            "reference left out of the exchange",
            REPLICAS,
            "Path(base, value - base,",
            "Path(base, value,",
        ),
    ),
    *found_by(
        TEMPERING,
        "test_the_ladder_of_equal_rejections",
        (),
        ("rungs at equal β", LADDER, "np.float64) + 1e-3", "np.float64) * 0 + 1e-3"),
    ),
    *found_by(
        ENSEMBLE,
        "z_stretch",
        (),
        ("volume of the stretch to the power d", STRETCH, "(x.shape[1] - 1) *", "x.shape[1] *"),
        (
            "stretch uniform on [1/a, a]",
            STRETCH,
            "(1 + (a - 1) * u[:, 1]) ** 2 / a",
            "1 / a + (a - 1 / a) * u[:, 1]",
        ),
        (
            "log density of the point before",
            STRETCH,
            "jnp.where(is_accepted, new, value)",
            "value",
        ),
    ),
    *found_by(
        ENSEMBLE,
        "test_the_dead_stay_and_have_no_influence",
        ("stretch",),
        ("dead partners", STRETCH, "rank = jnp.cumsum(alive)", "rank = jnp.cumsum(alive | True)"),
    ),
    *found_by(
        ENSEMBLE,
        "test_aldi_with_its_correction_has_the_covariance_of_the_target",
        (),
        ("correction of d / J", INTERACTING, "h * (dim + 1) / count", "h * dim / count"),
        ("noise of variance h", INTERACTING, "jnp.sqrt(2 * h / count)", "jnp.sqrt(h / count)"),
    ),
    *found_by(
        GRAPH,
        "z_step",
        (1.5,),
        ("visits not over the target", WALK, "(weights - self.log_target[nodes])", "weights"),
        (
            "attracted by what it knows",
            WALK,
            "logits - self.alpha *",
            "logits + self.alpha *",
        ),
        (
            "fake visits forgotten",
            WALK,
            "state.visits[nodes] + self.fake_visits[nodes]",
            "state.visits[nodes]",
        ),
    ),
    *found_by(
        GRAPH,
        "test_the_covariance_of_the_formula",
        (),
        (
            "factor of the repulsion without its two",
            WALK,
            "(2 * float(strength)",
            "(float(strength)",
        ),
        (
            "eigenvectors not scaled by the target",
            WALK,
            "root[:, None] * vectors[:, :-1]",
            "vectors[:, :-1]",
        ),
    ),
)
