"""The Stein discrepancy of a run's draws from the target that was sampled."""

import dataclasses
import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from shoal.inference._stein_discrepancy import default_kernel
from shoal.inference.result import Result
from shoal.inference.target import Target
from shoal.sampling.core import pairwise
from shoal.sampling.core._checks import integer
from shoal.sampling.core._kernel_algebra import Kernel
from shoal.sampling.core._kernel_sums import dot
from shoal.sampling.core._stein_sums import (
    cast_kernel,
    check_stein_kernel,
    stein_diagonal,
    stein_kernel_sum,
)

# Draws whose scores are computed at once.
_SCORES_AT_ONCE = 256


class SteinDiscrepancy(NamedTuple):
    """How far the draws of a run are from its target, by scores alone.

    Attributes
    ----------
    pooled
        Squared discrepancy of all draws together.
    chains
        Squared discrepancy of each chain, shape ``(chain,)``.
    independent
        What ``pooled`` is on average for as many independent draws of the target: one that is
        many times larger shows a bias, or chains that have moved little.
    witness
        For each draw the mean over the draws used of its Stein kernel with them, shape
        ``(chain, draw)``. Around zero where draws lie as they should; large where there are too
        many, or where none should be. NaN for a draw whose position or score is not finite.
    """

    pooled: float
    chains: np.ndarray
    independent: float
    witness: np.ndarray


