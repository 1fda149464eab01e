"""Ornstein-Uhlenbeck processes, exactly, and the linear algebra that they do by themselves.

The process with drift matrix A (its eigenvalues have positive real parts, where it shall come to
rest) and noise of covariance D per unit of time,

    dx = -(A x - b) dt + D^½ dW,

is Gaussian over any time t,

    x(t) = E x(0) + s + N(0, C),    E = e^(-At),
    s = ∫₀ᵗ e^(-Au) b du,    C = ∫₀ᵗ e^(-Au) D e^(-Aᵀu) du.

`transition` gives E, s and a factor of C, whatever A. Where A is symmetric with eigenvalues λ, all
three are elementwise in its eigenbasis, (1 - e^(-λt))/λ and so on, with their limits at λ = 0. In
general A does not commute with Aᵀ and C is no function of (A + Aᵀ)/2, nor of any one
eigendecomposition: it is a block of the exponential of [[-A, D], [0, Aᵀ]] t (Van Loan), here taken
over a time so short that e^(Aᵀt) cannot overflow, and then doubled, C(2t) = C(t) + E C(t) Eᵀ.

At rest the mean is A⁻¹b and, with A symmetric and D = 2T I, the covariance is T A⁻¹: `solve` and
`inverse` estimate them as averages over time, with errors known in closed form. On a digital
machine they are simulations of thermodynamic hardware: direct solvers are faster. With a damped
Fisher matrix for A and a gradient for b see `shoal.sampling.langevin.natural_gradient`.

References: Van Loan, "Computing integrals involving the matrix exponential", IEEE Trans. Automatic
Control 23 (1978), theorem 1; Aifer et al., "Thermodynamic linear algebra", arXiv 2308.05660.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import check_flag, integer, real_parameter, real_values
from shoal.sampling.core.random import check_key
from shoal.sampling.langevin._affine_law import integral, law, norm, power, root, then
from shoal.sampling.langevin.options import check_positive


class Transition(NamedTuple):
    """Law of the process after some time: x(t) = matrix x(0) + shift + noise_factor N(0, I).

    Attributes
    ----------
    matrix
        e^(-At), ``(d, d)``.
    shift
        s, ``(d,)``.
    noise_factor
        A square root F of the covariance, F Fᵀ = C, ``(d, d)``; not triangular.
    """

    matrix: jax.Array
    shift: jax.Array
    noise_factor: jax.Array

    def draw(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Draw x(t) given x(0), both ``(d,)``."""
        check_key(key)
        noise = jax.random.normal(key, self.shift.shape, self.shift.dtype)
        return self.matrix @ x + self.shift + self.noise_factor @ noise


class Solution(NamedTuple):
    """An average over time and how far off it may be.

    Attributes
    ----------
    estimate
        Of A⁻¹b, ``(d,)``, or of A⁻¹, ``(d, d)``.
    standard_error
        Exact standard deviation of each entry of the estimate, autocorrelation included.
    transient
        What is left of the start, a scalar in [0, 1] for symmetric A: the systematic error is at
        most this times that of the start, x(0) = 0.
    """

    estimate: jax.Array
    standard_error: jax.Array
    transient: jax.Array


def transition(
    drift_matrix: Any, b: Any = 0.0, diffusion: Any = 1.0, time: Any = 1.0, symmetric: bool = False
) -> Transition:
    """Return the exact transition of dx = -(A x - b) dt + D^½ dW over a time t.

    Parameters
    ----------
    drift_matrix
        A, ``(d, d)``, any real matrix.
    b
        Scalar or ``(d,)``.
    diffusion
        D: a scalar >= 0, standing for that times the identity, or a symmetric positive
        semi-definite ``(d, d)`` matrix. D = 2T is temperature T.
    time
        t > 0.
    symmetric
        Whether to take A as symmetric: one eigendecomposition in place of a matrix exponential.

    Returns
    -------
    Transition
        In A's dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument is not real, has the wrong shape or is out of range, or A, concrete, is not
        symmetric though it should be.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.langevin import ornstein_uhlenbeck
    >>> drift = jnp.array([[1.0, 30.0], [0.0, 2.0]])
    >>> law = ornstein_uhlenbeck.transition(drift, diffusion=2.0, time=0.5)
    >>> x = law.draw(jax.random.key(0), jnp.zeros(2))
    >>> x.shape, law.matrix.shape
    ((2,), (2, 2))
    """
    drift, vector, spread = _arrays(drift_matrix, b, diffusion, symmetric)
    t = jnp.asarray(check_positive("time")(time), drift.dtype)
    if symmetric and spread.ndim == 0:
        values, vectors = jnp.linalg.eigh(drift)
        matrix = (vectors * jnp.exp(-values * t)) @ vectors.T
        shift = vectors @ (integral(values, t) * (vector @ vectors))
        return Transition(matrix, shift, vectors * jnp.sqrt(spread * integral(2 * values, t)))
    matrix, shift, covariance = law(drift, vector, spread, t, symmetric)
    return Transition(matrix, shift, root(covariance))


