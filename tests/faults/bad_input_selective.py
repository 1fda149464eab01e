"""Inference after selection: public functions with bad input for each argument."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp

from shoal.models import selective

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
entry = kind.entry
_X = jax.random.normal(jax.random.key(0), (30, 3)) / 5
_y = 20 * _X[:, 0] + jax.random.normal(jax.random.key(1), (30,))
_found = selective.randomized_lasso(jax.random.key(2), _X, _y)
_size = _found.active.size
ENTRIES = {
    "selective.randomized_lasso": entry(
        selective.randomized_lasso,
        key=kind.key(),
        X=kind.points(_X),
        y=kind.points(_y),
        penalty=kind.positive().without("None"),
        noise=kind.positive().without("None"),
    ),
    "selective.confidence_intervals": entry(
        lambda key, draws: selective.confidence_intervals(key, _found, draws, jnp.array([0.9])),
        key=kind.key(),
        draws=kind.points(jnp.ones((20, _size)) + 0.1),
    ),
}
