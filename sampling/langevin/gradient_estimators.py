"""Unbiased estimates of a score from minibatches: plain, with control variates, and SVRG.

With the estimate log π_B(x) of a log density from a batch B (`minibatches`), the estimates of its
score, all unbiased over the draw of B, are

    plain                ∇log π_B(x)
    control variates     ∇log π(c) + ∇log π_B(x) - ∇log π_B(c)
    SVRG                 the same, where c is the chain's own point of up to m steps ago.

A control variate costs a second gradient of the batch, and once a gradient of all the data. It
pays where |x - c| is small: the noise vanishes at c and its variance grows as |x - c|². Take c
close to the mode. SVRG needs no such point but a gradient of all the data every m steps.

References: Baker, Fearnhead, Fox and Nemeth, "Control variates for stochastic gradient MCMC",
Statistics and Computing 29 (2019), section 3.1; Dubey et al., "Variance reduction in stochastic
gradient Langevin dynamics", NeurIPS 2016, algorithm 2.
"""

from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.flatten_util import ravel_pytree

from shoal.sampling.core._checks import check_callable, check_position, integer, real_scalar
from shoal.sampling.core.algorithm import LogDensity, Position
from shoal.sampling.core.minibatches import Minibatches
from shoal.sampling.core.random import check_key
from shoal.sampling.langevin.metric import as_metric

# A log density and its gradient, in the structure of the position.
ValueAndGradient = tuple[jax.Array, Position]


class Estimator(Protocol):
    """How a score is estimated from a batch; ``memory`` is what the chain carries along for it."""

    def init(self, minibatches: Minibatches, position: Position) -> Any:
        """Memory at a start."""

    def estimate(
        self, minibatches: Minibatches, position: Position, batch: Any, memory: Any
    ) -> tuple[ValueAndGradient, Any]:
        """Estimates of log density and gradient, and the new memory."""


class StochasticDensity(eqx.Module):
    """A log density whose score is estimated: minibatches and an estimator."""

    minibatches: Any
    estimator: Any

    def __call__(self, position: Position) -> jax.Array:
        """Log density by all the data."""
        return real_scalar("log_density", self.minibatches(position))

    def draw(self, key: jax.Array) -> Any:
        """Batch drawn with a typed key."""
        return self.minibatches.draw(key)

    def init(self, position: Position) -> Any:
        """Memory of the estimator at a start."""
        return self.estimator.init(self.minibatches, position)

    def estimate(self, position: Position, batch: Any, memory: Any) -> tuple[ValueAndGradient, Any]:
        """Estimates of log density and gradient from a batch, and the new memory."""
        return self.estimator.estimate(self.minibatches, position, batch, memory)


def plain(minibatches: Minibatches) -> StochasticDensity:
    """Estimate the score by the gradient of the minibatch estimate.

    Parameters
    ----------
    minibatches
        As from `minibatches.from_arrays`.

    Raises
    ------
    TypeError
        If ``minibatches`` are none.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.core import minibatches
    >>> from shoal.sampling.langevin import gradient_estimators as estimators
    >>> density = estimators.plain(minibatches.from_arrays(
    ...     lambda x: -0.5 * x**2, lambda x, y: -0.5 * (y - x) ** 2, jnp.arange(10.0), 2))
    >>> x, batch = jnp.array(1.0), jnp.array([2.0, 4.0])
    >>> print(density.estimate(x, batch, density.init(x))[0][1])  # the gradient
    19.0
    """
    _check_minibatches(minibatches)
    return StochasticDensity(minibatches, Plain())


def control_variates(minibatches: Minibatches, center: Position) -> StochasticDensity:
    """Estimate the score as that of a fixed point plus an estimate of the difference.

    Parameters
    ----------
    minibatches
        As from `minibatches.from_arrays`.
    center
        The point c, a position close to the mode. One gradient of all the data is computed there,
        now.

    Raises
    ------
    TypeError, ValueError
        If ``minibatches`` are none or ``center`` is no finite position.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.core import minibatches
    >>> from shoal.sampling.langevin import gradient_estimators as estimators
    >>> batches = minibatches.from_arrays(
    ...     lambda x: -0.5 * x**2, lambda x, y: -0.5 * (y - x) ** 2, jnp.arange(10.0), 2)
    >>> density = estimators.control_variates(batches, jnp.array(4.0))
    >>> x, batch = jnp.array(4.0), jnp.array([2.0, 4.0])
    >>> (value, gradient), memory = density.estimate(x, batch, density.init(x))
    >>> print(gradient)
    1.0
    """
    _check_minibatches(minibatches)
    check_position("center", center)
    return StochasticDensity(minibatches, ControlVariates(_anchor(minibatches, center)))


