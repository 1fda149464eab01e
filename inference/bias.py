"""How biased the draws of an unadjusted sampler are, estimated from their scores.

With s = ∇log π, a density π on R^d that vanishes at infinity obeys Stein's identity,

    E[A f] = 0,    A f = ∇·f + f·s,    for any smooth vector field f.

Draws of a biased law q do not. Where g = c + Σ_k a_k A f_k, the error of its expectation is
E_q g - E_π g = Σ_k a_k E_q[A f_k], known from the draws of q alone. Here g are x_i and x_i², the
a_k come from a regression over the draws (zero-variance control variates), and the fields are

    f = φ(x_i) e_i  and  f = φ(x_i) R e_i,    φ = 1, x_i, x_i², x_i³,

in standardised coordinates, with R their correlation according to the other half of the run.

What is exact: for normal laws, shift and relative error of the variance, up to the error of R.
The fields along e_i do the same for coordinates that are independent and not normal, nearly. Two
identities would not do: E s_i = 0 holds for all schemes that move along M s with constant M (`ula`,
`baoab`, ...) whatever their step size, and E[1 + x_i s_i] shows a third of the bias of `baoab` or
less on logistic and Student laws.

What cannot be seen: it is about means and variances, no bound on all expectations. What the
regression does not explain is missed, such as a mode that no draw has found. R is used only for up
to 512 coordinates and with ten draws for each in either half; without it, and with few effective
draws for each, strong correlation hides part of the bias. What is estimated is the error of these
very draws, so that in short runs most of it is Monte Carlo error: compare it with its standard
error first.

Standard errors are by batch means: each chain is cut into five (more, if chains are fewer than
four, to have twenty in all), whose means are taken as independent. They come out too small where a
batch is not long against the autocorrelation time. No gradient is spent: samplers keep the scores.

References: Mira, Solgi and Imparato, "Zero variance Markov chain Monte Carlo for Bayesian
estimators", Statistics and Computing 23 (2013), section 2; Gorham and Mackey, "Measuring sample
quality with Stein's method", NIPS 2015, section 2.
"""

from collections.abc import Callable, Iterator, Sequence
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
_LARGEST_MATRIX = 512
_DRAWS_PER_COORDINATE = 10
# Numbers held at once while moments are taken.
_PIECE = 2**20

# For the start of a batch, yields standardised draws and scores, both (rows, chains, d).
Pieces = Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]]


