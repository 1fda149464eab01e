"""Tempering, ensembles and walks on graphs: public functions with bad input for each argument."""

import functools
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np

from shoal.sampling import langevin
from shoal.sampling.langevin import ensemble, graph, tempering

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
KEY, bad, entry = kind.KEY, kind.bad, kind.entry
_uncallable = {"number": bad(3.0, "3.0"), "text": bad("flat")}
_samplers = {
    "factory": bad(langevin.mala, "function"), "text": bad("mala"), "number": bad(3.0),
}  # fmt: skip
_ladder = kind.numbers(np.array([1.0, 0.5])).without("None")
_ladder = _ladder.plus(rising=(np.array([1.0, 1.5]), r"falling.*\[1\] is 1.5"))
_tempering = dict(
    sampler=kind.Slot(langevin.mala(), _samplers),
    inverse_temperatures=_ladder,
    step_size=kind.positive().without("None"),
    step_scale=kind.positive(one=False),
)
_rates = kind.points(jnp.array([0.5])).plus(above_one=(jnp.array([1.5]), r"\[0\] is 1.5"))
_target = kind.numbers(np.array([1.0, 1.0])).plus(negative=(np.array([1.0, -1.0]), r"\[1\] is -1"))
_pair = kind.Slot(np.array([[1], [0]]), {
    "fractions": bad(np.ones((2, 1)), "float64"),
    "isolated": bad(-np.ones((2, 1), int), "isolated"),
    "text": bad("ring"), "None": bad(None), "vector": bad(np.array([1, 0]), r"\(2,\)"),
})  # fmt: skip
_flag = kind.Slot(True, {"text": bad("no"), "number": bad(1), "None": bad(None)})
_points = jnp.array([[0.5, 1.0], [-1.0, 0.5], [0.0, -1.0], [2.0, 1.0]])


def ensembles(name: str, factory: Callable[..., Any], **slots: Any) -> dict[str, Any]:
    """Return the entries of a method with an ensemble of four points in the plane."""

    def build(log_density: Any, position: Any) -> Any:
        return factory()(log_density).init(position)

    def step(key: Any) -> Any:
        algorithm = factory()(kind.normal)
        return algorithm.step(key, algorithm.init(_points))

    few = {"too few": (_points[:3], "3 particles"), "vector": (_points[0], r"\(2,\)|particles")}
    density = kind.log_density().without("-inf", "+inf", "gradient NaN", "NaN")
    return {
        name: entry(factory, **slots),
        f"{name}.init": entry(
            build,
            log_density=density.plus(NaN=(lambda x: jnp.log(x[0]), r"\[1\] is nan")),
            position=kind.points(_points).without("further axis", "array of text").plus(**few),
        ),
        f"{name}.step": entry(step, key=kind.key()),
    }


ENTRIES = {
    "tempering.parallel": entry(tempering.parallel, **_tempering),
    "tempering.parallel.replace": entry(
        lambda **given: tempering.parallel().replace(**given), **_tempering
    ),
    "tempering.parallel.init": entry(
        lambda log_density, position: tempering.parallel()(log_density).init(position),
        log_density=kind.log_density(), position=kind.start(),
    ),
    "tempering.parallel.step": entry(
        lambda key: (lambda made: made.step(key, made.init(jnp.zeros(2))))(
            tempering.parallel()(kind.normal)
        ),
        key=kind.key(),
    ),
    "tempering.parallel's options": entry(
        tempering.parallel, steps_per_swap=kind.count(), reference=kind.Slot(None, _uncallable),
    ),
    "tempering.geometric_ladder": entry(
        tempering.geometric_ladder, num_replicas=kind.count(), hottest=kind.fraction(),
    ),
    "tempering.adapt_ladder": entry(
        tempering.adapt_ladder, rejection_rates=_rates,
        inverse_temperatures=kind.points(jnp.array([1.0, 0.5])),
    ),
    "tempering.round_trip_rate": entry(tempering.round_trip_rate, rejection_rates=_rates),
    "tempering.tune": entry(
        functools.partial(tempering.tune, log_density=kind.normal, position=jnp.zeros(2)),
        key=kind.key(), sampler=kind.Slot(tempering.parallel(), _samplers),
        num_steps=kind.count(), num_rounds=kind.count(1),
    ),
    **ensembles("ensemble.stretch", ensemble.stretch, a=kind.positive(2.0).plus(one=(1.0, "1.0"))),
    **ensembles(
        "ensemble.aldi", ensemble.aldi, step_size=kind.positive(), has_correction=_flag,
        is_adaptive=_flag,
    ),
    "ensemble.kalman_aldi": entry(
        ensemble.kalman_aldi, forward=kind.Slot(jnp.exp, _uncallable), step_size=kind.positive(),
        observation=kind.points(jnp.ones(2)), noise_covariance=kind.points(jnp.eye(2)).plus(
            negative=(-jnp.eye(2), "definite"), asymmetric=(jnp.eye(2) + jnp.eye(2, k=1), "symm"),
        ),
    ),
    "graph.srrw": entry(
        graph.srrw, target=_target, alpha=kind.nonnegative(), fake_visits=kind.positive(),
        transition=kind.numbers(np.full((2, 2), 0.5)).plus(
            sum=(np.full((2, 2), 0.4), "sum"), isolated=(np.eye(2), "isolated"),
        ),
    ),
    "graph.asymptotic_covariance": entry(
        functools.partial(graph.asymptotic_covariance, np.full((2, 2), 0.5)), target=_target,
        alpha=kind.nonnegative(),
    ),
    "graph.metropolis_walk": entry(graph.metropolis_walk, neighbours=_pair, target=_target),
    "graph.Walk.init": entry(
        lambda position: graph.srrw(np.full((2, 2), 0.5), np.ones(2)).init(position),
        position=kind.Slot(0, {
            "no node": bad(2, "got 2"), "negative": bad(-1, "got -1"),
            "fraction": bad(0.5, "float"),
            "text": bad("first"), "None": bad(None),
        }),
    ),
    "graph.Walk.step": entry(
        lambda key: (lambda walk: walk.step(key, walk.init(0)))(
            graph.srrw(np.full((2, 2), 0.5), np.ones(2))
        ),
        key=kind.key(),
    ),
}  # fmt: skip
