"""Seeded bugs of Pareto sets by Stein hypernetworks, hypervolume, and problems with fronts."""

from mutants.table import found_by

TESTS = "sampling/stein/test_pareto.py"
PROBLEM_TESTS = "models/test_multi_objective.py"
FRONT = "shoal.sampling.stein._pareto_front"
NETWORK = "shoal.sampling.stein._pareto_network"
SEARCH = "shoal.sampling.stein._pareto_search"
SURROGATE = "shoal.sampling.stein._pareto_surrogate"
PROBLEMS = "shoal.models.multi_objective"

BUGS = (
    *found_by(
        TESTS,
        "test_hypervolume_counts_cells",
        (3,),
        ("hypervolume: points not sorted", FRONT, "points[order], reference", "points, reference"),
        ("hypervolume: beyond the reference counts", FRONT,
         "jnp.minimum(points[order], reference)", "points[order]"),
        ("hypervolume: slices of the points above", FRONT, "points[:, 2] <= z", "points[:, 2] > z"),
    ),
    *found_by(
        TESTS,
        "test_nondominated_is_the_definition",
        (),
        ("front: equal points dominate", FRONT, "~(no_worse & better)", "~(no_worse & ~np.eye("
         "len(array), dtype=bool))"),
        ("front: failed points dominate", FRONT, "np.where(valid[:, None], array, np.inf).T",
         "array.T"),
    ),
    *found_by(
        TESTS,
        "test_greedy_choice_adds_most",
        (2,),
        ("batch: front not extended", FRONT, "(front.at[place].set(values[best]), is_left",
         "(front, is_left"),
    ),
    *found_by(
        TESTS,
        "test_local_kernel_compares_the_active_objective",
        (),
        ("kernel: median squared twice", NETWORK, '2 if bandwidth == "squared_median" else 1', "2"),
        ("kernel: active objective of the row", NETWORK, "active[None, :, None], 2",
         "active[:, None, None], 2"),
        ("kernel: one bandwidth for all", NETWORK, "h[active]", "h[0]"),
    ),
    *found_by(
        TESTS,
        "test_direction_is_the_sum_over_preferences",
        (),
        ("update: sum over the other index", NETWORK, "jnp.sum(kernel(v), 0).astype",
         "jnp.sum(kernel(v), 1).astype"),
        ("update: values driven together", NETWORK, "g + rates.repulsion", "g - rates.repulsion"),
        ("update: coordinates not scaled", NETWORK, "lengths = jnp.sqrt((inputs**2).T @ slopes**2)",
         "lengths = 1.0"),
        ("update: slope through the bandwidth", NETWORK, "jax.lax.stop_gradient(jnp.median(",
         "(jnp.median("),
    ),
    *found_by(
        TESTS,
        "z_of_preferences",
        (),
        ("preferences: normalised uniform numbers", NETWORK, "jax.random.exponential(key",
         "jax.random.uniform(key"),
    ),
    *found_by(
        TESTS,
        "test_surrogate_is_a_gaussian_process",
        (),
        ("surrogate: likelihood of the padding", SURROGATE, "(inputs[:, -1] == 0) *",
         "(inputs[:, -1] == 2) *"),
        ("surrogate: wrong Matérn", SURROGATE, "+ r * r / 3", "+ r * r / 5"),
        ("surrogate: variance of the prior", SURROGATE, "val(kernel.variance) - jnp.sum(",
         "val(kernel.variance) - 0 * jnp.sum("),
    ),
    *found_by(
        TESTS,
        "test_the_initial_design_is_a_latin_hypercube",
        (),
        ("design: the same whatever the key", SEARCH, "np.asarray(jax.random.bits(key, (4,), "
         "jnp.uint32))", "0"),
    ),
    *found_by(
        PROBLEM_TESTS,
        "test_values_at_a_point",
        (),
        ("ZDT: g over all coordinates", PROBLEMS, "jnp.mean(x[..., 1:], -1)", "jnp.mean(x, -1)"),
        ("VLMOP2: centres of ones", PROBLEMS, "x.dtype) / dim**0.5", "x.dtype)"),
    ),
    *found_by(
        PROBLEM_TESTS,
        "test_volumes_in_closed_form",
        (),
        ("front: nothing right of its end", PROBLEMS, "(depth[1:] + depth[:-1]) / 2",
         "depth[1:] / 2"),
    ),
)  # fmt: skip
