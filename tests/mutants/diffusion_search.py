"""Seeded bugs of free schedules, of the search over them and of step skipping."""

from mutants.table import found_by

USF = "sampling/diffusion/test_usf.py"
SEARCH = "sampling/diffusion/test_search.py"
SADA = "sampling/diffusion/test_sada.py"
NAMED = "test_named_solvers_are_schedules"
UNIFIED = "shoal.sampling.diffusion.usf"
DECISIONS = "shoal.sampling.diffusion._decisions"
EVOLUTION = "shoal.sampling.diffusion._evolution"
REFINE = "shoal.sampling.diffusion._refine"
SKIPPING = "shoal.sampling.diffusion.sada"

BUGS = (
    *found_by(
        USF,
        NAMED,
        ("unipc 2 bh1",),
        (
            "USF: bh1 and bh2 exchanged",
            DECISIONS,
            'relaxation == "bh2" else 1.0',
            'relaxation == "bh1" else 1.0',
        ),
        (
            "USF: the next step begins where the predictor led",
            UNIFIED,
            'here = Point(here.seen, x := tape.keep(x, "corrected"))',
            "here = Point(here.seen, x := here.position)",
        ),
        (
            "USF: the corrector without the new point",
            UNIFIED,
            "[origin, here, *others]",
            "[origin, *others, here]",
        ),
    ),
    *found_by(
        USF,
        NAMED,
        ("dpm 3S",),
        (
            "USF: every step begins at the last point",
            UNIFIED,
            "return [points[-start - 1], *points[: -start - 1], *points[-start:]]",
            "return points",
        ),
    ),
    *found_by(
        USF,
        "test_derivatives_come_from_as_many_points_as_asked",
        (),
        (
            "USF: every derivative from all points",
            DECISIONS,
            "if update.active is None else update.active",
            "if True else update.active",
        ),
    ),
    *found_by(
        USF,
        "test_relaxations_are_those_published",
        (2.0,),
        ("USF: linear relaxation without h", DECISIONS, "1 + relaxation * h", "1 + relaxation"),
    ),
    *found_by(
        USF,
        "test_an_implicit_corrector_calls_again_where_it_leads",
        (),
        (
            "USF: an implicit corrector that does not call",
            UNIFIED,
            "if last.implicit:",
            "if False:",
        ),
    ),
    *found_by(
        SEARCH,
        "test_children_can_be_carried_out_in_the_calls_there_are",
        (),
        (
            "search: a saved call does not make a step more",
            EVOLUTION,
            "num = space.num_calls + (schedule.first is not None)",
            "num = space.num_calls",
        ),
        (
            "search: children move where the run begins",
            EVOLUTION,
            "clock[1:-1] = np.where(rng.random(len(moved)) < _CHANGE, moved, clock[1:-1])",
            "clock[:-2] = np.where(rng.random(len(moved)) < _CHANGE, moved, clock[1:-1])",
        ),
    ),
    *found_by(
        SEARCH,
        "test_descent_moves_coefficients_and_times_to_less_error_on_other_noises",
        (),
        (
            "search: times move no faster than coefficients",
            REFINE,
            "_TIMES_RATE * learning_rate",
            "learning_rate",
        ),
    ),
    *found_by(
        SEARCH,
        "test_the_predictor_orders_what_it_has_not_seen",
        (),
        (
            "search: the predictor learns the order backwards",
            EVOLUTION,
            "logs[:, None] > logs[None]",
            "logs[:, None] < logs[None]",
        ),
    ),
    *found_by(
        SADA,
        "test_lagrange_weights_reproduce_polynomials",
        (),
        (
            "SADA: nodes oldest first",
            SKIPPING,
            "- every * np.arange(size)",
            "+ every * np.arange(size)",
        ),
    ),
    *found_by(
        SADA,
        "test_extrapolations_are_of_the_order_said",
        (),
        (
            "SADA: last weight with the wrong sign",
            SKIPPING,
            "5 / 6, 5 / 6, -2 / 3",
            "5 / 6, 5 / 6, 2 / 3",
        ),
    ),
    *found_by(
        SADA,
        "test_every_sample_is_solved_as_published",
        ("paper", None),
        ("SADA: criterion backwards", SKIPPING, "bend, axes) >= 0", "bend, axes) <= 0"),
        (
            "SADA: one decision for the whole batch",
            SKIPPING,
            "skip_next = steady & row",
            "skip_next = jnp.all(steady) & row",
        ),
    ),
)
