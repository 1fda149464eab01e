"""Stein samplers with a metric or projections: hyperparameters, starts, curvatures, priors."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from shoal.sampling import stein
from shoal.sampling.core import kernels

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry

_points = jnp.array([[0.5, 1.0], [-1.0, 0.5], [0.0, -1.0]])
_wrong = {
    "class": bad(kernels.RBF, "RBF"), "text": bad("rbf"), "number": bad(2.0),
    "vector of bandwidths": bad(kernels.RBF(jnp.ones(2)), "scalar parameters"),
}  # fmt: skip
_any_kernel = kind.Slot(None, _wrong)
_kernel = kind.Slot(None, _wrong | {
    "linear": bad(kernels.Linear(), "function of the distance.*Linear"),
    "function": bad(lambda x, y: jnp.sum(x * y), "function of the distance.*Custom"),
})  # fmt: skip
_smooth = _kernel.plus(rough=(kernels.Matern32(1.0), "Matern52 for Matern32"))
_optimizer = kind.Slot(None, {
    "factory": bad(optax.adam, "function"), "text": bad("adam"), "number": bad(0.1),
})  # fmt: skip
_bandwidth = kind.positive(2.0).without("text").plus(unknown_rule=("median", "'median'"))
_decay = kind.nonnegative().plus(one=(1.0, "1.0"))
_function = kind.Slot(None, {"matrix": bad(np.eye(2), "ndarray"), "text": bad("fisher")})
_flag = kind.Slot(False, {"text": bad("no"), "number": bad(1), "None": bad(None)})
_mean = kind.numbers(np.zeros(2)).without("empty array").plus(wide=(np.ones(3), r"\(3,\)"))
_precision = _mean.without("further axis").plus(
    zero=(0.0, "0.0"), negative=(np.array([1.0, -1.0]), r"\[1\] is -1"),
    indefinite=(np.array([[1.0, 2], [2, 1]]), "positive definite"),
    asymmetric=(np.array([[1.0, 1], [0, 1]]), "symmetric"),
    not_square=(np.ones((2, 3)), r"\(2, 3\)"), cube=(np.ones((2, 2, 2)), r"\(2, 2, 2\)"),
    of_three=(np.eye(3), r"\(3, 3\)"),
)._replace(good=np.ones(2))  # fmt: skip


def prior(**given: Any) -> Any:
    """Start a projected method, which meets the prior."""
    return stein.projected_svgd(num_dims=1, **given)(kind.normal).init(_points)


def step(sampler: Any) -> Any:
    """Make a step with a sampler."""
    algorithm = sampler(kind.normal)
    return algorithm.step(kind.KEY, algorithm.init(_points))


_shapes = kind.Slot(None, {
    "vector": bad(lambda x: x, r"curvature.*\(2, 2\).*\(2,\)"),
    "of three": bad(lambda x: jnp.eye(3), r"\(3, 3\)"), "number": bad(lambda x: 1.0, "float"),
})  # fmt: skip
_density = kind.log_density().without("-inf", "+inf", "gradient NaN", "NaN")
_starts = {
    "matrix_svgd": stein.matrix_svgd,
    "svn": stein.svn,
    "grassmann_svgd": stein.grassmann_svgd,
    "projected_svgd": lambda: stein.projected_svgd(num_dims=1),
}
ENTRIES = {
    "stein.matrix_svgd": entry(
        stein.matrix_svgd, kernel=_kernel, optimizer=_optimizer, curvature=_function,
        preconditioner=kind.choice("mixture", "sum"), bandwidth=_bandwidth, decay=_decay,
        damping=kind.nonnegative(),
    ),
    "stein.matrix_svgd, step": entry(
        lambda curvature: step(stein.matrix_svgd(curvature=curvature)), curvature=_shapes
    ),
    "stein.svn": entry(
        stein.svn, kernel=_kernel, step_size=kind.positive(), curvature=_function,
        form=kind.choice("full", "diagonal"), damping=kind.nonnegative(),
        num_iterations=kind.count(), is_stochastic=_flag,
    ),
    "stein.svn with noise": entry(
        lambda form: stein.svn(form=form, is_stochastic=True),
        form=kind.Slot("full", {"blocks": bad("block", "form='full', got 'block'")}),
    ),
    "stein.grassmann_svgd": entry(
        stein.grassmann_svgd, kernel=_smooth, optimizer=_optimizer, num_dims=kind.count(1),
        num_projections=kind.count(2), bandwidth=_bandwidth,
        projector_step_size=kind.positive(), temperature=kind.positive(),
        threshold=kind.nonnegative(),
    ),
    "stein.projected_svgd": entry(
        stein.projected_svgd, kernel=_any_kernel, optimizer=_optimizer, num_dims=kind.count(1),
        bandwidth=_bandwidth, tolerance=kind.nonnegative(), update_period=kind.count(),
    ),
    "stein.projected_svgd's prior": entry(prior, prior_mean=_mean, prior_precision=_precision),
    **{
        f"stein.{name}.init, too few for three directions": entry(
            lambda num_dims, factory=factory: factory(num_dims=num_dims)(kind.normal).init(_points),
            num_dims=kind.Slot(1, {"three": bad(3, "at most.*got 3")}),
        )
        for name, factory in
        [("grassmann_svgd", stein.grassmann_svgd), ("projected_svgd", stein.projected_svgd)]
    },
    **{
        f"stein.{name}.init": entry(
            lambda log_density, position, factory=factory: factory()(log_density).init(position),
            log_density=_density,
            position=kind.points(_points).without("further axis", "array of text").plus(
                one_place=(jnp.ones((3, 2)), "in one place")
            ),
        )
        for name, factory in _starts.items()
    },
}  # fmt: skip
