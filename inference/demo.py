"""What ``shoal demo`` runs: a real posterior, sampled by MALA and checked against NUTS."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from sklearn.datasets import load_breast_cancer

from shoal.inference import plot, sample
from shoal.inference.result import Result
from shoal.inference.summary import Summary, facts, summarize
from shoal.models import posteriors
from shoal.sampling import langevin

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# MALA's estimate of the dense metric wants this much: after 2000 steps R-hat is still 1.2.
_NUM_WARMUP, _NUM_SAMPLES, _THIN = 10_000, 1000, 20
_NUTS_WARMUP, _NUTS_SAMPLES = 500, 1000
# 62 z-scores against 5.2 (two-sided p 2e-7): right answers fail once in 80 000 demos.
LARGEST_Z = 5.2


class Comparison(NamedTuple):
    """Differences of two runs of one posterior, in units of their Monte Carlo error.

    Attributes
    ----------
    names
        Names of the scalars.
    means, sds
        Differences of posterior means and standard deviations over their joint standard error,
        float64 ``(len(names),)``.
    """

    names: list[str]
    means: np.ndarray
    sds: np.ndarray

    @property
    def largest(self) -> float:
        """The largest absolute value of all."""
        return float(np.max(np.abs([self.means, self.sds])))


def demo(folder: Path, seed: int = 0, progress: bool = True) -> Comparison:
    """Sample, check, print, and write ``breast_cancer.nc`` and ``breast_cancer.png``.

    Parameters
    ----------
    folder
        An existing folder to write to.
    seed
        Seed of the run.
    progress
        Whether to show live progress.

    Returns
    -------
    Comparison
        Of MALA's answer with that of NUTS.

    Raises
    ------
    RuntimeError
        If the two differ by more than `LARGEST_Z` standard errors anywhere.
    """
    posterior = posteriors.breast_cancer()
    print(f"{posterior.description}\n{posterior.source}\n")
    result, reference = run(seed, progress)
    summary, check = _summarize(result), compare(result, reference)
    print(f"\n{facts(result)}\n\n{summary}")
    print(f"{summary.verdict()}\n{summary.efficiency()}")
    print(f"\nChecked against {facts(reference)}")
    print(
        f"Largest difference over {len(check.names)} posterior means: "
        f"{np.abs(check.means).max():.1f} Monte Carlo standard errors; standard deviations: "
        f"{np.abs(check.sds).max():.1f}."
    )
    print(
        f"The posterior mean classifies {accuracy(result):.1%} of the tumours it was fitted to "
        "correctly."
    )
    data = result.save(folder / "breast_cancer.nc")
    image = folder / "breast_cancer.png"
    picture(result, reference).savefig(image)
    print(f"\nDraws:   {data}\nPicture: {image}\nNext:    shoal summary {data}")
    if check.largest > LARGEST_Z:
        raise RuntimeError(f"MALA and NUTS differ by {check.largest:.1f} standard errors")
    return check


def run(seed: int = 0, progress: bool | Callable[..., Any] = True) -> tuple[Result, Result]:
    """Sample the breast cancer posterior with MALA and with NUTS; return both results."""
    posterior = posteriors.breast_cancer()
    key_mala, key_nuts = jax.random.split(jax.random.key(seed))
    shared: dict[str, Any] = dict(
        model_args=posterior.args, model_kwargs=posterior.kwargs, progress=progress
    )
    result = sample(
        key_mala, posterior.model, langevin.mala(), num_warmup=_NUM_WARMUP,
        num_samples=_NUM_SAMPLES, thin=_THIN, tune_metric="dense", **shared,
    )  # fmt: skip
    reference = sample(
        key_nuts, posterior.model, "nuts", num_warmup=_NUTS_WARMUP, num_samples=_NUTS_SAMPLES,
        **shared,
    )  # fmt: skip
    features = [str(name) for name in load_breast_cancer().feature_names]
    for one in (result, reference):
        one.attributes["labels"] = json.dumps({"coefficients": features})
    return result, reference


def compare(first: Result, second: Result) -> Comparison:
    """Compare the posterior means and standard deviations of two runs of one model."""
    a, b = summarize(first), summarize(second)
    if a.names != b.names:
        raise ValueError(f"the results have other names: {a.names} and {b.names}")
    scores = [
        (a.columns[key] - b.columns[key]) / np.hypot(a.columns[error], b.columns[error])
        for key, error in (("mean", "mcse_mean"), ("sd", "mcse_sd"))
    ]
    return Comparison(a.names, *scores)


def accuracy(result: Result) -> float:
    """Return the share of the data that the posterior mean of the parameters classifies rightly."""
    posterior = posteriors.breast_cancer()
    intercept = result.posterior["intercept"].mean()
    coefficients = result.posterior["coefficients"].mean(axis=(0, 1))
    logits = intercept + posterior.args[0] @ coefficients
    return float(np.mean((logits > 0) == posterior.kwargs["y"]))


def picture(result: Result, reference: Result) -> "Figure":
    """Draw the intervals of all coefficients by both samplers, and the clearest ones at length."""
    coefficients = result.posterior["coefficients"]
    middle, spread = coefficients.mean(axis=(0, 1)), coefficients.std(axis=(0, 1))
    clearest = np.argsort(-np.abs(middle) / spread)[:6]
    order = np.argsort(-middle)
    figure = plot.new_figure(13.0, 8.6)
    figure.suptitle(
        "Is a breast tumour benign? Logistic regression on 30 measurements of 569 tumours",
        fontsize=13,
    )
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    left, right = halves
    ax = left.subplots()
    named = _by_feature(result, order)
    plot.draw_forest(ax, named, others={"nuts": _by_feature(reference, order)})
    ax.set_title("change of log odds over one standard deviation", fontsize=10)
    axes = right.subplots(len(clearest), 2, width_ratios=(1, 1.4))
    shown = _by_feature(result, clearest).posterior
    for (density, trace), (name, draws) in zip(axes, shown.items(), strict=True):
        plot.draw_density(density, draws)
        plot.draw_trace(trace, draws)
        density.set_title(name, fontsize=9, loc="left")
    axes[0, 1].set_title("trace of each chain", fontsize=9)
    axes[-1, 1].set_xlabel("draw", fontsize=9)
    axes[-1, 0].set_xlabel("coefficient", fontsize=9)
    return figure


def _features(result: Result) -> list[str]:
    return list(json.loads(result.attributes["labels"])["coefficients"])


def _by_feature(result: Result, order: np.ndarray) -> Result:
    """Return a view with a scalar for each coefficient, under its feature's name."""
    names, draws = _features(result), result.posterior["coefficients"]
    return replace(result, posterior={names[j]: draws[..., j] for j in order})


def _summarize(result: Result) -> Summary:
    """Shorten ``coefficients[mean radius]`` to ``mean radius``: the table fits a screen."""
    summary = summarize(result)
    short = {f"coefficients[{name}]": name for name in _features(result)}
    return replace(summary, names=[short.get(name, name) for name in summary.names])
