"""Schedules, denoisers and the exact ones, with a kind of bad input for each argument."""

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np

from shoal.models import denoisers
from shoal.sampling.core import schedules
from shoal.sampling.core.denoiser import Denoiser, convert

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry


def schedule(make: Callable[..., Any], start: Any, end: Any, **slots: Any) -> dict[str, Any]:
    """Return the entry of a schedule whose time is an interval."""
    slots |= {"t_min": start.plus(beyond_t_max=(2.0, "2")), "t_max": end}
    return {f"schedules.{make.__name__}": entry(make, **slots)}


def exact(name: str, make: Callable[..., Any], **slots: Any) -> dict[str, Any]:
    """Return the entries of an exact denoiser: its factory and what it can do."""
    fn = make(**{name: slot.good for name, slot in slots.items()}).fn
    points = kind.points(jnp.zeros((2, 2))).without(
        "NaN in one entry", "inf in one entry", "empty array", "further axis"
    )
    points = points.plus(of_three=(jnp.zeros((2, 3)), r"\(2, 3\)"), point=(jnp.zeros(2), r"\(2,\)"))
    sigma = kind.Slot(1.0, {"vector": bad(jnp.ones(2), r"\(2,\)")})
    return {
        f"denoisers.{name}": entry(make, **slots),
        f"denoisers.{name}.fn": entry(fn, x=points, sigma=sigma),
        f"denoisers.{name}.log_density": entry(fn.log_density, x=points, sigma=sigma),
        f"denoisers.{name}.sample": entry(fn.sample, key=kind.key(), num=kind.count(lowest=0)),
    }


_start, _end = kind.positive(1e-3), kind.positive(0.9)
_matrix = np.array([[2.0, 0.5], [0.5, 1.0]])
_covariances = kind.numbers(np.stack([_matrix, _matrix])).without("None", "further axis").plus(
    negative=(-1.0, "-1"), asymmetric=(np.stack([_matrix, np.triu(_matrix)]), "symmetric"),
    indefinite=(-np.stack([_matrix, _matrix]), "semidefinite"),
    of_three=(np.ones((2, 3, 3)), r"\(2, 3, 3\)"), of_one=(np.ones(1), r"\(1,\)"),
)  # fmt: skip
_covariance = kind.numbers(_matrix).without("None").plus(
    negative=(-1.0, "-1"), negative_entry=(np.array([1.0, -2.0]), "-2"),
    asymmetric=(np.triu(_matrix), "symmetric"), indefinite=(-_matrix, "semidefinite"),
    of_three=(np.eye(3), r"\(3, 3\)"),
)  # fmt: skip
_prediction = kind.choice("noise", "epsilon")
ENTRIES = {
    **schedule(
        schedules.vp_linear, _start, _end, beta_min=kind.positive(0.1),
        beta_max=kind.positive(20.0).plus(below_beta_min=(0.05, "0.05")),
    ),
    **schedule(
        schedules.vp_cosine, _start, _end.plus(one=(1.0, "1")), offset=kind.nonnegative(0.008)
    ),
    **schedule(
        schedules.ve, kind.nonnegative(), _end, sigma_min=kind.positive(0.1),
        sigma_max=kind.positive(20.0).plus(below_sigma_min=(0.05, "0.05")),
    ),
    **schedule(
        schedules.flow, kind.nonnegative(), _end.plus(above_one=(1.5, "1.5")),
        shift=kind.positive(3.0),
    ),
    "schedules.edm": entry(
        schedules.edm, sigma_min=kind.positive(0.1),
        sigma_max=kind.positive(20.0).plus(below_sigma_min=(0.05, "0.05")),
    ),
    "schedules.vp_discrete": entry(
        schedules.vp_discrete, alphas_cumprod=kind.numbers(np.array([0.9, 0.5, 0.1])).plus(
            one=([0.5], r"\(1,\)"), rising=([0.5, 0.6], r"\[1\].*0\.6"),
            zero=([0.5, 0.0], r"\[1\]"), above_one=([1.5, 0.5], r"\[0\].*1\.5"),
        ),
    ),
    "denoiser.Denoiser": entry(
        Denoiser,
        fn=kind.Slot(lambda x, t: x, {"number": bad(3, "int"), "None": bad(None, "None")}),
        prediction=_prediction, num_calls=kind.count().without("array"),
        schedule=kind.Slot(schedules.edm(), {
            "text": bad("edm", "str"), "factory": bad(schedules.edm, "function"),
        }),
    ),
    "denoiser.Denoiser of a velocity": entry(
        lambda schedule: Denoiser(lambda x, t: x, "velocity", schedule),
        schedule=kind.Slot(schedules.vp_linear(), {
            "straight paths": bad(schedules.flow(), "Flow"), "exploding": bad(schedules.ve(), "VE"),
        }),
    ),
    "denoiser.convert": entry(
        lambda given, wanted: convert(jnp.ones(1), jnp.ones(1), 0.6, 0.8, given, wanted),
        given=_prediction, wanted=_prediction,
    ),
    **exact(
        "gaussian", denoisers.gaussian,
        mean=kind.shorter(kind.numbers(np.array([1.0, 2.0])).without("further axis")),
        cov=_covariance,
    ),
    **exact(
        "gaussian_mixture", denoisers.gaussian_mixture,
        weights=kind.shorter(kind.numbers(np.array([0.3, 0.7])).plus(
            negative=([0.5, -0.5], r"-0\.5"), all_zero=([0.0, 0.0], "zero"),
        )),
        means=kind.shorter(kind.numbers(np.eye(2))), covs=_covariances,
    ),
    **exact(
        "empirical", denoisers.empirical,
        data=kind.numbers(np.ones((3, 2))).without("further axis").plus(
            one_point=(np.ones(2), r"\(2,\)"),
        ),
        bandwidth=kind.nonnegative(), block_size=kind.count(),
    ),
}  # fmt: skip
