"""Seeded bugs of Langevin dynamics on the sphere, its averages, and the spiked models."""

from mutants.table import found_by

TESTS = "sampling/langevin/test_spherical.py"
SPIKED_TESTS = "models/test_spiked.py"
SPHERICAL = "shoal.sampling.langevin.spherical"
SPIKED = "shoal.models.spiked"

BUGS = (
    *found_by(
        TESTS,
        "z_adjusted_law",
        (500,),
        ("sphere: no drift at the far end", SPHERICAL, "(x * push - y * pull)", "(0 - y * pull)"),
        ("sphere: length missing in the ratio", SPHERICAL, "jnp.sum(length * (x", "jnp.sum((x"),
    ),
    *found_by(
        TESTS,
        "z_unadjusted_law",
        (400,),
        ("sphere: noise not in the tangent space", SPHERICAL,
         "x + _tangent(x, h * pull + jnp.sqrt(2 * h) * noise)",
         "x + h * pull + jnp.sqrt(2 * h) * noise"),
        ("sphere: noise of variance h", SPHERICAL, "jnp.sqrt(2 * h)", "jnp.sqrt(h)"),
        ("sphere: no temperature in the drift", SPHERICAL, "_tangent(x, beta * state.score)",
         "_tangent(x, state.score)"),
    ),
    *found_by(
        TESTS,
        "test_averages_and_length_step_by_step",
        (),
        ("averages: burn-in taken in", SPHERICAL, "+ 1 - start_averaging", "+ 1 - 0"),
        ("averages: one step too many in the count", SPHERICAL, "1 / jnp.maximum(count, 1)",
         "1 / (count + 1)"),
        ("averages: lowest eigenvector", SPHERICAL, "[1][:, -1], jnp.nan", "[1][:, 0], jnp.nan"),
    ),
    *found_by(
        SPIKED_TESTS,
        "test_form_and_derivatives_are_those_of_the_whole_tensor",
        (3,),
        ("tensor: gradient without its order", SPIKED, "tangent + tensor.ndim * jnp",
         "tangent + jnp"),
        ("tensor: some permutations missing", SPIKED, "permutations(range(tensor.ndim)))",
         "permutations(range(tensor.ndim)))[:3]"),
    ),
    *found_by(
        SPIKED_TESTS,
        "z_of_a_single_index_model",
        (),
        ("single index: mean in place of the sum over a root", SPIKED,
         "/ math.sqrt(self.responses.shape[0])", "/ self.responses.shape[0]"),
        ("single index: noise as a variance", SPIKED, "jnp.asarray(noise, dtype) *",
         "jnp.asarray(noise, dtype) ** 2 *"),
    ),
)  # fmt: skip
