"""Samplers and the core: every public function with a kind of bad input for each argument.

A new method is one line: `sampler("stein.svgd", stein.svgd, step_size=kind.positive())` gives its
factory, `replace`, `init` and `step` all rows that apply to their arguments.
"""

import functools
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np

from shoal.sampling import langevin
from shoal.sampling.core import bandwidth, kernels, mirror, pairwise, particles, random
from shoal.sampling.core.particles import to_matrix
from shoal.sampling.langevin import brownian, gradient_estimators, minibatches
from shoal.sampling.langevin.metric import low_rank
from shoal.sampling.langevin.spherical import power_iteration

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
KEY, bad, entry = kind.KEY, kind.bad, kind.entry


def sampler(name: str, factory: Callable[..., Any], **slots: Any) -> dict[str, Any]:
    """Return the entries of a sampler: its factory, and what it makes of a log density."""

    def build(log_density: Any, position: Any, key: Any) -> Any:
        return factory()(log_density).init(position, key)

    def step(key: Any) -> Any:
        algorithm = factory()(kind.normal)
        return algorithm.step(key, algorithm.init(jnp.zeros(2), KEY))

    return {
        name: entry(factory, **slots),
        f"{name}.replace": entry(lambda **given: factory().replace(**given), **slots),
        f"{name}.init": entry(
            build, log_density=kind.log_density(), position=kind.start(),
            key=kind.Slot(KEY, kind.key().bad if draws_at_start(factory) else {}),
        ),
        f"{name}.step": entry(step, key=kind.key()),
    }  # fmt: skip


def draws_at_start(factory: Callable[..., Any]) -> bool:
    names = ("auto", "baoab", "obabo", "aboba", "ubu", "align", "should", "quicsort", "ghmc")
    names += ("mclmc", "sghmc", "sgnht")
    names += tuple(name for name in langevin.__all__ if name.startswith("adaptive_"))
    return factory in [getattr(langevin, name) for name in names]


