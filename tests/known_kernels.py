"""Kernels that tests of the statistical tests share: one that is right, one that is not."""

import jax
import numpy as np


def normals(key: jax.Array, n: int) -> jax.Array:
    return jax.random.normal(key, (n, 2))


def normal_log_density(x: jax.Array) -> jax.Array:
    return -0.5 * x @ x


def autoregression(key: jax.Array, x: jax.Array) -> jax.Array:
    """Reversible with respect to N(0, I)."""
    return 0.8 * x + 0.6 * jax.random.normal(key, x.shape)


def too_little_noise(key: jax.Array, x: jax.Array) -> jax.Array:
    return 0.8 * x + 0.5 * jax.random.normal(key, x.shape)


def z_of_z(z: np.ndarray) -> np.ndarray:
    """Mean and variance of columns of standard normal z, as standard normal statistics.

    The cube root of a chi-square is nearly normal (Wilson and Hilferty), far into its tails.
    """
    spread = 2 / (9 * (len(z) - 1))
    variances = (np.cbrt(z.var(0, ddof=1)) - (1 - spread)) / np.sqrt(spread)
    return np.concatenate([z.mean(0) * len(z) ** 0.5, variances])
