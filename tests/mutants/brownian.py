"""Seeded bugs of Brownian paths and of the adaptive samplers on them."""

from mutants.table import found_by

PATHS = "sampling/langevin/test_brownian.py"
SAMPLERS = "sampling/langevin/test_adaptive.py"
TREE = "shoal.sampling.langevin._brownian_tree"
PATH = "shoal.sampling.langevin.brownian"
WALK = "shoal.sampling.langevin._dyadic_walk"
ADAPTIVE = "shoal.sampling.langevin.adaptive"

BUGS = (
    *found_by(
        PATHS,
        "test_halves_and_cuts_have_the_exact_law",
        ("WHK",),
        (
            "joined: bend of the wrong sign",
            TREE,
            "b * right.H + bend / 2",
            "b * right.H - bend / 2",
        ),
        ("halves: areas not correlated with z", TREE, "whole.H / 4 - z / 2", "whole.H / 4 + z / 2"),
        ("halves: K without x1", TREE, "whole.K / 8 - x1 / 2", "whole.K / 8"),
        ("cut: mean of W odd in K reversed", TREE, "60 * r * q * (1 - 2 * r)", "60 * r * q"),
        ("cut: H and K independent", TREE, "hk = -q * r**4 / 24 / kk", "hk = 0 * kk"),
        ("cut: time reversed without H", TREE, "where, -part.H, part.H", "where, part.H, part.H"),
    ),
    *found_by(
        PATHS,
        "test_any_walk_has_the_exact_joint_law",
        ("W",),
        (
            "cursor: a leaf cut twice by the same normals",
            PATH,
            "self._cut_normals(target, is_same, share)",
            "self._cut_normals(target, False, share)",
        ),
        (
            "cursor: a leaf stored over its sibling",
            PATH,
            "jnp.where(is_inside, p[level], x)",
            "x",
        ),
        (
            "cursor: the rest of a leaf left out",
            PATH,
            "jnp.where(cursor.share > 0, p, 0), cursor.rest",
            "0 * p, cursor.rest",
        ),
    ),
    *found_by(
        PATHS,
        "test_a_dyadic_walk_reads_the_same_path",
        (),
        (
            "walk: number of the wrong level",
            WALK,
            "(1 << walk.level) + walk.number",
            "walk.number + 1",
        ),
        ("walk: right halves not stored", WALK, ".set(rows, mode", ".set(0 * rows, mode"),
    ),
    *found_by(
        SAMPLERS,
        "test_with_a_large_tolerance_a_step_is_two_halves_on_the_path",
        ("ubu",),
        ("adaptive: both halves from the start", ADAPTIVE, "False, False, True]", "False] * 3"),
        ("adaptive: halves of full length", ADAPTIVE, "[1, 0.5, 0.5]", "[1, 1, 1]"),
        (
            "adaptive: work of the first half alone",
            ADAPTIVE,
            "ends.work[1] + ends.work[2]",
            "ends.work[1]",
        ),
    ),
    *found_by(
        SAMPLERS,
        "test_error_falls_with_the_number_of_pieces_at_the_order_of_the_scheme",
        ("align",),
        (
            "adaptive: other noise after a rejection",
            ADAPTIVE,
            "left, right = dyadic.halves(seed, walk",
            "left, right = dyadic.halves(seed + run.num_attempts.astype(seed.dtype), walk",
        ),
        (
            "adaptive: goes on from what was rejected",
            ADAPTIVE,
            "choose(is_kept, phase._replace(work=run.phase.work + phase.work), run.phase)",
            "phase",
        ),
    ),
    *found_by(
        SAMPLERS,
        "test_what_cannot_be_done_is_reported",
        (),
        (
            "adaptive: coarse pieces not reported",
            ADAPTIVE,
            "is_kept & (error > 1)",
            "is_kept & (error > jnp.inf)",
        ),
        (
            "adaptive: momentum kept after a failure",
            ADAPTIVE,
            "momentum=-state.momentum",
            "momentum=state.momentum",
        ),
    ),
)
