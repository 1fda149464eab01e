"""Seeded bugs of the microcanonical samplers, found by their maps' equations and their laws."""

from mutants.table import found_by

FILE = "sampling/langevin/test_microcanonical.py"
MAPS = "shoal.sampling.langevin.microcanonical"
MAMS = "shoal.sampling.langevin.mams"

BUGS = (
    *found_by(
        FILE,
        "test_a_turn_solves_its_differential_equation",
        (5, 0.3),
        ("d for d - 1", MAPS, "degrees = direction.size - 1", "degrees = direction.size"),
        ("kinetic energy of the other sign", MAPS, "* kick + before * direction, gain",
         "* kick + before * direction, -gain"),
    ),
    *found_by(
        FILE,
        "test_kicks_of_any_length_turn_without_overflow",
        (2,),
        ("squares of a gradient overflow", MAPS,
         "_SCALE = 2.0**-40", "_SCALE = 1.0"),
        ("growing exponentials", MAPS, "jnp.exp(-delta), -jnp.expm1(-delta)",
         "1 / jnp.exp(delta), -jnp.expm1(-delta) / jnp.exp(delta) * jnp.exp(delta)"),
        ("division by no gradient", MAPS, "safe_size = jnp.where(size > 0, size, 1)",
         "safe_size = size"),
    ),
    *found_by(
        FILE,
        "test_the_minimal_norm_coefficient_is_mclachlans",
        (),
        ("coefficient of another method", MAPS, "_B = 0.1931833275037836", "_B = 1 / 6"),
    ),
    *found_by(
        FILE,
        "test_the_energy_error_has_its_order_and_falls_below_leapfrogs",
        ("omelyan", 4, 30.0),
        ("two coefficients swapped", MAPS, "_mirror((_B1, _A1, _B2, _A2,",
         "_mirror((_B2, _A1, _B1, _A2,"),
    ),
    *found_by(
        FILE,
        "test_the_direction_is_forgotten_over_the_decoherence_length",
        (),
        ("noise of half the path", MAPS, "jnp.expm1(-2 * path)", "jnp.expm1(-path)"),
        ("noise not scaled by the dimension", MAPS, ") / direction.size)", "))"),
        ("refreshed direction not of length one", MAPS, "return mixed / _norm(mixed)",
         "return mixed"),
    ),
    *found_by(
        FILE,
        "test_a_direction_turns_back_where_the_way_is_barred",
        (),
        ("a barred chain goes on into the wall", MAPS, "direction=-state.direction",
         "direction=state.direction"),
    ),
    *found_by(
        FILE,
        "test_numbers_of_steps_have_the_mean_asked_for",
        (),
        ("number of steps rounded down", MAMS, "jnp.ceil(uniform", "jnp.floor(uniform"),
    ),
    *found_by(
        FILE,
        "z_law",
        ("mclmc",),
        ("metric missing in the drift", MAPS, "metric.color(v)", "v"),
    ),
    *found_by(
        FILE,
        "z_law",
        ("mams",),
        ("no accept step", MAMS, "accept(key_accept, log_acceptance, status)",
         "status == Status.OK"),
        ("energy gained in the last step alone", MAMS, "return state, work + more, taken",
         "return state, more, taken"),
        ("kinetic energy left out", MAMS, "energy_error = work - (", "energy_error = -("),
        ("directions not uniform", MAPS, "noise / _norm(noise)",
         "(noise + 0.3) / _norm(noise + 0.3)"),
        ("one key for direction and acceptance", MAMS, "draw_direction(key_direction, x)",
         "draw_direction(key_accept, x)"),
        ("gradient of the start kept", MAMS, "end.log_density, end.score)",
         "end.log_density, state.score)"),
    ),
)  # fmt: skip
