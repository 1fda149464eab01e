"""Langevin samplers: every public function with a kind of bad input for each argument.

A new method is one line: `sampler("stein.svgd", stein.svgd, step_size=kind.positive())` gives its
factory, `replace`, `init` and `step` all rows that apply to their arguments.
"""

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np

from shoal.sampling import langevin
from shoal.sampling.core import minibatches, mirror
from shoal.sampling.langevin import brownian, gradient_estimators
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
            kind.normal, log_likelihood, np.ones((3, 2), np.float32), 2)).init(jnp.zeros(2), KEY),
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


ENTRIES = {**LANGEVIN, **STOCHASTIC}
