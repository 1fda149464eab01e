"""Langevin dynamics on the unit sphere, with running averages of where it has been.

For a function f on the sphere and an inverse temperature β the law is π ∝ exp(β f), with respect to
the uniform law. With P the projection on the tangent space at x, a step of size h goes to

    x' = (x + v) / |x + v|,    v = P (h β ∇f(x) + √(2h) ξ).

Without an accept step that is of weak order one and biased: only h (d - 1) counts, the squared
length of a typical step being 2 h (d - 1). Where f ≡ 0 the uniform law is kept exactly. Where β f
is small the mean of π comes out in the right direction and longer by the factor

    (1 + √(1 + 2 h (d - 1))) / 2

(to leading order in 1 / d), as if β were larger. With an accept step π is exact: v has a Gaussian
density in the tangent space, the central projection to the sphere has a Jacobian that is the same
both ways, and so with w = x / (x·x') - x' and s = β P ∇f the log acceptance ratio is

    β f(x') - β f(x) + (w·s(x') - v·s(x)) / 2 - (h / 4) (|s(x')|² - |s(x)|²).

The averages are an estimator in their own right. To first order in β the mean of π is
β E[x f(x)] under the uniform law: for f(x) = Σ T_ijk x_i x_j x_k that is β / (d (d + 2)) times the
sum of the three partial traces of T. So where a direction is hidden in f (tensor PCA, single-index
models: `shoal.models.spiked`) the average finds it from far fewer data than the last iterate, which
has to climb towards it. Where f is even the mean is zero and the top eigenvector of the averaged
x xᵀ is what to look at.

References: Wei, Damian and Lee, "Improved high-dimensional estimation with Langevin dynamics and
stochastic weight averaging", ICLR 2026, for the averages; Hopkins, Shi, Schramm and Steurer, "Fast
spectral algorithms from sum-of-squares proofs", STOC 2016, for the partial trace; Zappa,
Holmes-Cerfon and Goodman, "Monte Carlo on manifolds", CPAM 71 (2018), for the accept step (their
solve is a division here).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core._checks import (
    check_callable,
    check_entries,
    check_flag,
    check_position,
    integer,
)
from shoal.sampling.core.algorithm import (
    Algorithm,
    LogDensity,
    Position,
    Sampler,
    Status,
    proposal_status,
)
from shoal.sampling.core.random import check_key
from shoal.sampling.langevin._accept import accept, choose, probability
from shoal.sampling.langevin.metric import as_metric
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler
from shoal.sampling.langevin.overdamped import OverdampedInfo


class SphericalState(NamedTuple):
    """Where a chain is, and the averages of where it has been.

    Attributes
    ----------
    position
        The point, a pytree of floating arrays whose raveled vector has length one.
    log_density
        f there (not β f), a scalar.
    score
        The gradient of f there, as a flat vector ``(d,)``, not projected.
    num_steps
        Steps done, int32.
    mean
        Mean of the raveled positions after the steps that follow the first ``start_averaging``,
        ``(d,)``; zero before there is one.
    second_moment
        Mean of x xᵀ over the same, ``(d, d)``, or None where it was not asked for.
    """

    position: Position
    log_density: jax.Array
    score: jax.Array
    num_steps: jax.Array
    mean: jax.Array
    second_moment: jax.Array | None


def spherical(
    step_size: Any = 0.01,
    inverse_temperature: Any = 1.0,
    *,
    start_averaging: int = 0,
    second_moment: bool = False,
    adjusted: bool = False,
) -> Sampler:
    """Langevin dynamics on the unit sphere at an inverse temperature, averaging its iterates.

    Parameters
    ----------
    step_size
        h > 0, a float or scalar array. 0.2 / d is a good one. Warm-up tunes it only with
        ``adjusted``, to an acceptance rate of 0.574; without, the acceptance rate says little: it
        is one whatever the step size where f is flat.
    inverse_temperature
        β > 0, a float or scalar array. 0.5 √d suits an f whose noise has variance one at each point
        of the sphere (`shoal.models.spiked`): where it is much larger chains freeze in maxima of
        the noise.
    start_averaging
        Number of steps, counted from ``init``, that the averages leave out.
    second_moment
        Whether to average x xᵀ too: d² numbers and as many operations a step.
    adjusted
        Whether to accept or reject so that the law is exact.

    Returns
    -------
    Sampler
        Called with f, as a log density of any pytree, returns the `Algorithm`; state
        `SphericalState`, info `OverdampedInfo`. ``init`` scales its position to length one, and
        needs at least two coordinates. Works in the dtype of the position.

    Raises
    ------
    TypeError, ValueError
        If ``step_size`` or ``inverse_temperature`` is not positive, ``start_averaging`` no integer
        of at least 0, or a flag no flag; ``init`` raises for a position of length zero.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.spherical(0.01, 2.0)(lambda x: x[0] ** 3)
    >>> state = algorithm.init(jnp.ones(4))
    >>> state, info = algorithm.step(jax.random.key(0), state)
    >>> round(float(jnp.sum(state.position**2)), 5), state.mean.shape
    (1.0, (4,))
    """
    check_flag("second_moment", second_moment)
    check_flag("adjusted", adjusted)
    return make_sampler(
        _build,
        {"step_size": step_size, "inverse_temperature": inverse_temperature},
        {
            "step_size": check_positive("step_size"),
            "inverse_temperature": check_positive("inverse_temperature"),
        },
        options=(
            ("adjusted", bool(adjusted)),
            ("second_moment", bool(second_moment)),
            ("start_averaging", integer("start_averaging", start_averaging, 0)),
        ),
        target_acceptance=0.574 if adjusted else None,
        is_adjusted=bool(adjusted),
    )


def estimate(state: SphericalState) -> jax.Array:
    """Return the direction that the averages point to.

    Parameters
    ----------
    state
        Of one chain, or of several with leading axes, over which the averages are averaged.

    Returns
    -------
    jax.Array
        Unit vector ``(d,)``: the mean's direction, or with ``second_moment`` the top eigenvector of
        that, whose sign is arbitrary. NaN where no step was averaged yet.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> from shoal.sampling.langevin.spherical import estimate
    >>> algorithm = langevin.spherical(0.02, 50.0)(lambda x: x[0])
    >>> keys = jax.random.split(jax.random.key(0), 500)
    >>> step = lambda state, key: (algorithm.step(key, state)[0], None)
    >>> state, _ = jax.lax.scan(step, algorithm.init(jnp.ones(3)), keys)
    >>> bool(estimate(state)[0] > 0.99)
    True
    """
    if state.second_moment is None:
        mean = jnp.mean(state.mean.reshape(-1, state.mean.shape[-1]), 0)
        return mean / jnp.linalg.norm(mean)
    moment = jnp.mean(state.second_moment.reshape(-1, *state.second_moment.shape[-2:]), 0)
    return jnp.where(jnp.trace(moment) > 0, jnp.linalg.eigh(moment)[1][:, -1], jnp.nan)


def power_iteration(log_density: LogDensity, position: Position, num_steps: int = 20) -> Position:
    """Polish a point of the sphere by x ← ∇f(x) / |∇f(x)|, tensor power iteration where f is one.

    For a convex f no step lowers f. For others it may: a form of odd order, or one that the noise
    makes indefinite, is followed upwards only from a point that is close to a maximum already.

    Parameters
    ----------
    log_density
        f, of a pytree of floating arrays.
    position
        Where to start; the length is of no account for a homogeneous f.
    num_steps
        Number of steps, at least 1.

    Returns
    -------
    Position
        A point whose raveled vector has length one; ``position`` scaled, where the first gradient
        is zero or not finite, and the last good point where a later one is.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of what is said above.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.sampling.langevin.spherical import power_iteration
    >>> form = lambda x: x @ (jnp.array([3.0, 1.0]) * x)
    >>> power_iteration(form, jnp.ones(2), 15).round(4).tolist()
    [1.0, 0.0]
    """
    check_callable("log_density", log_density)
    check_position("position", position)
    num_steps = integer("num_steps", num_steps)
    start, unravel = ravel_pytree(position)
    gradient = jax.grad(lambda flat: log_density(unravel(flat)))

    def step(_: Any, x: jax.Array) -> jax.Array:
        ascent = gradient(x)
        size = jnp.linalg.norm(ascent)
        is_good = (size > 0) & jnp.isfinite(size)
        return jnp.where(is_good, ascent / jnp.where(is_good, size, 1), x)

    return unravel(jax.lax.fori_loop(0, num_steps, step, _to_sphere(start)))


def _build(
    log_density: LogDensity,
    step_size: Any,
    inverse_temperature: Any,
    adjusted: bool,
    second_moment: bool,
    start_averaging: int,
) -> Algorithm:
    def init(position: Position, key: jax.Array | None = None) -> SphericalState:
        check_callable("log_density", log_density)
        check_position("position", position)
        flat, unravel = ravel_pytree(position)
        x = _to_sphere(flat)
        value, score = evaluate_start(log_density, unravel(x), as_metric(None))
        moment = jnp.zeros((x.size, x.size), x.dtype) if second_moment else None
        zero = jnp.zeros((), jnp.int32)
        return SphericalState(unravel(x), value, score, zero, jnp.zeros_like(x), moment)

    def step(key: jax.Array, state: SphericalState) -> tuple[SphericalState, OverdampedInfo]:
        check_key(key)
        key_noise, key_accept = jax.random.split(key) if adjusted else (key, key)
        proposal, log_acceptance, status = _propose(
            log_density, step_size, inverse_temperature, key_noise, state
        )
        is_accepted = status == Status.OK
        if adjusted:
            is_accepted = accept(key_accept, log_acceptance, status)
        info = OverdampedInfo(probability(log_acceptance), is_accepted, status)
        return _average(choose(is_accepted, proposal, state), start_averaging), info

    return Algorithm(init, step)


def _propose(
    log_density: LogDensity, step_size: Any, inverse_temperature: Any, key: jax.Array, state: Any
) -> tuple[SphericalState, jax.Array, jax.Array]:
    """Propose a point; return its state, the log acceptance ratio and its status."""
    x, unravel = ravel_pytree(state.position)
    h, beta = jnp.asarray(step_size, x.dtype), jnp.asarray(inverse_temperature, x.dtype)
    noise = jax.random.normal(key, x.shape, x.dtype)
    pull = _tangent(x, beta * state.score)
    ahead = x + _tangent(x, h * pull + jnp.sqrt(2 * h) * noise)
    length = jnp.linalg.norm(ahead)
    y = ahead / length
    value, gradient = jax.value_and_grad(log_density)(unravel(y))
    score = ravel_pytree(gradient)[0]
    push = _tangent(y, beta * score)
    # Length is 1 / (x·y), pull is orthogonal to x and push to y.
    change = jnp.sum(length * (x * push - y * pull) / 2 - h / 4 * (push**2 - pull**2))
    status = proposal_status(value, jnp.isfinite(change))
    log_acceptance = beta * (value - state.log_density) + change
    log_acceptance = jnp.where(status == Status.OK, log_acceptance, -jnp.inf)
    proposal = state._replace(position=unravel(y), log_density=value, score=score)
    return proposal, log_acceptance, status


def _average(state: SphericalState, start_averaging: int) -> SphericalState:
    """Count a step, and take the point into the averages if it is their turn."""
    x = ravel_pytree(state.position)[0]
    count = state.num_steps + 1 - start_averaging
    weight = jnp.where(count > 0, 1 / jnp.maximum(count, 1).astype(x.dtype), 0)
    mean = state.mean + weight * (x - state.mean)
    moment = state.second_moment
    if moment is not None:
        moment = moment + weight * (x[:, None] * x - moment)
    return state._replace(num_steps=state.num_steps + 1, mean=mean, second_moment=moment)


def _tangent(x: jax.Array, vector: jax.Array) -> jax.Array:
    """Project a vector on the tangent space of the sphere at x."""
    return vector - jnp.sum(x * vector) * x


def _to_sphere(flat: jax.Array) -> jax.Array:
    """Scale a vector to length one; raise where that cannot be."""
    if flat.size < 2:
        raise ValueError("position has 1 coordinate, but the sphere needs at least 2")
    length = jnp.linalg.norm(flat)
    check_entries("the length of position", length, lambda one: one > 0, "positive")
    return flat / length
