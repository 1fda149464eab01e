"""Mirrored Stein samplers and the natural gradient: bad input for each argument."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax

from shoal.sampling import stein
from shoal.sampling.core import kernels, mirror

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry

_points = jnp.asarray(np.random.default_rng(0).uniform(0.1, 0.9, (4, 2)), jnp.float32)
_maps = kind.Slot(mirror.orthant(), {
    "factory": bad(mirror.simplex, "function"), "text": bad("simplex"), "number": bad(3.0),
})  # fmt: skip
_kernels = {
    "several": bad(kernels.RBF(jnp.ones(2)), "scalar parameters"), "number": bad(1.0),
    "class": bad(kernels.RBF, "RBF"), "text": bad("rbf"),
}  # fmt: skip
_own = {"own function": bad(lambda x, y: jnp.sum(x * y), "function of one's own")}
_optimizer = kind.Slot(optax.sgd(0.1), {
    "number": bad(0.1), "text": bad("adam"), "factory": bad(optax.adam, "function"),
})  # fmt: skip
_rules = kind.positive().plus(rule=("median", "median"), empty=(None, "None"))
_common = dict(optimizer=_optimizer, bandwidth=_rules.without("text", "None"))
_share = kind.positive().plus(above_one=(1.5, "1.5"))
_adaptive = dict(
    _common, kernel=kind.Slot(kernels.IMQ(1.0), {**_kernels, **_own}), truncation=_share,
    jitter=kind.nonnegative(),
)  # fmt: skip
_uncallable = kind.Slot(jnp.diag, {"matrix": bad(np.eye(2), "ndarray"), "text": bad("fisher")})
_outside = dict(negative=(-_points, r"\[0, 0\]"))


def _init(make):
    def init(log_density, position):
        return make(mirror.orthant())(log_density).init(position)

    return entry(
        init,
        log_density=kind.log_density().without("-inf", "+inf", "gradient NaN", "NaN"),
        position=kind.points(_points).without("further axis", "array of text").plus(**_outside),
    )


def _step(metric):
    algorithm = stein.svng(metric)(kind.normal)
    return algorithm.step(jax.random.key(0), algorithm.init(_points))


ENTRIES = {
    "stein.msvgd": entry(
        stein.msvgd, mirror=_maps, kernel=kind.Slot(kernels.IMQ(1.0), _kernels), **_common,
        kernel_space=kind.Slot("primal", {"other": bad("both"), "None": bad(None)}),
    ),
    "stein.msvgd.init": _init(stein.msvgd),
    "stein.svmd": entry(
        stein.svmd, mirror=_maps, **_adaptive,
        md=kind.Slot(False, {"number": bad(1.0), "text": bad("yes"), "None": bad(None)}),
    ),
    "stein.svmd.init": _init(stein.svmd),
    "stein.svng": entry(
        stein.svng, metric=_uncallable, **_adaptive, damping=kind.nonnegative(),
        decay=kind.nonnegative().plus(one=(1.0, "1.0")),
    ),
    "stein.svng's metric": entry(
        _step, metric=kind.Slot(jnp.diag, {
            "vector": bad(lambda x: x, r"\(2, 2\).*\(2,\)"), "number": bad(lambda x: 1.0, "float"),
        }),
    ),
    "stein.gauss_newton": entry(
        stein.gauss_newton, predict=_uncallable, curvature=_uncallable,
        weight=kind.positive(),
    ),
}  # fmt: skip
