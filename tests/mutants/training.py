"""Seeded bugs of networks, their losses and their training."""

from mutants.table import found_by

TESTS = "models/test_denoisers_trained.py"
LOSSES = "shoal.models.denoisers.losses"
NETWORK = "shoal.models.denoisers.network"
TRAINING = "shoal.models.denoisers.training"

BUGS = (
    *found_by(
        TESTS,
        "z_of_the_best_network",
        ("denoising",),
        ("network: wrong share of the input", NETWORK, "(self.sigma_data / total) ** 2",
         "self.sigma_data / total"),
        ("network: input not scaled", NETWORK, "self.inner(x / total", "self.inner(x"),
        ("network: output scale without the data's", NETWORK, "sigma * self.sigma_data / total",
         "sigma / total"),
        ("loss: noise of unit variance at every level", LOSSES, "images + wide * jax",
         "images + jax"),
    ),
    *found_by(
        TESTS,
        "test_the_loss_is_the_error_of_its_form",
        ("flow",),
        ("loss: weight of the velocity for the flow", LOSSES, "(1 + 1 / sigma) ** 2 if",
         "1 + 1 / sigma**2 if"),
    ),
    *found_by(
        TESTS,
        "test_the_average_of_the_weights",
        (),
        ("average: without its warm-up", TRAINING,
         "jnp.minimum(ema_decay, (1 + number) / (10 + number))", "ema_decay"),
    ),
    *found_by(
        TESTS,
        "z_of_dropped_labels",
        (),
        ("labels: kept with the probability of being dropped", TRAINING,
         "labels.shape), no_label, labels)", "labels.shape), labels, no_label)"),
    ),
    *found_by(
        TESTS,
        "test_variance_of_a_residual",
        (),
        ("residual: variance of the noise, not of the step", LOSSES,
         "unit_scales(end)[1] ** 2 * -jnp.expm1(2 * (start - end))", "unit_scales(start)[1] ** 2"),
        ("residual: no half", LOSSES, "residual**2 / (2 * step", "residual**2 / (1 * step"),
    ),
    *found_by(
        TESTS,
        "test_the_residual_is_taken_at_the_mean_or_at_a_sample",
        (),
        ("residual: the sample keeps its noise", LOSSES, "ratio = (last / sigma)",
         "ratio = (sigma / sigma)"),
        ("residual: second prediction at the first level", LOSSES, "(noisy - data), last, labels)",
         "(noisy - data), sigma, labels)"),
    ),
)  # fmt: skip
