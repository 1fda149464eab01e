"""The tuned sampler against NUTS on a real posterior: what a draw costs, and how right it is.

    python examples/tuned_sampler.py

Logistic regression on the breast cancer data, 31 coefficients. `langevin.auto` makes one gradient
a draw and is biased a little, which it reports; adjusted it is exact, as NUTS is. All three get
the same number of steps to warm up in, whose gradients count. Effective draws say nothing of bias,
so the posterior standard deviations are compared with NUTS's. The number checked is how many times
as many effective draws a gradient yields.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from shoal.inference import Result, sample
from shoal.inference.summary import Summary, summarize
from shoal.models import posteriors
from shoal.sampling import langevin

# A sampler, and how many draws it makes where NUTS makes one: a path of NUTS is many gradients.
SAMPLERS: dict[str, tuple[Any, int]] = {
    "nuts": ("nuts", 1),
    "auto": (langevin.auto(), 8),
    "auto, adjusted": (langevin.auto(adjusted=True), 1),
}


class Row(NamedTuple):
    """What a run cost and gave: ESS of the worst coefficient, sds as multiples of NUTS's."""

    gradients: int
    ess: float
    efficiency: float
    sds: np.ndarray
    errors: np.ndarray


def draw(sampler: Any, num_warmup: int, num_samples: int) -> Result:
    posterior = posteriors.breast_cancer()
    return sample(
        jax.random.key(0), posterior.model, sampler, model_args=posterior.args,
        model_kwargs=posterior.kwargs, num_warmup=num_warmup, num_samples=num_samples,
        progress=False,
    )  # fmt: skip


def compare(result: Result, nuts: Summary) -> Row:
    found, reference = summarize(result).columns, nuts.columns
    cost = (result.num_gradients or 0) + (result.num_gradients_warmup or 0)
    ess = float(found["ess_bulk"].min())
    # The standard error of a difference of two runs.
    errors = np.hypot(found["mcse_sd"], reference["mcse_sd"]) / reference["sd"]
    return Row(cost, ess, 1000 * ess / cost, found["sd"] / reference["sd"], errors)


def draw_figure(rows: dict[str, Row]) -> Figure:
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    left.bar(list(rows), [row.efficiency for row in rows.values()], color=["C0", "C1", "C2"])
    left.set_title("Smallest bulk ESS per 1,000 gradients,\nwarm-up counted")
    right.axhline(1, color="C0", label="nuts")
    for i, (name, row) in enumerate(list(rows.items())[1:], 1):
        place = np.arange(row.sds.size) + 0.3 * (i - 1)
        right.errorbar(place, row.sds, row.errors, fmt=".", color=f"C{i}", label=name)
    right.set(xlabel="coefficient", ylabel="posterior sd / that of NUTS")
    right.set_title("Bars: a Monte Carlo standard error,\nthat of NUTS included")
    right.legend(frameon=False, ncols=3)
    return figure


def main(
    num_warmup: int = 1000, num_samples: int = 2000, folder: Path = Path()
) -> tuple[float, float]:
    """Write ``tuned_sampler.png`` and print a table.

    Return how many times as efficient as NUTS `auto` is, and the largest difference of an sd, of
    either form, in standard errors.
    """
    sizes = {name: num_samples * draws for name, (_, draws) in SAMPLERS.items()}
    results = {name: draw(SAMPLERS[name][0], num_warmup, sizes[name]) for name in SAMPLERS}
    nuts = summarize(results["nuts"])
    rows = {name: compare(result, nuts) for name, result in results.items()}
    print(f"{'':14}{'gradients':>10}{'ESS':>7}{'ESS/1000':>10}  largest difference of an sd")
    largest = 0.0
    for name, row in rows.items():
        z = np.abs(row.sds - 1) / row.errors
        i, largest = np.argmax(z), max(largest, float(z.max()))
        difference = f"{row.sds[i] - 1:+.1%} ± {row.errors[i]:.1%}" if z.any() else "-"
        print(f"{name:14}{row.gradients:10,}{row.ess:7.0f}{row.efficiency:10.1f}  {difference}")
    print("auto,", results["auto"].bias)
    draw_figure(rows).savefig(folder / "tuned_sampler.png")
    return rows["auto"].efficiency / rows["nuts"].efficiency, largest


if __name__ == "__main__":
    print(f"effective draws per gradient, auto / nuts: {main()[0]:.2f}")
