"""Seeded bugs of DPM-Solver-v3, found by closed forms, differences and one-step exactness."""

from mutants.table import Bug, found_by

TESTS = "sampling/diffusion/test_dpm_solver_v3.py"
INTEGRALS = "shoal.sampling.diffusion._v3_integrals"
STATISTICS = "shoal.sampling.diffusion.statistics"
SOLVER = "shoal.sampling.diffusion.dpm_solver_v3"

BUGS: tuple[Bug, ...] = (
    *found_by(
        TESTS,
        "test_step_where_statistics_are_constant",
        (),
        ("v3: g of older points not moved", INTEGRALS, "alpha_t * (drift -",
         "alpha_t * (0 * drift -"),
        ("v3: panels begin anew", INTEGRALS, "before[:, None] + scale",
         "0 * before[:, None] + scale"),
        ("v3: inner integral of grown b", INTEGRALS, "np.exp(-grown))", "np.exp(grown))"),
        ("v3: linear part to the wrong end", INTEGRALS, "values(self.L) - self.L(t)",
         "values(self.L) - self.L(s)"),
        ("v3: older f not brought to the step", INTEGRALS, "[-alpha_t * w * shrink for",
         "[-alpha_t * w for"),
    ),
    *found_by(
        TESTS,
        "test_statistics_against_differences_along_the_flow",
        (),
        ("v3: l does not move", STATISTICS, "(slope_dot - slope * sigma**2)",
         "(-slope * sigma**2)"),
        ("v3: covariance with the wrong sign", STATISTICS, "sigma * rr - rd)", "sigma * rr + rd)"),
        ("v3: b of the mean of f'", STATISTICS, "pool(f_dot) - s * pool(f)", "pool(f_dot)"),
        ("v3: batches merged as equals", STATISTICS, "share = b.weight / weight", "share = 0.5"),
    ),
    *found_by(
        TESTS,
        "test_gaussian_data_take_one_step",
        (),
        ("v3: means of entries taken for one", STATISTICS, "rr + apart**2)", "rr)"),
    ),
    *found_by(
        TESTS,
        "test_correction_and_its_region_in_time",
        (),
        ("v3: correction without the new call", SOLVER, "[points[0], new, *points[1:]]",
         "[points[0], *points[1:], new]"),
        ("v3: correction not built upon", SOLVER, "position=tape.keep(corrected",
         "f=tape.keep(corrected"),
        ("v3: region anywhere", SOLVER, "not self.reach[0] <= s <= self.reach[1]", "False"),
    ),
)  # fmt: skip
