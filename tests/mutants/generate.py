"""Seeded bugs of generation: what is drawn for which sample, what is lost, what is cut."""

from mutants.table import found_by

TESTS, DENSITIES = "inference/test_generate.py", "sampling/diffusion/test_likelihood.py"
GENERATE = "shoal.inference._generate"
LIKELIHOOD, ENCODING = (f"shoal.sampling.diffusion.{name}" for name in ("likelihood", "encoding"))

BUGS = (
    *found_by(
        TESTS,
        "test_samples_are_the_same_in_batches_of_another_size",
        (),
        (
            "the number in the batch for that of the sample",
            GENERATE,
            "ids = batch * batch_size + lane",
            "ids = lane",
        ),
    ),
    *found_by(
        TESTS,
        "test_record_and_conditions",
        (),
        ("surplus samples of the last batch", GENERATE, "[:num_samples]", "[:]"),
        ("conditions of the first batch", GENERATE, "leaf[:, batch]", "leaf[:, 0]"),
    ),
    *found_by(
        TESTS,
        "z_starts",
        (),
        ("starts at unit variance", GENERATE, " * jnp.asarray(start, dtype)", ""),
        (
            "starts of t_max on any grid",
            GENERATE,
            "schedule.half_log_snr(grid[0])",
            "schedule.half_log_snr(schedule.t_max)",
        ),
    ),
    *found_by(
        TESTS,
        "test_lost_samples_are_named_and_are_nan",
        (),
        ("lost samples are returned", GENERATE, "jnp.where(is_lost, jnp.nan, samples)", "samples"),
        (
            "any step is blamed",
            GENERATE,
            "np.flatnonzero(failed == step)",
            "np.flatnonzero(failed >= step)",
        ),
    ),
    *found_by(
        DENSITIES,
        "test_a_gaussian_to_five_digits_and_the_encoding_is_its_noise",
        (),
        (
            "scale of the schedule forgotten",
            LIKELIHOOD,
            "scale_noise / sigma / scale",
            "scale_noise / sigma",
        ),
        ("linear part of the divergence forgotten", LIKELIHOOD, " - alpha**2 * size", ""),
    ),
    *found_by(
        DENSITIES,
        "z_hutchinson",
        (),
        ("probes summed", LIKELIHOOD, "(probes).mean(axis=0)", "(probes).sum(axis=0)"),
        ("trace without alpha", LIKELIHOOD, "alpha * trace", "trace"),
    ),
    *found_by(
        DENSITIES,
        "test_arcs_keep_their_length",
        (),
        (
            "a line for an arc",
            ENCODING,
            "is_line, w, jnp.sin(w * angle)",
            "is_line, w, w * jnp.sin(angle)",
        ),
    ),
)
