"""Seeded bugs of SVGD and its engine, and of its variants by annealing, noise, batches, graphs."""

from mutants.table import found_by

SVGD = "sampling/stein/test_svgd.py"
ANNEALED = "sampling/stein/test_annealed.py"
STOCHASTIC = "sampling/stein/test_stochastic.py"
BATCHES = "sampling/stein/test_random_batch.py"
GRAPHS = "sampling/stein/test_message_passing.py"
COIN = "sampling/stein/test_coin.py"
MITOSIS = "sampling/stein/test_mitosis.py"
DIRECTION = "shoal.sampling.stein._direction"
ENSEMBLE = "shoal.sampling.stein._ensemble"
FAMILY = "shoal.sampling.stein."

BUGS = (
    *found_by(
        SVGD,
        "test_one_update_is_the_double_loop_for_every_kernel",
        (),
        (
            "gradients of the kernel as if h were one",
            DIRECTION,
            "ensemble.weights * jax.lax.rsqrt(ensemble.bandwidth),",
            "ensemble.weights,",
        ),
        ("a sum instead of a mean", DIRECTION, "sums.total / ensemble.num_alive", "sums.total"),
        (
            "linear kernels around a point",
            DIRECTION,
            "if kernel.has_jet and kernel.is_radial:",
            "if kernel.has_jet:",
        ),
    ),
    *found_by(
        SVGD,
        "test_the_dead_are_as_if_they_were_not_there",
        ("svgd",),
        (
            "the dead counted in the mean",
            ENSEMBLE,
            "jnp.maximum(num_alive, 1).astype(points.dtype)",
            "jnp.asarray(len(points), points.dtype)",
        ),
        (
            "scores of the dead",
            ENSEMBLE,
            "jnp.where(state.alive[:, None], state.score, 0)",
            "state.score",
        ),
    ),
    *found_by(
        ANNEALED,
        "test_the_factors_of_every_schedule",
        (),
        (
            "no cycle without annealing",
            FAMILY + "annealed",
            "step < (num_cycles - 1) * length",
            "step < num_cycles * length",
        ),
        (
            "the power before the tanh",
            FAMILY + "annealed",
            "(1.3 * fraction) ** power",
            "1.3 * fraction**power",
        ),
        ("cycles that start at zero", FAMILY + "annealed", "step % length + 1)", "step % length)"),
    ),
    *found_by(
        STOCHASTIC,
        "z_law",
        ("not radial", 0.5),
        ("noise without its two", FAMILY + "stochastic", "jnp.sqrt(2 *", "jnp.sqrt("),
        (
            "half of the divergence at a particle itself",
            FAMILY + "stochastic",
            "phi = phi + gradients *",
            "phi = phi + 0 * gradients *",
        ),
        (
            "no drift of the Langevin part",
            FAMILY + "stochastic",
            "phi = phi + own * ensemble.score",
            "phi = phi",
        ),
    ),
    *found_by(
        BATCHES,
        "test_the_mean_over_all_partitions_is_the_direction_of_svgd",
        ("not radial", 5, 2, (1,)),
        (
            "the particle itself at the weight of others",
            FAMILY + "random_batch",
            "factor * (back(total) - own) + own / count",
            "factor * back(total)",
        ),
        (
            "the dead dealt to batches",
            FAMILY + "random_batch",
            "_partition(ensemble.alive[order], batch_size)",
            "_partition(ensemble.alive | True, batch_size)",
        ),
    ),
    *found_by(
        BATCHES,
        "test_the_mean_over_all_partitions_is_the_direction_of_svgd",
        ("not radial", 5, 3, ()),
        (
            "batches as if all were full",
            FAMILY + "random_batch",
            "(count - 1) / jnp.maximum(num_pairs, 1)",
            "(1 - 1 / count) / (batch_size - 1)",
        ),
        (
            "places without a particle counted as near",
            FAMILY + "random_batch",
            "sums.near - jnp.sum(1 - w) * is_near",
            "sums.near",
        ),
    ),
    *found_by(
        GRAPHS,
        "test_one_update_is_the_double_loop_of_its_equation",
        ("median_all",),
        (
            "one bandwidth for neighbourhoods of all sizes",
            FAMILY + "message_passing",
            "jnp.where(is_shared, share, 1)",
            "1",
        ),
        (
            "coordinates that are none's neighbours",
            FAMILY + "message_passing",
            "jnp.where(is_member, ensemble.points[:, members], 0)",
            "ensemble.points[:, members]",
        ),
    ),
    *found_by(
        COIN,
        "test_the_recursion_by_hand",
        (),
        (
            "won since the start, losses too",
            FAMILY + "coin",
            "jnp.maximum(reward + offset * g, 0)",
            "reward + offset * g",
        ),
        ("bets of a fresh start", FAMILY + "coin", "(1 + reward / scale)", "1"),
    ),
    *found_by(
        MITOSIS,
        "test_children_stand_around_their_parents_and_inherit",
        (),
        (
            "children not around their parent",
            FAMILY + "mitosis",
            "xi - jnp.mean(xi, axis=1, keepdims=True)",
            "xi",
        ),
        (
            "distances not in their units",
            FAMILY + "mitosis",
            "num / (num - 1) / dim",
            "num / (num - 1)",
        ),
        (
            "an optimiser without a past",
            FAMILY + "mitosis",
            "jax.tree.map(inherit, state.optimizer, made.optimizer)",
            "made.optimizer",
        ),
    ),
)
