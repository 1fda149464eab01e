"""What becomes of moments: marginal variances by dimension, constrained models, coverage."""

import importlib.util
import tempfile
import time
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from _harness import Report

from shoal.inference import sample
from shoal.inference.run import run
from shoal.sampling import stein
from shoal.sampling.core import kernels

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# Least marginal variance of a standard normal law that 50 particles keep.
VARIANCES = {10: 0.85, 50: 0.55, 100: 0.28}
SITES = {
    "Gamma(3, 1)": dist.Gamma(3.0, 1.0),
    "Beta(2, 2)": dist.Beta(2.0, 2.0),
    "Dirichlet(2, 3, 4)": dist.Dirichlet(jnp.array([2.0, 3.0, 4.0])),
    "LKJCholesky(3, 2)": dist.LKJCholesky(3, 2.0),
}


def normal(x: jax.Array) -> jax.Array:
    return -0.5 * jnp.sum(x**2)


def variance(sampler: object, dim: int) -> float:
    algorithm = sampler(normal)  # type: ignore[operator]
    state = algorithm.init(2 + jax.random.normal(jax.random.key(0), (50, dim)))
    state = run(jax.random.key(1), algorithm, state, 3000).state
    return float(state.position.var(0).mean())


def add_rows(report: Report) -> None:
    rbf = stein.svgd(kernels.RBF(1.0), bandwidth="tracked_log")
    for dim, least in VARIANCES.items():
        ours, usual = variance(stein.svgd(), dim), variance(rbf, dim)
        row = f"SVGD, n=50, d={dim}, variance kept: default kernel, usual RBF; bar / ours"
        report.row(row, ours, usual, least / ours, 1.0)
    for name, law in SITES.items():
        for sampler in ("svgd",) if report.options.quick else ("svgd", "msvgd", "svmd"):
            _model(report, name, law, sampler)
    if not report.options.quick:
        _coverage(report)


def _model(report: Report, name: str, law: dist.Distribution, sampler: str) -> None:
    """Compare means and standard deviations with those of a million exact draws."""

    def model() -> None:
        numpyro.sample("x", law)

    result = sample(
        jax.random.key(0), model, getattr(stein, sampler)(), num_chains=1, num_samples=200,
        num_warmup=2000, progress=False,
    )  # fmt: skip
    found = result.posterior["x"][0].reshape(200, -1)
    exact = np.asarray(law.sample(jax.random.key(1), (1_000_000,))).reshape(1_000_000, -1)
    free = exact.std(0) > 1e-6
    spread = exact[:, free].std(0)
    # An error of a mean is measured in standard deviations: some means are zero.
    mean = np.abs(found[:, free].mean(0) - exact[:, free].mean(0)) / spread
    width = np.abs(found[:, free].std(0) / spread - 1)
    worst = max(mean.max(), width.max())
    report.row(f"{name} by {sampler}, n=200: error of moments / 5 %", worst, 0.05, worst / 0.05, 1)


def _coverage(report: Report) -> None:
    example = _load("post_selection")
    start = time.perf_counter()
    error = example.main(folder=Path(tempfile.mkdtemp()))
    seconds = time.perf_counter() - start
    report.row("coverage after selection, 0.80-0.95: error / 0.03", error, 0.03, error / 0.03, 1.0)
    report.row("coverage after selection: seconds / 600", seconds, 600.0, seconds / 600, 1.0)


def _load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
