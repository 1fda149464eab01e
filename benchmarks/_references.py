"""Make ``references.npz``: moments of the posteriors by long runs of NUTS.

Run ``python benchmarks/_references.py --data DIR``. Eight chains at acceptance 0.9; the smallest
effective sample sizes of a coordinate are printed. Those of the two hardest posteriors are 10,400
(Brownian motion) and 16,300 (stochastic volatility): 1.4 % of a variance.
"""

from pathlib import Path

import jax
import numpy as np
from _harness import parse_options
from _targets import REFERENCES, WHERE, Moments, as_target, problems

from shoal.inference import Result, sample
from shoal.inference.summary import summarize

DRAWS = {
    "breast cancer": 2000,
    "German credit": 1500,
    "Brownian motion": 16_000,
    "stochastic volatility": 12_000,
    "item response": 1200,
}


def main() -> None:
    options = parse_options("Reference moments")
    if options.data is None:
        raise SystemExit(WHERE)
    found = {}
    for name, make in problems(Path(options.data)).items():
        problem = make()
        if name.startswith("Gaussian"):
            continue
        starts = jax.vmap(problem.start)(jax.random.split(jax.random.key(10), 8))
        result = sample(
            jax.random.key(11), as_target(problem), "nuts", init=starts, num_chains=8,
            num_warmup=1500, num_samples=DRAWS.get(name, 4000), target_acceptance=0.9,
        )  # fmt: skip
        draws = result.posterior["position"].astype(np.float64)
        ess = [summarize(Result({"x": v}, {})).columns["ess_bulk"] for v in (draws, draws**2)]
        print(name, "smallest ESS of x and x²:", *(f"{np.nanmin(e):.0f}" for e in ess), flush=True)
        moments = Moments(
            draws.mean((0, 1)), draws.var((0, 1)), (draws**2).mean((0, 1)), (draws**2).var((0, 1))
        )
        found[name] = np.stack(moments)
    np.savez(REFERENCES, **found)


if __name__ == "__main__":
    main()
