"""Guided sampling, local entropy, Ornstein-Uhlenbeck processes and the natural gradient."""

import functools
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from shoal.sampling.langevin import guided, ornstein_uhlenbeck as ou
from shoal.sampling.langevin.local_entropy import local_entropy
from shoal.sampling.langevin.natural_gradient import natural_gradient

_tables = {
    name: SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name(f"bad_input_{name}.py"))))
    for name in ("kinds", "sampling")
}
kind, sampler = _tables["kinds"], _tables["sampling"].sampler
bad, entry = kind.bad, kind.entry

_uncallable = {"number": bad(3.0, "3.0"), "text": bad("flat")}
_flag = kind.Slot(False, {"number": bad(3.0), "text": bad("yes"), "None": bad(None)})
_matrix = kind.numbers(np.eye(2)).plus(
    oblong=(np.ones((2, 3)), r"\(2, 3\)"), vector=(np.ones(2), r"\(2,\)")
)
_spd = _matrix.plus(asymmetric=(np.array([[1.0, 0.5], [0.0, 1.0]]), "symmetric"))
_vector = kind.shorter(kind.numbers(np.ones(2)).without("empty array")).plus(
    too_long=(np.ones(3), r"\(3,\)")
)

ENTRIES = {
    **sampler(
        "guided.reward_guided",
        guided.reward_guided,
        step_size=kind.positive(),
        temperature=kind.positive(),
    ),
    "guided.reward_guided's options": entry(
        guided.reward_guided, clock=kind.Slot(None, _uncallable), adjust=_flag
    ),
    "guided.reward_guided's clock": entry(
        lambda clock: guided.reward_guided(clock=clock)(kind.normal).init(jnp.zeros(2)),
        clock=kind.Slot(jnp.exp, {
            "zero": bad(jnp.sin, "positive"), "NaN": bad(lambda r: r / 0, "nan"),
            "vector": bad(lambda r: jnp.ones(2), r"\(2,\)"), "text": bad(lambda r: "a", "'a'"),
        }),
    ),
    "guided.sigmoid_clock": entry(
        guided.sigmoid_clock, slow=kind.positive(), fast=kind.positive(2.0),
        rate=kind.nonnegative(), centre=kind.nonnegative().without("negative"),
    ),
    "local_entropy": entry(
        local_entropy, key=kind.key(), num_steps=kind.count(lowest=0),
        inner_step_size=kind.positive(), scope=kind.positive(),
        averaging=kind.nonnegative().plus(one=(1.0, "1.0")), temperature=kind.nonnegative(),
        grad_fn=kind.Slot(None, _uncallable),
    ),
    "natural_gradient": entry(
        natural_gradient, key=kind.key(), damping=kind.positive(),
        time=kind.positive().without("inf").plus(minus_inf=(-math.inf, "-inf")),
        temperature=kind.nonnegative(),
    ),
    "ornstein_uhlenbeck.transition": entry(
        ou.transition, drift_matrix=_matrix, b=_vector, diffusion=_spd, time=kind.positive(),
        symmetric=_flag,
    ),
    "ornstein_uhlenbeck.transition of scalars": entry(
        functools.partial(ou.transition, np.eye(2)), diffusion=kind.nonnegative(one=False)
    ),
    "ornstein_uhlenbeck.stationary_covariance": entry(
        ou.stationary_covariance, drift_matrix=_matrix, diffusion=_spd
    ),
    "ornstein_uhlenbeck.solve": entry(
        ou.solve, key=kind.key(), matrix=_spd, b=_vector, temperature=kind.nonnegative(),
        num_samples=kind.count(), interval=kind.positive(), burn_in=kind.positive(),
        symmetric=_flag._replace(good=True),
    ),
    "ornstein_uhlenbeck.inverse": entry(
        ou.inverse, key=kind.key(), matrix=_spd, num_samples=kind.count(), interval=kind.positive(),
        burn_in=kind.positive(),
    ),
    "ornstein_uhlenbeck.Transition.draw": entry(
        functools.partial(ou.transition(np.eye(2)).draw, x=jnp.zeros(2)), key=kind.key()
    ),
}  # fmt: skip
