"""What guided denoisers compute; made by the functions of `guidance`, whose equations they are."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.sampling.core.denoiser import Denoiser, convert


class ClassifierFree(eqx.Module):
    """See `guidance.classifier_free`."""

    network: Callable[..., jax.Array]
    labels: jax.Array
    no_label: jax.Array
    scale: jax.Array

    def __call__(self, x: jax.Array, t: Any) -> jax.Array:
        labels, none = (_per_sample("labels", part, x) for part in (self.labels, self.no_label))
        scale = _column("scale", self.scale, x)
        value = self.network(jnp.concatenate([x, x]), t, jnp.concatenate([labels, none]))
        if jnp.shape(value) != (2 * x.shape[0], *x.shape[1:]):
            raise ValueError(
                "network must return the shape of its x, "
                f"{(2 * x.shape[0], *x.shape[1:])}; got {jnp.shape(value)}"
            )
        conditional, unconditional = jnp.split(value, 2)
        return unconditional + scale * (conditional - unconditional)


class Labelled(eqx.Module):
    """A network at fixed labels."""

    network: Callable[..., jax.Array]
    labels: jax.Array

    def __call__(self, x: jax.Array, t: Any) -> jax.Array:
        return self.network(x, t, _per_sample("labels", self.labels, x))


class Pair(eqx.Module):
    """See `guidance.combine`."""

    conditional: Denoiser
    unconditional: Denoiser
    scale: jax.Array

    def __call__(self, x: jax.Array, t: Any) -> jax.Array:
        half_log_snr, alpha, sigma = _scales(self.conditional, t)
        conditional = _data(self.conditional, x, t)
        if self.unconditional.schedule == self.conditional.schedule:
            unconditional = _data(self.unconditional, x, t)
        else:
            unconditional = self.unconditional.data(x / jnp.hypot(alpha, sigma), half_log_snr)
        return unconditional + _column("scale", self.scale, x) * (conditional - unconditional)


class Classifier(eqx.Module):
    """See `guidance.classifier`."""

    denoiser: Denoiser
    log_probability: Callable[[jax.Array, Any], jax.Array]
    scale: jax.Array

    def __call__(self, x: jax.Array, t: Any) -> jax.Array:
        _, alpha, sigma = _scales(self.denoiser, t)
        gradient, _ = _gradient("log_probability", lambda x: (self.log_probability(x, t), None), x)
        step = _column("scale", self.scale, x) * (sigma**2 / alpha)
        return _data(self.denoiser, x, t) + step * gradient


class Reconstruction(eqx.Module):
    """See `guidance.reconstruction`."""

    denoiser: Denoiser
    log_likelihood: Callable[[jax.Array, Any], jax.Array]
    scale: jax.Array

    def __call__(self, x: jax.Array, t: Any) -> jax.Array:
        _, alpha, sigma = _scales(self.denoiser, t)

        def value(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            data = _data(self.denoiser, x, t)
            return self.log_likelihood(data, sigma / alpha), data

        gradient, data = _gradient("log_likelihood", value, x)
        return data + _column("scale", self.scale, x) * (sigma**2 / alpha) * gradient


class Thresholded(eqx.Module):
    """See `guidance.dynamic_threshold`."""

    denoiser: Denoiser
    quantile: float = eqx.field(static=True)
    minimum: float = eqx.field(static=True)

    def __call__(self, x: jax.Array, t: Any) -> jax.Array:
        data = _data(self.denoiser, x, t)
        axes = tuple(range(1, x.ndim))
        largest = jnp.quantile(jnp.abs(data), self.quantile, axis=axes, keepdims=True)
        bound = jnp.maximum(largest, self.minimum)
        return jnp.clip(data, -bound, bound) * (self.minimum / bound)


def _scales(denoiser: Denoiser, t: Any) -> tuple[Any, Any, Any]:
    """Return λ, alpha and sigma at time ``t`` of a denoiser's own schedule."""
    assert denoiser.schedule is not None
    half_log_snr = denoiser.schedule.half_log_snr(jnp.asarray(t))
    return half_log_snr, *denoiser.schedule.scales(half_log_snr)


def _data(denoiser: Denoiser, x: jax.Array, t: Any) -> jax.Array:
    """Predict the data on a denoiser's own schedule, at exactly the time ``t``."""
    _, alpha, sigma = _scales(denoiser, t)
    return convert(denoiser.fn(x, t), x, alpha, sigma, denoiser.prediction, "data")


def _per_sample(name: str, value: jax.Array, x: jax.Array) -> jax.Array:
    """Return one value for each row of ``x``, ``(n,)``."""
    if value.ndim and value.shape != x.shape[:1]:
        raise ValueError(
            f"{name} must be one number or one for each of the {x.shape[0]} samples, got shape "
            f"{value.shape}"
        )
    return jnp.broadcast_to(value, x.shape[:1])


def _column(name: str, value: jax.Array, x: jax.Array) -> jax.Array:
    """Return a value for all rows of ``x``, or one for each, to multiply ``x`` by."""
    value = value.astype(x.dtype)
    return _per_sample(name, value, x).reshape(-1, *[1] * (x.ndim - 1)) if value.ndim else value


def _gradient(name: str, fn: Callable[..., Any], x: jax.Array) -> tuple[jax.Array, Any]:
    """Return the gradient of each of the values at its own row, and what comes beside them."""
    values, pull, beside = jax.vjp(fn, x, has_aux=True)
    if jnp.shape(values) != x.shape[:1]:
        raise ValueError(
            f"{name} must return one value for each of the {x.shape[0]} samples, shape "
            f"{x.shape[:1]}; got {jnp.shape(values)}"
        )
    return pull(jnp.ones_like(values))[0], beside
