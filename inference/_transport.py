"""Wasserstein distances that have a closed form: between Gaussians, and on a line."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference._points import alike, as_points
from shoal.sampling.core._checks import check_finite, integer, real_parameter, real_values
from shoal.sampling.core._kernel_sums import dot, fixed_mean
from shoal.sampling.core.random import check_key

# Projected numbers held at once.
_PIECE = 2**22
# Asymmetry and negative eigenvalues, relative to the largest, of a float32 covariance's rounding.
_ROUNDING = 1e-5


def frechet_distance(samples: Any, mean: Any, covariance: Any) -> float:
    """Squared Fréchet distance between the Gaussian fitted to samples and one that is known.

    With the samples' mean ``m`` and covariance ``S`` (divided by n - 1) this is the squared
    2-Wasserstein distance of N(m, S) and N(mean, covariance),

        |m - mean|² + tr S + tr covariance - 2 tr (S^½ covariance S^½)^½.

    Squared, as tables of generative models print it. It is computed as the squared Frobenius
    distance of square roots of the two covariances turned onto each other, in which nothing
    cancels, in float64 on the host.

    Parameters
    ----------
    samples
        Shape ``(n, d)`` or ``(n, ...)``, float32 or float64, n at least 2. With n <= d their
        covariance has not full rank, which is no obstacle.
    mean
        Shape ``(d,)``, real numbers.
    covariance
        Shape ``(d, d)``, symmetric and positive semi-definite up to the rounding of float32.

    Returns
    -------
    float
        Zero where both moments agree. Exact samples of a Gaussian whose coordinates have variance v
        have about v d (d + 5) / (4 n) on average.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Notes
    -----
    Dowson and Landau, "The Fréchet distance between multivariate normal distributions", Journal
    of Multivariate Analysis 12 (1982), equation 4; by square roots: Bhatia, Jain and Lim, "On the
    Bures-Wasserstein distance between positive definite matrices", Expositiones Mathematicae 37
    (2019), theorem 1. Only two moments are compared: a Gaussian passes for any law that has them.

    Examples
    --------
    >>> import numpy as np
    >>> samples = np.array([[1.0, 0.0], [3.0, 0.0]])  # covariance [[2, 0], [0, 0]]
    >>> round(frechet_distance(samples, [0.0, 0.0], [[2.0, 0.0], [0.0, 1.0]]), 6)
    5.0
    """
    dim = as_points("samples", samples).shape[1]
    x = np.asarray(samples, np.float64).reshape(-1, dim)
    if len(x) < 2:
        raise ValueError(f"samples must be at least 2 for a covariance, got shape {samples.shape}")
    mean = _moment("mean", mean, (dim,), samples)
    root = _root_of_covariance(_moment("covariance", covariance, (dim, dim), samples))
    centred = x - x.mean(axis=0)
    # Rows of zeros make a square root of few samples as wide as the other one.
    centred = np.pad(centred, ((0, max(0, dim - len(x))), (0, 0)))
    sample_root = np.asarray(np.linalg.qr(centred, mode="r")).T / np.sqrt(len(x) - 1)
    left, _, right = np.linalg.svd(root.T @ sample_root)
    gap = sample_root - root @ (left @ right)
    return float(np.sum((x.mean(axis=0) - mean) ** 2) + np.sum(gap**2))


def _moment(name: str, value: Any, shape: tuple[int, ...], samples: Any) -> np.ndarray:
    """Return finite real numbers of a shape as float64."""
    array = np.asarray(real_values(name, value), np.float64)
    if array.shape != shape:
        raise ValueError(
            f"{name} must have shape {shape} beside samples of shape {samples.shape}, "
            f"got {array.shape}"
        )
    check_finite(name, array)
    return array


def _root_of_covariance(covariance: np.ndarray) -> np.ndarray:
    """Return F with ``F Fᵀ = covariance``."""
    slack = _ROUNDING * np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > slack:
        raise ValueError(f"covariance must be symmetric, got {covariance}")
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    if values[0] < -slack:
        raise ValueError(
            f"covariance must be positive semi-definite, but has the eigenvalue {values[0]:g}"
        )
    return vectors * np.sqrt(np.maximum(values, 0))


def sliced_wasserstein(
    key: jax.Array,
    samples: Any,
    reference: Any,
    num_projections: int = 256,
    *,
    order: float = 2,
) -> jax.Array:
    """Sliced Wasserstein distance: that of projections onto random lines.

    Along unit vectors θ drawn uniformly, the same for both sets,

        SW_p = (mean over θ of W_p(θ·samples, θ·reference)^p)^(1/p),

    where the W_p of two sets on a line is exact, of different sizes too: both are sorted and the
    difference of their quantile functions is integrated.

    Parameters
    ----------
    key
        Typed key of shape ``()``; the same key compares several samplers along the same lines.
    samples, reference
        Shapes ``(m, ...)`` and ``(n, ...)``, float32 or float64.
    num_projections
        Number of lines, at least 1. Their choice makes a relative error of the order of
        ``1 / sqrt(num_projections)``.
    order
        p, a number of at least 1, not traced.

    Returns
    -------
    jax.Array
        Scalar, in units of a coordinate; not squared. Zero for equal sets; for a set shifted by c
        and p = 2 about ``|c| / sqrt(d)``. The noise of finite sets of one law makes it positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Notes
    -----
    Bonneel, Rabin, Peyré and Pfister, "Sliced and Radon Wasserstein barycenters of measures",
    Journal of Mathematical Imaging and Vision 51 (2015), definition 1. Works in
    O((m + n) (d + log(m + n))) time for each line and O(m + n + d num_projections) memory: lines
    are taken some at a time. May be jitted and differentiated (where it is not zero).

    Examples
    --------
    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (100, 3))
    >>> float(sliced_wasserstein(jax.random.key(1), x, x[::-1]))
    0.0
    >>> shifted = sliced_wasserstein(jax.random.key(1), x[:, :1], x[:, :1] + 2)
    >>> round(float(shifted), 4)
    2.0
    """
    check_key(key)
    x, y = alike(samples=samples, reference=reference)
    num_projections = integer("num_projections", num_projections)
    real_parameter("order", order, 1.0, include_low=True, scalar=True)
    # A power that is a whole number is multiplied out.
    power = int(order) if order == int(order) else float(order)
    return _sliced(key, x, y, _coupling(len(x), len(y)), num_projections, power)


def _coupling(m: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which sorted values of m and of n meet, and how much mass moves between them.

    The quantile functions jump at the multiples of 1/m and of 1/n. Between neighbouring jumps,
    counted in units of 1/(m n), both are constant.
    """
    ends = np.union1d(np.arange(1, m + 1) * n, np.arange(1, n + 1) * m)
    mass = np.diff(ends, prepend=0) / (m * n)
    return (ends - 1) // n, (ends - 1) // m, mass


@functools.partial(jax.jit, static_argnames=("num_projections", "power"))
def _sliced(
    key: jax.Array,
    x: jax.Array,
    y: jax.Array,
    coupling: tuple[Any, Any, Any],
    num_projections: int,
    power: float,
) -> jax.Array:
    centre = fixed_mean(y)
    x, y = x - centre, y - centre
    i, j, mass = coupling

    def cost(direction: jax.Array) -> jax.Array:
        along_x, along_y = (jnp.sort(dot(points, direction)) for points in (x, y))
        gap = jnp.abs(along_x[i] - along_y[j])
        return jnp.sum(mass.astype(gap.dtype) * gap**power)

    directions = jax.random.normal(key, (num_projections, x.shape[1]), x.dtype)
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    at_once = min(num_projections, max(1, _PIECE // (len(x) + len(y))))
    return jnp.mean(jax.lax.map(cost, directions, batch_size=at_once)) ** (1 / power)
