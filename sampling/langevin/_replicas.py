"""Replicas on the path of laws between two densities: values, scores, and other temperatures."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core.algorithm import LogDensity, Position
from shoal.sampling.langevin.metric import LowRankMetric, Metric


class Path(NamedTuple):
    """Log density ``base + β slope`` of the replicas' points, with gradients ``(K, d)``."""

    base: jax.Array
    slope: jax.Array
    base_score: jax.Array
    slope_score: jax.Array


def tempered(log_density: LogDensity, reference: LogDensity | None, beta: jax.Array) -> LogDensity:
    """Return log π_β as a function of the position."""

    def tempered(position: Position) -> jax.Array:
        value = log_density(position)
        weight = beta.astype(value.dtype)
        if reference is None:
            return weight * value
        base = reference(position)
        # Zero times -inf would be NaN.
        is_outside = (value == -jnp.inf) | (base == -jnp.inf)
        return jnp.where(is_outside, -jnp.inf, (1 - weight) * base + weight * value)

    return tempered


def along_path(
    log_density: LogDensity, reference: LogDensity | None, betas: jax.Array, replicas: Any
) -> Path:
    """Split the replicas' log densities into what β multiplies and the rest."""
    if reference is None:
        beta = betas.astype(replicas.log_density.dtype)
        slope, score = replicas.log_density / beta, replicas.score / beta[:, None]
        return Path(jnp.zeros_like(slope), slope, jnp.zeros_like(score), score)

    def one(position: Position) -> Path:
        value, gradient = jax.value_and_grad(log_density)(position)
        base, base_gradient = jax.value_and_grad(reference)(position)
        score, base_score = ravel_pytree(gradient)[0], ravel_pytree(base_gradient)[0]
        return Path(base, value - base, base_score, score - base_score)

    return jax.vmap(one)(replicas.position)


def retempered(replicas: Any, path: Path, betas: jax.Array, where: jax.Array) -> Any:
    """Replace what replicas cache of their log density, at the rungs in ``where``."""
    beta = betas.astype(path.slope.dtype)
    log_density = path.base + beta * path.slope
    score = path.base_score + beta[:, None] * path.slope_score
    return replicas._replace(
        log_density=jnp.where(where, log_density, replicas.log_density),
        score=jnp.where(where[:, None], score, replicas.score),
    )


def warm(metric: Metric | LowRankMetric, beta: jax.Array) -> Metric | LowRankMetric:
    """M / β, by the factor of M."""
    name = "factor" if isinstance(metric, Metric) else "scale"
    return eqx.tree_at(lambda m: getattr(m, name), metric, getattr(metric, name) / jnp.sqrt(beta))


def check_cache(replicas: Any, dim: int) -> None:
    """Raise unless an exchange knows how to bring a state to another temperature."""
    shape = getattr(getattr(replicas, "score", None), "shape", ())
    if not hasattr(replicas, "log_density") or shape[1:] != (dim,):
        raise TypeError(
            "sampler must keep log_density and score of its position in its state, as mala, "
            f"barker, baoab, ghmc or mclmc do; got {type(replicas).__name__} with the fields "
            f"{getattr(replicas, '_fields', ())}"
        )
