"""Affine Gaussian maps x ↦ E x + s + N(0, C), as tuples (E, s, C): the law of an OU process."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import block_diag, expm


def law(drift: jax.Array, b: jax.Array, spread: jax.Array, t: jax.Array, symmetric: bool) -> Any:
    """Return E, s and C of dx = -(A x - b) dt + D^½ dW over a time t.

    ``spread`` is D, ``()`` or ``(d, d)``. In general (Van Loan 1978, theorem 1), the exponential of
    [[-A, D], [0, Aᵀ]] t has E and C E⁻ᵀ in its first row; a column for b gives s.
    """
    t = t.astype(drift.dtype)
    dim = len(drift)
    spread = spread * jnp.eye(dim, dtype=drift.dtype) if spread.ndim == 0 else spread
    if symmetric:
        values, vectors = jnp.linalg.eigh(drift)
        matrix = (vectors * jnp.exp(-values * t)) @ vectors.T
        shift = vectors @ (integral(values, t) * (b @ vectors))
        inner = (vectors.T @ spread @ vectors) * integral(values[:, None] + values, t)
        return matrix, shift, vectors @ inner @ vectors.T
    # |A| t <= 1 after the halvings; D and b of norm 1, lest they ask the exponential for more.
    halvings = jnp.maximum(jnp.ceil(jnp.log2(norm(drift) * t + 1e-30)), 0).astype(int)
    size, reach = (jnp.where(n > 0, n, 1) for n in (norm(spread), jnp.max(jnp.abs(b))))
    block = block_diag(-drift, drift.T, jnp.zeros((1, 1), drift.dtype))
    block = block.at[:dim, dim : 2 * dim].set(spread / size).at[:dim, -1].set(b / reach)
    flow = expm(block * t / 2.0**halvings)
    matrix = flow[:dim, :dim]
    covariance = size * flow[:dim, dim : 2 * dim] @ matrix.T
    start = (matrix, reach * flow[:dim, -1], (covariance + covariance.T) / 2)
    return jax.lax.fori_loop(0, halvings, lambda _, half: then(half, half), start)


def then(first: Any, second: Any) -> Any:
    """Compose two affine Gaussian maps (E, s, C)."""
    (matrix, shift, covariance), (after, more, noise) = first, second
    return after @ matrix, after @ shift + more, after @ covariance @ after.T + noise


def power(one_step: Any, exponent: int) -> Any:
    """Compose a map with itself ``exponent`` times, by squaring."""
    dim = len(one_step[0])
    one = (jnp.eye(dim, dtype=one_step[0].dtype), *map(jnp.zeros_like, one_step[1:]))
    bits = jnp.array([bit == "1" for bit in f"{exponent:b}"])

    def body(power: Any, bit: jax.Array) -> tuple[Any, None]:
        square = then(power, power)
        chosen = jax.tree.map(lambda a, b: jnp.where(bit, a, b), then(square, one_step), square)
        return chosen, None

    return jax.lax.scan(body, one, bits)[0]


def integral(rate: jax.Array, t: jax.Array) -> jax.Array:
    """Return ∫₀ᵗ e^(-rate u) du = (1 - e^(-rate t)) / rate, which is t where the rate is 0."""
    divisor = jnp.where(rate == 0, 1, rate)
    return jnp.where(rate == 0, t, -jnp.expm1(-divisor * t) / divisor)


def root(covariance: jax.Array) -> jax.Array:
    """Return F with F Fᵀ = C for a C that may be singular, where Cholesky's factor is NaN."""
    values, vectors = jnp.linalg.eigh(covariance)
    return vectors * jnp.sqrt(jnp.maximum(values, 0))


def norm(matrix: jax.Array) -> jax.Array:
    """Return the largest sum of absolute values of a row."""
    return jnp.max(jnp.sum(jnp.abs(matrix), 1))
