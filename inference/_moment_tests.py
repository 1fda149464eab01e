"""Tests that a kernel's averages over (start, end), started exactly, are what they must be."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erfc

from shoal.inference._features import Measure, change_measure, pair_measure
from shoal.inference._particles_under_test import (
    Kernel,
    Study,
    batches,
    flatten,
    move_key,
    prepare,
    start_key,
)
from shoal.sampling.core._checks import (
    check_finite,
    check_flag,
    integer,
    real_parameter,
    real_values,
)

THRESHOLD = 5.2


class MomentTest(NamedTuple):
    """Result of `invariance_test`, `transition_test` or `linear_gaussian_test`.

    Attributes
    ----------
    names
        Name of each feature, ``p`` of them.
    z
        Observed mean minus expected mean, in standard errors, float64 ``(p,)``. Standard normal
        for a correct kernel. Infinite where a feature differs by the same amount everywhere.
    difference
        Observed mean minus expected mean, float64 ``(p,)``.
    standard_error
        Standard error of that mean, float64 ``(p,)``.
    num_particles
        Starting points n.
    num_steps
        Steps K from each of them.
    num_nonfinite
        Particles of which a feature was not finite at the end. They are left out of the means.
    num_moved
        Particles whose end differs from their start.
    threshold
        Largest ``|z|`` that passes.
    """

    names: list[str]
    z: np.ndarray
    difference: np.ndarray
    standard_error: np.ndarray
    num_particles: int
    num_steps: int
    num_nonfinite: int
    num_moved: int
    threshold: float

    @property
    def max_z(self) -> float:
        """Largest ``|z|`` over the features."""
        return float(np.max(np.abs(self.z)))

    @property
    def passed(self) -> bool:
        """Whether no ``|z|`` exceeds the threshold, every particle is finite and some moved."""
        return self.max_z <= self.threshold and not self.num_nonfinite and self.num_moved > 0

    @property
    def p_values(self) -> np.ndarray:
        """Two-sided p value of each feature, ``(p,)``; 0 if the test failed for other reasons."""
        if self.num_nonfinite or not self.num_moved:
            return np.zeros_like(self.z)
        return erfc(np.abs(self.z) / math.sqrt(2))

    @property
    def p_value(self) -> float:
        """Bonferroni-corrected p value of the whole test: at most this under a correct kernel."""
        return float(min(1.0, self.p_values.size * self.p_values.min()))

    def __str__(self) -> str:
        n, verdict = self.num_particles, "passed" if self.passed else "FAILED"
        lines = [
            f"{verdict}: max |z| = {self.max_z:.2f} of {self.z.size} features (threshold "
            f"{self.threshold:g}, p = {self.p_value:.2g}); {n} particles, {self.num_steps} steps"
        ]
        if self.num_nonfinite:
            lines.append(
                f"{self.num_nonfinite} of {n} particles ended in a value that is not finite"
            )
        if not self.num_moved:
            lines.append("no particle moved: the test says nothing about this kernel")
        for i in np.argsort(-np.abs(self.z))[:5]:
            lines.append(
                f"  z = {self.z[i]:+9.2f}  {self.names[i]}: off by {self.difference[i]:+.3g} "
                f"(standard error {self.standard_error[i]:.2g})"
            )
        return "\n".join(lines)


def invariance_test(
    key: jax.Array,
    kernel: Any,
    draws: Any,
    *,
    num_particles: int | None = None,
    num_steps: int = 5,
    features: Callable[[Any], Any] | None = None,
    log_density: Callable[[Any], jax.Array] | None = None,
    reversible: bool = False,
    start: Callable[[jax.Array, Any], Any] | None = None,
    observe: Callable[[Any], Any] | None = None,
    threshold: float = THRESHOLD,
    batch_size: int = 16_384,
) -> MomentTest:
    """Test whether a kernel leaves a law invariant, from exact draws of that law.

    Particles start at exact draws x₀ and take K steps to x_K. If the law is invariant, f(x_K) and
    f(x₀) have the same mean for every feature f, and

        z = mean(f(x_K) - f(x₀)) / (sd(f(x_K) - f(x₀)) / √n)

    is standard normal. No burn-in and no autocorrelation enter. Subtracting particle by particle
    removes most of the variance, so that the test is far stronger than comparing the moments of a
    long chain with known ones. A reversible kernel further makes every g(x₀, x_K) - g(x_K, x₀)
    average to zero, which reveals kernels that keep the law but break detailed balance.

    For a Metropolis method choose a step size that accepts about half of the proposals, a target
    without symmetry (`shoal.models.densities.skewed_mixture`) and K of at least 5: an error in a
    state's cached values needs a rejection and then a move to show.

    Parameters
    ----------
    key
        Typed key; every number of the test is a function of it.
    kernel
        ``kernel(key, x) -> x`` for one particle, or an algorithm with ``init(position, key)`` and
        ``step(key, state) -> (state, info)``, such as ``langevin.mala(0.1)(log_density)``.
    draws
        Exact draws: arrays with a leading axis of n, or ``draws(key, n)`` that returns them.
    num_particles
        n, when ``draws`` is a function; 100 000 when None.
    num_steps
        K.
    features
        ``features(x) -> pytree`` of numbers, in place of the default ones: coordinates, their
        squares and products, cosines and sines, and half-spaces, all in coordinates shifted by
        the median and scaled by the interquartile range of the draws. Products are those of all
        pairs of up to 8 coordinates, and of neighbours beyond.
    log_density
        Adds this function of the point to the features.
    reversible
        Adds g(x₀, x_K) - g(x_K, x₀) for g = x_i y_j and x_i³ y_j.
    start
        ``start(key, draw) -> state``, where that is not ``init`` (or the draw itself): for
        instance to set a momentum that is part of the draw.
    observe
        ``observe(state) -> point`` that the features see, where that is not ``state.position``
        (or the state itself).
    threshold
        Largest ``|z|`` that passes. 5.2 has a two-sided p value of 2e-7: a run of 2 000 features
        raises a false alarm with probability 4e-4.
    batch_size
        Particles that run at once. Has no influence on the result beyond rounding.

    Returns
    -------
    MomentTest
        Statistics, verdict (``passed``) and a summary (``str``). A particle that ends in a value
        that is not finite fails the test. So does a kernel that moves nothing, of which every law
        is an invariant one.

    Raises
    ------
    TypeError, ValueError
        If the key, kernel, draws or counts are unusable. The message says which and why.

    Notes
    -----
    The features must have a finite variance under the law. For heavy tails pass bounded ones.
    The idea of starting exactly is from Gandy and Scott, "Unit testing for MCMC and other Monte
    Carlo methods", arXiv:2001.06465, section 2; joint-distribution tests go back to Geweke,
    "Getting it right", JASA 99 (2004).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference import diagnostics
    >>> draws = lambda key, n: jax.random.normal(key, (n, 2))
    >>> def rotate(key, x):
    ...     return 0.8 * x + 0.6 * jax.random.normal(key, x.shape)
    >>> diagnostics.invariance_test(jax.random.key(0), rotate, draws, num_particles=2000).passed
    True
    >>> def shrink(key, x):
    ...     return 0.7 * x + 0.6 * jax.random.normal(key, x.shape)
    >>> diagnostics.invariance_test(jax.random.key(0), shrink, draws, num_particles=2000).passed
    False
    """
    check_flag("reversible", reversible)
    study = prepare(key, kernel, draws, num_particles, start, observe)
    measure = change_measure(study, features, log_density, reversible)
    return run_moments(
        study, measure, np.zeros(len(measure.names)), num_steps, threshold, batch_size
    )


def transition_test(
    key: jax.Array,
    kernel: Any,
    draws: Any,
    features: Callable[[Any, Any], Any],
    expected: Any = 0.0,
    *,
    num_particles: int | None = None,
    num_steps: int = 5,
    start: Callable[[jax.Array, Any], Any] | None = None,
    observe: Callable[[Any], Any] | None = None,
    threshold: float = THRESHOLD,
    batch_size: int = 16_384,
) -> MomentTest:
    """Test means over (start, end) of a kernel against their known values.

    Invariance cannot see how a kernel moves: with a wrong friction, damping and noise still in
    balance, a kinetic sampler has the right law and the wrong dynamics. E[g(x₀, x_K)] does see it.

    Parameters
    ----------
    key, kernel, draws, num_particles, num_steps, start, observe, threshold, batch_size
        As in `invariance_test`. The draws may have any law under which the means are known.
    features
        ``features(x0, xK) -> pytree`` of numbers.
    expected
        Their exact means: a pytree of the same structure and shapes, or one number for all.

    Returns
    -------
    MomentTest
        As from `invariance_test`.

    Raises
    ------
    TypeError, ValueError
        As `invariance_test`; also if ``expected`` does not fit ``features``.

    Examples
    --------
    >>> import jax
    >>> from shoal.inference import diagnostics
    >>> draws = lambda key, n: jax.random.normal(key, (n,))
    >>> step = lambda key, x: 0.8 * x + 0.6 * jax.random.normal(key)
    >>> correlation = lambda x, y: {"lag 3": x * y}
    >>> result = diagnostics.transition_test(
    ...     jax.random.key(0), step, draws, correlation, {"lag 3": 0.8**3},
    ...     num_particles=2000, num_steps=3)
    >>> result.passed, result.names
    (True, ['lag 3'])
    """
    study = prepare(key, kernel, draws, num_particles, start, observe)
    measure = pair_measure(study, features)
    want = _expected_values(eqx.filter_eval_shape(features, study.point, study.point), expected)
    return run_moments(study, measure, want, num_steps, threshold, batch_size)


def _expected_values(result: Any, expected: Any) -> np.ndarray:
    """Return the expected means as one vector in the order of the features."""
    leaves = jax.tree.leaves(result)
    size = sum(math.prod(leaf.shape) for leaf in leaves)
    if isinstance(expected, int | float):
        values = np.full(size, float(expected))
    else:
        given = [
            np.asarray(real_values("expected", leaf), np.float64)
            for leaf in jax.tree.leaves(expected)
        ]
        same = len({jax.tree.structure(result), jax.tree.structure(expected)}) == 1
        if not same or [a.shape for a in given] != [leaf.shape for leaf in leaves]:
            raise ValueError(
                "expected must be one number or have the structure and shapes of what features "
                f"returns: {result}; got {expected}"
            )
        values = np.concatenate([a.ravel() for a in given])
    check_finite("expected", values)
    return values


def run_moments(
    study: Study,
    measure: Measure,
    expected: np.ndarray,
    num_steps: int,
    threshold: float,
    batch_size: int,
) -> MomentTest:
    """Run all particles and compare the means of the measure with the expected ones."""
    num_steps = integer("num_steps", num_steps)
    real_parameter("threshold", threshold, 0.0, scalar=True)
    count, nonfinite, moved = 0, 0, 0
    mean, spread = np.zeros_like(expected), np.zeros_like(expected)
    for ids, draws, size in batches(study, batch_size, len(measure.names)):
        starts, ends = _run_batch(study.kernel, study.key, ids, draws, num_steps)
        values, has_moved = _measure_batch(measure.function, starts, ends)
        moved += int(np.sum(np.asarray(has_moved)[:size]))
        # Sums run on the host in float64: a float32 sum of 2e5 terms would bias z.
        block = np.asarray(values, np.float64)[:size] - expected
        finite = np.isfinite(block).all(1)
        nonfinite += int(size - finite.sum())
        block = block[finite]
        if len(block):
            count, mean, spread = _merge(count, mean, spread, block)
    error = np.sqrt(spread / max(count - 1, 1) / max(count, 1))
    # A feature that never varies is right if it is zero and infinitely wrong if not.
    z = np.where(
        mean == 0, 0.0, np.divide(mean, error, out=np.copysign(np.inf, mean), where=error > 0)
    )
    return MomentTest(
        measure.names, z, mean, error, study.num_particles, num_steps, nonfinite, moved, threshold
    )


def _merge(
    count: int, mean: np.ndarray, spread: np.ndarray, block: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray]:
    """Add a block of rows to (count, mean, sum of squared deviations) without cancellation."""
    total = count + len(block)
    block_mean = block.mean(0)
    shift = block_mean - mean
    spread = spread + ((block - block_mean) ** 2).sum(0) + shift**2 * count * len(block) / total
    return total, mean + shift * len(block) / total, spread


# Two programs, since the second serves every kernel: only the first is compiled for a new one.
@eqx.filter_jit
def _run_batch(
    kernel: Kernel, key: jax.Array, ids: jax.Array, draws: Any, num_steps: int
) -> tuple[Any, Any]:
    """Start and end of each particle."""

    def one(particle: jax.Array, draw: Any) -> tuple[Any, Any]:
        state = kernel.start(start_key(key, particle), draw)
        move = lambda s, t: (kernel.step(move_key(key, particle, t), s), None)
        end = jax.lax.scan(move, state, jnp.arange(num_steps))[0]
        return kernel.observe(state), kernel.observe(end)

    return jax.vmap(one)(ids, draws)


@eqx.filter_jit
def _measure_batch(function: Any, starts: Any, ends: Any) -> tuple[jax.Array, jax.Array]:
    """Features of each particle's (start, end), ``(size, p)``, and whether it moved."""
    moved = lambda x, y: jnp.any(flatten(x) != flatten(y))
    return jax.vmap(lambda x, y: (function(x, y), moved(x, y)))(starts, ends)
