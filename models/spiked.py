"""Directions hidden in noise: tensor PCA and single-index models, as functions on the sphere.

Both hide a unit vector v in R^d, and offer an ``objective(x)`` on the unit sphere that is, at each
fixed x, a signal λ (x·v)^k plus noise of variance about one: λ is given for a tensor, and is √n for
n observations of a single-index model. From a random start, where |x·v| is about 1 / √d, the signal
is weak for k of 3 and more: a climber needs λ of order d^((k-1)/2), the average of a Langevin run
(`shoal.sampling.langevin.spherical`) and the partial trace d^(⌈k/2⌉/2).

References: Montanari and Richard, "A statistical model for tensor PCA", NeurIPS 2014; Hopkins, Shi,
Schramm and Steurer, "Fast spectral algorithms from sum-of-squares proofs", STOC 2016, for the
partial trace; Damian, Nichani, Ge and Lee, "Smoothing the landscape boosts the signal for SGD",
NeurIPS 2023, for single-index models; Ben Arous, Gheissari and Jagannath, "Algorithmic thresholds
for tensor PCA", Annals of Probability 48 (2020), for the climber's rate.

Examples
--------
>>> import jax, jax.numpy as jnp
>>> problem, direction = spiked_tensor(jax.random.key(0), dim=20, signal=60.0)
>>> bool(jnp.abs(problem.partial_trace() @ direction) > 0.9)
True
"""

import functools
import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.models._density import float_dtype
from shoal.sampling.core._checks import check_finite, integer, real_parameter, real_values
from shoal.sampling.core.random import check_key

__all__ = ["SingleIndex", "TensorPCA", "hermite", "single_index", "spiked_tensor"]


class TensorPCA(eqx.Module):
    """The form <T, x ⊗ ... ⊗ x> of a tensor of order k, whose maximum on the sphere is sought.

    Parameters
    ----------
    tensor
        T, shape ``(d, ..., d)`` with k ≥ 2 axes, d ≥ 2. Only its symmetric part matters, and only
        that is kept.

    Attributes
    ----------
    tensor
        The symmetric part of T.

    Raises
    ------
    TypeError, ValueError
        If ``tensor`` is no finite real array of equal axes.

    Notes
    -----
    For T = λ v ⊗ ... ⊗ v + G with independent N(0, 1) entries in G (not symmetric), λ times
    `objective` is the log likelihood of the direction, up to a constant: at the inverse temperature
    λ the law on the sphere is the posterior of v.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> problem = TensorPCA(jnp.array([[2.0, 1.0], [0.0, 1.0]]))
    >>> problem.tensor.tolist(), float(problem.objective(jnp.array([1.0, 1.0])))
    ([[2.0, 0.5], [0.5, 1.0]], 4.0)
    """

    tensor: jax.Array

    def __init__(self, tensor: Any):
        array = real_values("tensor", tensor)
        if array.ndim < 2 or len(set(array.shape)) > 1 or array.shape[0] < 2:
            raise ValueError(
                f"tensor must have two axes or more, all of one size of at least 2, got shape "
                f"{array.shape}"
            )
        check_finite("tensor", tensor)
        self.tensor = _symmetric_part(jnp.asarray(array, float_dtype(None, tensor)))

    @property
    def dim(self) -> int:
        """Number of coordinates, d."""
        return self.tensor.shape[0]

    @property
    def order(self) -> int:
        """Number of axes, k."""
        return self.tensor.ndim

    def objective(self, x: jax.Array) -> jax.Array:
        """Return <T, x ⊗ ... ⊗ x> at one point ``(d,)``, a scalar; with its gradient, one pass."""
        return _form(self.tensor, _point(x, self.dim))

    def partial_trace(self) -> jax.Array:
        """Return the estimator from the tensor's partial trace, a unit vector ``(d,)``.

        Pairs of axes are traced out until one or two are left: of odd order the vector's direction
        is the answer, of even order the top eigenvector of the matrix, whose sign is arbitrary. To
        first order in β it is where the law of density exp(β objective) has its mean (or second
        moment).
        """
        rest = self.tensor
        while rest.ndim > 2:
            rest = jnp.trace(rest)
        if rest.ndim == 2:
            return jnp.linalg.eigh(rest)[1][:, -1]
        return rest / jnp.linalg.norm(rest)


