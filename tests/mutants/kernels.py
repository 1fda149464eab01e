"""Seeded bugs of kernels: wrong values, wrong derivatives, wrong combinations."""

from mutants.table import found_by

TESTS = "sampling/core/test_kernels.py"
KERNELS = "shoal.sampling.core.kernels"
ALGEBRA = "shoal.sampling.core._kernel_algebra"
FORMULA = "test_profile_and_its_derivatives_are_the_formula_s"
MIXED = "test_jets_of_mixed_kernels_are_the_derivatives_in_distance_and_inner_product"

BUGS = (
    *found_by(
        TESTS,
        FORMULA,
        ("rbf",),
        (
            "rbf: bandwidth is twice the squared length",
            KERNELS,
            "jnp.exp(-q / self.bandwidth)",
            "jnp.exp(-q / (2 * self.bandwidth))",
        ),
        (
            "rbf: sign of the slope",
            KERNELS,
            "q=-value / self.bandwidth, qq",
            "q=value / self.bandwidth, qq",
        ),
    ),
    *found_by(
        TESTS,
        FORMULA,
        ("imq",),
        ("imq: power one half", KERNELS, "beta = -0.5 if", "beta = 0.5 if"),
        (
            "imq: curvature misses the chain rule",
            KERNELS,
            "(beta - 1) / self.bandwidth * slope",
            "beta / self.bandwidth * slope",
        ),
    ),
    *found_by(
        TESTS,
        FORMULA,
        ("imq, any power",),
        ("imq: offset not squared", KERNELS, "self.offset**2 + q", "self.offset + q"),
    ),
    *found_by(
        TESTS,
        FORMULA,
        ("rational quadratic",),
        ("rational quadratic: half missing", KERNELS, "half = 0.5 /", "half = 1.0 /"),
        (
            "rational quadratic: curvature",
            KERNELS,
            "-half * (1 + 1 / self.alpha)",
            "-half * (1 + self.alpha)",
        ),
    ),
    *found_by(
        TESTS,
        FORMULA,
        ("matern 3/2",),
        ("matern 3/2: rate of 5/2", KERNELS, "rate = 3 /", "rate = 5 /"),
        ("matern 3/2: curvature", KERNELS, "rate**2 / 4 *", "rate**2 / 2 *"),
    ),
    *found_by(
        TESTS,
        "test_autodiff_of_the_profile_gives_the_closed_forms",
        ("matern 3/2",),
        (
            "matern 3/2: derivative that autodiff uses",
            KERNELS,
            "-_m12(s) / 2 * tangent",
            "-_m12(s) * tangent",
        ),
    ),
    *found_by(
        TESTS,
        FORMULA,
        ("matern 5/2",),
        ("matern 5/2: coefficient of q", KERNELS, "root + s / 3", "root + s / 2"),
        ("matern 5/2: slope", KERNELS, "q=-rate / 6 * _m32(s)", "q=-rate / 6 * _m12(s)"),
    ),
    *found_by(
        TESTS,
        "test_coincident_points_have_exact_derivatives",
        ("matern 5/2",),
        (
            "matern 5/2: differentiated through the root",
            KERNELS,
            "@jax.custom_jvp\ndef _m52",
            "def _differentiated(function):\n    function.defjvps = lambda *_: None\n"
            "    return function\n\n\n@_differentiated\ndef _m52",
        ),
    ),
    *found_by(
        TESTS,
        FORMULA,
        ("scaled product and sum",),
        ("product: cross term counted once", ALGEBRA, "2 * a.q * b.q", "a.q * b.q"),
    ),
    *found_by(
        TESTS,
        MIXED,
        (),
        ("product: mixed derivative", ALGEBRA, "a.q * b.g + a.g * b.q", "2 * a.q * b.g"),
        (
            "product: slope in g of one factor",
            ALGEBRA,
            "g=a.g * b.value + a.value * b.g",
            "g=a.g * b.value",
        ),
        (
            "scale on the value alone",
            ALGEBRA,
            "Jet(*(self.scale * entry for entry in self.kernel.jet(q, g)))",
            "self.kernel.jet(q, g)._replace(value=self.scale * self.kernel.jet(q, g).value)",
        ),
        (
            "linear: bias in its slope",
            KERNELS,
            "g=jnp.ones_like(g)",
            "g=jnp.ones_like(g) + self.bias",
        ),
    ),
    *found_by(
        TESTS,
        "test_constant_log_slopes_are_found_and_no_others",
        (),
        ("product: log slope of one factor", ALGEBRA, "else left + right", "else left"),
        (
            "sum takes the log slope of its first term",
            ALGEBRA,
            'class Sum(_Pair):\n    """k1 + k2."""\n',
            "class Sum(_Pair):\n    log_slope = property(lambda self: self.left.log_slope)\n",
        ),
    ),
)