def metric() -> Any:
    """Return the slot of an inverse mass matrix of two coordinates."""
    slot = kind.numbers(np.array([1.0, 2.0])).without("None", "empty array", "further axis")
    return slot.plus(
        zero=(0.0, "0.0"),
        negative_entry=(np.array([1.0, -2.0]), r"\[1\].*-2"),
        asymmetric=(np.array([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        indefinite=(np.array([[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
        oblong=(np.ones((2, 3)), r"\(2, 3\)"),
    )


_step = dict(step_size=kind.positive(), metric=metric())
_directed = kind.start()._replace(good=jnp.ones(2)).plus(zero=(jnp.zeros(2), "length"))
_directed = _directed.plus(one=(jnp.ones(1), "1 coordinate"))
_length = kind.positive().without("None")
_kinetic = dict(**_step, friction=kind.nonnegative())
_uncallable = {"number": bad(3.0, "3.0"), "text": bad("flat")}
_bent = lambda x: 1 + 0.5 * jnp.cos(x)
_mirror = kind.Slot(mirror.euclidean(), {
    "factory": bad(mirror.simplex, "function"), "text": bad("simplex"), "number": bad(3.0),
})  # fmt: skip
_inner = kind.Slot(langevin.mala(), {
    "factory": bad(langevin.mala, "function"), "text": bad("mala"), "number": bad(3.0),
})  # fmt: skip
_bound = lambda good: kind.numbers(good).without("None", "empty array")
LANGEVIN = {
    **{
        name: row
        for scheme in ("align", "quicsort", "should", "ubu")
        for name, row in sampler(
            f"langevin.adaptive_{scheme}",
            getattr(langevin, f"adaptive_{scheme}"),
            interval=kind.positive(),
            tolerance=kind.positive(),
            friction=kind.nonnegative(),
            metric=metric(),
        ).items()
    },
    "langevin.brownian.path": entry(
        brownian.path,
        key=kind.key(),
        t0=kind.Slot(0.0, {"text": bad("now"), "NaN": bad(np.nan), "after t1": bad(2.0, "2.0")}),
        t1=kind.Slot(1.0, {"text": bad("then"), "infinite": bad(np.inf), "t0": bad(0.0, "0.0")}),
        shape=kind.Slot(
            (2,),
            {
                "negative": bad((-2,)),
                "text": bad("two"),
                "fraction": bad((2.5,)),
            },
        ),
        levy=kind.choice("WHK"),
        tol=kind.positive(0.1).without("None").plus(tiny=(1e-12, "1e-12")),
        dtype=kind.Slot(None, {"integer": bad(jnp.int32, "int32"), "text": bad("real")}),
    ),
    **sampler("langevin.mclmc", langevin.mclmc, **_step, decoherence_length=_length),
    **sampler("langevin.auto", langevin.auto, **_kinetic),
    "langevin.auto": entry(
        langevin.auto,
        adjusted=kind.Slot(
            False,
            {
                "text": bad("yes", "yes"),
                "number": bad(1, "1"),
                "None": bad(None, "None"),
            },
        ),
    ),
    **sampler("langevin.mams", langevin.mams, **_step, path_length=_length),
    "langevin.mclmc's integrator": entry(langevin.mclmc, integrator=kind.choice("leapfrog")),
    "langevin.mams's integrator": entry(langevin.mams, integrator=kind.choice("leapfrog")),
    **sampler("langevin.barker", langevin.barker, **_step),
    **sampler("langevin.myula", langevin.myula, **_step, smoothing=kind.positive()),
    **sampler("langevin.prox_mala", langevin.prox_mala, **_step, smoothing=kind.positive()),
    **sampler(
        "langevin.mirrored",
        langevin.mirrored,
        mirror=_mirror,
        step_size=kind.positive().without("None"),
        sampler=_inner,
    ),
    **sampler(
        "langevin.mirror_langevin",
        langevin.mirror_langevin,
        mirror=_mirror,
        step_size=kind.positive(),
    ),
    **sampler(
        "langevin.ula in M(x)",
        lambda **given: langevin.ula(metric=_bent, **given),
        step_size=kind.positive(),
    ),
    "langevin.spherical": entry(
        langevin.spherical,
        step_size=kind.positive(),
        inverse_temperature=kind.positive(),
        start_averaging=kind.count(lowest=0),
        second_moment=kind.Slot(False, {"number": bad(2.0), "None": bad(None), "text": bad("no")}),
        adjusted=kind.Slot(False, {"number": bad(2.0), "None": bad(None), "text": bad("no")}),
    ),
    "langevin.spherical.init": entry(
        lambda log_density, position: langevin.spherical()(log_density).init(position),
        log_density=kind.log_density().without("+inf", "gradient NaN"),
        position=_directed,
    ),
    "langevin.spherical.step": entry(
        lambda key: langevin.spherical()(kind.normal).step(
            key, langevin.spherical()(kind.normal).init(jnp.ones(2))
        ),
        key=kind.key(),
    ),
    "spherical.power_iteration": entry(
        power_iteration,
        log_density=kind.Slot(kind.normal, {"number": bad(3.0, "3.0"), "text": bad("flat")}),
        position=_directed,
        num_steps=kind.count(),
    ),
    "langevin.ula's functions": entry(
        lambda metric: langevin.ula(metric=metric)(kind.normal).init(jnp.zeros(2)),
        metric=kind.Slot(
            _bent,
            {
                "vector too long": bad(lambda x: jnp.ones(3), r"\(3,\)"),
                "integers": bad(lambda x: jnp.ones(2, int), "int32"),
                "negative": bad(lambda x: -jnp.ones(2), "positive"),
                "indefinite": bad(lambda x: jnp.array([[1.0, 2.0], [2.0, 1.0]]), "definite"),
                "no derivative": bad(lambda x: 1 + jnp.sqrt(x), "finite"),
            },
        ),
    ),
    "langevin.prox_mala's functions": entry(
        lambda prox, penalty: langevin.prox_mala(prox, penalty)(kind.normal).init(jnp.zeros(2)),
        prox=kind.Slot(
            lambda x, s: x / (1 + s),
            {
                **_uncallable,
                "too short": bad(lambda x, s: x[:1], r"\(2,\)"),
                "NaN": bad(lambda x, s: x / 0.0, "nan"),
            },
        ),
        penalty=kind.Slot(
            kind.normal,
            {
                **_uncallable,
                "vector": bad(jnp.abs, r"scalar.*\(2,\)"),
                "infinite": bad(lambda x: jnp.inf, "inf"),
            },
        ),
    ),
    "metric.low_rank": entry(
        low_rank,
        diagonal=kind.numbers(np.ones(2)).without("None", "empty array", "further axis"),
        vectors=kind.numbers(np.eye(2)[:, :1])
        .without("None", "further axis", "empty array")
        .plus(long=(np.ones((2, 1)), "orthonormal")),
        eigenvalues=kind.numbers(np.ones(1))
        .without("None", "empty array", "further axis")
        .plus(zero=(np.zeros(1), r"\[0\] is 0")),
    ),
    "mirror.box": entry(
        mirror.box,
        low=_bound(np.zeros(2)),
        high=_bound(np.ones(2)).plus(below=(np.array([1.0, -1.0]), r"\[1\]")),
    ),
    **sampler("langevin.ula", langevin.ula, **_step),
    **sampler("langevin.mala", langevin.mala, **_step),
    **sampler("langevin.baoab", langevin.baoab, **_kinetic),
    **sampler("langevin.obabo", langevin.obabo, **_kinetic),
    **sampler("langevin.aboba", langevin.aboba, **_kinetic),
    **sampler("langevin.ubu", langevin.ubu, **_kinetic),
    **sampler("langevin.align", langevin.align, **_kinetic),
    **sampler("langevin.should", langevin.should, **_kinetic),
    **sampler("langevin.quicsort", langevin.quicsort, **_kinetic),
    **sampler("langevin.ghmc", langevin.ghmc, **_kinetic),
    **sampler("langevin.malt", langevin.malt, **_kinetic, trajectory_length=kind.positive()),
}

X, Y = jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 6.0]]), jnp.array([[1.0, 1.0], [0.0, 2.0]])
V, W, LOGS = jnp.ones((2, 2)), jnp.ones(2), jnp.log(jnp.array([0.2, 0.3, 0.5]))
IDS = jnp.arange(3)
_array = functools.partial(kind.points, propagates=True)


_spread = kind.nonnegative(one=False)
_function = {"number": bad(3.0, "3.0"), "None": bad(None), "text": bad("flat")}
_prior = kind.Slot(kind.normal, _function)
_likelihood = kind.Slot(lambda x, y: y @ x, _function)
_rows = kind.Slot(np.ones((3, 2), np.float32), {
    "scalar": bad(np.float32(1.0), r"\(\)"), "nothing": bad({}, r"\[\]"),
    "two lengths": bad({"a": np.ones(3), "b": np.ones(2)}, r"\(3,\).*\(2,\)"),
    "no rows": bad(np.ones((0, 2)), r"\(0, 2\)"), "text": bad("rows", r"\(\)"),
})  # fmt: skip
_batches = kind.Slot(
    minibatches.from_arrays(kind.normal, lambda x, y: y @ x, np.ones((3, 2), np.float32), 2),
    {"density": bad(kind.normal, "function"), "None": bad(None), "array": bad(np.ones(3), "array")},
)
STOCHASTIC = {
    **sampler("langevin.sgld", langevin.sgld, **_step, temperature=kind.positive()),
    **sampler("langevin.sghmc", langevin.sghmc, **_kinetic, gradient_noise=_spread),
    **sampler("langevin.sgnht", langevin.sgnht, **_step, friction=kind.positive(),
              temperature=kind.positive(), thermostat_mass=kind.positive()),
    "langevin.sghmc's noise": entry(
        lambda gradient_noise: langevin.sghmc(gradient_noise=gradient_noise)(kind.normal).init(
            jnp.zeros(2), KEY),
        gradient_noise=kind.Slot(0.5, {"too long": bad(np.ones(3), r"\(3,\)")}),
    ),
    "minibatches.from_arrays": entry(
        minibatches.from_arrays, log_prior=_prior, log_likelihood=_likelihood, data=_rows,
        batch_size=kind.count().plus(too_many=(7, "at most 3.*7")),
    ),
    "minibatches.from_stream": entry(
        minibatches.from_stream, log_prior=_prior, log_likelihood=_likelihood,
        num_data=kind.count(),
    ),
    "minibatches.estimate": entry(
        lambda log_likelihood: langevin.sgld()(minibatches.from_arrays(
            kind.normal, log_likelihood, X, 2)).init(jnp.zeros(2), KEY),
        log_likelihood=kind.Slot(lambda x, y: y @ x, {
            "summed": bad(lambda x, y: jnp.sum(y @ x), r"shape \(2,\), got shape \(\)"),
        }),
    ),
    "minibatches.draw_subset": entry(
        minibatches.draw_subset, key=kind.key(), num=kind.count(5),
        size=kind.count(2).plus(too_many=(7, "at most num=5.*7")),
    ),
    "gradient_estimators.plain": entry(gradient_estimators.plain, minibatches=_batches),
    "gradient_estimators.control_variates": entry(
        gradient_estimators.control_variates, minibatches=_batches,
        center=kind.start().called("center"),
    ),
    "gradient_estimators.svrg": entry(
        gradient_estimators.svrg, minibatches=_batches, refresh_every=kind.count(),
    ),
    "gradient_estimators.noise_variance": entry(
        gradient_estimators.noise_variance, key=kind.key(), position=kind.start(),
        log_density=kind.Slot(_batches.good, {"number": bad(3.0, "3.0")}),
        num_batches=kind.count().plus(one=(1, "at least 2")),
    ),
}  # fmt: skip


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
CORE = {
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

ENTRIES = {**LANGEVIN, **STOCHASTIC, **CORE}
