"""A small saved run for the tests of what becomes of its folder: every row is a save."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference import Checkpoint, _work
from shoal.inference.run import run

KEY = jax.random.key(3)
ROWS, THIN = 6, 2


class Walk(eqx.Module):
    """Four random walks."""

    scale: float

    def step(self, key, position):
        """Add a normal number to each coordinate."""
        return position + self.scale * jax.random.normal(key, position.shape), None


def keep(position, info):
    return {"at": position, "norm": jnp.sum(position**2, axis=1)}


def tally(position, info):
    return jnp.sum(position > 0)


def save_every_row(monkeypatch):
    """Make each chunk a row, and save after each, however long that takes."""
    monkeypatch.setattr(_work, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(_work, "_SAVING_PART", 0)


def walk(folder=None, **changes):
    """Do, or continue, a run that is saved in a folder."""
    options = {
        "key": KEY, "scale": 0.5, "start": 0.0, "rows": ROWS, "thin": THIN, "keep": keep,
        "tally": tally, **changes,
    }  # fmt: skip
    key, scale, start, rows, thin = map(options.pop, ("key", "scale", "start", "rows", "thin"))
    saving = None if folder is None else Checkpoint(folder, every=0.0)
    position = jnp.full((4, 3), start)
    return run(key, Walk(scale), position, rows * thin, thin=thin, checkpoint=saving, **options)


def assert_equal(found, expected):
    """Compare all that a run computes, bit for bit."""
    parts = lambda finished: (finished.state, finished.kept, finished.tally, finished.failures)
    jax.tree.map(np.testing.assert_array_equal, parts(found), parts(expected))
    assert (found.num_steps, found.outcome) == (expected.num_steps, expected.outcome)
