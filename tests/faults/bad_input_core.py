"""The core: every public function of arrays with a kind of bad input for each argument."""

import functools
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np

from shoal.sampling.core import bandwidth, kernels, pairwise, particles, random
from shoal.sampling.core.particles import to_matrix

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
KEY, bad, entry = kind.KEY, kind.bad, kind.entry

X, Y = jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 6.0]]), jnp.array([[1.0, 1.0], [0.0, 2.0]])
V, W, LOGS = jnp.ones((2, 2)), jnp.ones(2), jnp.log(jnp.array([0.2, 0.3, 0.5]))
IDS = jnp.arange(3)
_array = functools.partial(kind.points, propagates=True)


def _finite(good: Any) -> Any:
    """Return the slot of an array in which NaN has a meaning that the docstring gives."""
    return kind.points(good).without("NaN in one entry", "inf in one entry")


_pairs = dict(
    x=_array(X),
    y=_array(Y),
    block_size=kind.count(2).without("bool"),
    ring=kind.choice(None),
)
_kernel = dict(
    kernel=kind.Slot(kernels.RBF(1.0), {
        "number": bad(1.0), "None": bad(None), "text": bad("rbf"),
        "class": bad(kernels.RBF, "RBF"),
        "vector parameter": bad(kernels.RBF(np.ones(2)), "scalar parameters"),
        "returns a vector": bad(lambda x, y: x - y, r"scalar.*\(2,\)"),
    })
)  # fmt: skip
_threshold = kind.nonnegative()
_weights = kind.shorter(_array(W))
_ensemble, _other = kind.Slot(X, {}), kind.Slot(X + 1, {"other shape": bad(Y, r"\(2, 2\)")})
_mask = kind.Slot(jnp.array([True, False, True]), {
    "numbers": bad(jnp.ones(3), "float32"), "None": bad(None, "NoneType"),
    "list": bad([True, False, True], "list"), "too short": bad(jnp.array([True]), r"\(1,\)"),
})  # fmt: skip
ENTRIES = {
    "kernels.RBF": entry(kernels.RBF, bandwidth=kind.positive(one=False)),
    "kernels.IMQ": entry(
        kernels.IMQ, bandwidth=kind.positive(one=False), offset=kind.positive(one=False),
        beta=kind.positive(-0.5, one=False).without("negative", "None").plus(positive=(0.5, "0.5")),
    ),
    "kernels.RationalQuadratic": entry(
        kernels.RationalQuadratic, length_scale=kind.positive(one=False),
        alpha=kind.positive(one=False),
    ),
    "kernels.Matern32": entry(kernels.Matern32, length_scale=kind.positive(one=False)),
    "kernels.Matern52": entry(kernels.Matern52, length_scale=kind.positive(one=False)),
    "kernels.Linear": entry(kernels.Linear, bias=kind.nonnegative(one=False)),
    "kernels.Scaled": entry(
        kernels.Scaled, scale=kind.positive(one=False),
        kernel=kind.Slot(kernels.RBF(1.0), {"number": bad(2.0), "text": bad("rbf")}),
    ),
    "kernels.Custom": entry(kernels.Custom, function=kind.Slot(len, {"number": bad(2.0)})),
    "kernels.as_kernel": entry(kernels.as_kernel, kernel=kind.choice(kernels.RBF(1.0))),
    "pairwise.kernel_matvec": entry(pairwise.kernel_matvec, **_pairs, **_kernel, v=_array(V)),
    "pairwise.kernel_grad_sum": entry(pairwise.kernel_grad_sum, **_pairs, **_kernel, w=_weights),
    "pairwise.kernel_matvec_plus_grad_sum": entry(
        pairwise.kernel_matvec_plus_grad_sum, **_pairs, **_kernel, v=_array(V), w=_weights,
        threshold=_threshold.without("None"),
    ),
    "pairwise.kernel_sum": entry(
        pairwise.kernel_sum, **_pairs, **_kernel, u=_weights.without("None"),
        exclude_diagonal=kind.Slot(False, {"unequal sets": bad(True), "text": bad("no")}),
    ),
    "pairwise.count_within": entry(
        pairwise.count_within, **{**_pairs, "x": _finite(X), "y": _finite(Y)}, threshold=_threshold,
        exclude_diagonal=kind.Slot(False, {"unequal sets": bad(True), "text": bad("no")}),
    ),
    "pairwise.logsumexp": entry(
        pairwise.logsumexp, **_pairs, bias=_weights, epsilon=kind.positive()
    ),
    "pairwise.softmax_mean": entry(
        pairwise.softmax_mean, **_pairs, bias=_weights, values=_array(V), epsilon=kind.positive()
    ),
    "bandwidth.from_rule": entry(
        bandwidth.from_rule, rule=kind.choice("median_all"), particles=_array(X),
        block_size=_pairs["block_size"], ring=_pairs["ring"],
        value=kind.Slot(None, {"number": bad(1.0)}),
    ),
    "bandwidth.from_rule('fixed')": entry(
        lambda **given: bandwidth.from_rule("fixed", **given),
        particles=_finite(X),
        value=kind.positive(),
    ),
    "bandwidth.track": entry(
        bandwidth.track, particles=_array(X), where=_mask.without("None")._replace(good=None)
    ),
    "bandwidth.update": entry(
        functools.partial(bandwidth.update, bandwidth.track(X)),
        near=_finite(jnp.ones(3)),
    ),
    "particles.to_matrix": entry(
        lambda particles: to_matrix(particles)[0],
        particles=kind.Slot({"a": X, "b": jnp.zeros(3)}, {
            "no leaf": bad({}, "no array"), "unequal": bad({"a": X, "b": W}, r"b.*\(2,\)"),
            "scalar": bad({"a": 1.0}, r"a.*\(\)"), "text": bad({"a": "x"}, "a.*'x'"),
            "objects": bad({"a": np.array([None, 1])}, "a.*object"),
        }),
    ),
    "particles.normalize_log_weights": entry(
        particles.normalize_log_weights, log_weights=_array(LOGS).without("further axis")
    ),
    "particles.effective_sample_size": entry(
        particles.effective_sample_size, log_weights=_array(LOGS).without("further axis")
    ),
    "particles.systematic_resampling": entry(
        particles.systematic_resampling, key=kind.key(), log_weights=kind.points(LOGS),
        num=kind.count(),
    ),
    "particles.keep_finite": entry(particles.keep_finite, old=_ensemble, new=_other, alive=_mask),
    "particles.park_dead": entry(
        particles.park_dead, particles=kind.Slot({"a": X}, {}), alive=_mask
    ),
    "random.step_key": entry(random.step_key, key=kind.key(), step=kind.count(lowest=0)),
    "random.particle_keys": entry(
        random.particle_keys, key=kind.key(), particle_ids=kind.Slot(IDS, {
            "fractions": bad(jnp.ones(3), "float32"), "text": bad("all", "str|'all'"),
            "scalar": bad(jnp.int32(3), r"\(\)"), "None": bad(None),
        }),
    ),
    "random.normal": entry(
        functools.partial(random.normal, particle_ids=IDS), key=kind.key(),
        step=kind.count(lowest=0), shape=kind.Slot((2,), {
            "negative": bad((-2,)), "text": bad("two"), "fraction": bad((2.5,)),
        }),
        dtype=kind.Slot(None, {"integer": bad(jnp.int32, "int32"), "text": bad("real")}),
    ),
}  # fmt: skip
