"""Seeded bugs of diffusion solvers: coefficients, orders, registers, noise, clocks, failures."""

from mutants.table import Bug, found_by

PACKAGE = "shoal.sampling.diffusion."
FAMILY = "sampling/diffusion/test_dpm_solver.py"
STOCHASTIC = "sampling/diffusion/test_stochastic.py"
SOLVE = "sampling/diffusion/test_solve.py"
PUBLISHED = "test_multistep_is_the_published_formula"
FAILURES = "test_failures_name_the_call"
HEUN, NOISE = PACKAGE + "heun", PACKAGE + "noise"
SOLVER, ADAPTIVE = PACKAGE + "solver", PACKAGE + "adaptive"
EXPONENTIAL, PROGRAM = PACKAGE + "exponential", PACKAGE + "program"

BUGS: tuple[Bug, ...] = (
    *found_by(
        FAMILY,
        PUBLISHED,
        ("3M",),
        (
            "3M: second derivative halved for all",
            PACKAGE + "dpm_solver",
            'if compat == "upstream":',
            "if True:",
        ),
        ("steps: order never above two", EXPONENTIAL, "min(order, step + 1,", "min(2, step + 1,"),
    ),
    *found_by(
        FAMILY,
        PUBLISHED,
        ("2M",),
        ("2M: value at the end, not half-way", EXPONENTIAL, "[1.0, 0.5]", "[1.0, 1.0]"),
    ),
    *found_by(
        FAMILY,
        "test_order",
        ("noise 3 taylor", "uneven"),
        (
            "3S: error of the first stage stays",
            PACKAGE + "singlestep",
            "(b_1 * error(r_1) + b_2 * error(r_2))",
            "(b_2 * error(r_2))",
        ),
    ),
    *found_by(
        FAMILY,
        "test_heun_is_the_published_algorithm",
        (10,),
        ("scales: λ taken for 2 λ", "shoal.sampling.core.schedules", "-2 * x, xp", "-x, xp"),
        (
            "heun: slope at the wrong level",
            HEUN,
            "step / sigma_next *",
            "step / sigma *",
        ),
    ),
    *found_by(
        FAMILY,
        "test_churn_raises_the_noise_as_published",
        (),
        ("churn: called at the old level", HEUN, "s - math.log1p(growth)", "s"),
        (
            "churn: deviation of half the raise",
            HEUN,
            "growth**2 + 2 * growth",
            "growth**2 + growth",
        ),
    ),
    *found_by(
        STOCHASTIC,
        "test_law_is_exact_for_one_image",
        ("slow",),
        (
            "noise: at rate 1 whatever the rate",
            EXPONENTIAL,
            "np.sqrt(-np.expm1(-2 * eta * (t - s)))",
            "np.sqrt(-np.expm1(-2 * (t - s)))",
        ),
        ("drift: noise not taken away", EXPONENTIAL, "z = -(1 + eta) * h", "z = -h"),
    ),
    *found_by(
        STOCHASTIC,
        "z_increments",
        (0.3,),
        (
            "path: bridge too wide",
            NOISE,
            "jnp.sqrt(free_left * free_right / free)",
            "jnp.sqrt(free_left * free_right)",
        ),
    ),
    *found_by(
        STOCHASTIC,
        "test_increments_of_a_path_add_up",
        (),
        (
            "path: another node on the right",
            NOISE,
            "2 * node + goes",
            "2 * node - goes",
        ),
    ),
    *found_by(
        "sampling/diffusion/test_program.py",
        "test_registers_hold_what_is_used_later",
        (1,),
        (
            "registers: factor of what was kept squared",
            PROGRAM,
            "{term: 1.0})) * factor",
            "{term: 1.0})) * factor**2",
        ),
        (
            "registers: one for two kept values",
            PROGRAM,
            "sum(atom.kind == name for atom in self._rows[row])",
            "0",
        ),
    ),
    *found_by(
        "sampling/diffusion/test_program.py",
        "test_scan_executes_what_was_recorded",
        (),
        (
            "registers: a prediction written over in the row that uses it last",
            PROGRAM,
            "if until < row]",
            "if until <= row]",
        ),
        (
            "registers: predictions stored one register further",
            SOLVER,
            "program.slots - len(structure.columns)",
            "program.slots - len(structure.columns) + 1",
        ),
    ),
    *found_by(
        SOLVE,
        FAILURES,
        (),
        (
            "failures: one call late",
            SOLVER,
            "& ~is_finite, row,",
            "& ~is_finite, row + 1,",
        ),
        (
            "adaptive: failures excused",
            ADAPTIVE,
            "(failed_at < 0) & ~good, done + i",
            "(failed_at < 0) & ~good, -1",
        ),
    ),
    *found_by(
        SOLVE,
        "test_adaptive_cap_is_never_a_success",
        (),
        (
            "adaptive: unfinished is finished",
            ADAPTIVE,
            "& ~arrived",
            "& arrived & False",
        ),
    ),
)
