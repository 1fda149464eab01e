"""Stein discrepancies: samples with scores, kernels, log densities, results."""

import dataclasses
import runpy
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from shoal.inference import Result, Target, discrepancy
from shoal.sampling.core import kernels, pairwise

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry

_points = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)), jnp.float32)
_flag = kind.Slot(False, {"number": bad(3.0), "text": bad("yes"), "None": bad(None)})
_samples = kind.shorter(kind.points(_points)).plus(
    one_axis=(jnp.ones(5), r"\(5,\)"), no_coordinate=(jnp.ones((5, 0)), r"\(5, 0\)"),
).called("samples", "scores")  # fmt: skip
_scores = kind.shorter(kind.points(-_points)).plus(
    wide=(jnp.ones((5, 3)), r"\(5, 3\)"), number=(3.0, "float"),
    density_of_a_vector=(lambda x: -(x**2), r"scalar.*\(2,\)"),
    density_that_is_not_finite=(lambda x: -jnp.sum(jnp.sqrt(x)), "nan"),
)  # fmt: skip
_rough = {
    "Matern-3/2": bad(kernels.Matern32(1.0), "Matern52 for Matern32"),
    "Matern-3/2 in a sum": bad(kernels.RBF(1.0) + 2.0 * kernels.Matern32(1.0), "Matern52"),
    "linear": bad(kernels.Linear(), "function of the distance.*Linear"),
    "function": bad(lambda x, y: jnp.sum(x * y), "function of the distance.*Custom"),
    "several": bad(kernels.RBF(jnp.ones(2)), "scalar parameters"),
    "number": bad(1.0),
    "class": bad(kernels.RBF, "RBF"),
}
_kernel = kind.Slot(kernels.IMQ(1.0), {**_rough, "name": bad("rbf")})
_weights = kind.shorter(kind.points(jnp.ones(5, jnp.float32))).plus(
    negative=(-jnp.ones(5), r"\[0\].*-1"), zeros=(jnp.zeros(5), "positive somewhere"),
).without("None")  # fmt: skip
_places = kind.points(_points).plus(one_axis=(jnp.ones(5), r"\(5,\)")).without("further axis")
# Those are not finite at the origin only.
_density = kind.log_density().without("+inf", "gradient NaN")
_result = Result(
    {"position": np.asarray(_points)[None]},
    {},
    target=Target.from_log_density(kind.normal, init=jnp.zeros(2)),
)
_changed = lambda **changes: dataclasses.replace(_result, **changes)
_draws = lambda value: _changed(posterior={"position": value})
_results = kind.Slot(_result, {
    "nothing": bad(None, "NoneType"), "dict": bad({"theta": np.ones((1, 5))}, "dict"),
    "no target": bad(_changed(target=None), "target"),
    "nothing in it": bad(_draws(np.zeros((1, 0, 2), "f4")), r"\(1, 0, 2\)"),
    "no draws of a site": bad(_changed(posterior={"theta": np.ones((1, 5))}), "position"),
    "integers": bad(_draws(np.ones((1, 5, 2), int)), "int64"),
    "no draw axis": bad(_draws(np.ones(2, "f4")), r"\(2,\)"),
    "all NaN": bad(_draws(np.full((2, 5, 2), np.nan, "f4")), "chain 0"),
})  # fmt: skip

ENTRIES = {
    "pairwise.stein_kernel_matvec": entry(
        pairwise.stein_kernel_matvec, kernel=kind.Slot(kernels.IMQ(1.0), _rough),
        x=kind.points(_points, propagates=True).called("x", "scores_x", "y"),
        scores_x=kind.shorter(kind.points(_points, propagates=True)),
        y=kind.shorter(kind.points(_points, propagates=True)).called("y", "scores_y"),
        scores_y=kind.shorter(kind.points(_points, propagates=True)),
        v=kind.shorter(kind.points(jnp.ones(5), propagates=True)), exclude_diagonal=_flag,
        block_size=kind.count(2).without("bool"),
    ),
    "discrepancy.ksd": entry(
        discrepancy.ksd, samples=_samples, scores=_scores, kernel=_kernel,
        statistic=kind.choice("U", "W"), weights=_weights,
        block_size=kind.count(2).without("bool"),
    ),
    "discrepancy.ksd of one sample": entry(
        lambda samples: discrepancy.ksd(samples, kind.normal, statistic="U"),
        samples=kind.Slot(_points, {"one": bad(jnp.ones((1, 2)), "at least 2 .*got 1")}),
    ),
    "discrepancy.stein_thinning": entry(
        discrepancy.stein_thinning, samples=_samples, scores=_scores, num=kind.count(),
        kernel=kind.Slot("med", {**_rough, "name": bad("rbf")}), standardize=_flag,
    ),
    "discrepancy.stein_thinning by covariance": entry(
        lambda samples: discrepancy.stein_thinning(samples, samples, 2, "smpcov"),
        samples=kind.Slot(_points, {"in a line": bad(_points[:, :1] * jnp.ones(2), "regular")}),
    ),
    "discrepancy.stein_weights": entry(
        discrepancy.stein_weights, samples=_samples, scores=_scores, kernel=_kernel,
        num_steps=kind.count(), tolerance=kind.nonnegative(),
    ),
    "discrepancy.stein_points": entry(
        discrepancy.stein_points, log_density=_density, candidates=_places, num=kind.count(1),
        kernel=_kernel, num_starts=kind.count(1).plus(too_many=(6, "5 candidates.*6")),
        num_steps=kind.count(1),
    ),
    "discrepancy.ksd_descent": entry(
        discrepancy.ksd_descent, log_density=_density, particles=_places,
        num_steps=kind.count(1), kernel=_kernel,
    ),
    "discrepancy.stein_discrepancy": entry(
        discrepancy.stein_discrepancy, result=_results, kernel=_kernel, max_points=kind.count(),
    ),
    "discrepancy.with_stein_discrepancy": entry(
        discrepancy.with_stein_discrepancy, result=_results, kernel=_kernel,
        max_points=kind.count(),
    ),
}  # fmt: skip
