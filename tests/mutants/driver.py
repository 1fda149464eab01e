"""Seeded bugs of the driver: which key, which row, what is counted, when it stops."""

from mutants.table import found_by

RUNS, FAILURES = "inference/test_run.py", "inference/test_failures.py"
CHUNK, WORK = "shoal.inference._chunk", "shoal.inference._work"
COUNTS = "shoal.inference.failures"

BUGS = (
    *found_by(
        RUNS,
        "test_equals_a_bare_loop_bit_for_bit",
        (),
        ("steps counted from zero", CHUNK, "now = first_step + t", "now = t"),
        ("counts of the last step alone", CHUNK, "a + jnp.asarray(b, a.dtype)", "jnp.asarray(b)"),
        (
            "the state before the step is kept",
            CHUNK,
            "program.keep(inner[0], inner[1])",
            "program.keep(carry[1][0], inner[1])",
        ),
        (
            "counts of the last chunk alone",
            WORK,
            "lambda a, b: a + b.astype(a.dtype), self.tally",
            "lambda a, b: b.astype(a.dtype), self.tally",
        ),
    ),
    *found_by(
        RUNS,
        "test_thinning_keeps_every_so_many_and_counts_all",
        (2,),
        ("thinning skips the steps", CHUNK, "(i + 1) * thin, step", "i * thin + 1, step"),
    ),
    *found_by(
        FAILURES,
        "test_until_stops_at_the_first_row_that_satisfies_it",
        (1,),
        ("done is taken for lost", CHUNK, "program.until(state), DONE", "program.until(state), 2"),
    ),
    *found_by(
        FAILURES,
        "test_the_first_occurrence_is_the_earliest_over_chunks_and_devices",
        (),
        ("the latest device", COUNTS, "np.argmin(np.where(steps", "np.argmax(np.where(steps"),
        ("the latest chunk", COUNTS, "(earlier.first_step < 0) & (", "("),
        ("any particle", COUNTS, "jnp.argmax(hit, axis=0)", "jnp.argmin(hit, axis=0)"),
    ),
    *found_by(
        FAILURES,
        "test_rows_that_fill_up_a_device_are_not_counted",
        (),
        ("rows that fill up are counted", COUNTS, "particles < 0", "particles < -1"),
    ),
)