def stationary_covariance(drift_matrix: Any, diffusion: Any = 1.0) -> jax.Array:
    """Return the covariance Σ of the process at rest, A Σ + Σ Aᵀ = D.

    By doubling the time of the exact transition until e^(-At) has vanished, which needs no
    eigenvectors and so suits any stable A, however far from normal.

    Parameters
    ----------
    drift_matrix, diffusion
        As of `transition`.

    Returns
    -------
    jax.Array
        Σ, ``(d, d)``, in A's dtype; not finite where A has an eigenvalue whose real part is not
        positive.

    Raises
    ------
    TypeError, ValueError
        As `transition` does.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.sampling.langevin import ornstein_uhlenbeck
    >>> drift = jnp.array([[1.0, 30.0], [0.0, 1.0]])
    >>> covariance = ornstein_uhlenbeck.stationary_covariance(drift, diffusion=2.0)
    >>> residual = drift @ covariance + covariance @ drift.T - 2.0 * jnp.eye(2)
    >>> float(jnp.abs(residual).max() / jnp.abs(covariance).max()) < 1e-4
    True
    """
    drift, vector, spread = _arrays(drift_matrix, 0.0, diffusion, False)
    start = law(drift, vector, spread, 1 / norm(drift), False)
    tiny = jnp.finfo(drift.dtype).eps

    def going(carry: Any) -> jax.Array:
        reached, count = carry
        # At 2⁶⁴ times the shortest time of A's, what has not vanished does not.
        return (norm(reached[0]) > tiny) & (count < 64) & jnp.isfinite(norm(reached[2]))

    double = lambda carry: (then(carry[0], carry[0]), carry[1] + 1)
    (matrix, _, covariance), _ = jax.lax.while_loop(going, double, (start, 0))
    return jnp.where(norm(matrix) <= tiny, covariance, jnp.nan)


def solve(
    key: jax.Array,
    matrix: Any,
    b: Any,
    temperature: Any = 1.0,
    num_samples: int = 1000,
    interval: Any = 1.0,
    burn_in: Any = 10.0,
    symmetric: bool = True,
) -> Solution:
    """Estimate A⁻¹b as the average over time of dx = -(A x - b) dt + √(2T) dW from x(0) = 0.

    Parameters
    ----------
    key
        Typed key.
    matrix
        A, ``(d, d)``: eigenvalues with positive real parts.
    b
        ``(d,)``.
    temperature
        T >= 0; the standard error is proportional to √T. At zero the rest is the transient.
    num_samples
        Points averaged.
    interval, burn_in
        Time between them and before the first, > 0: choose them of the order of, and several times,
        the largest 1/λ.
    symmetric
        Whether to take A as symmetric.

    Returns
    -------
    Solution
        ``transient`` bounds |E estimate - A⁻¹b| by that times |A⁻¹b|.

    Raises
    ------
    TypeError, ValueError
        As `transition` does, or if ``key`` is no key or ``num_samples`` no positive integer.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.langevin import ornstein_uhlenbeck
    >>> matrix, b = jnp.array([[2.0, 1.0], [1.0, 3.0]]), jnp.array([1.0, -1.0])
    >>> found = ornstein_uhlenbeck.solve(jax.random.key(0), matrix, b)
    >>> error = found.estimate - jnp.linalg.solve(matrix, b)
    >>> bool((jnp.abs(error) < 4 * found.standard_error).all())
    True
    """
    spread = 2 * check_positive("temperature", allow_zero=True)(temperature)
    drift, vector, spread = _arrays(matrix, b, spread, symmetric, name="matrix")
    check_key(key)
    count = integer("num_samples", num_samples)
    times = [check_positive(n)(v) for n, v in (("interval", interval), ("burn_in", burn_in))]
    step, first = (law(drift, vector, spread, jnp.asarray(t), symmetric) for t in times)
    average = _time_average(key, step, first, count, lambda x: x)
    # The pair (x, sum of x so far) is an affine Gaussian process as well: z' = F z + noise.
    eye, zero = jnp.eye(len(drift), dtype=drift.dtype), jnp.zeros_like(drift)
    both = lambda block: jnp.tile(block, (2, 2))
    nothing = jnp.zeros(2 * len(drift), drift.dtype)
    pair = (jnp.block([[step[0], zero], [step[0], eye]]), nothing, both(step[2]))
    start = (both(first[0]), nothing, both(first[2]))
    total, _, covariance = then(start, power(pair, count - 1))
    dim = len(drift)
    error = jnp.sqrt(jnp.diagonal(covariance)[dim:]) / count
    return Solution(average, error, jnp.linalg.norm(total[dim:, :dim], 2) / count)


