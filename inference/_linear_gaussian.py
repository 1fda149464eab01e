"""The test of a linear Gaussian kernel against its complete law, stationary and conditional."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_discrete_lyapunov, solve_triangular

from shoal.inference._features import Measure
from shoal.inference._moment_tests import THRESHOLD, MomentTest, run_moments
from shoal.inference._particles_under_test import flatten, prepare
from shoal.sampling.core._checks import check_finite, integer, real_values


class _Whitened(eqx.Module):
    """Features of start and residual in coordinates where both are N(0, I) and independent."""

    mean: jax.Array
    transition: jax.Array
    whiten_start: jax.Array
    whiten_residual: jax.Array

    def __call__(self, start: Any, end: Any) -> jax.Array:
        u, v = flatten(start) - self.mean, flatten(end) - self.mean
        # In full precision on every device: residuals are differences.
        times = lambda matrix, vector: jnp.matmul(matrix, vector, precision="highest")
        r = times(self.whiten_residual, v - times(self.transition, u))
        u = times(self.whiten_start, u)
        i, j = np.triu_indices(u.size)
        same = jnp.asarray(i == j, u.dtype)
        parts = [u, u[i] * u[j] - same, r, r[i] * r[j] - same, r**4 - 3, jnp.outer(r, u).ravel()]
        return jnp.concatenate(parts)


def linear_gaussian_test(
    key: jax.Array,
    kernel: Any,
    mean: Any,
    transition: Any,
    noise_covariance: Any,
    *,
    num_particles: int = 100_000,
    num_steps: int = 3,
    start: Callable[[jax.Array, Any], Any] | None = None,
    observe: Callable[[Any], Any] | None = None,
    threshold: float = THRESHOLD,
    batch_size: int = 16_384,
) -> MomentTest:
    """Test a kernel that is linear and Gaussian, biased or not, against all that is known of it.

    On a Gaussian target unadjusted Langevin samplers are of the form

        z' = m + F (z - m) + noise,  noise ~ N(0, Q),

    so that their stationary law is N(m, Σ) with Σ = F Σ Fᵀ + Q, and K steps from z₀ end at

        z_K | z₀ ~ N(m + Fᴷ (z₀ - m), Σ - Fᴷ Σ Fᴷᵀ).

    Particles start from the stationary law. The features are the first, second and fourth moments
    of the whitened residual of z_K, its products with the whitened start, and the first and
    second moments of the start: errors in drift, noise, damping and their balance all show.

    Parameters
    ----------
    key, kernel, num_steps, start, observe, threshold, batch_size
        As in `invariance_test`. ``start`` and the kernel receive draws of shape ``(m,)``;
        ``observe`` must return the point whose raveled entries are z.
    mean
        m, shape ``(m,)``.
    transition
        F, shape ``(m, m)``, of spectral radius below 1.
    noise_covariance
        Q, shape ``(m, m)``, symmetric positive semi-definite.
    num_particles
        Starting points.

    Returns
    -------
    MomentTest
        As from `invariance_test`. Features are named by u (the start) and r (the residual).

    Raises
    ------
    TypeError, ValueError
        As `invariance_test`; also if F has no stationary law or the law of z_K given z₀ is
        degenerate (more steps may cure that: one step of a kinetic scheme can have fewer random
        numbers than coordinates).

    Examples
    --------
    The unadjusted Langevin algorithm with step h on N(1, 1):

    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference import diagnostics
    >>> from shoal.sampling import langevin
    >>> h = 0.4
    >>> algorithm = langevin.ula(h)(lambda x: -0.5 * jnp.sum((x - 1) ** 2))
    >>> result = diagnostics.linear_gaussian_test(
    ...     jax.random.key(0), algorithm, [1.0], [[1 - h]], [[2 * h]], num_particles=2000)
    >>> result.passed
    True
    """
    num_steps = integer("num_steps", num_steps)
    m, f, q = _check_arguments(mean, transition, noise_covariance)
    # SciPy's bilinear method is accurate where the spectral radius is below 1, as checked.
    stationary = solve_discrete_lyapunov(f, q)
    power = np.linalg.matrix_power(f, num_steps)
    residual = stationary - power @ stationary @ power.T
    factor = _cholesky(stationary, "stationary covariance", num_steps)
    residual_factor = _cholesky(residual, "covariance of the end given the start", num_steps)
    eye = np.eye(m.size)

    def draws(key: jax.Array, n: int) -> jax.Array:
        noise = np.asarray(jax.random.normal(key, (n, m.size)), np.float64)
        return jnp.asarray(m + noise @ factor.T, jnp.result_type(float))

    study = prepare(key, kernel, draws, num_particles, start, observe)
    dtype = jax.eval_shape(flatten, study.point).dtype
    arrays = (
        m,
        power,
        solve_triangular(factor, eye, lower=True),
        solve_triangular(residual_factor, eye, lower=True),
    )
    whitened = _Whitened(*(jnp.asarray(a, dtype) for a in arrays))
    measure = Measure(_names(m.size), whitened)
    zeros = np.zeros(len(measure.names))
    return run_moments(study, measure, zeros, num_steps, threshold, batch_size)


def _check_arguments(
    mean: Any, transition: Any, noise_covariance: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    given = {"mean": mean, "transition": transition, "noise_covariance": noise_covariance}
    m, f, q = (np.asarray(real_values(name, a), np.float64) for name, a in given.items())
    square = (m.size, m.size)
    if m.ndim != 1 or not m.size or f.shape != square or q.shape != square:
        raise ValueError(
            "mean, transition and noise_covariance must have shapes (m,), (m, m), (m, m), got "
            f"{m.shape}, {f.shape}, {q.shape}"
        )
    for name, array in given.items():
        check_finite(name, array)
    if not np.allclose(q, q.T):
        raise ValueError(f"noise_covariance must be symmetric, got {noise_covariance!r}")
    radius = np.abs(np.linalg.eigvals(f)).max()
    if not radius < 1:
        raise ValueError(f"transition has spectral radius {radius:.6g}; it must be below 1")
    return m, f, q


def _cholesky(covariance: np.ndarray, name: str, num_steps: int) -> np.ndarray:
    values = np.linalg.eigvalsh((covariance + covariance.T) / 2)
    if not values[0] > 1e-8 * values[-1]:
        raise ValueError(
            f"the {name} after num_steps={num_steps} is degenerate: its eigenvalues range from "
            f"{values[0]:.3g} to {values[-1]:.3g}; take more steps or a regular noise_covariance"
        )
    return np.linalg.cholesky((covariance + covariance.T) / 2)


def _names(size: int) -> list[str]:
    i, j = np.triu_indices(size)
    one = lambda a: [f"{a}[{k}]" for k in range(size)]
    pair = lambda a: [f"{a}[{k}]*{a}[{n}]" for k, n in zip(i, j, strict=True)]
    cross = [f"{a}*{b}" for a in one("r") for b in one("u")]
    return [*one("u"), *pair("u"), *one("r"), *pair("r"), *(f"{a}^4" for a in one("r")), *cross]
