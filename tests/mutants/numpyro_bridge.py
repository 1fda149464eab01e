"""Seeded bugs of the way from NumPyro models to log densities on R^d, and back."""

from mutants.table import found_by

SITES = "inference/test_sites.py"
MODELS = "inference/test_numpyro.py"
BRIDGE = "shoal.inference.numpyro"
TRANSFORMS = "shoal.inference._sites"
PREDICTIONS = "shoal.inference._predictions"
JACOBIAN = 'log_probs[name] + jnp.sum(recorded(trace, "log_det", name))'
MAPPED = "test_site_is_mapped_exactly"

BUGS = (
    *found_by(
        SITES,
        "test_density_integrates_to_one",
        ("half normal", 1001, 40.0),
        ("Jacobian counted twice", BRIDGE, JACOBIAN, JACOBIAN.replace("+", "+ 2 *")),
    ),
    *found_by(
        SITES,
        "z_stein",
        ("beta",),
        ("Jacobian missing", BRIDGE, JACOBIAN, "log_probs[name]"),
        (
            "Jacobian at the constrained value",
            TRANSFORMS,
            "log_abs_det_jacobian(z, value)",
            "log_abs_det_jacobian(value, value)",
        ),
    ),
    *found_by(
        SITES,
        MAPPED,
        ("uniform",),
        ("Jacobian of the inverse", BRIDGE, JACOBIAN, JACOBIAN.replace("+", "-")),
        (
            "model sees the unconstrained value",
            TRANSFORMS,
            "return transform(z), transform, z",
            "return z, transform, z",
        ),
        (
            "unconstrained position is the value itself",
            TRANSFORMS,
            "biject_to(fn.support).inv(value)",
            "value",
        ),
        (
            "draws left unconstrained",
            BRIDGE,
            'name: jnp.asarray(trace[name]["value"]) for name in names}',
            'name: position.get(name, trace[name]["value"]) for name in names}',
        ),
    ),
    *found_by(
        MODELS,
        "test_plates_and_supports_that_depend_on_other_sites",
        (),
        (
            "Jacobian averaged over a plate",
            TRANSFORMS,
            "jnp.sum(transform.log_abs_det",
            "jnp.mean(transform.log_abs_det",
        ),
        (
            "deterministic sites at the wrong place",
            BRIDGE,
            "functools.partial(constrained, position))",
            "functools.partial(constrained, jax.tree.map(lambda z: z + (z.ndim > 0), position)))",
        ),
    ),
    *found_by(
        MODELS,
        "test_scan",
        (),
        (
            "scan: every step sees the first value",
            TRANSFORMS,
            "else values[index]",
            "else values[0]",
        ),
    ),
    *found_by(
        MODELS,
        "test_log_likelihood_and_observed_data",
        (),
        (
            "draws out of order",
            PREDICTIONS,
            "leaf.reshape(-1, *leaf.shape[batch_ndims:])",
            "leaf.reshape(-1, *leaf.shape[batch_ndims:])[::-1]",
        ),
        (
            "observed sites' values instead of likelihoods",
            PREDICTIONS,
            "found[name] for name",
            "jax.numpy.exp(found[name]) for name",
        ),
    ),
    *found_by(
        MODELS,
        "z_predictive",
        (),
        (
            "the data themselves predicted",
            PREDICTIONS,
            "handlers.substitute(handlers.uncondition(target.unseeded()), data",
            "handlers.substitute(target.unseeded(), data",
        ),
        (
            "one noise for all draws",
            PREDICTIONS,
            "jax.random.split(key, shape)",
            "jax.numpy.broadcast_to(key, shape)",
        ),
        (
            "a fixed seed inside the model",
            PREDICTIONS,
            "uncondition(target.unseeded()), data=draw)",
            "uncondition(target.runnable()), data=draw)",
        ),
    ),
    *found_by(
        MODELS,
        "z_prior",
        (),
        (
            "prior draws of the data",
            PREDICTIONS,
            "handlers.seed(handlers.uncondition(target.unseeded()), rng",
            "handlers.seed(target.unseeded(), rng",
        ),
    ),
)
