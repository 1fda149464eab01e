"""Seeded bugs of the tuned default, found by what its warm-up must find and by steps that fail."""

from mutants.table import found_by

FILE = "sampling/langevin/test_auto.py"
AUTO = "shoal.sampling.langevin.auto"
TUNING = "shoal.sampling.langevin._tuning"

BUGS = (
    *found_by(
        FILE,
        "test_it_finds_metric_and_slowest_direction",
        (False,),
        (
            "the metric's square root",
            TUNING,
            '"metric": everywhere(jnp.sqrt(ratio[0]))',
            '"metric": everywhere(ratio[0])',
        ),
        (
            "damped by a standard deviation too few",
            TUNING,
            "everywhere(2 / jnp.sqrt(largest))",
            "everywhere(2 / largest)",
        ),
        (
            "variance not of whitened coordinates",
            TUNING,
            "(x - state.recent.mean) / factor",
            "x - state.recent.mean",
        ),
        (
            "the metric's inverse",
            TUNING,
            "ratio = (moments.deviations + tiny) / (moments.score_deviations + tiny)",
            "ratio = (moments.score_deviations + tiny) / (moments.deviations + tiny)",
        ),
        (
            "windows never change",
            TUNING,
            "turn = t - state.window >=",
            "turn = t + state.window < -",
        ),
    ),
    *found_by(
        FILE,
        "test_it_finds_metric_and_slowest_direction",
        (True,),
        (
            "a path as long as the slowest scale",
            TUNING,
            "1.25 * jnp.sqrt(largest * dim)",
            "jnp.sqrt(largest)",
        ),
        (
            "rejections taken for acceptances",
            TUNING,
            '(1 - info.statistics["acceptance_rate"])',
            'info.statistics["acceptance_rate"]',
        ),
    ),
    *found_by(
        FILE,
        "test_the_step_size_settles_where_its_error_is_one",
        (),
        (
            "the step size settles upwards",
            TUNING,
            "settled = begin - jnp.log",
            "settled = begin + jnp.log",
        ),
        (
            "errors not brought to one step size",
            TUNING,
            "power * (begin - log_h)",
            "power * (log_h - begin)",
        ),
        ("settles as if errors grew like h²", TUNING, "else 12", "else 2"),
    ),
    *found_by(
        FILE,
        "test_chains_that_start_absurdly_far_off_arrive",
        (),
        ("climbing downhill", TUNING, "update(-states.score", "update(states.score"),
        (
            "learnt from a chain far off",
            TUNING,
            "states.log_density.max() - dim - 20)",
            "-jnp.inf)",
        ),
    ),
    *found_by(
        FILE,
        "test_a_step_that_fails_is_made_of_smaller_ones",
        (7.4, 16, 18, 18),
        (
            "smaller steps go on where the coarser ones failed",
            AUTO,
            "state = choose(is_good, new, start)",
            "state = choose(is_good, new, state)",
        ),
        ("as many steps at every level", AUTO, "parts = _FEWER**level", "parts = _FEWER"),
        (
            "steps all of one noise",
            AUTO,
            "jax.random.fold_in(key, tried)",
            "jax.random.fold_in(key, 0)",
        ),
    ),
    *found_by(
        FILE,
        "test_a_step_that_fails_for_good_turns_back",
        (),
        ("does not turn back", AUTO, "momentum=-state.momentum", "momentum=state.momentum"),
        (
            "failure passes for success",
            AUTO,
            "jnp.where(is_accepted, Status.OK, stuck)",
            "jnp.where(has_failed, Status.OK, stuck)",
        ),
    ),
)
