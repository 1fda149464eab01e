"""Kernels k(x, y) as functions of the squared distance and of the inner product.

Every kernel here is a function of ``q = |x - y|^2`` alone (a *radial* kernel), of the inner
product ``g = <x, y>``, or a sum, product or positive multiple of such. That is what lets
`shoal.sampling.core.pairwise` reduce over all pairs with matrix products. Conventions:

==========================================  ====================================================
``RBF(h)``                                  exp(-q / h)
``IMQ(h, beta, c)``                         (c^2 + q / h)^beta, by default (1 + q / h)^(-1/2)
``Matern32(l)``                             (1 + a r) exp(-a r), a = sqrt(3) / l, r = sqrt(q)
``Matern52(l)``                             (1 + a r + a^2 q / 3) exp(-a r), a = sqrt(5) / l
``RationalQuadratic(l, alpha)``             (1 + q / (2 alpha l^2))^(-alpha)
``Linear(bias)``                            g + bias, by default g + 1
``Custom(function, *parameters)``           function(x, y, *parameters)
``k1 + k2``, ``k1 * k2``, ``2.0 * k``       pointwise
==========================================  ====================================================

A kernel is a pytree with its parameters as leaves, so that changing one compiles nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import real_parameter
from shoal.sampling.core._kernel_algebra import (
    Custom,
    Jet,
    Kernel,
    Product,
    Scaled,
    Sum,
    as_kernel,
)

__all__ = [
    "IMQ",
    "RBF",
    "Custom",
    "Jet",
    "Kernel",
    "Linear",
    "Matern32",
    "Matern52",
    "Product",
    "RationalQuadratic",
    "Scaled",
    "Sum",
    "as_kernel",
]


class _ClosedForm(Kernel):
    """A kernel given by its jet."""

    @property
    def has_jet(self) -> bool:
        return True

    @property
    def is_radial(self) -> bool:
        return True

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Return k(x, y), a scalar, for points of shape ``(d,)``."""
        x, y = jnp.asarray(x), jnp.asarray(y)
        return self.jet(jnp.sum((x - y) ** 2), jnp.sum(x * y)).value


class RBF(_ClosedForm):
    """Gaussian kernel exp(-q / bandwidth).

    Parameters
    ----------
    bandwidth
        Positive number, in units of the squared distance: ``2 l^2`` for a length scale ``l``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> kernel = RBF(2.0) + 0.5 * Linear()
    >>> float(kernel(jnp.zeros(3), jnp.zeros(3)))
    1.5
    """

    bandwidth: Any

    def __init__(self, bandwidth: Any) -> None:
        self.bandwidth = real_parameter("bandwidth", bandwidth, 0.0)

    @property
    def log_slope(self) -> Any:
        """The constant f'/f = -1 / bandwidth."""
        return -1 / self.bandwidth

    def jet(self, q: jax.Array, g: Any = 0.0) -> Jet:
        """Return value and derivatives, elementwise."""
        value = jnp.exp(-q / self.bandwidth)
        return Jet(value, q=-value / self.bandwidth, qq=value / self.bandwidth**2)


class IMQ(_ClosedForm):
    """Inverse multiquadric kernel (offset^2 + q / bandwidth)^beta.

    Parameters
    ----------
    bandwidth
        Positive number, in units of the squared distance.
    beta
        Negative power. None is -1/2, evaluated by a reciprocal square root (twice as fast).
    offset
        Positive number c; the kernel is c^(2 beta) at distance zero.
    """

    bandwidth: Any
    beta: Any
    offset: Any

    def __init__(self, bandwidth: Any, beta: Any = None, offset: Any = 1.0) -> None:
        self.bandwidth = real_parameter("bandwidth", bandwidth, 0.0)
        self.beta = None if beta is None else real_parameter("beta", beta, high=0.0)
        self.offset = real_parameter("offset", offset, 0.0)

    def jet(self, q: jax.Array, g: Any = 0.0) -> Jet:
        """Return value and derivatives, elementwise."""
        base = self.offset**2 + q / self.bandwidth
        beta = -0.5 if self.beta is None else self.beta
        value = jax.lax.rsqrt(base) if self.beta is None else base**beta
        slope = beta / self.bandwidth * value / base
        return Jet(value, q=slope, qq=(beta - 1) / self.bandwidth * slope / base)


