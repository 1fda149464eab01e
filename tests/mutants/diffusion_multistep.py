"""Seeded bugs of the multistep, momentum, Taylor and GENIE solvers."""

from mutants.table import found_by

TESTS = "sampling/diffusion/test_multistep.py"
GENIE_TESTS = "sampling/diffusion/test_genie.py"
UNIPC = "shoal.sampling.diffusion.unipc"
ADAMS = "shoal.sampling.diffusion.adams"
STARTUP = "shoal.sampling.diffusion.startup"
MOMENTUM = "shoal.sampling.diffusion.momentum"
TAYLOR = "shoal.sampling.diffusion.taylor"
GENIE = "shoal.sampling.diffusion.genie"
DENOISER = "shoal.sampling.core.denoiser"
EXACT = "test_polynomials_are_integrated_exactly"

BUGS = (
    *found_by(
        TESTS,
        "test_unipc_is_the_published_algorithm",
        ("bh2", "data"),
        (
            "UniPC: the step begins where the predictor led, not where the corrector did",
            UNIPC,
            "start = start + add([*seen, here], self.corrector) - add(seen, self.predictor)",
            "start = here.position",
        ),
        (
            "UniPC: bh1 and bh2 exchanged",
            UNIPC,
            'scale = 1.0 if variant == "bh1"',
            'scale = 1.0 if variant == "bh2"',
        ),
        (
            "UniPC: the corrector takes one point more than the predictor took",
            UNIPC,
            "add([*seen, here]",
            "add([*points[: order + 1], here]",
        ),
    ),
    *found_by(
        TESTS,
        "test_unipc_is_the_published_algorithm",
        ("vary", "data"),
        (
            "UniPC: upstream's corrector of variant vary with all rows",
            UNIPC,
            "factors[:-1] @ inverse[:-1, :-1]",
            "factors @ inverse[:, :-1]",
        ),
    ),
    *found_by(
        TESTS,
        EXACT,
        ("unipc vary noise",),
        (
            "UniPC: variant vary with the corrector that drops a row",
            UNIPC,
            'if variant == "vary" and compat == "upstream" else rule',
            'if variant == "vary" else rule',
        ),
        (
            "start-up: sweeps integrate the last step only",
            STARTUP,
            "x = integrate(start.position, clock[0], t, points)",
            "x = integrate(found[0].position, found[0].half_log_snr, t, points[:1])",
        ),
    ),
    *found_by(
        TESTS,
        EXACT,
        ("deis rho",),
        (
            "PLMS: constant weights on every grid",
            ADAMS,
            'if self.compat == "upstream":',
            "if True:",
        ),
        (
            "DEIS: polynomials in λ whatever the variable",
            ADAMS,
            '"rho": _rho',
            '"rho": np.asarray',
        ),
    ),
    *found_by(
        TESTS,
        EXACT,
        ("ghvb",),
        (
            "GHVB: weights for averages of an endless past",
            ADAMS,
            "averages = [values[0]]",
            "averages = [beta * values[0]]",
        ),
        (
            "GHVB: predictions in place of their averages",
            ADAMS,
            "averages.insert(0, new)",
            "averages.insert(0, point.noise)",
        ),
    ),
    *found_by(
        TESTS,
        "test_weights_are_the_published_ones_on_even_grids",
        (3,),
        (
            "GHVB: averages not divided by β",
            ADAMS,
            "(1 - beta) / beta * np.array",
            "(1 - beta) * np.array",
        ),
    ),
    *found_by(
        TESTS,
        "test_special_cases_are_other_solvers",
        (),
        (
            "heavy ball: mean over the step not normalised",
            MOMENTUM,
            "midpoint_weights(-h, nodes) / phi(1, -h)",
            "midpoint_weights(-h, nodes)",
        ),
    ),
    *found_by(
        TESTS,
        "test_momentum_of_dpm_solver_pp_begins_where_its_order_is_reached",
        (),
        (
            "heavy ball: momentum from the first step",
            MOMENTUM,
            'or (self.form == "data" and i < self.order)',
            "",
        ),
    ),
    *found_by(
        TESTS,
        EXACT,
        ("taylor raw",),
        (
            "Taylor: derivative by λ for that by γ",
            TAYLOR,
            '"raw": 1 / gamma**2',
            '"raw": -1 / gamma',
        ),
    ),
    *found_by(
        GENIE_TESTS,
        "test_steps_are_the_papers_with_exact_derivative_and_with_exact_head",
        ("data",),
        (
            "Taylor: partial derivative in λ for the total one",
            DENOISER,
            "push(alpha * (data - alpha * position)",
            "push(0 * (data - alpha * position)",
        ),
        (
            "GENIE: a derivative by γ taken for one by λ",
            GENIE,
            "return data, (sigma / alpha) ** 2 * slope",
            "return data, (sigma / alpha) * slope",
        ),
    ),
    *found_by(
        GENIE_TESTS,
        "test_head_is_fed_the_networks_own_prediction",
        (),
        (
            "GENIE: the head is trained with the true noise",
            GENIE,
            "head(position, predicted, λ)",
            "head(position, noise, λ)",
        ),
    ),
)
