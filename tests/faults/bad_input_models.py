"""Densities and posteriors: constructors, points and draws, with a kind of bad input for each."""

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np

from shoal.models import densities, posteriors, spiked

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry


def density(name: str, make: Callable[..., Any], **slots: Any) -> dict[str, Any]:
    """Return the entries of an analytic density: its constructor and its two methods."""
    good = make(**{name: slot.good for name, slot in slots.items()})
    mean = jnp.zeros(good.dim)
    return {
        name: entry(make, **slots),
        f"{name}.log_density": entry(
            good.log_density,
            x=kind.shorter(kind.numbers(mean)).propagating("NaN in one entry"),
        ),
        f"{name}.sample": entry(good.sample, key=kind.key(), num=kind.count(lowest=0)),
    }


_vector, _matrix = np.array([1.0, 2.0]), np.array([[2.0, 0.5], [0.5, 1.0]])
_dtype = kind.Slot(None, {
    "integer": bad("int32", "int32"), "half": bad("float16", "float16"), "text": bad("real"),
    "float64 without x64": bad("float64", "x64"),
})  # fmt: skip


def _covariance(negative: Any = (-1.0, "-1.0")) -> Any:
    return (
        kind.numbers(_matrix)
        .without("None")
        .plus(
            negative=negative,
            zero_variance=(np.array([1.0, 0.0]), r"\[1\].*0\.0"),
            asymmetric=(np.array([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
            indefinite=(np.array([[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
            of_three=(np.eye(3), r"\(3, 3\)"),
        )
    )


_count2 = kind.count(2).plus(one=(1, "1"))
_concentration = kind.numbers(np.array([1.0, 2.0, 3.0])).plus(
    zero=(np.array([1.0, 0.0, 1.0]), r"\[1\].*0\.0"), negative=([1.0, -2.0], r"\[1\].*-2"),
    one=([1.0], "at least 2"),
)  # fmt: skip
ENTRIES = {
    **density(
        "densities.Gaussian", densities.Gaussian, mean=kind.numbers(_vector),
        covariance=_covariance(), dtype=_dtype,
    ),
    **density(
        "densities.GaussianMixture", densities.GaussianMixture,
        weights=kind.numbers(np.array([0.3, 0.7])).plus(
            negative=([0.5, -0.5], r"-0\.5"), all_zero=([0.0, 0.0], "zero"),
        ),
        means=kind.shorter(kind.numbers(np.eye(2))),
        covariances=kind.numbers(_matrix).without("further axis").plus(
            indefinite=(-np.eye(2), "positive definite"), of_three=(np.eye(3), r"\(3, 3\)"),
        ),
        dtype=_dtype,
    ),
    **density(
        "densities.StudentT", densities.StudentT, df=kind.positive(3.0),
        loc=kind.numbers(_vector), scale_matrix=_covariance(), dtype=_dtype,
    ),
    **density(
        "densities.Banana", densities.Banana, dim=_count2, scale=kind.positive(),
        curvature=kind.nonnegative().without("negative"), dtype=_dtype,
    ),
    **density(
        "densities.Funnel", densities.Funnel, dim=_count2, scale=kind.positive(), dtype=_dtype
    ),
    **density("densities.Dirichlet", densities.Dirichlet, concentration=_concentration),
    **density(
        "densities.UnconstrainedDirichlet", densities.UnconstrainedDirichlet,
        concentration=_concentration,
    ),
    "densities.ill_conditioned_gaussian": entry(
        densities.ill_conditioned_gaussian, dim=_count2, key=kind.key(), dtype=_dtype,
        condition_number=kind.positive(10.0).plus(below_one=(0.5, "0.5")),
    ),
    "densities.skewed_mixture": entry(densities.skewed_mixture, dtype=_dtype),
    "posteriors.horseshoe_regression": entry(
        posteriors.horseshoe_regression,
        expected_nonzero=kind.positive(3.0).plus(all_of_them=(10, "10")),
    ),
    "posteriors.stochastic_volatility": entry(
        posteriors.stochastic_volatility,
        returns=kind.numbers(np.array([0.1, -0.2, 0.3])).without("None").plus(one=([0.5], "2")),
    ),
    "spiked.TensorPCA": entry(
        spiked.TensorPCA, tensor=kind.numbers(np.ones((2, 2, 2))).without("further axis").plus(
            oblong=(np.ones((2, 3)), r"\(2, 3\)"), vector=(np.ones(2), r"\(2,\)"),
            one_coordinate=(np.ones((1, 1)), r"\(1, 1\)"),
        ),
    ),
    "spiked.TensorPCA.objective": entry(
        spiked.TensorPCA(np.ones((2, 2))).objective,
        x=kind.shorter(kind.numbers(jnp.ones(2))).propagating("NaN in one entry"),
    ),
    "spiked.SingleIndex": entry(
        spiked.SingleIndex, inputs=kind.numbers(np.ones((3, 2))).plus(
            one_coordinate=(np.ones((3, 1)), r"\(3, 1\)"),
        ),
        responses=kind.shorter(kind.numbers(np.ones(3))), order=kind.count(),
    ),
    "spiked.spiked_tensor": entry(
        spiked.spiked_tensor, key=kind.key(), dim=_count2, order=_count2,
        signal=kind.nonnegative(), dtype=_dtype,
    ),
    "spiked.single_index": entry(
        spiked.single_index, key=kind.key(), num=kind.count(), dim=_count2, order=kind.count(),
        noise=kind.nonnegative(), dtype=_dtype,
    ),
    "spiked.hermite": entry(
        lambda order: spiked.hermite(order, jnp.ones(2)), order=kind.count(lowest=0)
    ),
    "posteriors.eight_schools": entry(
        posteriors.eight_schools, centred=kind.Slot(False, {"text": bad("no"), "number": bad(1)})
    ),
}  # fmt: skip
