"""Log densities that are sums over data, estimated from minibatches of them.

With a prior p and n independent observations, the log density and its estimate from a set B of m
of them, drawn uniformly, are

    log π(x)   = log p(x) + Σ_i log p(y_i | x),
    log π_B(x) = log p(x) + (n/m) Σ_{i in B} log p(y_i | x).

The estimate is unbiased, and so is its gradient. Batches are drawn without replacement, by Floyd's
algorithm: its cost depends on m alone, and a batch of all the data gives the exact gradient.

Reference: Bentley and Floyd, "Programming pearls: a sample of brilliance", Communications of the
ACM 30 (1987), algorithm F2.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import check_callable, integer, real_scalar
from shoal.sampling.core.algorithm import Position
from shoal.sampling.core.random import check_key


@runtime_checkable
class Minibatches(Protocol):
    """What a stochastic-gradient sampler asks of a log density; any pytree with these methods."""

    def __call__(self, position: Position) -> jax.Array:
        """Log density by all the data."""

    def draw(self, key: jax.Array) -> Any:
        """Batch drawn with a typed key: a pytree of arrays."""

    def estimate(self, position: Position, batch: Any) -> jax.Array:
        """Unbiased estimate of the log density from a batch."""


class ArrayMinibatches(eqx.Module):
    """Minibatches of arrays; made by `from_arrays`. The data are leaves, the functions static."""

    data: Any
    log_prior: Callable[[Position], jax.Array] = eqx.field(static=True)
    log_likelihood: Callable[[Position, Any], jax.Array] = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)

    @property
    def num_data(self) -> int:
        """Number of observations, n."""
        return jax.tree.leaves(self.data)[0].shape[0]

    def __call__(self, position: Position) -> jax.Array:
        """Log density by all the data, a scalar."""
        return self.estimate(position, self.data)

    def draw(self, key: jax.Array) -> Any:
        """Rows of the data, drawn without replacement."""
        rows = draw_subset(key, self.num_data, self.batch_size)
        return jax.tree.map(lambda leaf: leaf[rows], self.data)

    def estimate(self, position: Position, batch: Any) -> jax.Array:
        """Log prior plus (n/m) times the log likelihood of a batch of m rows, a scalar."""
        return _estimate(self, position, batch)


class StreamedMinibatches(eqx.Module):
    """Minibatches that a loop of the user's brings; made by `from_stream`."""

    log_prior: Callable[[Position], jax.Array] = eqx.field(static=True)
    log_likelihood: Callable[[Position, Any], jax.Array] = eqx.field(static=True)
    num_data: int = eqx.field(static=True)

    def __call__(self, position: Position) -> jax.Array:
        """Raise ``TypeError``: all the data are never there at once."""
        raise TypeError(
            "log_density of streamed minibatches is not known: it needs all the data at once"
        )

    def draw(self, key: jax.Array) -> Any:
        """Raise ``TypeError``: batches are given, not drawn."""
        raise TypeError("batch is None, but minibatches are streamed: give init and step a batch")

    def estimate(self, position: Position, batch: Any) -> jax.Array:
        """Log prior plus (n/m) times the log likelihood of a batch of m rows, a scalar."""
        return _estimate(self, position, batch)


def from_arrays(
    log_prior: Callable[[Position], jax.Array],
    log_likelihood: Callable[[Position, Any], jax.Array],
    data: Any,
    batch_size: int,
) -> ArrayMinibatches:
    """Make minibatches of arrays in memory.

    Parameters
    ----------
    log_prior
        Maps a position to its log prior density, a scalar.
    log_likelihood
        ``log_likelihood(position, batch)``: the log likelihood of each of a batch's m rows, shape
        ``(m,)``. Not summed and not scaled. Keep both functions: new ones compile anew.
    data
        Pytree of arrays of shape ``(n, ...)``.
    batch_size
        Rows in a batch, m <= n.

    Raises
    ------
    TypeError, ValueError
        If a function is none, ``data`` holds no arrays of one length, or ``batch_size`` is out of
        range.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.core import minibatches
    >>> density = minibatches.from_arrays(
    ...     lambda x: -0.5 * x**2, lambda x, y: -0.5 * (y - x) ** 2, jnp.arange(10.0), batch_size=2
    ... )
    >>> batch = density.draw(jax.random.key(0))
    >>> batch.shape, density.estimate(jnp.array(1.0), batch).shape
    ((2,), ())
    """
    check_callable("log_prior", log_prior)
    check_callable("log_likelihood", log_likelihood)
    num_data = _num_rows("data", data)
    batch_size = integer("batch_size", batch_size)
    if batch_size > num_data:
        raise ValueError(f"batch_size must be at most {num_data}, the rows of data: {batch_size}")
    data = jax.tree.map(jnp.asarray, data)
    return ArrayMinibatches(data, log_prior, log_likelihood, batch_size)


