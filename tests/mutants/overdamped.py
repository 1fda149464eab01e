"""Seeded bugs of the overdamped samplers beyond `ula` and `mala`, and of the mirror maps."""

from mutants.table import found_by

PLACE = "sampling/langevin/test_"
BARKER = "shoal.sampling.langevin.barker"
METRIC = "shoal.sampling.langevin.metric"
POSITION = "shoal.sampling.langevin.position_metric"
PROXIMAL = "shoal.sampling.langevin.proximal"
MIRRORED = "shoal.sampling.langevin.mirrored"
MIRROR = "shoal.sampling.core.mirror"

BUGS = (
    *found_by(
        f"{PLACE}barker.py",
        "z_law",
        ("dense",),
        ("Barker: sign against the gradient", BARKER, "uniform < jax", "uniform > jax"),
        ("Barker: old gradient in the reverse move", BARKER, "softplus(push", "softplus(pull"),
        ("Barker: gradient not whitened", BARKER, "metric.whiten(score)", "score"),
    ),
    *found_by(
        f"{PLACE}barker.py",
        "test_a_huge_gradient_overflows_nothing",
        (),
        (
            "Barker: softplus that overflows",
            BARKER,
            "jax.nn.softplus(push * white)",
            "jnp.log1p(jnp.exp(push * white))",
        ),
    ),
    *found_by(
        f"{PLACE}overdamped_metric.py",
        "z_mala_law",
        ("dense",),
        ("MALA in M(x): no determinant", POSITION, "back**2) - _log_det(factor)", "back**2)"),
        (
            "MALA in M(x): factor of the start in the reverse move",
            POSITION,
            "_solve(factor, x",
            "_solve(state.factor, x",
        ),
    ),
    *found_by(
        f"{PLACE}overdamped_metric.py",
        "z_ula_step",
        ("dense",),
        ("ULA in M(x): no divergence", POSITION, "score) + divergence", "score)"),
        (
            "ULA in M(x): divergence of the diagonal only",
            POSITION,
            "return jax.jvp(column, (x,), (direction,))[1]",
            "return direction * jax.jvp(column, (x,), (direction,))[1]",
        ),
    ),
    *found_by(
        f"{PLACE}overdamped_metric.py",
        "test_low_rank_is_the_dense_matrix_that_it_says",
        (),
        (
            "low rank: scaled before the stretch",
            METRIC,
            "self.scale * self._stretched(white)",
            "self._stretched(self.scale * white)",
        ),
        ("low rank: eigenvalues for their roots", METRIC, "jnp.sqrt(values) - 1", "values - 1"),
    ),
    *found_by(
        f"{PLACE}proximal.py",
        "z_prox_mala_law",
        (),
        (
            "proximal MALA: accepted by the envelope",
            PROXIMAL,
            "metric, False, **functions",
            "metric, True, **functions",
        ),
        ("proximal MALA: no penalty", PROXIMAL, "value = value - loss", "value = value - 0 * loss"),
    ),
    *found_by(
        f"{PLACE}proximal.py",
        "z_myula",
        (),
        ("MYULA: away from the proximal point", PROXIMAL, "(p - x) / jnp.as", "(x - p) / jnp.as"),
    ),
    *found_by(
        f"{PLACE}mirrored.py",
        "z_law",
        ("simplex",),
        (
            "mirrored: no volume factor",
            MIRRORED,
            "return value + mirror.log_det_dual_hessian(dual)",
            "return value",
        ),
        (
            "simplex: last probability missing in the volume",
            MIRROR,
            "jnp.sum(jax.nn.log_softmax(_with_zero(dual), -1), -1)",
            "jnp.sum(jax.nn.log_softmax(_with_zero(dual), -1)[..., :-1], -1)",
        ),
    ),
    *found_by(
        f"{PLACE}mirrored.py",
        "z_mirror_step",
        (),
        (
            "mirror Langevin: gradient not along the simplex",
            MIRROR,
            "covector[..., :-1] - covector[..., -1:]",
            "covector[..., :-1]",
        ),
    ),
    *found_by(
        "sampling/core/test_mirror.py",
        "test_closed_forms_are_derivatives_of_the_potential",
        ("box",),
        ("box: divergence of the wrong sign", MIRROR, "(above - below) / (", "(below - above) / ("),
        ("box: width missing in the volume", MIRROR, "jnp.log(high - low) + jax", "0 * low + jax"),
    ),
)  # fmt: skip
