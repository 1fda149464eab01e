"""Eight schools, centred and not: the same posterior, and only one form that NUTS explores.

    python examples/eight_schools.py

Near tau = 0 the centred form is a funnel whose neck NUTS cannot enter; it says so by divergences.
Given tau, all else is Gaussian, so the posterior mean of tau is a one-dimensional integral: that is
the number the draws are checked against.
"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from shoal.inference import Result, sample
from shoal.models import posteriors


def exact_mean_of_tau() -> float:
    """Integrate over tau on a fine grid of log tau; mu and theta are integrated by formula."""
    posterior = posteriors.eight_schools()
    sigma, y = posterior.args[0].astype(float), posterior.kwargs["y"].astype(float)
    grid = np.linspace(-12, 9, 20_001)
    tau = np.exp(grid)
    # Given tau, y is normal with covariance diag(sigma^2 + tau^2) + 25 from the shared mu.
    variance = sigma**2 + tau[:, None] ** 2
    shared = 1 / 25 + np.sum(1 / variance, axis=1)
    fit = np.sum(y**2 / variance, axis=1) - np.sum(y / variance, axis=1) ** 2 / shared
    log_likelihood = -0.5 * (np.sum(np.log(variance), axis=1) + np.log(shared) + fit)
    # HalfCauchy(5) prior, times tau for the grid's spacing.
    weight = tau * np.exp(log_likelihood - log_likelihood.max()) / (1 + (tau / 5) ** 2)
    return float(np.sum(weight * tau) / np.sum(weight))


def draw(num_samples: int, centred: bool) -> Result:
    posterior = posteriors.eight_schools(centred)
    return sample(
        jax.random.key(0), posterior.model, "nuts", model_args=posterior.args,
        model_kwargs=posterior.kwargs, num_warmup=1000, num_samples=num_samples,
        progress=False, on_failure="ignore",
    )  # fmt: skip


def main(num_samples: int = 4000, folder: Path = Path()) -> tuple[float, float]:
    """Write ``eight_schools.png``; return the mean of tau by NUTS and exactly."""
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, centred in zip(axes, (True, False), strict=True):
        result = draw(num_samples, centred)
        theta, tau = result.posterior["theta"][..., 0], result.posterior["tau"]
        bad = result.sample_stats["diverging"]
        ax.plot(theta[~bad], tau[~bad], ".", ms=1.5, alpha=0.4)
        ax.plot(theta[bad], tau[bad], "x", ms=4, color="#C00000")
        ax.set(yscale="log", xlabel="theta of the first school", ylabel="tau", xlim=(-25, 50))
        form = "centred" if centred else "non-centred"
        ax.set_title(f"{form}: mean of tau {tau.mean():.2f}, {bad.sum()} divergences")
    exact = exact_mean_of_tau()
    figure.suptitle(f"Eight schools; the exact mean of tau is {exact:.3f}")
    figure.savefig(folder / "eight_schools.png")
    return float(tau.mean()), exact


if __name__ == "__main__":
    print("mean of tau: {:.3f} by NUTS, non-centred; {:.3f} exactly".format(*main()))
