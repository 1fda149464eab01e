"""How biased the draws of an unadjusted sampler are, by Stein's identity from their scores.

With s = ∇log π, a density π on R^d that vanishes at infinity has, for each coordinate i,

    E s_i = 0,    -E (x_i - m_i) s_i = 1  for any constant m_i.

Draws of a biased law q obey neither. Estimated are the two deviations under q, with m_i = E x_i:

    variance_i = -Cov(x_i, s_i) - 1,    mean_i = -sd(x_i) E s_i.

If π is normal with independent coordinates, Var x_i is 1 + variance_i times what it should be, and
the mean of x_i is off by mean_i / √(1 + variance_i) true standard deviations. If coordinates are
correlated, variance_i averages the relative errors of the variances along the principal axes, the
narrow ones, where bias is largest, more than the variance of x_i itself does. Beyond normal laws
they are two numbers that vanish without bias, of the size of bias.

What cannot be seen: these are two identities for each coordinate, no bound on the error of every
expectation. A law that obeys them passes, as one does that lacks a whole mode. All schemes that
move along M s with constant M (`ula`, `baoab`, ...) have E s_i = 0 in their stationary state
whatever their step size, so that there ``mean`` shows chains that have not converged, and no bias.
In short runs the Monte Carlo error is all there is to see: look at it first.

Standard errors are by batch means: every chain is cut into five batches (more, if chains are
fewer than four, to have twenty), whose means are taken as independent. They come out too small
where a batch is not long against the autocorrelation time. No gradient is spent: samplers keep
the scores anyhow.

Reference: Gorham and Mackey, "Measuring sample quality with Stein's method", NIPS 2015, section 2.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from shoal.sampling.core.algorithm import Sampler
from shoal.sampling.langevin.kinetic import KineticState
from shoal.sampling.langevin.microcanonical import MicrocanonicalState
from shoal.sampling.langevin.overdamped import OverdampedState
from shoal.sampling.langevin.position_metric import PositionMetricState

# States whose score is the gradient of the target's log density, at their position.
_STATES = (OverdampedState, PositionMetricState, KineticState, MicrocanonicalState)
_BATCHES_PER_CHAIN = 5
_BATCHES = 20
_SHORTEST_BATCH = 10


class Bias(NamedTuple):
    """Estimated bias for each coordinate of the unconstrained position, float64 ``(d,)`` all.

    ``print`` shows it as a sentence.

    Attributes
    ----------
    variance
        Relative error of the variance: 0.02 where it is 2 % too large. Exactly for a normal law
        with independent coordinates.
    variance_error
        Its Monte Carlo standard error.
    mean
        Shift of the mean in standard deviations.
    mean_error
        Its Monte Carlo standard error.
    """

    variance: np.ndarray
    variance_error: np.ndarray
    mean: np.ndarray
    mean_error: np.ndarray

    def __str__(self) -> str:
        """Say it in a sentence."""
        count = self.variance.size
        over = f"over {count} coordinate{'s' * (count != 1)} (noise removed)"
        i, j = np.argmax(np.abs(self.variance)), np.argmax(np.abs(self.mean))
        return (
            f"estimated bias of variances: {rms(self.variance, self.variance_error):.1%} rms {over}"
            f", largest {self.variance[i]:+.1%} ± {self.variance_error[i]:.1%}; "
            f"of means: {rms(self.mean, self.mean_error):.3f} sd rms"
            f", largest {self.mean[j]:+.3f} ± {self.mean_error[j]:.3f} sd"
        )


def rms(bias: np.ndarray, error: np.ndarray) -> float:
    """Return the root mean square of estimates less what their noise adds to it.

    Parameters
    ----------
    bias, error
        Estimates and their standard errors, any one shape.

    Returns
    -------
    float
        √max(0, mean(bias² - error²)).
    """
    return float(np.sqrt(max(0.0, np.mean(bias**2 - error**2))))


def has_scores(sampler: Sampler, states: Any) -> bool:
    """Whether bias can be estimated: an unadjusted sampler whose states carry the target's score.

    Not those with estimated scores (`sgld`), with scores of another density (`myula`), on another
    space (`spherical`), or whose steps end where no gradient is taken (`aboba`, `ubu`, `quicsort`).
    """
    if hasattr(states, "logdensity_grad"):
        import blackjax

        # BlackJAX does not tell which of its algorithms are adjusted; this one is not.
        return sampler.build is blackjax.mclmc
    is_smoothed = dict(sampler.options).get("prox") is not None
    return isinstance(states, _STATES) and not sampler.is_adjusted and not is_smoothed


def scores(states: Any) -> jax.Array:
    """Return the scores ``(num_chains, d)`` that states with a leading chain axis carry."""
    if hasattr(states, "logdensity_grad"):
        return jax.vmap(lambda tree: ravel_pytree(tree)[0])(states.logdensity_grad)
    return states.score


def estimate(positions: Any, scores: np.ndarray) -> Bias | None:
    """Estimate the bias of draws from the scores at them.

    Parameters
    ----------
    positions
        Pytree of floating arrays ``(draw, chain, ...)``, unconstrained.
    scores
        ``(draw, chain, d)``: gradients of the target's log density there, raveled as `ravel_pytree`
        does.

    Returns
    -------
    Bias or None
        None where there are fewer than ten draws to a batch (50 to a chain, of four chains).

    Examples
    --------
    Draws of N(0, 1.1) as if they were of N(0, 1), whose score is -x:

    >>> import numpy as np
    >>> from shoal.inference.bias import estimate
    >>> x = 1.1**0.5 * np.random.default_rng(0).normal(size=(1000, 4, 200))
    >>> print(estimate(x, -x))  # doctest: +NORMALIZE_WHITESPACE
    estimated bias of variances: 10.1% rms over 200 coordinates (noise removed),
    largest +16.8% ± 3.1%; of means: 0.000 sd rms, largest +0.041 ± 0.014 sd
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(positions)]
    x = np.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=-1)
    rows, num_chains = x.shape[:2]
    per_chain = max(_BATCHES_PER_CHAIN, -(-_BATCHES // num_chains))
    length = rows // per_chain
    if length < _SHORTEST_BATCH:
        return None
    used = per_chain * length
    x, s = x[-used:], scores[-used:]
    centre, mean_score = (values.mean(axis=(0, 1), dtype=np.float64) for values in (x, s))

    def batch_means(start: int) -> tuple[np.ndarray, ...]:
        # A batch at a time in float64: no second copy of all draws.
        dx, ds = x[start : start + length] - centre, s[start : start + length] - mean_score
        return tuple(values.mean(axis=0) for values in (dx, ds, dx * ds, dx * dx))

    batches = zip(*map(batch_means, range(0, used, length)), strict=True)
    dx, ds, products, squares = (np.concatenate(means) for means in batches)
    num = len(dx)
    # What the products lose because their centre is the mean of the same draws.
    lost = np.sum(dx * ds, axis=0) / (num * (num - 1))
    sd = np.sqrt(squares.mean(axis=0))
    return Bias(
        variance=-(products.mean(axis=0) + lost) - 1,
        variance_error=products.std(axis=0, ddof=1) / num**0.5,
        mean=-sd * mean_score,
        mean_error=sd * ds.std(axis=0, ddof=1) / num**0.5,
    )
