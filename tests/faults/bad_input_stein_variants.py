"""SVGD and its variants without a metric: hyperparameters, starts, keys, mitosis."""

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from shoal.sampling import stein
from shoal.sampling.core import kernels, mirror

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry

_points = jnp.array([[0.5, 1.0], [-1.0, 0.5], [0.0, -1.0]])
_kernel = kind.Slot(None, {
    "class": bad(kernels.RBF, "RBF"), "text": bad("rbf"), "number": bad(2.0),
    "vector of bandwidths": bad(kernels.RBF(jnp.ones(2)), "scalar parameters"),
})  # fmt: skip
_optimizer = kind.Slot(None, {
    "factory": bad(optax.adam, "function"), "text": bad("adam"), "number": bad(0.1),
})  # fmt: skip
_bandwidth = kind.positive(2.0).without("text").plus(unknown_rule=("median", "'median'"))
_project = kind.Slot(None, {"number": bad(3.0), "text": bad("simplex")})
_block = kind.count().plus(text_of_a_number=("64", "'64'"))
_flag = kind.Slot(True, {"text": bad("no"), "number": bad(1), "None": bad(None)})
_shared = dict(kernel=_kernel, bandwidth=_bandwidth)
_usual = dict(_shared, optimizer=_optimizer)
_two = kind.count(2).plus(one=(1, "at least 2, got 1"))
_alone = np.eye(2, dtype=bool)
_neighbours = kind.Slot(_alone, {
    "numbers": bad(np.eye(2), "float64"), "vector": bad(np.ones(2, bool), r"\(2,\)"),
    "not square": bad(np.ones((2, 3), bool), r"\(2, 3\)"), "None": bad(None, "object"),
    "asymmetric": bad(np.triu(np.ones((2, 2), bool)), r"\[0, 1\] is True"),
    "empty": bad(np.ones((0, 0), bool), r"\(0, 0\)"), "text": bad("chain"),
})  # fmt: skip
_dynamic = {
    "svgd": (stein.svgd, _shared),
    "annealed_svgd": (
        lambda **given: stein.annealed_svgd(num_steps=20, **given),
        dict(_shared, power=kind.positive(2.0)),
    ),
    "stochastic_svgd": (
        stein.stochastic_svgd,
        dict(_shared, step_size=kind.positive(), langevin=kind.nonnegative()),
    ),
    "random_batch_svgd": (stein.random_batch_svgd, _shared),
    "message_passing_svgd": (
        lambda neighbours=_alone, **given: stein.message_passing_svgd(
            neighbours=neighbours, **given
        ),
        dict(_shared, neighbours=_neighbours),
    ),
    "coin_svgd": (stein.coin_svgd, _shared),
}


def ensembles(name: str, factory: Callable[..., Any], slots: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a method with an ensemble of three points in the plane."""

    def step(key: Any) -> Any:
        algorithm = factory()(kind.normal)
        return algorithm.step(key, algorithm.init(_points))

    density = kind.log_density().without("-inf", "+inf", "gradient NaN", "NaN")
    return {
        f"stein.{name}": entry(factory, **slots),
        f"stein.{name}.replace": entry(lambda **given: factory().replace(**given), **slots),
        f"stein.{name}.init": entry(
            lambda log_density, position: factory()(log_density).init(position),
            log_density=density.plus(NaN=(lambda x: jnp.log(x[0]), r"\[1\] is nan")),
            position=kind.points(_points).without("further axis", "array of text").plus(
                one_place=(jnp.ones((3, 2)), "in one place")
            ),
        ),
        f"stein.{name}.step": entry(step, key=kind.key()),
    }  # fmt: skip


_algorithm = stein.svgd()(kind.normal)
_state = _algorithm.init(_points)


def split(**given: Any) -> Any:
    """Split the particles of SVGD on a normal law."""
    good = dict(key=kind.KEY, algorithm=_algorithm, state=_state, num=2, spread=0.3, mirror=None)
    return stein.split(**good | given)


ENTRIES = {
    **{key: value for name, (factory, slots) in _dynamic.items() for key, value in
       ensembles(name, factory, slots).items()},
    "stein.svgd's options": entry(
        stein.svgd, optimizer=_optimizer, project=_project, block_size=_block,
        ring=kind.Slot(None, {"text": bad("chips"), "number": bad(2)}),
    ),
    "stein.annealed_svgd's options": entry(
        stein.annealed_svgd, optimizer=_optimizer, num_steps=kind.count(20),
        schedule=kind.choice("cyclic", "linear"),
        num_cycles=_two.plus(more_than_steps=(21, "at most num_steps=20, got 21")),
    ),
    "stein.stochastic_svgd's options": entry(stein.stochastic_svgd, has_kernel_noise=_flag),
    "stein.random_batch_svgd's options": entry(
        stein.random_batch_svgd, optimizer=_optimizer, batch_size=_two
    ),
    "stein.message_passing_svgd's options": entry(
        lambda optimizer: stein.message_passing_svgd(
            optimizer=optimizer, neighbours=_alone
        ),
        optimizer=_optimizer,
    ),
    "stein.message_passing_svgd.init, wide": entry(
        lambda neighbours: stein.message_passing_svgd(neighbours=neighbours)(kind.normal).init(
            _points
        ),
        neighbours=kind.Slot(_alone, {
            "of three": bad(np.eye(3, dtype=bool), "3 coordinates.*has 2"),
        }),
    ),
    "stein.split": entry(
        split, key=kind.key(), num=_two, spread=kind.positive(0.3),
        algorithm=kind.Slot(_algorithm, {"sampler": bad(stein.svgd(), "init"), "None": bad(None)}),
        state=kind.Slot(_state, {
            "position": bad(_points, "Array"), "None": bad(None, "NoneType"),
            "one alive": bad(_state._replace(alive=jnp.arange(3) == 0), "at least 2, got 1"),
        }),
        mirror=kind.Slot(None, {"of no mirrored state": bad(mirror.simplex(), "Simplex")}),
    ),
}  # fmt: skip