def from_stream(
    log_prior: Callable[[Position], jax.Array],
    log_likelihood: Callable[[Position, Any], jax.Array],
    num_data: int,
) -> StreamedMinibatches:
    """Make minibatches that come from a loop of the user's: data that do not fit into memory.

    The samplers' ``init`` and ``step`` then need ``batch=``. For unbiased gradients each batch must
    be a uniform draw of rows: shuffle what an iterator reads.

    Parameters
    ----------
    log_prior, log_likelihood
        As in `from_arrays`.
    num_data
        Observations in all, n.

    Raises
    ------
    TypeError, ValueError
        If a function is none or ``num_data`` no positive integer.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from shoal.sampling import langevin
    >>> from shoal.sampling.core import minibatches
    >>> def batches(rng):
    ...     while True:
    ...         yield rng.normal(2.0, 1.0, size=50).astype("float32")
    >>> density = minibatches.from_stream(
    ...     lambda x: -0.5 * x**2, lambda x, y: -0.5 * (y - x) ** 2, num_data=1000
    ... )
    >>> algorithm = langevin.sgld(1e-4)(density)
    >>> step, stream = jax.jit(algorithm.step), batches(np.random.default_rng(0))
    >>> state = algorithm.init(jnp.array(0.0), batch=next(stream))
    >>> for i in range(200):
    ...     state, info = step(jax.random.key(i), state, next(stream))
    >>> bool(abs(state.position - 2.0) < 0.3)
    True
    """
    check_callable("log_prior", log_prior)
    check_callable("log_likelihood", log_likelihood)
    return StreamedMinibatches(log_prior, log_likelihood, integer("num_data", num_data))


def draw_subset(key: jax.Array, num: int, size: int) -> jax.Array:
    """Draw ``size`` of the integers below ``num``, every subset with the same probability.

    Parameters
    ----------
    key
        Typed key.
    num, size
        Integers, 1 <= size <= num.

    Returns
    -------
    jax.Array
        int32 ``(size,)``, all different, in no useful order; ``arange(num)`` if ``size == num``.

    Raises
    ------
    TypeError, ValueError
        If ``key`` is no typed key or the integers are out of range.
    """
    check_key(key)
    num = integer("num", num)
    if integer("size", size) > num:
        raise ValueError(f"size must be at most num={num}, got {size}")
    if size == num:
        return jnp.arange(num, dtype=jnp.int32)
    last = jnp.arange(num - size, num, dtype=jnp.int32)
    drawn = jax.random.randint(key, (size,), 0, last + 1, jnp.int32)

    def add(i: jax.Array, chosen: jax.Array) -> jax.Array:
        is_taken = jnp.any(chosen == drawn[i])
        return chosen.at[i].set(jnp.where(is_taken, last[i], drawn[i]))

    return jax.lax.fori_loop(0, size, add, jnp.full(size, -1, jnp.int32))


def _estimate(
    minibatches: ArrayMinibatches | StreamedMinibatches, position: Position, batch: Any
) -> jax.Array:
    size = _num_rows("batch", batch)
    terms = jnp.asarray(minibatches.log_likelihood(position, batch))
    if terms.shape != (size,):
        raise ValueError(
            f"log_likelihood must return one number for each of the {size} rows of a batch, shape "
            f"({size},), got shape {terms.shape}; it is neither summed nor scaled"
        )
    prior = real_scalar("log_prior", minibatches.log_prior(position))
    return real_scalar(
        "log_likelihood, summed,", prior + minibatches.num_data / size * jnp.sum(terms)
    )


def _num_rows(name: str, tree: Any) -> int:
    """Return the common first size of a pytree's arrays; raise if there is none."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    if len({shape[:1] for shape in shapes}) != 1 or not shapes[0] or not shapes[0][0]:
        raise ValueError(f"{name} must hold arrays of shape (n, ...) with one n, got {shapes}")
    return shapes[0][0]