class Bias(NamedTuple):
    """Estimated bias for each coordinate of the unconstrained position, float64 ``(d,)`` all.

    ``print`` shows it as a sentence.

    Attributes
    ----------
    variance
        Relative error of the variance: 0.02 where it is 2 % too large.
    variance_error
        Its Monte Carlo standard error.
    mean
        Shift of the mean in true standard deviations.
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
        variance, error = 100 * self.variance, 100 * self.variance_error
        i, j = np.argmax(np.abs(variance)), np.argmax(np.abs(self.mean))
        return (
            f"estimated bias of variances: {rms(variance, error):.1f} % rms {over}, "
            f"largest {variance[i]:+.1f} % ± {error[i]:.1f} %; "
            f"of means: {rms(self.mean, self.mean_error):.3f} sd rms, "
            f"largest {self.mean[j]:+.3f} ± {self.mean_error[j]:.3f} sd"
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
    estimated bias of variances: 10.0 % rms over 200 coordinates (noise removed),
    largest +16.8 % ± 3.6 %; of means: 0.000 sd rms, largest +0.039 ± 0.013 sd
    """
    x = _flat(positions)
    num_chains, dim = x.shape[1:]
    per_chain = max(_BATCHES_PER_CHAIN, -(-_BATCHES // num_chains))
    length = len(x) // per_chain
    if length < _SHORTEST_BATCH:
        return None
    used = per_chain * length
    x, s = x[-used:], scores[-used:]
    centre, sd = (moment(x, axis=(0, 1), dtype=np.float64) for moment in (np.mean, np.std))
    scale = np.where(sd > 0, sd, 1.0)
    rows = max(1, _PIECE // (num_chains * dim))

    def pieces(start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        end = start + length
        for i in range(start, end, rows):
            part = slice(i, min(i + rows, end))
            yield (x[part] - centre) / scale, s[part] * scale

    starts = range(0, used, length)
    halves = starts[: per_chain // 2], starts[per_chain // 2 :]
    # An R that fits the noise of the very draws it is applied to would add a bias of its own.
    both = [
        _errors(pieces, half, _correlation(pieces, other, length), length)
        for half, other in zip(halves, halves[::-1], strict=True)
    ]
    return _as_bias(*np.concatenate(both, axis=1))


def _flat(positions: Any) -> np.ndarray:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(positions)]
    return np.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=-1)


def _correlation(pieces: Pieces, starts: Sequence[int], length: int) -> np.ndarray:
    """Return R, ``(d, d)``; the identity where there are too few draws for it."""
    num_chains, dim = next(pieces(starts[0]))[0].shape[1:]
    num_draws = len(starts) * length * num_chains
    if dim > _LARGEST_MATRIX or num_draws < _DRAWS_PER_COORDINATE * dim:
        return np.eye(dim)
    products = np.zeros((dim, dim))
    for start in starts:
        for x, _ in pieces(start):
            rows = x.reshape(-1, dim)
            products += rows.T @ rows
    return products / num_draws


def _errors(pieces: Pieces, starts: Sequence[int], r: np.ndarray, length: int) -> np.ndarray:
    """Return the errors of means and squares in every batch, ``(2, batches, d)``."""
    dim, means, gram = len(r), [], 0.0
    for start in starts:
        total = 0.0
        for x, s in pieces(start):
            columns = _columns(x.reshape(-1, dim).T, s.reshape(-1, dim).T, r)
            gram = gram + columns @ columns.swapaxes(1, 2)
            total = total + columns.reshape(*columns.shape[:2], *x.shape[:2]).sum(axis=2)
        means.append(np.moveaxis(np.asarray(total) / length, -1, 0))
    batches = np.concatenate(means)  # (batches, d, columns)
    mean = batches.mean(axis=0)
    covariance = np.asarray(gram) / (len(batches) * length) - mean[:, :, None] * mean[:, None, :]
    # The fields along e_i and R e_i are nearly the same where nothing is correlated.
    inverse = np.linalg.pinv(covariance[:, :-2, :-2], rcond=1e-10, hermitian=True)
    weights = inverse @ covariance[:, :-2, -2:]
    return np.einsum("bdf,dfg->gbd", batches[..., :-2], weights)


def _columns(x: np.ndarray, s: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Stack A f for all fields, then x and x²: from ``(d, n)`` to ``(d, 10, n)``."""
    square = x * x
    columns = []
    for along, slope in ((s, 1.0), (r @ s, np.diag(r)[:, None])):
        columns += [
            along,
            slope + x * along,
            2 * slope * x + square * along,
            3 * slope * square + x * square * along,
        ]
    return np.stack([*columns, x, square], axis=1)


def _as_bias(shift: np.ndarray, square: np.ndarray) -> Bias:
    """Bring errors in every batch, ``(batches, d)``, of standardised draws to true units."""
    mean, excess = shift.mean(axis=0), square.mean(axis=0)
    mean_error, error = (batch.std(axis=0, ddof=1) / len(batch) ** 0.5 for batch in (shift, square))
    # About the mean of the draws. Noise, or a chain far off, may leave nothing.
    true_variance = np.maximum(1 - excess - mean**2, 0.01)
    return Bias(
        # The variance about their own mean lacks that of the mean.
        variance=(1 + mean_error**2) / true_variance - 1,
        variance_error=error / true_variance**2,
        mean=mean / true_variance**0.5,
        mean_error=mean_error / true_variance**0.5,
    )
