"""What a mirror map is, and what all of them share; see `shoal.sampling.core.mirror`."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp


class MirrorMap(eqx.Module):
    """A mirror map; the primal point θ has shape ``(..., m)``, the dual one η ``(..., k)``.

    k = m but for a set that is flat in R^m, such as the simplex, where k is its dimension.
    Derivatives with respect to θ are those of functions on R^m; H acts on the k coordinates.
    """

    @abstractmethod
    def to_dual(self, primal: jax.Array) -> jax.Array:
        """η = ∇ψ(θ)."""

    @abstractmethod
    def to_primal(self, dual: jax.Array) -> jax.Array:
        """θ = ∇ψ*(η)."""

    def dual_size(self, primal_size: int) -> int:
        """Return k for a given m."""
        return primal_size

    def along(self, covector: jax.Array) -> jax.Array:
        """Restrict a gradient with respect to θ, ``(..., m)``, to the k coordinates of ψ."""
        return covector

    @abstractmethod
    def hessian_product(self, primal: jax.Array, vector: jax.Array) -> jax.Array:
        """H(θ) v, ``(..., k)``, for a vector v of the k coordinates of ψ."""

    @abstractmethod
    def inverse_hessian_product(self, primal: jax.Array, covector: jax.Array) -> jax.Array:
        """H(θ)⁻¹ g, ``(..., k)``, for a gradient g with respect to θ, ``(..., m)``.

        This is the gradient with respect to η: (∂θ/∂η)ᵀ g. For a flat set only the part of g along
        it counts.
        """

    @abstractmethod
    def log_det_dual_hessian(self, dual: jax.Array) -> jax.Array:
        """Log det ∇²ψ*(η), shape ``(...)``: the log volume factor of η -> θ."""

    @abstractmethod
    def divergence(self, primal: jax.Array) -> jax.Array:
        """D(θ) = ∇·H⁻¹ by rows, ``(..., k)``, which equals ∇_η log det ∇²ψ*(η)."""

    @abstractmethod
    def hessian_noise(self, key: jax.Array, primal: jax.Array) -> jax.Array:
        """Draw from N(0, H(θ)), ``(..., k)``."""

    @abstractmethod
    def check(self, primal: jax.Array) -> None:
        """Raise ``ValueError`` for a concrete point outside of the open set, or a wrong shape."""


def above_zero(values: jax.Array) -> jax.Array:
    """Return at least the smallest number that devices do not flush to zero."""
    return jnp.maximum(values, jnp.finfo(values.dtype).tiny)


def positive_exp(logs: jax.Array) -> jax.Array:
    """Return exp, neither 0 nor so large (5e34 in float32) that its sums would be infinite."""
    largest = 0.9 * jnp.log(jnp.finfo(logs.dtype).max)
    return above_zero(jnp.exp(jnp.minimum(logs, largest)))


def check_size(primal: jax.Array, size: int, what: str) -> None:
    """Raise ``ValueError`` unless the last axis has the given size."""
    if primal.shape[-1:] != (size,):
        raise ValueError(f"position has shape {primal.shape}, but {what} has {size} coordinates")


def rounding(dtype: Any, terms: int) -> Any:
    """Return twice the relative error that a sum of so many products can have."""
    return (terms + 2) * jnp.finfo(dtype).eps
