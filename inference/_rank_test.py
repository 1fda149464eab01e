"""The exact rank test of a reversible kernel."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import chdtrc

from shoal.inference._features import point_measure
from shoal.inference._particles_under_test import Kernel, batches, move_key, prepare, start_key
from shoal.sampling.core._checks import integer, real_parameter


class RankTest(NamedTuple):
    """Result of `rank_test`.

    Attributes
    ----------
    names
        Name of each statistic, ``p`` of them.
    counts
        How often the start had each rank, int64 ``(p, L)``; uniform for a correct kernel.
    p_values
        p value of the chi-square test of uniformity for each statistic, ``(p,)``; all 0 where a
        chain met a value that is not finite or none ever moved.
    num_replicates
        Chains.
    num_nonfinite
        Chains that met a value that is not finite. They are left out of the counts.
    num_moved
        Chains in which some statistic of some state differs from the start's.
    alpha
        Smallest Bonferroni-corrected p value that passes.
    """

    names: list[str]
    counts: np.ndarray
    p_values: np.ndarray
    num_replicates: int
    num_nonfinite: int
    num_moved: int
    alpha: float

    @property
    def p_value(self) -> float:
        """Bonferroni-corrected p value of the whole test."""
        return float(min(1.0, self.p_values.size * self.p_values.min()))

    @property
    def passed(self) -> bool:
        """Whether ``p_value`` is at least ``alpha``, every chain is finite and some moved."""
        return self.p_value >= self.alpha

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        lines = [
            f"{verdict}: p = {self.p_value:.2g} over {len(self.names)} statistics (alpha "
            f"{self.alpha:g}); {self.num_replicates} chains of {self.counts.shape[1]} states"
        ]
        if self.num_nonfinite:
            lines.append(f"{self.num_nonfinite} chains met a value that is not finite")
        if not self.num_moved:
            lines.append("no chain moved: the test says nothing about this kernel")
        for i in np.argsort(self.p_values)[:3]:
            lines.append(f"  p = {self.p_values[i]:.2g}  {self.names[i]}: {self.counts[i]}")
        return "\n".join(lines)


def rank_test(
    key: jax.Array,
    kernel: Any,
    draws: Any,
    *,
    num_replicates: int | None = None,
    num_states: int = 8,
    features: Callable[[Any], Any] | None = None,
    log_density: Callable[[Any], jax.Array] | None = None,
    start: Callable[[jax.Array, Any], Any] | None = None,
    observe: Callable[[Any], Any] | None = None,
    alpha: float = 1e-6,
    batch_size: int = 16_384,
) -> RankTest:
    """Test a reversible kernel by the rank of an exact draw in a chain through it.

    Draw M uniformly from 1, ..., L and put an exact draw at place M of a chain of L states. Run
    the kernel L - M times forward from it and, as it is its own time reversal, M - 1 times
    "backward". If the kernel is reversible with respect to the law of the draw, the chain is
    stationary whatever M, so the rank of a statistic of the draw among the L is uniform. Ties,
    as after a rejection, are broken at random.

    Parameters
    ----------
    key, kernel, draws, features, log_density, start, observe, batch_size
        As in `invariance_test`; the statistics ranked are the features. Half-spaces and the like
        are harmless but weak, being full of ties.
    num_replicates
        Independent chains, when ``draws`` is a function; 100 000 when None.
    num_states
        L, at least 2.
    alpha
        Probability of a false alarm, up to the accuracy of the chi-square law.

    Returns
    -------
    RankTest
        Counts, p values, verdict (``passed``) and a summary (``str``).

    Raises
    ------
    TypeError, ValueError
        As `invariance_test`; also if a rank would be expected fewer than 5 times.

    Notes
    -----
    Algorithm 2 of Gandy and Scott, "Unit testing for MCMC and other Monte Carlo methods",
    arXiv:2001.06465.

    Examples
    --------
    >>> import jax
    >>> from shoal.inference import diagnostics
    >>> draws = lambda key, n: jax.random.normal(key, (n, 2))
    >>> step = lambda key, x: 0.8 * x + 0.6 * jax.random.normal(key, x.shape)
    >>> result = diagnostics.rank_test(jax.random.key(0), step, draws, num_replicates=2000)
    >>> result.passed, result.counts.shape
    (True, (12, 8))
    """
    num_states = integer("num_states", num_states, 2)
    real_parameter("alpha", alpha, 0.0, 1.0, scalar=True)
    if num_replicates is not None:
        integer("num_replicates", num_replicates, 2)
    study = prepare(key, kernel, draws, num_replicates, start, observe)
    if study.num_particles < 5 * num_states:
        raise ValueError(
            f"{study.num_particles} replicates (num_replicates, or draws) are too few for "
            f"{num_states} ranks (num_states); the chi-square test needs at least {5 * num_states}"
        )
    names, function = point_measure(study, features, log_density)
    counts = np.zeros((len(names), num_states), np.int64)
    nonfinite = moved = 0
    for ids, points, size in batches(study, batch_size, len(names)):
        ranks, is_finite, has_moved = (
            np.asarray(part)[:size]
            for part in _rank_batch(study.kernel, function, study.key, ids, points, num_states)
        )
        nonfinite += int(size - is_finite.sum())
        moved += int(has_moved.sum())
        for row, column in zip(counts, ranks[is_finite].T, strict=True):
            row += np.bincount(column, minlength=num_states)
    p_values = np.zeros(len(names))
    if not nonfinite and moved:
        want = study.num_particles / num_states
        p_values = chdtrc(num_states - 1, ((counts - want) ** 2 / want).sum(1))
    return RankTest(names, counts, p_values, study.num_particles, nonfinite, moved, alpha)


@eqx.filter_jit
def _rank_batch(
    kernel: Kernel, function: Any, key: jax.Array, ids: jax.Array, draws: Any, num_states: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rank of the start, 0 to L - 1, for each chain and statistic; finite; moved."""

    def one(particle: jax.Array, draw: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        state = kernel.start(start_key(key, particle), draw)
        first = function(kernel.observe(state))
        key_place, key_ties = jax.random.split(move_key(key, particle, jnp.asarray(num_states)))
        place = jax.random.randint(key_place, (), 0, num_states)

        def move(carry: Any, t: jax.Array) -> tuple[Any, None]:
            current, below, equal, finite = carry
            # Having run forward to the end of the chain, run backward from the start.
            turn = t == place
            current = jax.tree.map(lambda a, b: jnp.where(turn, a, b), state, current)
            current = kernel.step(move_key(key, particle, t), current)
            values = function(kernel.observe(current))
            finite = finite & jnp.isfinite(values).all()
            return (current, below + (values < first), equal + (values == first), finite), None

        zeros = jnp.zeros(first.shape, jnp.int32)
        carry = (state, zeros, zeros, jnp.isfinite(first).all())
        (_, below, equal, finite), _ = jax.lax.scan(move, carry, jnp.arange(num_states - 1))
        ranks = below + jax.random.randint(key_ties, first.shape, 0, equal + 1)
        return ranks, finite, jnp.any(equal < num_states - 1)

    return jax.vmap(one)(ids, draws)