class RationalQuadratic(_ClosedForm):
    """Rational quadratic kernel (1 + q / (2 alpha l^2))^(-alpha).

    Parameters
    ----------
    length_scale
        Positive number l, in units of the distance.
    alpha
        Positive number; the kernel tends to exp(-q / (2 l^2)) as it grows.
    """

    length_scale: Any
    alpha: Any

    def __init__(self, length_scale: Any, alpha: Any = 1.0) -> None:
        self.length_scale = real_parameter("length_scale", length_scale, 0.0)
        self.alpha = real_parameter("alpha", alpha, 0.0)

    def jet(self, q: jax.Array, g: Any = 0.0) -> Jet:
        """Return value and derivatives, elementwise."""
        half = 0.5 / self.length_scale**2
        base = 1 + q * (half / self.alpha)
        value = base**-self.alpha
        slope = -half * value / base
        return Jet(value, q=slope, qq=-half * (1 + 1 / self.alpha) * slope / base)


# Matern profiles m(s) of s = (a r)^2. Differentiating goes down this ladder instead of through
# sqrt(s), which keeps derivatives right where two points coincide: m52' = -m32 / 6,
# m32' = -m12 / 2, and m12' = -m12 / (2 sqrt(s)).
def _root(s: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.maximum(s, jnp.finfo(s.dtype).tiny))


def _m12(s: jax.Array) -> jax.Array:
    return jnp.exp(-_root(s))


@jax.custom_jvp
def _m32(s: jax.Array) -> jax.Array:
    root = _root(s)
    return (1 + root) * jnp.exp(-root)


@jax.custom_jvp
def _m52(s: jax.Array) -> jax.Array:
    root = _root(s)
    return (1 + root + s / 3) * jnp.exp(-root)


_m32.defjvps(lambda tangent, _, s: -_m12(s) / 2 * tangent)
_m52.defjvps(lambda tangent, _, s: -_m32(s) / 6 * tangent)


class Matern32(_ClosedForm):
    """Matern kernel of smoothness 3/2: (1 + a r) exp(-a r), a = sqrt(3) / length_scale.

    Parameters
    ----------
    length_scale
        Positive number, in units of the distance.
    """

    length_scale: Any

    def __init__(self, length_scale: Any) -> None:
        self.length_scale = real_parameter("length_scale", length_scale, 0.0)

    def jet(self, q: jax.Array, g: Any = 0.0) -> Jet:
        """Return value and derivatives, elementwise."""
        rate = 3 / self.length_scale**2
        s = jnp.asarray(rate * q)
        exponential = _m12(s)
        return Jet(_m32(s), q=-rate / 2 * exponential, qq=rate**2 / 4 * exponential / _root(s))


class Matern52(_ClosedForm):
    """Matern kernel of smoothness 5/2: (1 + a r + a^2 q / 3) exp(-a r), a = sqrt(5) / length_scale.

    Parameters
    ----------
    length_scale
        Positive number, in units of the distance.
    """

    length_scale: Any

    def __init__(self, length_scale: Any) -> None:
        self.length_scale = real_parameter("length_scale", length_scale, 0.0)

    def jet(self, q: jax.Array, g: Any = 0.0) -> Jet:
        """Return value and derivatives, elementwise."""
        rate = 5 / self.length_scale**2
        s = jnp.asarray(rate * q)
        return Jet(_m52(s), q=-rate / 6 * _m32(s), qq=rate**2 / 12 * _m12(s))


class Linear(_ClosedForm):
    """Linear kernel <x, y> + bias; not invariant under translation.

    Parameters
    ----------
    bias
        Number >= 0.
    """

    bias: Any

    def __init__(self, bias: Any = 1.0) -> None:
        self.bias = real_parameter("bias", bias, 0.0, include_low=True)

    @property
    def is_radial(self) -> bool:
        """A function of the inner product: no."""
        return False

    def jet(self, q: jax.Array, g: Any = 0.0) -> Jet:
        """Return value and derivatives, elementwise."""
        g = jnp.asarray(g)
        return Jet(g + self.bias, g=jnp.ones_like(g))
