"""Thermodynamic natural gradient: a gradient preconditioned by letting a process relax.

With a Fisher (or Gauss-Newton) matrix F, damping λ, A = F + λ I and the gradient g of the loss, the
direction x is moved, at each update of an optimiser, along

    dx = -(A x - g) dt + √(2T) dW    for a time t, from where it was,

exactly: x ← e^(-At) x + A⁻¹(I - e^(-At)) g + N(0, T A⁻¹(I - e^(-2At))). For t → ∞ and T = 0 that is
the natural gradient A⁻¹g; for t → 0 it is x + t (g - A x), the plain gradient with a momentum that
decays fastest where the curvature is large. In between, small eigenvalues of A, which noise in F
spoils most, are trusted least. Nothing is biased by a step size: the relaxation is exact.

Where F = JᵀJ/k with k rows, k < d, all comes from the k × k matrix JJᵀ/k, in O(k²d + k³), and no
d × d matrix is formed.

Reference: Donatella, Duffield, Aifer, Melanson, Crooks and Coles, "Thermodynamic natural gradient
descent", arXiv 2405.13817.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from shoal.sampling.core._checks import real_parameter
from shoal.sampling.core.random import check_key, step_key
from shoal.sampling.langevin._affine_law import integral
from shoal.sampling.langevin.options import check_positive


class NaturalGradientState(NamedTuple):
    """State of `natural_gradient`.

    Attributes
    ----------
    num_updates
        Number of updates made, int32.
    key
        Typed key of the run; the noise of an update is a function of it and of ``num_updates``.
    direction
        x, of the structure of the parameters: zero at the start.
    """

    num_updates: jax.Array
    key: jax.Array
    direction: Any


class _Spectrum(NamedTuple):
    """F = V diag(values) Vᵀ by its parts that are not zero: ``project`` is Vᵀ, ``lift`` V."""

    values: jax.Array
    project: Callable[[jax.Array], jax.Array]
    lift: Callable[[jax.Array], jax.Array]


def natural_gradient(
    key: jax.Array, damping: Any = 1e-2, time: Any = 1.0, temperature: Any = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Replace gradients by thermodynamic natural gradients.

    ``update(gradient, state, params, jacobian=...)`` or ``update(..., fisher=...)`` returns x.
    Learning rate goes outside, by ``optax.chain``.

    Parameters
    ----------
    key
        Typed key of the noise, of which there is none at temperature 0.
    damping
        λ > 0.
    time
        t > 0 for which the process runs at each update, in units of 1/A; ``math.inf`` for the
        natural gradient itself.
    temperature
        T >= 0.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        State `NaturalGradientState`. ``jacobian`` has the structure of the parameters with a
        leading axis of k, as from ``jax.jacrev`` of k outputs (or k gradients of log-likelihoods),
        rows scaled so that F = JᵀJ/k; ``fisher`` is F, ``(d, d)`` over the raveled parameters.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range; from ``update``, unless one of ``jacobian`` and ``fisher``
        is given, of the right shape.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> from shoal.sampling.langevin.natural_gradient import natural_gradient
    >>> rows = jax.random.normal(jax.random.key(0), (32, 3)) * jnp.array([1.0, 10.0, 100.0])
    >>> residuals = lambda x: rows @ (x - 1.0)
    >>> loss = lambda x: jnp.mean(residuals(x) ** 2) / 2
    >>> optimizer = optax.chain(natural_gradient(jax.random.key(1), time=10.0), optax.sgd(0.5))
    >>> x = jnp.zeros(3)
    >>> state = optimizer.init(x)
    >>> for _ in range(20):
    ...     slope, jacobian = jax.grad(loss)(x), jax.jacrev(residuals)(x)
    ...     updates, state = optimizer.update(slope, state, x, jacobian=jacobian)
    ...     x = optax.apply_updates(x, updates)
    >>> float(jnp.abs(x - 1).max()) < 1e-3
    True
    """
    check_key(key)
    lam = check_positive("damping")(damping)
    heat = check_positive("temperature", allow_zero=True)(temperature)
    wanted = "positive"
    if not (isinstance(time, float) and time == math.inf):
        time = real_parameter("time", time, 0.0, scalar=True, wanted=wanted)

    def init(params: Any) -> NaturalGradientState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return NaturalGradientState(jnp.zeros((), jnp.int32), key, zeros)

    def update(
        updates: Any,
        state: NaturalGradientState,
        params: Any = None,
        *,
        jacobian: Any = None,
        fisher: Any = None,
        **extra: Any,
    ) -> tuple[Any, NaturalGradientState]:
        gradient, unravel = ravel_pytree(updates)
        x = ravel_pytree(state.direction)[0]
        low, t, warmth = (jnp.asarray(number, x.dtype) for number in (lam, time, heat))
        noise = jax.random.normal(step_key(state.key, state.num_updates), x.shape, x.dtype)
        spectrum = _spectrum(jacobian, fisher, len(x))

        def flow(rate: jax.Array) -> jax.Array:
            """Return what multiplies x, the gradient and the noise where A has that eigenvalue."""
            spread = jnp.sqrt(2 * warmth * integral(2 * rate, t))
            return jnp.stack([jnp.exp(-rate * t), integral(rate, t), spread])

        vectors, outside = jnp.stack([x, gradient, noise]), flow(low)
        inside = flow(low + spectrum.values) - outside[:, None]
        within = jnp.sum(inside * jax.vmap(spectrum.project)(vectors), 0)
        direction = unravel(outside @ vectors + spectrum.lift(within))
        count = optax.safe_increment(state.num_updates)
        return direction, NaturalGradientState(count, state.key, direction)

    return optax.GradientTransformationExtraArgs(init, update)


def _spectrum(jacobian: Any, fisher: Any, dim: int) -> _Spectrum:
    """Return the eigendecomposition of F, by whichever matrix is the smaller."""
    if (jacobian is None) == (fisher is None):
        raise ValueError("give either jacobian or fisher to update, one of them")
    if fisher is not None:
        if jnp.shape(fisher) != (dim, dim):
            raise ValueError(f"fisher must have shape {(dim, dim)}, got {jnp.shape(fisher)}")
        return _dense(jnp.asarray(fisher))
    rows = jax.vmap(lambda row: ravel_pytree(row)[0])(jacobian)
    if rows.shape[1] != dim:
        raise ValueError(f"jacobian must have {dim} columns, got shape {rows.shape}")
    count = len(rows)
    if count >= dim:
        return _dense(rows.T @ rows / count)
    values, vectors = jnp.linalg.eigh(rows @ rows.T / count)
    # V = Jᵀ U / √(k values); what is zero but for rounding has no direction.
    is_zero = values <= count * jnp.finfo(values.dtype).eps * values[-1]
    scale = jnp.where(is_zero, 0, jax.lax.rsqrt(jnp.where(is_zero, 1, count * values)))
    project = lambda vector: scale * ((rows @ vector) @ vectors)
    lift = lambda parts: (vectors @ (scale * parts)) @ rows
    return _Spectrum(jnp.where(is_zero, 0, values), project, lift)


def _dense(fisher: jax.Array) -> _Spectrum:
    values, vectors = jnp.linalg.eigh(fisher)
    return _Spectrum(jnp.maximum(values, 0), lambda v: v @ vectors, lambda p: vectors @ p)
