"""One step of the exponential Langevin integrators, as a function of its Brownian increment.

In whitened coordinates, with friction γ, r = √(2γ), α = γh and g the whitened score, a step of size
h maps (x, w) to (x', w'), given the increment W of the Brownian motion over the step, its
space-time Lévy area H and its space-time-time Lévy area K: independent normal vectors with
variances h, h/12 and h/720 per coordinate. The functions a, b, p, q, s of time are those of
`_exponential_coefficients`. Without a force, the first three move exactly but for what of the noise
is no combination of W, H and K; QUICSORT takes the noise as a constant force besides a jump of the
momentum.

A scheme does not know where its increments come from: a fixed-step sampler draws them, an adaptive
one reads them off one path.

References: Foster, Lyons and Oberhauser, "The shifted ODE method for underdamped Langevin MCMC",
arXiv:2101.03446, definitions 4.2 (ALIGN) and 7.1 (ShOULD); Scott, O'Kane, Jelinčič and Foster,
"Underdamped Langevin MCMC with third order convergence", arXiv:2508.16485 (QUICSORT);
Sanz-Serna and Zygalakis, "Wasserstein distance estimates for the distributions of numerical
approximations to ergodic stochastic differential equations", JMLR 22 (2021), section 7.3 (UBU).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from shoal.sampling.langevin._exponential_coefficients import (
    area,
    area_at_half,
    glide,
    push,
    second_area,
)
from shoal.sampling.langevin._midpoint import Evaluation, leapfrog_work
from shoal.sampling.langevin.metric import Metric

ValueAndScore = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class Increment(NamedTuple):
    """A Brownian motion over one step.

    Attributes
    ----------
    W, H, K
        Increment, space-time Lévy area and space-time-time Lévy area, flat, ``(d,)`` each, in
        whitened coordinates. ``K`` is None for the schemes that do without.
    """

    W: jax.Array
    H: jax.Array
    K: jax.Array | None = None


class Phase(NamedTuple):
    """A point of phase space and the evaluation that was made last.

    Attributes
    ----------
    position
        Flat, ``(d,)``.
    momentum
        Whitened, flat, ``(d,)``.
    evaluated
        The last `Evaluation`: of the position itself for a scheme with ``fsal``, else of an inner
        point of the last step. Where the log density was not finite at an earlier point of that
        step, its ``log_density`` is that value instead, so that it can be trusted for a status.
    work
        Kinetic energy that leapfrog steps along the points evaluated in the last step would have
        gained, a scalar. Plus the change of -log π between the first and the last of them it is
        those steps' energy error, a measure of how coarse the step was that costs no gradient.
    """

    position: jax.Array
    momentum: jax.Array
    evaluated: Evaluation
    work: jax.Array


class Scheme(NamedTuple):
    """An integrator.

    Attributes
    ----------
    step
        ``step(value_and_score, metric, friction, h, increment, phase) -> (phase, local_error)``,
        pure. ``value_and_score(x)`` takes and returns flat arrays; ``friction`` and ``h`` are
        scalars of the position's dtype; ``local_error`` is an estimate of the error of the step
        in the momentum, ``(d,)``, or None.
    num_gradients
        Gradients that a step evaluates.
    levy
        ``"WH"`` or ``"WHK"``: what an `Increment` must hold.
    fsal
        Whether the last evaluation of a step is at the position in which it ends, and the next
        step begins with it ("first same as last").
    """

    step: Callable[..., tuple[Phase, jax.Array | None]]
    num_gradients: int
    levy: str
    fsal: bool


def _ubu(
    value_and_score: ValueAndScore,
    metric: Metric,
    friction: jax.Array,
    h: jax.Array,
    increment: Increment,
    phase: Phase,
) -> tuple[Phase, None]:
    """Kick the momentum by h g between two halves of a step without force.

    z  = x + a(h/2) w + r (b(h/2) W + q H),   f = h g(z),
    x' = x + a(h) w + a(h/2) f + r (b(h) W + p H),
    w' = e^(-α) w + e^(-α/2) f + r ((a(h)/h) W - γ p H).
    """
    x, w, old, _ = phase
    W, H, _ = increment
    c, r = friction, jnp.sqrt(2 * friction)
    a, a_half, b, b_half = glide(h, c), glide(h / 2, c), push(h, c, h), push(h / 2, c, h)
    p, q = area(h, c), area_at_half(h, c)
    z = x + metric.color(a_half * w + r * (b_half * W + q * H))
    new, g, work = _evaluate(value_and_score, metric, h, old, z)
    f = h * g
    x = x + metric.color(a * w + a_half * f + r * (b * W + p * H))
    w = jnp.exp(-c * h) * w + jnp.exp(-c * h / 2) * f + r * (a / h * W - c * p * H)
    return Phase(x, w, new, work), None


def _align(
    value_and_score: ValueAndScore,
    metric: Metric,
    friction: jax.Array,
    h: jax.Array,
    increment: Increment,
    phase: Phase,
) -> tuple[Phase, jax.Array]:
    """Take in the force as linear in time along the step.

    x' = x + a w + b h g(x) + r (b W + p H),
    w' = e^(-α) w + (a - b) g(x) + b g(x') + r ((a/h) W - γ p H).

    The error estimate is what w' would change by with g(x) in place of g(x').
    """
    x, w, old, _ = phase
    W, H, _ = increment
    c, r = friction, jnp.sqrt(2 * friction)
    a, b, p = glide(h, c), push(h, c, h), area(h, c)
    g = metric.whiten(old.score)
    x = x + metric.color(a * w + b * h * g + r * (b * W + p * H))
    new, g_new, work = _evaluate(value_and_score, metric, h, old, x)
    local_error = b * (g_new - g)
    w = jnp.exp(-c * h) * w + a * g + local_error + r * (a / h * W - c * p * H)
    return Phase(x, w, new, work), local_error


def _should(
    value_and_score: ValueAndScore,
    metric: Metric,
    friction: jax.Array,
    h: jax.Array,
    increment: Increment,
    phase: Phase,
) -> tuple[Phase, None]:
    """Take in the force by Simpson's rule, with a Runge-Kutta stage in the middle.

    v  = w + r (H + 6 K),   k = r (W - 12 K),   n = p H + s K,
    x₁ = x + a(h/2) v + b(h/2) (h g(x) + k),
    x' = x + a w + b h (g(x) + 2 g(x₁)) / 3 + r (b W + n),
    w' = e^(-α) w + h (e^(-α) g(x) + 4 e^(-α/2) g(x₁) + g(x')) / 6 + r ((a/h) W - γ n).
    """
    x, w, old, _ = phase
    W, H, K = increment
    assert K is not None
    c, r = friction, jnp.sqrt(2 * friction)
    a, b = glide(h, c), push(h, c, h)
    areas = area(h, c) * H + second_area(h, c) * K
    g = h * metric.whiten(old.score)
    v, k = w + r * (H + 6 * K), r * (W - 12 * K)
    inner = x + metric.color(glide(h / 2, c) * v + push(h / 2, c, h) * (g + k))
    middle, g_inner, work = _evaluate(value_and_score, metric, h / 2, old, inner)
    x = x + metric.color(a * w + b * (g + 2 * h * g_inner) / 3 + r * (b * W + areas))
    new, g_new, more_work = _evaluate(value_and_score, metric, h / 2, middle, x)
    kicks = jnp.exp(-c * h) * g + h * (4 * jnp.exp(-c * h / 2) * g_inner + g_new)
    w = jnp.exp(-c * h) * w + kicks / 6 + r * (a / h * W - c * areas)
    return Phase(x, w, _first_bad(middle, new), work + more_work), None


def _quicsort(
    value_and_score: ValueAndScore,
    metric: Metric,
    friction: jax.Array,
    h: jax.Array,
    increment: Increment,
    phase: Phase,
) -> tuple[Phase, None]:
    """Take in the force by Gauss's rule, with nodes l and m = 1 - l.

    v  = w + r (H + 6 K),   k = r (W - 12 K),   l = (3 - √3)/6,   m = (3 + √3)/6,
    x₁ = x + a(lh) v + b(lh) k,                     f₁ = h g(x₁),
    x₂ = x + a(mh) v + b(mh) k + a(h/3) f₁,         f₂ = h g(x₂),
    x' = x + a(h) v + b(h) k + (a(mh) f₁ + a(lh) f₂) / 2,
    w' = e^(-α) v + (e^(-mα) f₁ + e^(-lα) f₂) / 2 + (a(h)/h) k - r (H - 6 K).
    """
    x, w, old, _ = phase
    W, H, K = increment
    assert K is not None
    c, r = friction, jnp.sqrt(2 * friction)
    early, late = (3 - math.sqrt(3)) / 6 * h, (3 + math.sqrt(3)) / 6 * h
    a, a_early, a_late = glide(h, c), glide(early, c), glide(late, c)
    v, k = w + r * (H + 6 * K), r * (W - 12 * K)
    x_early = x + metric.color(a_early * v + push(early, c, h) * k)
    # From the late point of the step before to the early one of this.
    first, g_early, work = _evaluate(value_and_score, metric, 2 * early, old, x_early)
    f_early = h * g_early
    x_late = x + metric.color(a_late * v + push(late, c, h) * k + glide(h / 3, c) * f_early)
    second, g_late, more_work = _evaluate(value_and_score, metric, late - early, first, x_late)
    f_late = h * g_late
    x = x + metric.color(a * v + push(h, c, h) * k + (a_late * f_early + a_early * f_late) / 2)
    kicks = jnp.exp(-c * late) * f_early + jnp.exp(-c * early) * f_late
    w = jnp.exp(-c * h) * v + kicks / 2 + a / h * k - r * (H - 6 * K)
    return Phase(x, w, _first_bad(first, second), work + more_work), None


SCHEMES = {
    "ubu": Scheme(_ubu, num_gradients=1, levy="WH", fsal=False),
    "align": Scheme(_align, num_gradients=1, levy="WH", fsal=True),
    "should": Scheme(_should, num_gradients=2, levy="WHK", fsal=True),
    "quicsort": Scheme(_quicsort, num_gradients=2, levy="WHK", fsal=False),
}


def _evaluate(
    value_and_score: ValueAndScore, metric: Metric, t: Any, old: Evaluation, position: jax.Array
) -> tuple[Evaluation, jax.Array, jax.Array]:
    """Evaluate a point; return that, the whitened score and a leapfrog step's work on the way."""
    new = Evaluation(position, *value_and_score(position))
    return new, metric.whiten(new.score), leapfrog_work(metric, t, old, new)


def _first_bad(first: Evaluation, last: Evaluation) -> Evaluation:
    """Return the last evaluation, with the log density of the first if that was not finite."""
    value = jnp.where(jnp.isfinite(first.log_density), last.log_density, first.log_density)
    return last._replace(log_density=value)