def svrg(minibatches: Minibatches, refresh_every: int) -> StochasticDensity:
    """Estimate the score as that of an earlier point of the chain plus that of the difference.

    Parameters
    ----------
    minibatches
        As from `minibatches.from_arrays`.
    refresh_every
        Steps, m, after which the chain's present point takes over, for one gradient of all the
        data.

    Raises
    ------
    TypeError, ValueError
        If ``minibatches`` are none or ``refresh_every`` is no positive integer.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.core import minibatches
    >>> from shoal.sampling.langevin import gradient_estimators as estimators
    >>> batches = minibatches.from_arrays(
    ...     lambda x: -0.5 * x**2, lambda x, y: -0.5 * (y - x) ** 2, jnp.arange(10.0), 2)
    >>> density = estimators.svrg(batches, refresh_every=50)
    >>> print(density.init(jnp.array(4.0)).anchor.gradient)
    1.0
    """
    _check_minibatches(minibatches)
    return StochasticDensity(minibatches, SVRG(integer("refresh_every", refresh_every)))


def as_stochastic(log_density: Any) -> StochasticDensity:
    """Return what a stochastic-gradient sampler needs; a mere log density has exact gradients.

    Raises
    ------
    TypeError
        If ``log_density`` cannot be called.
    """
    if isinstance(log_density, StochasticDensity):
        return log_density
    if isinstance(log_density, Minibatches):
        return plain(log_density)
    check_callable("log_density", log_density)
    return StochasticDensity(_Whole(log_density), Exact())


def noise_variance(
    key: jax.Array, log_density: Any, position: Position, metric: Any = None, num_batches: int = 100
) -> jax.Array:
    """Estimate the variance of a score estimate's noise at a point.

    Parameters
    ----------
    key
        Typed key.
    log_density
        As a stochastic-gradient sampler is called with.
    position
        Where to look, a typical point of the target.
    metric
        The sampler's M = L Lᵀ; the variances are those of Lᵀĝ.
    num_batches
        Batches to draw, at least 2.

    Returns
    -------
    jax.Array
        Variances, ``(d,)``: what ``gradient_noise`` of `langevin.sghmc` is to be.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible.
    """
    check_key(key)
    check_position("position", position)
    density, factor = as_stochastic(log_density), as_metric(metric)
    factor.check(ravel_pytree(position)[0].size)
    memory = density.init(position)

    def one(key: jax.Array) -> jax.Array:
        (_, gradient), _ = density.estimate(position, density.draw(key), memory)
        return factor.whiten(ravel_pytree(gradient)[0])

    keys = jax.random.split(key, integer("num_batches", num_batches, 2))
    return jnp.var(jax.lax.map(one, keys), axis=0, ddof=1)


class Nothing(NamedTuple):
    """Memory of an estimator that needs none."""


class Exactly(NamedTuple):
    """Memory of `Exact`; a type of its own, so that states of one density are not another's."""


class Anchor(NamedTuple):
    """A point with value and gradient of the log density by all the data."""

    position: Position
    value: jax.Array
    gradient: Position


class Anchored(NamedTuple):
    """Memory of `SVRG`: the anchor, and how many estimates have used it."""

    anchor: Anchor
    age: jax.Array


class Exact(eqx.Module):
    """The score itself, of a log density without data."""

    def init(self, minibatches: Minibatches, position: Position) -> Exactly:
        """No memory."""
        return Exactly()

    def estimate(
        self, minibatches: Minibatches, position: Position, batch: Any, memory: Any
    ) -> tuple[ValueAndGradient, Exactly]:
        """Value and gradient."""
        _check_memory(memory, Exactly)
        return jax.value_and_grad(minibatches)(position), memory


class Plain(eqx.Module):
    """See `plain`."""

    def init(self, minibatches: Minibatches, position: Position) -> Nothing:
        """No memory."""
        return Nothing()

    def estimate(
        self, minibatches: Minibatches, position: Position, batch: Any, memory: Any
    ) -> tuple[ValueAndGradient, Nothing]:
        """Value and gradient of the minibatch estimate."""
        _check_memory(memory, Nothing)
        return _on_batch(minibatches, position, batch), memory


class ControlVariates(eqx.Module):
    """See `control_variates`."""

    anchor: Anchor

    def init(self, minibatches: Minibatches, position: Position) -> Nothing:
        """No memory: the anchor is the same for all chains."""
        return Nothing()

    def estimate(
        self, minibatches: Minibatches, position: Position, batch: Any, memory: Any
    ) -> tuple[ValueAndGradient, Nothing]:
        """Value and gradient of the estimate relative to the center."""
        _check_memory(memory, Nothing)
        return _relative_to(self.anchor, minibatches, position, batch), memory


