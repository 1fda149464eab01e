"""Guidance: denoisers that know of a class, a measurement or the range of the data.

Each function returns a `Denoiser`, so that every solver, every derivative and every table of
statistics sees the guided field and nothing else. With x = alpha x_0 + sigma z, u the prediction
without the condition and c the one with it,

    classifier-free    u + w (c - u)
    classifier         u + w (sigma² / alpha) ∇_x log p(c | x)         predictions of the data
    reconstruction     u + w (sigma² / alpha) ∇_x log p(y | u(x))      predictions of the data

Throughout w = 0 is the model without the condition and w = 1 the one with it: no guidance. Some
papers (GENIE, Ho and Salimans) write (1 + w') c - w' u, which is w = 1 + w'.

What is exact: with exact u and c (or p(c | x)) and w = 1, the condition. With w > 1 the field is
that of no noised density: the samples do not have the law p(x) p(c | x)^w (Bradley and Nakkiran
2024). They are drawn to where the condition is clearest, less varied, and at large w out of the
range of the data. There the equation is stiff, and with few steps low orders win.

Taylor steps and all that uses `Denoiser.derivative` differentiate the guided field along its own
flow. The sum of the derivatives of u and c along theirs, in the same proportions, is another number
(it is wrong in the first order of the step).

References: Ho and Salimans, "Classifier-free diffusion guidance", 2022, eq. 6; Dhariwal and Nichol,
"Diffusion models beat GANs on image synthesis", NeurIPS 2021, section 4; Chung et al., "Diffusion
posterior sampling for general noisy inverse problems", ICLR 2023, and Song et al.,
"Pseudoinverse-guided diffusion models for inverse problems", ICLR 2023 (reconstruction); Saharia et
al., "Photorealistic text-to-image diffusion models", NeurIPS 2022, section 2.3 (thresholding).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import Schedule
from shoal.sampling.diffusion._guided import (
    Classifier,
    ClassifierFree,
    Labelled,
    Pair,
    Reconstruction,
    Thresholded,
)

__all__ = [
    "branches",
    "classifier",
    "classifier_free",
    "combine",
    "dynamic_threshold",
    "reconstruction",
]


def classifier_free(
    network: Callable[..., jax.Array], labels: Any, no_label: Any, scale: Any, *,
    prediction: str = "data", schedule: Schedule | None = None,
) -> Denoiser:  # fmt: skip
    """Guide a network by its own prediction without a label: u + w (c - u).

    Both predictions come from one call on a batch of twice the size; the record counts two.

    Parameters
    ----------
    network
        ``network(x, t, labels)`` for ``x`` of shape ``(2 n, ...)``, a scalar ``t`` and integers
        ``(2 n,)``; returns the shape of ``x``.
    labels
        One label for all samples, or one for each, ``(n,)`` integers.
    no_label
        The label that stands for none.
    scale
        w, one for all samples or one for each, ``(n,)``: 0 without the label, 1 with it and no
        guidance, above 1 guided. "Guidance 8" of (1 + w') c - w' u is 9 here.
    prediction, schedule
        As of `Denoiser`: what the network predicts, and the schedule whose x and t it takes; None
        is for the one on which it is used. A `shoal.models.denoisers.PreconditionedNetwork` needs
        ``schedule=edm()``.

    Returns
    -------
    Denoiser
        With ``num_calls`` 2.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or shape; when used, if labels or scales are for another
        number of samples than x has.

    Examples
    --------
    Normal data with the means -1 and 1 for the labels 0 and 1, and about 0 for both together:

    >>> from shoal.sampling.diffusion import edm
    >>> mean = jnp.array([-1.0, 1.0, 0.0])
    >>> network = lambda x, t, labels: mean[labels][:, None] + 0 * x
    >>> denoiser = classifier_free(network, jnp.array([0, 1]), 2, 3.0, schedule=edm())
    >>> denoiser.fn(jnp.zeros((2, 1)), 1.0)
    Array([[-3.],
           [ 3.]], dtype=float32)
    """
    _checks.check_callable("network", network)
    labels, none = _labels("labels", labels, (0, 1)), _labels("no_label", no_label, (0,))
    return Denoiser(ClassifierFree(network, labels, none, _scale(scale)), prediction, schedule, 2)


def combine(conditional: Denoiser, unconditional: Denoiser, scale: Any) -> Denoiser:
    """Guide one denoiser by another, u + w (c - u): another network, or a worse one.

    Parameters
    ----------
    conditional, unconditional
        c and u, each with a schedule (`Denoiser.on` gives one), of any predictions.
    scale
        w, as of `classifier_free`.

    Returns
    -------
    Denoiser
        Of the data, on the schedule of ``conditional``; ``num_calls`` is the sum of both.

    References
    ----------
    Karras et al. (2024), Guiding a diffusion model with a bad version of itself.

    Examples
    --------
    >>> from shoal.sampling.diffusion import edm, flow
    >>> conditional = Denoiser(lambda x, t: 0 * x + 1, "data", edm())
    >>> unconditional = Denoiser(lambda x, t: 0 * x, "data", flow())
    >>> combine(conditional, unconditional, 3.0).fn(jnp.zeros((1, 2)), 1.0)
    Array([[3., 3.]], dtype=float32)
    """
    _scheduled("conditional", conditional)
    _scheduled("unconditional", unconditional)
    pair = Pair(conditional, unconditional, _scale(scale))
    calls = conditional.num_calls + unconditional.num_calls
    return Denoiser(pair, "data", conditional.schedule, calls)


def branches(denoiser: Denoiser) -> tuple[Denoiser, Denoiser]:
    """Return the predictions with and without the condition of what is guided by their difference.

    Parameters
    ----------
    denoiser
        Made by `classifier_free` or `combine`.

    Examples
    --------
    >>> from shoal.sampling.diffusion import edm
    >>> network = lambda x, t, labels: x * labels[:, None]
    >>> with_label, without = branches(classifier_free(network, 3, 0, 7.5, schedule=edm()))
    >>> with_label.fn(jnp.ones((1, 2)), 1.0), without.num_calls
    (Array([[3., 3.]], dtype=float32), 1)
    """
    fn = getattr(denoiser, "fn", None)
    if isinstance(fn, Pair):
        return fn.conditional, fn.unconditional
    if not isinstance(fn, ClassifierFree):
        raise TypeError(
            "denoiser must be made by guidance.classifier_free or guidance.combine, got "
            f"{type(denoiser).__name__}" + (f" of {type(fn).__name__}" if fn is not None else "")
        )
    part = lambda labels: Denoiser(
        Labelled(fn.network, labels), denoiser.prediction, denoiser.schedule
    )
    return part(fn.labels), part(fn.no_label)


def classifier(
    denoiser: Denoiser, log_probability: Callable[[jax.Array, Any], jax.Array], scale: Any = 1.0
) -> Denoiser:
    """Guide by the gradient of a classifier of noisy data: u + w (sigma² / alpha) ∇ log p(c | x).

    With w = 1 and exact probabilities it is exact: the prediction given the class.

    Parameters
    ----------
    denoiser
        u, with a schedule.
    log_probability
        ``log_probability(x, t)`` gives log p(c | x), ``(n,)``, for ``x`` of shape ``(n, ...)`` and
        the scalar ``t`` of the denoiser's schedule, up to what does not depend on x. Each must
        depend on its own row of x alone.
    scale
        w, one for all samples or one for each, ``(n,)``.

    Returns
    -------
    Denoiser
        Of the data. Not to be called where alpha is 0. Calls of the classifier are not counted.

    Examples
    --------
    >>> from shoal.sampling.diffusion import edm
    >>> denoiser = Denoiser(lambda x, t: 0 * x, "data", edm())
    >>> guided = classifier(denoiser, lambda x, t: jnp.sum(x, axis=1), 2.0)
    >>> guided.fn(jnp.zeros((1, 2)), jnp.float32(3.0))
    Array([[18., 18.]], dtype=float32)
    """
    _scheduled("denoiser", denoiser)
    _checks.check_callable("log_probability", log_probability)
    fn = Classifier(denoiser, log_probability, _scale(scale))
    return Denoiser(fn, "data", denoiser.schedule, denoiser.num_calls)


def reconstruction(
    denoiser: Denoiser, log_likelihood: Callable[[jax.Array, Any], jax.Array], scale: Any = 1.0
) -> Denoiser:
    """Guide by a measurement: u + w (sigma² / alpha) ∇_x log p(y | u(x)), through the denoiser.

    Parameters
    ----------
    denoiser
        u, with a schedule.
    log_likelihood
        ``log_likelihood(data, noise)`` gives the log likelihood of the measurement, ``(n,)``, for
        predicted ``data`` of shape ``(n, ...)`` at the scalar noise level sigma / alpha, up to what
        does not depend on the data. Each must depend on its own row alone.
    scale
        w, one for all samples or one for each, ``(n,)``.

    Returns
    -------
    Denoiser
        Of the data. ``num_calls`` is twice that of ``denoiser``, for the derivative. Not to be
        called where alpha is 0.

    Notes
    -----
    The data are not known at a noise level g but have a spread about u. A likelihood of the
    measurement alone (diffusion posterior sampling) forgets it, and is too sure. For y = A x_0 + e
    with e from N(0, s²) and data of variance v about any mean, the likelihood
    ``-|y - A u|² / (2 (s² + r))`` with r = v g² / (v + g²), if A has orthonormal rows, is exact for
    Gaussian data (pseudoinverse guidance) and approximate for others.

    Examples
    --------
    Data from N(0, 1), measured to be 1 with the variance 0.5, are from N(2/3, 1/3); and with their
    sum with noise of sigma 1 being 0, the mean is 1/2:

    >>> from shoal.sampling.diffusion import edm
    >>> denoiser = Denoiser(lambda x, t: x / (1 + t**2), "data", edm())
    >>> spread = lambda noise: noise**2 / (1 + noise**2)
    >>> log_likelihood = lambda data, noise: -jnp.sum((1 - data) ** 2, 1) / (1 + 2 * spread(noise))
    >>> guided = reconstruction(denoiser, log_likelihood)
    >>> guided.fn(jnp.zeros((1, 1)), jnp.float32(1.0)).round(4)
    Array([[0.5]], dtype=float32)
    """
    _scheduled("denoiser", denoiser)
    _checks.check_callable("log_likelihood", log_likelihood)
    fn = Reconstruction(denoiser, log_likelihood, _scale(scale))
    return Denoiser(fn, "data", denoiser.schedule, 2 * denoiser.num_calls)


def dynamic_threshold(denoiser: Denoiser, quantile: Any = 0.995, minimum: Any = 1.0) -> Denoiser:
    """Keep predictions of the data in [-m, m], by shrinking those of which too much is beyond.

    A sample whose ``quantile`` of |x_0| is s is clipped to [-s, s] and, if s > m, multiplied by
    m / s. It makes another law out of one whose data are not within [-m, m].

    Parameters
    ----------
    denoiser
        With a schedule; mostly one that is guided.
    quantile
        Between 0 and 1.
    minimum
        m, the largest magnitude of the data.

    Returns
    -------
    Denoiser
        Of the data.

    Examples
    --------
    >>> from shoal.sampling.diffusion import edm
    >>> denoiser = Denoiser(lambda x, t: x, "data", edm())
    >>> dynamic_threshold(denoiser, 0.5).fn(jnp.array([[1.0, -2.0, 5.0], [0.5, -2, 0]]), 1.0)
    Array([[ 0.5, -1. ,  1. ],
           [ 0.5, -1. ,  0. ]], dtype=float32)
    """
    _scheduled("denoiser", denoiser)
    quantile = float(_checks.real_parameter("quantile", quantile, 0.0, 1.0, scalar=True))
    minimum = float(_checks.real_parameter("minimum", minimum, 0.0, scalar=True))
    return Denoiser(
        Thresholded(denoiser, quantile, minimum), "data", denoiser.schedule, denoiser.num_calls
    )


def _scheduled(name: str, denoiser: Any) -> None:
    if not isinstance(denoiser, Denoiser):
        raise TypeError(f"{name} must be a Denoiser, got {type(denoiser).__name__}")
    if denoiser.schedule is None:
        raise ValueError(f"{name} must have a schedule, got None: use {name}.on(schedule)")


def _scale(value: Any) -> jax.Array:
    scale = _checks.real_parameter("scale", value)
    if np.ndim(scale) > 1 or not np.size(scale):
        raise ValueError(f"scale must be one number or of shape (n,), got shape {np.shape(scale)}")
    return jnp.asarray(scale)


def _labels(name: str, value: Any, ranks: tuple[int, ...]) -> jax.Array:
    array = _checks.real_values(name, value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}: {value!r}")
    if array.ndim not in ranks or not array.size:
        wanted = "one integer" + " or of shape (n,)" * (1 in ranks)
        raise ValueError(f"{name} must be {wanted}, got shape {array.shape}")
    return jnp.asarray(array, jnp.int32)
