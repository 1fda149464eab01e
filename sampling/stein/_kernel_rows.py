"""Attraction and repulsion of mirrored Stein methods, one row of the kernel matrix at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from shoal.sampling.core._kernel_sums import distance_factors, dot, squared_distances
from shoal.sampling.core.kernels import Kernel
from shoal.sampling.stein._direction import Ensemble
from shoal.sampling.stein._mirror_sums import Hessians

# Numbers of a block of rows that are held at once.
_BLOCK = 2**21


class Rows(NamedTuple):
    """Sums over the living l, for each particle i.

    Attributes
    ----------
    used
        What ``use`` makes of k(θ_l, θ_i) over l.
    repulsion
        Σ_l H_l⁻¹ ∇_{θ_l} k(θ_l, θ_i), ``(n, k)``.
    near
        Number of particles within the threshold; None without one.
    """

    used: jax.Array
    repulsion: jax.Array
    near: jax.Array | None


def kernel_rows(
    kernel: Kernel, ensemble: Ensemble, hessians: Hessians, use: Callable[[jax.Array], jax.Array]
) -> Rows:
    """Return the sums over all pairs, a block of rows at a time; the dead do not count."""
    kernel = as_dtype(kernel, ensemble.points.dtype)
    points, weights = ensemble.scaled(kernel), ensemble.weights
    threshold = None if ensemble.threshold is None else ensemble.threshold / ensemble.bandwidth
    rows, columns = distance_factors(points, points)
    # Wanted only where the kernel is in closed form.
    own = hessians.solve(points) if kernel.has_jet else points

    def one(row: jax.Array, point: jax.Array) -> Rows:
        q = squared_distances(columns, row[None])[:, 0]
        near = None if threshold is None else jnp.sum(q <= threshold, dtype=q.dtype)
        if not kernel.has_jet:
            values, gradients = jax.vmap(jax.value_and_grad(kernel), (0, None))(points, point)
            repulsion = dot(weights, hessians.solve(gradients))
            return Rows(use(values * weights), repulsion, near)
        inner = 0.0 if kernel.is_radial else dot(points, point)
        value, slope, along = gradient_weights(kernel, q, inner)
        repulsion = dot(slope * weights, own)
        repulsion += hessians.weighted_solve((along - slope) * weights, point)
        return Rows(use(value * weights), repulsion, near)

    size = points.shape[0] * (1 if hessians.is_cheap and kernel.has_jet else points.shape[1])
    found = jax.lax.map(
        lambda pair: one(*pair), (rows, points), batch_size=min(len(points), max(1, _BLOCK // size))
    )
    return found._replace(repulsion=found.repulsion * jax.lax.rsqrt(ensemble.bandwidth))


def gradient_weights(kernel: Kernel, q: jax.Array, inner: Any) -> tuple[jax.Array, ...]:
    """Return k, a and b with ∇_x k(x, y) = a (x - y) + b y, of the shape of ``q``."""
    jet = kernel.jet(q, inner)
    full = lambda entry, factor: jnp.broadcast_to(jnp.asarray(factor * entry, q.dtype), q.shape)
    return full(jet.value, 1), full(jet.q, 2), full(jet.g, 1)


def as_dtype(kernel: Kernel, dtype: Any) -> Kernel:
    """Cast the parameters of a kernel, lest one in a wider dtype widen all the rest."""

    def cast(leaf: Any) -> Any:
        is_floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf, dtype) if is_floating else leaf

    return jax.tree.map(cast, kernel)
