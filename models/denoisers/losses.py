"""What a denoising network is trained on: weighted errors in predicting the data.

Every loss here is the mean over data x_0, noise z and noise levels sigma of

    w(sigma) |D(x_0 + sigma z, sigma) - x_0|² / dim,

whose minimiser is the posterior mean of x_0 whatever w and the law of sigma. They differ in both:

    "denoising"  log sigma ~ N(-1.2, 1.2²); w = (sigma² + s²) / (sigma s)²: the error of the inner
                 network F (`PreconditionedNetwork`) with unit weight;
    "flow"       sigma = t / (1 - t), t uniform; w = ((1 + sigma) / sigma)²: the error of the
                 velocity z - x_0 of the straight path (1 - t) x_0 + t z;
    "velocity"   t uniform on the cosine schedule; w = 1 + 1 / sigma²: the error of
                 alpha z - sigma' x_0 at the variance-preserving alpha x_0 + sigma' z.

`residual_penalty` adds physics: a residual r(x_0) that is zero for all data.

References: Karras et al., NeurIPS 2022, table 1; Lipman et al., "Flow matching for generative
modeling", ICLR 2023; Salimans and Ho, "Progressive distillation", ICLR 2022, appendix D; Bastek,
Sun and Kochmann, "Physics-informed diffusion models", ICLR 2025, section 3.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from shoal.sampling.core.schedules import unit_scales, vp_cosine

LOSSES = ("denoising", "flow", "velocity")
_LOG_SIGMA = (-1.2, 1.2)
_T_MIN = 1e-3
# Of 256 rows none is nearer to 0 or 1; in float32 a row could round to either.
_TAIL = 1e-6
# The least likelihood that a residual is given: beyond, its gradient vanishes.
_LEAST = 1e-12
_NUM_STEPS = 100


def noise_levels(
    key: jax.Array, num: int, loss: str, log_sigma: tuple[float, float] | None, dtype: Any
) -> jax.Array:
    """Draw ``(num,)`` values of sigma, one in each of ``num`` parts of equal probability.

    Each alone has the law of the loss; together they cover it evenly, which makes the mean over a
    batch less noisy and leaves it unbiased (Kingma et al., "Variational diffusion models", 2021).
    """
    key_part, key_shift = jax.random.split(key)
    part = jax.random.permutation(key_part, num)
    uniform = (part + jax.random.uniform(key_shift, (num,), dtype)) / num
    uniform = jnp.clip(uniform, _TAIL, 1 - _TAIL)
    if log_sigma is None and loss != "denoising":
        t = _T_MIN + (1 - 2 * _T_MIN) * uniform
        return t / (1 - t) if loss == "flow" else jnp.exp(-vp_cosine().half_log_snr(t))
    mean, std = _LOG_SIGMA if log_sigma is None else log_sigma
    return jnp.exp(mean + std * jax.scipy.special.ndtri(uniform))


def weight(sigma: jax.Array, loss: str, sigma_data: float) -> jax.Array:
    """Return w(sigma), as in the table above."""
    if loss == "denoising":
        return 1 / sigma**2 + 1 / sigma_data**2
    return (1 + 1 / sigma) ** 2 if loss == "flow" else 1 + 1 / sigma**2


def row_losses(
    key: jax.Array,
    network: Any,
    images: jax.Array,
    labels: jax.Array,
    loss: str = "denoising",
    log_sigma: tuple[float, float] | None = None,
    residual: Callable[[jax.Array], jax.Array] | None = None,
    residual_weight: float = 0.0,
    residual_estimate: str = "mean",
) -> jax.Array:
    """Return one unbiased estimate of the loss per row of ``images`` ``(n, ...)``, ``(n,)``."""
    key_level, key_noise = jax.random.split(key)
    num = images.shape[0]
    sigma = noise_levels(key_level, num, loss, log_sigma, images.dtype)
    wide = sigma.reshape(num, *[1] * (images.ndim - 1))
    noisy = images + wide * jax.random.normal(key_noise, images.shape, images.dtype)
    data = network(noisy, sigma, labels)
    error = jnp.mean((data - images).reshape(num, -1) ** 2, 1)
    total = weight(sigma, loss, network.sigma_data) * error
    if residual is None:
        return total
    if residual_estimate == "sample":
        last = jnp.minimum(sigma, math.exp(-vp_cosine().half_log_snr(1 / _NUM_STEPS)))
        ratio = (last / sigma).reshape(wide.shape)
        data = network(data + ratio * (noisy - data), last, labels)
    missing = residual(data)
    if missing.ndim != 2 or missing.shape[0] != num:
        raise ValueError(f"residual must return shape ({num}, r), got {missing.shape}")
    return total + residual_weight * residual_penalty(missing, sigma)


def residual_penalty(residual: jax.Array, sigma: jax.Array) -> jax.Array:
    """Return the mean over a row's residuals of min(r² / (2 Sigma), log 10¹²).

    Parameters
    ----------
    residual
        r of the rows, ``(n, r)``.
    sigma
        Their noise levels, ``(n,)``.

    Returns
    -------
    jax.Array
        Shape ``(n,)``. Up to a constant the negative log likelihood of r = 0 with variance
        Sigma = beta_t (1 - abar_(t-1)) / (1 - abar_t), that of one ancestral step in the 100 steps
        of the cosine schedule; it falls to zero with sigma.

    Examples
    --------
    >>> penalty = residual_penalty(jnp.array([[0.0], [0.1], [9.0]]), jnp.full(3, 0.1))
    >>> [f"{one:.1f}" for one in penalty]
    ['0.0', '2.4', '27.6']
    """
    penalty = residual**2 / (2 * step_variance(-jnp.log(sigma))[:, None])
    return jnp.mean(jnp.minimum(penalty, -math.log(_LEAST)), 1)


def step_variance(half_log_snr: jax.Array) -> jax.Array:
    """Return the variance of one of 100 ancestral steps that starts at λ, cosine schedule.

    With λ' where the step ends it is sigma'² (1 - exp(2 (λ - λ'))), at unit variance. The first two
    steps from the data share one value: that of the first would be zero.
    """
    schedule = vp_cosine()
    t = jnp.clip(schedule.time(half_log_snr), 2 / _NUM_STEPS, schedule.t_max)
    start, end = schedule.half_log_snr(t), schedule.half_log_snr(t - 1 / _NUM_STEPS)
    return unit_scales(end)[1] ** 2 * -jnp.expm1(2 * (start - end))
