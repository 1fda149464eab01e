"""Networks that predict the data from noisy data, preconditioned as by Karras et al.

At x = x_0 + sigma z, where the data have the standard deviation s, the prediction is

    D(x, sigma) = c_skip x + c_out F(c_in x, log(sigma) / 4),
    c_in = 1 / sqrt(sigma² + s²),  c_skip = s² c_in²,  c_out = sigma s c_in,

so that F, the trained part, sees inputs of unit variance and has targets of unit variance at every
sigma. F = 0 is the exact answer for data from N(0, s²). With x = alpha x_0 + sigma' z of any other
schedule, ask at x / alpha and sigma = sigma' / alpha: `Denoiser` does.

Reference: Karras, Aittala, Aila and Laine, "Elucidating the design space of diffusion-based
generative models", NeurIPS 2022, section 5 and table 1. The blocks are those of Peebles and Xie,
"Scalable diffusion models with transformers", ICCV 2023 (adaptive layer norm), without attention.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import check_entries, integer, real_parameter, real_values
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.random import check_key
from shoal.sampling.core.schedules import edm

__all__ = ["PreconditionedNetwork", "ResidualMLP", "residual_mlp"]

_NUM_FREQUENCIES = 16
_FREQUENCIES = (1.0, 30.0)


class PreconditionedNetwork(eqx.Module):
    """A denoising network D(x, sigma, labels) around an inner network F.

    Parameters
    ----------
    inner
        F, called as ``inner(x, noise, labels)`` with ``x`` of shape ``(n, ...)``, ``noise`` the
        values log(sigma) / 4 ``(n,)`` and ``labels`` ``(n,)``; returns the shape of ``x``.
    sigma_data
        s, the standard deviation of the data.
    num_labels
        Number of classes; 0 for data without labels.

    Examples
    --------
    The mean of N(0, 1) given x at sigma = 1 is x / 2.

    >>> network = PreconditionedNetwork(lambda x, noise, labels: 0 * x, sigma_data=1.0)
    >>> network(jnp.ones((1, 2)), 1.0).round(4)
    Array([[0.5, 0.5]], dtype=float32)
    """

    inner: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    sigma_data: float = eqx.field(static=True)
    num_labels: int = eqx.field(static=True, default=0)

    def __post_init__(self) -> None:
        if not callable(self.inner):
            raise TypeError(f"inner must be a function inner(x, noise, labels), got {self.inner!r}")
        self.sigma_data = float(real_parameter("sigma_data", self.sigma_data, 0.0, scalar=True))
        self.num_labels = integer("num_labels", self.num_labels, 0)

    @property
    def no_label(self) -> int:
        """The label that stands for none: a row of its own, after those of the classes."""
        return self.num_labels

    def __call__(self, x: jax.Array, sigma: Any, labels: jax.Array | None = None) -> jax.Array:
        """Predict the data.

        Parameters
        ----------
        x
            Noisy data x_0 + sigma z, shape ``(n, ...)``.
        sigma
            A scalar, or one per row, ``(n,)``.
        labels
            Integers ``(n,)`` from 0 to `no_label`; none known if None.

        Returns
        -------
        jax.Array
            Shape and dtype of ``x``.
        """
        num = x.shape[0]
        if labels is None:
            labels = jnp.full(num, self.no_label)
        sigma = jnp.asarray(sigma, x.dtype)
        if sigma.shape not in ((), (num,)):
            raise ValueError(f"sigma must be a scalar or of shape ({num},), got {sigma.shape}")
        sigma = jnp.broadcast_to(sigma, (num,))
        noise = jnp.log(sigma) / 4
        sigma = sigma.reshape(num, *[1] * (x.ndim - 1))
        total = jnp.hypot(sigma, self.sigma_data)
        value = self.inner(x / total, noise, labels)
        skip, out = (self.sigma_data / total) ** 2, sigma * self.sigma_data / total
        return (skip * x + out * value).astype(x.dtype)

    def as_denoiser(self, label: Any = None) -> Denoiser:
        """Return the network as a `Denoiser` of data with given labels.

        Parameters
        ----------
        label
            One class for all rows, or integers ``(n,)``, one for each row of the ``(n, ...)``
            particles; None is for data of all classes.
        """
        return Denoiser(_Conditioned(self, self.check_labels("label", label)), "data", edm())

    def check_labels(self, name: str, labels: Any) -> jax.Array:
        """Return labels as an int32 array, one or ``(n,)``; raise if one is no class."""
        if labels is None:
            return jnp.int32(self.no_label)
        array = real_values(name, labels)
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise TypeError(f"{name} must hold integers, got dtype {array.dtype}: {labels!r}")
        if array.ndim > 1 or not array.size:
            raise ValueError(
                f"{name} must be one integer or of shape (n,), got shape {array.shape}"
            )
        wanted = f"from 0 to {self.no_label}, the last of which means no label"
        check_entries(name, array, lambda a: (a >= 0) & (a <= self.no_label), wanted)
        return jnp.asarray(array, jnp.int32)


class _Conditioned(eqx.Module):
    """A network at fixed labels, as a function of x and the time sigma."""

    network: PreconditionedNetwork
    labels: jax.Array

    def __call__(self, x: jax.Array, sigma: Any) -> jax.Array:
        if self.labels.ndim and self.labels.shape != x.shape[:1]:
            raise ValueError(
                f"label must be one integer or hold one for each of the {x.shape[0]} particles, "
                f"got shape {self.labels.shape}"
            )
        return self.network(x, sigma, jnp.broadcast_to(self.labels, x.shape[:1]))


class _Block(eqx.Module):
    """h + W_2 silu(W_1 (layer norm of h, scaled and shifted by the condition))."""

    modulation: eqx.nn.Linear
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self, key: jax.Array, width: int):
        keys = jax.random.split(key, 3)
        self.modulation = _zeroed(eqx.nn.Linear(width, 2 * width, key=keys[0]))
        self.first = eqx.nn.Linear(width, width, key=keys[1])
        self.second = eqx.nn.Linear(width, width, key=keys[2])
        self.norm = eqx.nn.LayerNorm(width, use_weight=False, use_bias=False)

    def __call__(self, h: jax.Array, condition: jax.Array) -> jax.Array:
        scale, shift = jnp.split(self.modulation(condition), 2)
        return h + self.second(jax.nn.silu(self.first(self.norm(h) * (1 + scale) + shift)))


class ResidualMLP(eqx.Module):
    """The inner network for data in rows; see `residual_mlp`."""

    first: eqx.nn.Linear
    last: eqx.nn.Linear
    noise_layers: tuple[eqx.nn.Linear, eqx.nn.Linear]
    label_rows: jax.Array
    blocks: tuple[_Block, ...]
    norm: eqx.nn.LayerNorm

    def __init__(self, key: jax.Array, dim: int, num_labels: int, width: int, num_blocks: int):
        keys = jax.random.split(key, 5 + num_blocks)
        self.first = eqx.nn.Linear(dim, width, key=keys[0])
        self.last = _zeroed(eqx.nn.Linear(width, dim, key=keys[1]))
        self.noise_layers = (
            eqx.nn.Linear(2 * _NUM_FREQUENCIES, width, key=keys[2]),
            eqx.nn.Linear(width, width, key=keys[3]),
        )
        self.label_rows = jax.random.normal(keys[4], (num_labels + 1, width)) / math.sqrt(width)
        self.blocks = tuple(_Block(key, width) for key in keys[5:])
        self.norm = eqx.nn.LayerNorm(width, use_weight=False, use_bias=False)

    def __call__(self, x: jax.Array, noise: jax.Array, labels: jax.Array) -> jax.Array:
        """Return F at rows ``(n, dim)``, for ``noise`` and ``labels`` of shape ``(n,)``."""
        return jax.vmap(self._row)(x, noise, labels)

    def _row(self, x: jax.Array, noise: jax.Array, label: jax.Array) -> jax.Array:
        angles = noise * np.geomspace(*_FREQUENCIES, _NUM_FREQUENCIES).astype(noise.dtype)
        condition = self.noise_layers[0](jnp.concatenate([jnp.sin(angles), jnp.cos(angles)]))
        # A label beyond the last becomes NaN, where plain indexing would take the last row.
        row = self.label_rows.at[label].get(mode="fill", fill_value=jnp.nan)
        condition = jax.nn.silu(self.noise_layers[1](jax.nn.silu(condition)) + row)
        h = self.first(x)
        for block in self.blocks:
            h = block(h, condition)
        return self.last(self.norm(h))


def residual_mlp(
    key: jax.Array,
    dim: int,
    num_labels: int = 0,
    *,
    sigma_data: float,
    width: int = 192,
    num_blocks: int = 3,
) -> PreconditionedNetwork:
    """Return an untrained network for rows of ``dim`` numbers: residual blocks under AdaLN.

    Sines and cosines of log(sigma) / 4, and the row of the label, set scale and shift of the layer
    norm in each block. The last layer is zero, so that the untrained network is exact for data from
    N(0, s²).

    Parameters
    ----------
    key
        A typed key for the initial weights.
    dim
        Numbers per row.
    num_labels
        Number of classes, 0 for none. There is one further row, which means no label.
    sigma_data
        Standard deviation of the data, ``images.std()``.
    width, num_blocks
        Size of the network.

    Returns
    -------
    PreconditionedNetwork

    Examples
    --------
    >>> network = residual_mlp(jax.random.key(0), 64, num_labels=10, sigma_data=0.75)
    >>> sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_array)))
    515008
    >>> network.as_denoiser(3).fn(jnp.ones((5, 64)), jnp.float32(1.0)).shape
    (5, 64)
    """
    check_key(key)
    sizes = [
        integer("dim", dim),
        integer("num_labels", num_labels, 0),
        integer("width", width),
        integer("num_blocks", num_blocks),
    ]
    return PreconditionedNetwork(ResidualMLP(key, *sizes), sigma_data, sizes[1])


def _zeroed(layer: eqx.nn.Linear) -> eqx.nn.Linear:
    """Return a layer whose outputs are zero until it is trained."""
    return jax.tree.map(jnp.zeros_like, layer)