def inverse(
    key: jax.Array,
    matrix: Any,
    num_samples: int = 1000,
    interval: Any = 1.0,
    burn_in: Any = 10.0,
) -> Solution:
    """Estimate A⁻¹ as the second moment over time of dx = -A x dt + √2 dW from x(0) = 0.

    Parameters
    ----------
    key, num_samples, interval, burn_in
        As of `solve`.
    matrix
        A, ``(d, d)``, symmetric positive definite: for no other A is the covariance its inverse.

    Returns
    -------
    Solution
        ``standard_error`` is that of the process at rest, ``(d, d)``; ``transient`` bounds the
        relative systematic error. The standard errors take O(d⁴) operations.

    Raises
    ------
    TypeError, ValueError
        As `solve` does.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.langevin import ornstein_uhlenbeck
    >>> matrix = jnp.array([[2.0, 1.0], [1.0, 3.0]])
    >>> found = ornstein_uhlenbeck.inverse(jax.random.key(0), matrix)
    >>> error = found.estimate - jnp.linalg.inv(matrix)
    >>> bool((jnp.abs(error) < 4 * found.standard_error).all())
    True
    """
    drift, vector, spread = _arrays(matrix, 0.0, 2.0, True, name="matrix")
    check_key(key)
    count = integer("num_samples", num_samples)
    times = [check_positive(n)(v) for n, v in (("interval", interval), ("burn_in", burn_in))]
    step, first = (law(drift, vector, spread, jnp.asarray(t), True) for t in times)
    average = _time_average(key, step, first, count, lambda x: jnp.outer(x, x))
    values, vectors = jnp.linalg.eigh(drift)
    # Isserlis: x_i x_j has autocovariance C_ii C_jj + C_ij², with C = V diag(e^(-λ lag)/λ) Vᵀ.
    rate = jnp.exp(-(values[:, None] + values) * times[0])
    # The mean over all pairs of times of rate^|lag|.
    lags = (1 + rate) / (1 - rate) - 2 * rate * (1 - rate**count) / (count * (1 - rate) ** 2)
    kernel = lags / (count * values[:, None] * values)
    squares = vectors**2 @ kernel @ (vectors**2).T
    crosses = jnp.einsum("im,jm,mn,in,jn->ij", vectors, vectors, kernel, vectors, vectors)
    transient = jnp.exp(-2 * values[0] * times[1])
    return Solution(average, jnp.sqrt(squares + crosses), transient)


def _time_average(key: jax.Array, step: Any, first: Any, count: int, statistic: Any) -> jax.Array:
    """Return the average of a statistic over ``count`` points, from x(0) = 0."""
    key_first, key_rest = jax.random.split(key)
    transit = Transition(step[0], step[1], root(step[2]))
    start = Transition(first[0], first[1], root(first[2])).draw(key_first, jnp.zeros_like(first[1]))

    def body(carry: Any, key: jax.Array) -> tuple[Any, None]:
        x = transit.draw(key, carry[0])
        return (x, carry[1] + statistic(x)), None

    keys = jax.random.split(key_rest, count - 1)
    return jax.lax.scan(body, (start, statistic(start)), keys)[0][1] / count


def _arrays(
    drift: Any, b: Any, diffusion: Any, symmetric: bool, name: str = "drift_matrix"
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Check A, b and D; return them in A's dtype, b as a vector."""
    check_flag("symmetric", symmetric)
    a = _square(name, drift)
    if symmetric:
        _check_symmetric(name, a)
    vector = jnp.asarray(real_parameter("b", real_values("b", b)), a.dtype)
    if vector.shape not in ((), a.shape[:1]):
        raise ValueError(f"b must be a scalar or {a.shape[:1]}, got shape {vector.shape}")
    spread = real_values("diffusion", diffusion)
    if spread.ndim == 0:
        spread = real_parameter("diffusion", spread, 0.0, include_low=True)
    else:
        spread = _square("diffusion", spread)
        _check_symmetric("diffusion", spread)
        if spread.shape != a.shape:
            raise ValueError(f"diffusion must have shape {a.shape}, got {spread.shape}")
    return a, jnp.broadcast_to(vector, a.shape[:1]), jnp.asarray(spread, a.dtype)


def _square(name: str, value: Any) -> jax.Array:
    array = jnp.asarray(real_parameter(name, real_values(name, value)))
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        raise ValueError(f"{name} must have shape (d, d), got {array.shape}")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def _check_symmetric(name: str, array: jax.Array) -> None:
    if isinstance(array, jax.core.Tracer):
        return
    values = np.asarray(array)
    gap = np.max(np.abs(values - values.T))
    if gap > 1e-4 * np.max(np.abs(values)):
        raise ValueError(f"{name} must be symmetric, but differs from its transpose by {gap:.2g}")