def stein_discrepancy(
    result: Result, kernel: Kernel | None = None, *, max_points: int = 2000
) -> SteinDiscrepancy:
    """Squared kernelised Stein discrepancy of a run's draws from its target, by `ksd`.

    Draws are taken to the unconstrained space, where each coordinate is divided by its mean
    absolute deviation; scores are gradients of the target's log density there, Jacobian included.
    Log-weights of a result count.

    Parameters
    ----------
    result
        With its ``target``.
    kernel
        As for `ksd`; the default's bandwidth is that of the draws used, of all chains.
    max_points
        Evenly spaced draws, of all chains together, that make the discrepancies and against which
        every draw is held for its ``witness``; at least one of each chain.

    Returns
    -------
    SteinDiscrepancy

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, the result has no target (a loaded one has none) or no
        draws, or a chain has no draw whose position and score are finite.

    Notes
    -----
    Chains that all miss a far mode look as good as chains that found it: the blind spots are those
    of `ksd`. Takes O((chain draw) max_points d) time and one gradient a draw.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from shoal.inference import Result, Target
    >>> target = Target.from_log_density(lambda x: -0.5 * jnp.sum(x**2), init=jnp.zeros(2))
    >>> draws = np.random.default_rng(0).normal(size=(2, 500, 2)).astype(np.float32)
    >>> draws[1] *= 2  # the second chain is too wide
    >>> found = stein_discrepancy(Result({"position": draws}, {}, target=target))
    >>> print(found.pooled > 10 * found.independent, found.chains.argmax(), found.witness.shape)
    True 1 (2, 500)
    """
    draws = _checked_draws(result)
    if kernel is not None:
        kernel = check_stein_kernel(kernel)
    num_chains, num = next(iter(draws.values())).shape[:2]
    step = min(num, -(-num_chains * num // integer("max_points", max_points)))
    log_weights = np.zeros((num_chains, num)) if result.log_weights is None else result.log_weights
    pooled, chains, independent, witness, is_empty = _evaluated(
        result.target, draws, jnp.asarray(log_weights), kernel, step
    )
    if np.any(is_empty):
        raise ValueError(
            f"result has no draw with finite position and score in chain {np.argmax(is_empty)}, "
            f"of every {step} draws"
        )
    return SteinDiscrepancy(
        float(pooled), np.asarray(chains), float(independent), np.asarray(witness)
    )


def with_stein_discrepancy(
    result: Result, kernel: Kernel | None = None, *, max_points: int = 2000
) -> Result:
    """Return the result with its `stein_discrepancy` on record, for ArviZ too.

    Parameters
    ----------
    result, kernel, max_points
        As for `stein_discrepancy`.

    Returns
    -------
    Result
        A new one: ``sample_stats["stein_witness"]`` has the witness of each draw and
        ``attributes`` the discrepancies, as ``stein_discrepancy``, ``stein_discrepancy_chains``
        and ``stein_discrepancy_independent``.

    Raises
    ------
    TypeError, ValueError
        As `stein_discrepancy`.

    Examples
    --------
    >>> import jax.numpy as jnp, numpy as np
    >>> from shoal.inference import Result, Target
    >>> target = Target.from_log_density(lambda x: -0.5 * jnp.sum(x**2), init=jnp.zeros(2))
    >>> draws = np.random.default_rng(0).normal(size=(1, 99, 2)).astype(np.float32)
    >>> draws[0, 7] = 9.0
    >>> result = with_stein_discrepancy(Result({"position": draws}, {}, target=target))
    >>> print(result.sample_stats["stein_witness"].argmax())
    7
    """
    found = stein_discrepancy(result, kernel, max_points=max_points)
    record = {
        "stein_discrepancy": found.pooled,
        "stein_discrepancy_chains": found.chains.tolist(),
        "stein_discrepancy_independent": found.independent,
    }
    return dataclasses.replace(
        result,
        sample_stats={**result.sample_stats, "stein_witness": found.witness},
        attributes={**result.attributes, **record},
    )


def _checked_draws(result: Any) -> dict[str, jax.Array]:
    """Return the draws of what was sampled, ``(chain, draw, ...)`` by name, if there are any."""
    if not isinstance(result, Result):
        raise TypeError(f"result must be a Result, got {type(result).__name__}: {result!r}")
    target = result.target
    if not isinstance(target, Target):
        raise ValueError(
            f"result must have the target that was sampled, got target={target!r}; a loaded result "
            "has none: dataclasses.replace(result, target=...) gives it back"
        )
    missing = [name for name in target.names if name not in result.posterior]
    if missing:
        raise ValueError(f"result has no draws of {missing}: its posterior holds "
                         f"{sorted(result.posterior)}")  # fmt: skip
    draws = {name: np.asarray(result.posterior[name]) for name in target.names}
    for name, value in draws.items():
        if value.ndim < 2 or not value.size or value.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"result must hold draws of {name!r} as floats of shape (chain, draw, ...), "
                f"got {value.dtype} of shape {value.shape}"
            )
    return {name: jnp.asarray(value) for name, value in draws.items()}


@eqx.filter_jit
def _evaluated(
    target: Target,
    draws: dict[str, jax.Array],
    log_weights: jax.Array,
    kernel: Kernel | None,
    step: int,
) -> tuple[jax.Array, ...]:
    """Return pooled and chains' discrepancy, that of independent draws, witness, empty chains."""
    x, s = _positions_and_scores(target, draws)
    is_finite = jnp.all(jnp.isfinite(x) & jnp.isfinite(s), axis=-1)
    # The others weigh nothing; where they lie must be finite, though.
    x, s = (jnp.where(is_finite[..., None], array, 0) for array in (x, s))
    weights = jnp.exp(log_weights - jnp.max(log_weights, axis=1, keepdims=True))
    weights = jnp.where(is_finite, weights.astype(x.dtype), 0)[:, ::step]
    totals = jnp.sum(weights, axis=1, keepdims=True)
    weights /= totals

    used = is_finite[:, ::step]
    count = jnp.sum(used)
    mean = lambda values: jnp.sum(values, axis=(0, 1), where=used[..., None]) / count
    scale = mean(jnp.abs(x[:, ::step] - mean(x[:, ::step])))
    scale = jnp.where(scale > 0, scale, 1)
    x, s = x / scale, s * scale

    flat = lambda array: array.reshape(-1, x.shape[-1])
    y, t, w = x[:, ::step], s[:, ::step], weights.ravel() / len(x)
    if kernel is None:
        kernel = default_kernel(flat(y), used.ravel())
    matvec = functools.partial(pairwise.stein_kernel_matvec, cast_kernel(kernel, x.dtype))
    witness = matvec(flat(x), flat(s), flat(y), flat(t), w).reshape(is_finite.shape)
    own = jax.vmap(functools.partial(stein_kernel_sum, kernel))(y, t, weights)
    independent = jnp.sum(w**2 * stein_diagonal(kernel, flat(t)))
    pooled = dot(w, witness[:, ::step].ravel())
    witness = jnp.where(is_finite, witness, jnp.nan)
    return pooled, own, independent, witness, ~(totals[:, 0] > 0)


def _positions_and_scores(
    target: Target, draws: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Return unconstrained positions and gradients there, ``(chain, draw, d)``."""

    def one(values: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        position = target.unconstrain(values)
        gradient = jax.grad(target.log_density)(position)
        ravel = jax.flatten_util.ravel_pytree
        return ravel(position)[0], ravel(gradient)[0]

    shape = next(iter(draws.values())).shape[:2]
    rows = {name: value.reshape(-1, *value.shape[2:]) for name, value in draws.items()}
    x, s = jax.lax.map(one, rows, batch_size=_SCORES_AT_ONCE)
    return x.reshape(*shape, -1), s.reshape(*shape, -1)