class SingleIndex(eqx.Module):
    """The correlation of responses with a Hermite polynomial of the inputs along a direction.

    Parameters
    ----------
    inputs
        x_i, shape ``(n, d)`` with d ≥ 2, taken to be standard normal.
    responses
        y_i, shape ``(n,)``.
    order
        k ≥ 1, the order of the normalised Hermite polynomial h_k (`hermite`): the least one that
        the link contains.

    Raises
    ------
    TypeError, ValueError
        If the arrays are not real, finite and of these shapes, or ``order`` is no such integer.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> problem = SingleIndex(jnp.array([[2.0, 0.0], [1.0, 3.0]]), jnp.array([1.0, 1.0]), order=1)
    >>> round(float(problem.objective(jnp.array([1.0, 0.0]))), 4)  # (2 + 1) / √2
    2.1213
    """

    inputs: jax.Array
    responses: jax.Array
    order: int = eqx.field(static=True)

    def __init__(self, inputs: Any, responses: Any, order: int = 3):
        x, y = real_values("inputs", inputs), real_values("responses", responses)
        if x.ndim != 2 or x.shape[0] < 1 or x.shape[1] < 2:
            raise ValueError(f"inputs must have shape (n, d) with d of at least 2, got {x.shape}")
        if y.shape != x.shape[:1]:
            raise ValueError(f"responses must have shape {x.shape[:1]}, got {y.shape}")
        check_finite("inputs", inputs)
        check_finite("responses", responses)
        dtype = float_dtype(None, inputs, responses)
        self.inputs, self.responses = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
        self.order = integer("order", order)

    @property
    def dim(self) -> int:
        """Number of coordinates, d."""
        return self.inputs.shape[1]

    def objective(self, x: jax.Array) -> jax.Array:
        """Return n^(-1/2) Σ y_i h_k(x_i·x) at one unit vector ``(d,)``, a scalar."""
        along = hermite(self.order, self.inputs @ _point(x, self.dim))
        return jnp.sum(self.responses * along) / math.sqrt(self.responses.shape[0])


def spiked_tensor(
    key: jax.Array, dim: int, order: int = 3, signal: Any = 1.0, *, dtype: Any = None
) -> tuple[TensorPCA, jax.Array]:
    """Draw T = λ v ⊗ ... ⊗ v + G, with v uniform on the sphere and entries of G N(0, 1).

    The entries of G are independent (G is not symmetric), so that <G, x ⊗ ... ⊗ x> is N(0, 1) for
    every unit vector x; the symmetric part of T, which is kept, has the same form.

    Parameters
    ----------
    key
        Typed key.
    dim, order
        d and k, both at least 2. The tensor holds d^k numbers.
    signal
        λ ≥ 0.
    dtype
        float32 or float64; JAX's default when None.

    Returns
    -------
    problem : TensorPCA
    direction : jax.Array
        v, ``(d,)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of what is said above.

    Examples
    --------
    >>> import jax
    >>> problem, direction = spiked_tensor(jax.random.key(0), dim=5, order=4, signal=3.0)
    >>> problem.tensor.shape, direction.shape
    ((5, 5, 5, 5), (5,))
    """
    check_key(key)
    dim, order = integer("dim", dim, 2), integer("order", order, 2)
    signal = real_parameter("signal", signal, 0.0, include_low=True, scalar=True)
    dtype = float_dtype(dtype)
    key_direction, key_noise = jax.random.split(key)
    direction = _uniform_direction(key_direction, dim, dtype)
    spike = jnp.asarray(signal, dtype)
    for _ in range(order):
        spike = spike[..., None] * direction
    noise = jax.random.normal(key_noise, (dim,) * order, dtype)
    return TensorPCA(spike + noise), direction