class SVRG(eqx.Module):
    """See `svrg`."""

    refresh_every: int = eqx.field(static=True)

    def init(self, minibatches: Minibatches, position: Position) -> Anchored:
        """Start with the start as the anchor."""
        return Anchored(_anchor(minibatches, position), jnp.zeros((), jnp.int32))

    def estimate(
        self, minibatches: Minibatches, position: Position, batch: Any, memory: Any
    ) -> tuple[ValueAndGradient, Anchored]:
        """Value and gradient of the estimate relative to the anchor, renewed when it is due."""
        _check_memory(memory, Anchored)
        is_due = memory.age >= self.refresh_every
        arrays, static = eqx.partition((minibatches, position), eqx.is_array)
        renew = lambda memory, arrays: self.init(*eqx.combine(arrays, static))
        memory = _update_where(is_due, renew, memory, arrays)
        estimate = _relative_to(memory.anchor, minibatches, position, batch)
        return estimate, memory._replace(age=memory.age + 1)


class _Whole(eqx.Module):
    """A log density that has no batches."""

    log_density: LogDensity

    def __call__(self, position: Position) -> jax.Array:
        return real_scalar("log_density", self.log_density(position))

    def draw(self, key: jax.Array) -> None:
        return None

    def estimate(self, position: Position, batch: Any) -> jax.Array:
        return self(position)


def _on_batch(minibatches: Minibatches, position: Position, batch: Any) -> ValueAndGradient:
    return jax.value_and_grad(
        lambda x: real_scalar("minibatches.estimate", minibatches.estimate(x, batch))
    )(position)


def _anchor(minibatches: Minibatches, position: Position) -> Anchor:
    position = jax.tree.map(jnp.asarray, position)
    evaluate = lambda x: real_scalar("minibatches", minibatches(x))
    return Anchor(position, *jax.value_and_grad(evaluate)(position))


def _relative_to(
    anchor: Anchor, minibatches: Minibatches, position: Position, batch: Any
) -> ValueAndGradient:
    here = _on_batch(minibatches, position, batch)
    there = _on_batch(minibatches, anchor.position, batch)
    exact = (anchor.value, anchor.gradient)
    return jax.tree.map(lambda e, h, t: e + (h - t), exact, here, there)


def _update_where(is_due: jax.Array, update: Any, old: Any, operand: Any) -> Any:
    """Return ``update(old, operand)`` if it is due, else ``old``; a branch even under ``vmap``.

    A ``cond`` under ``vmap`` evaluates both sides in every step. Here the update runs only in steps
    where it is due for at least one of those mapped over.
    """

    @custom_vmap
    def choose(is_due: jax.Array, old: Any, operand: Any) -> Any:
        return jax.lax.cond(is_due, update, lambda old, _: old, old, operand)

    @choose.def_vmap
    def choose_each(size: int, in_batched: Any, is_due: Any, old: Any, operand: Any) -> Any:
        due_is_batched, old_batched, operand_batched = in_batched
        spread = lambda leaf, is_batched: (
            leaf if is_batched else jnp.broadcast_to(leaf, (size, *jnp.shape(leaf)))
        )
        is_due = spread(is_due, due_is_batched)
        old = jax.tree.map(spread, old, old_batched)
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, operand_batched)

        def update_each(old: Any, rest: Any) -> Any:
            is_due, operand = rest

            def one(is_due: jax.Array, old: Any, operand: Any) -> Any:
                new = update(old, operand)
                return jax.tree.map(lambda a, b: jnp.where(is_due, a, b), new, old)

            return jax.vmap(one, (0, 0, axes))(is_due, old, operand)

        new = _update_where(jnp.any(is_due), update_each, old, (is_due, operand))
        return new, jax.tree.map(lambda _: True, new)

    return choose(is_due, old, operand)


def _check_minibatches(minibatches: Any) -> None:
    if isinstance(minibatches, StochasticDensity) or not isinstance(minibatches, Minibatches):
        raise TypeError(
            "minibatches must have draw, estimate and __call__, as from minibatches.from_arrays, "
            f"got {type(minibatches).__name__}: {minibatches!r}"
        )


def _check_memory(memory: Any, kind: type) -> None:
    if not isinstance(memory, kind):
        raise TypeError(
            f"the state was made by another density: its memory is {type(memory).__name__}, "
            f"not {kind.__name__}"
        )