def single_index(
    key: jax.Array, num: int, dim: int, order: int = 3, noise: Any = 0.0, *, dtype: Any = None
) -> tuple[SingleIndex, jax.Array]:
    """Draw y_i = h_k(x_i·v) + σ ε_i with standard normal x_i and ε_i and v uniform on the sphere.

    Parameters
    ----------
    key
        Typed key.
    num
        n ≥ 1.
    dim
        d ≥ 2.
    order
        k ≥ 1.
    noise
        σ ≥ 0.
    dtype
        float32 or float64; JAX's default when None.

    Returns
    -------
    problem : SingleIndex
        With the expected objective √n (x·v)^k.
    direction : jax.Array
        v, ``(d,)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of what is said above.

    Examples
    --------
    >>> import jax
    >>> problem, direction = single_index(jax.random.key(0), num=50, dim=4, noise=0.1)
    >>> problem.inputs.shape, direction.shape
    ((50, 4), (4,))
    """
    check_key(key)
    num, dim, order = integer("num", num), integer("dim", dim, 2), integer("order", order)
    noise = real_parameter("noise", noise, 0.0, include_low=True, scalar=True)
    dtype = float_dtype(dtype)
    key_direction, key_inputs, key_noise = jax.random.split(key, 3)
    direction = _uniform_direction(key_direction, dim, dtype)
    inputs = jax.random.normal(key_inputs, (num, dim), dtype)
    errors = jnp.asarray(noise, dtype) * jax.random.normal(key_noise, (num,), dtype)
    return SingleIndex(inputs, hermite(order, inputs @ direction) + errors, order), direction


def hermite(order: int, z: jax.Array) -> jax.Array:
    """Return h_k(z) = He_k(z) / √(k!), which has mean zero and variance one for a normal z (k ≥ 1).

    Parameters
    ----------
    order
        k ≥ 0, static.
    z
        Floating array of any shape.

    Returns
    -------
    jax.Array
        Of the same shape.

    Raises
    ------
    TypeError, ValueError
        If ``order`` is no integer of at least 0 or ``z`` not real.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> hermite(2, jnp.array([1.0, 3.0])).round(3).tolist()  # (z² - 1) / √2
    [0.0, 5.6570000648498535]
    """
    order = integer("order", order, 0)
    z = jnp.asarray(real_values("z", z))
    before, now = jnp.zeros_like(z), jnp.ones_like(z)
    for k in range(order):
        before, now = now, (z * now - math.sqrt(k) * before) / math.sqrt(k + 1)
    return now


@jax.custom_jvp
def _form(tensor: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(_contract(tensor, x) * x)


def _form_jvp(primals: Any, tangents: Any) -> Any:
    """Differentiate: the gradient is k T(x, ..., x, ·), of which the value is a product with x.

    Reverse mode left alone would read the tensor a second time.
    """
    (tensor, x), (tensor_dot, x_dot) = primals, tangents
    row = _contract(tensor, x)
    tangent = jnp.zeros((), x.dtype)
    if not isinstance(x_dot, jax.custom_derivatives.SymbolicZero):
        tangent = tangent + tensor.ndim * jnp.sum(row * x_dot)
    if not isinstance(tensor_dot, jax.custom_derivatives.SymbolicZero):
        tangent = tangent + jnp.sum(_contract(tensor_dot, x) * x)
    return jnp.sum(row * x), tangent


_form.defjvp(_form_jvp, symbolic_zeros=True)


def _contract(tensor: jax.Array, x: jax.Array) -> jax.Array:
    """Return T(x, ..., x, ·) of a symmetric tensor, ``(d,)``."""
    while tensor.ndim > 1:
        tensor = tensor @ x
    return tensor


def _symmetric_part(tensor: jax.Array) -> jax.Array:
    orders = list(itertools.permutations(range(tensor.ndim)))
    turned = (jnp.transpose(tensor, axes) for axes in orders)
    return functools.reduce(jnp.add, turned) / len(orders)


def _uniform_direction(key: jax.Array, dim: int, dtype: Any) -> jax.Array:
    vector = jax.random.normal(key, (dim,), dtype)
    return vector / jnp.linalg.norm(vector)


def _point(x: Any, dim: int) -> jax.Array:
    point = real_values("x", x)
    if point.shape != (dim,):
        raise ValueError(f"x must be one point of shape ({dim},), got shape {point.shape}")
    return jnp.asarray(point)
