"""Microcanonical Langevin dynamics: positions that move with unit speed and turn with the gradient.

The dynamics, with inverse mass matrix M = L Lᵀ, d coordinates, a direction v of length one and a
decoherence length ℓ over which v is forgotten:

    dx = L v dt,    dv = (I - v vᵀ) Lᵀ∇log π(x) / (d - 1) dt + noise on the sphere.

A step of size h runs maps that are each solved exactly. With k = t Lᵀ∇log π(x), δ = |k| / (d - 1),
e = k / |k| and m = e·v,

    A:  x += t L v
    B:  v = (v + (sinh δ + m (cosh δ - 1)) e) / (cosh δ + m sinh δ)
    O:  v = u / |u|,  u = e^(-h/ℓ) v + √((1 - e^(-2h/ℓ)) / d) ξ,  ξ ~ N(0, I).

B changes the kinetic energy by (d - 1) log(cosh δ + m sinh δ); what it and A fail to conserve of
kinetic energy minus log π is the energy error. A step is O, then a palindromic word of B and A:
the usual half step of O before and after it, with the halves of consecutive steps merged. One
vector of normal numbers a step is all it draws.

Without energy errors, that is as h → 0, π(x) and a uniform direction are invariant. `mclmc` does
not correct its bias, of order h²; `shoal.sampling.langevin.mams` does. One coordinate is too few: a
direction could only flip.

References: Robnik, De Luca, Silverstein and Seljak, "Microcanonical Hamiltonian Monte Carlo", JMLR
24 (2023), section 3; Robnik and Seljak, "Fluctuation without dissipation: microcanonical Langevin
Monte Carlo", arXiv:2303.18221, equations 3 and 9; Ver Steeg and Galstyan, "Hamiltonian dynamics
with non-Newtonian momentum for rapid sampling", NeurIPS 2021, appendix, for B without overflow.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core.algorithm import (
    Algorithm,
    LogDensity,
    Position,
    Sampler,
    Status,
    proposal_status,
)
from shoal.sampling.core.random import check_key
from shoal.sampling.langevin._accept import choose
from shoal.sampling.langevin.metric import Metric, as_metric
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler


class MicrocanonicalState(NamedTuple):
    """Where a chain is and in which direction it moves.

    Attributes
    ----------
    position
        The point, a pytree of floating arrays.
    direction
        Whitened direction v, flat, ``(d,)``, of length one; the velocity is L v.
    log_density
        Log density of the point, a scalar.
    score
        The gradient of the log density there, flat, ``(d,)``.
    """

    position: Position
    direction: jax.Array
    log_density: jax.Array
    score: jax.Array


class MicrocanonicalInfo(NamedTuple):
    """What happened in a step.

    Attributes
    ----------
    acceptance_rate
        ``min(1, exp(-energy_error))``: what a Metropolis correction would have accepted. The step
        moves regardless; the number tells how coarse it is.
    energy_error
        Energy that the maps A and B failed to conserve.
    is_accepted
        Whether the step was taken. False only where the new point is not finite; the particle
        then stays and turns back: its direction changes sign.
    status
        int8 `shoal.sampling.core.algorithm.Status` code.
    """

    acceptance_rate: jax.Array
    energy_error: jax.Array
    is_accepted: jax.Array
    status: jax.Array


def _mirror(half: tuple[float, ...]) -> tuple[float, ...]:
    """Return the palindrome of which this is the first half, its middle included."""
    return (*half, *half[-2::-1])


_SCALE = 2.0**-40

# McLachlan, "On the numerical integration of ordinary differential equations by symmetric
# composition methods", SIAM J. Sci. Comput. 16 (1995); Blanes, Casas and Sanz-Serna, "Numerical
# integrators for the Hybrid Monte Carlo method", SIAM J. Sci. Comput. 36 (2014); Omelyan, Mryglod
# and Folk, "Symplectic analytically integrable decomposition algorithms", Comput. Phys. Commun. 151
# (2003).
_B = 0.1931833275037836
_T, _S = 0.11888010966548, 0.29619504261126
_B1, _B2 = 0.08398315262876693, 0.6822365335719091
_A1, _A2 = 0.2539785108410595, -0.03230286765269967
# Times of B, A, B, ... in units of the step size.
INTEGRATORS = {
    "leapfrog": _mirror((0.5, 1.0)),
    "minimal_norm": _mirror((_B, 0.5, 1 - 2 * _B)),
    "three_stage": _mirror((_T, _S, 0.5 - _T, 1 - 2 * _S)),
    "omelyan": _mirror((_B1, _A1, _B2, _A2, 0.5 - _B1 - _B2, 1 - 2 * (_A1 + _A2))),
}


def mclmc(
    step_size: Any = 0.5,
    decoherence_length: Any = None,
    metric: Any = None,
    integrator: str = "minimal_norm",
) -> Sampler:
    """Microcanonical Langevin Monte Carlo, unadjusted.

    Parameters
    ----------
    step_size
        h > 0, a length. The initial value where warm-up tunes it, to a
        `MicrocanonicalInfo.acceptance_rate` of 0.97. On Gaussians of 10 and 100 coordinates, with
        the diagonal metric tuned too, that left the variances 2 % and 1 % too small, and the mean
        squared energy error per coordinate at 7e-4 and 5e-5. The step for a given bias depends on
        the dimension, which one acceptance rate cannot know: `auto` tunes by the bias itself.
    decoherence_length
        ℓ > 0, the length of path over which the direction is forgotten; BlackJAX calls it L. None
        is √d, right where the metric whitens the target.
    metric
        M, the inverse mass matrix: None (identity), scalar, ``(d,)`` diagonal or ``(d, d)``, over
        the raveled position. The closer to the target's covariance, the better.
    integrator
        The word of a step, and its gradients: ``"leapfrog"`` BAB (1), ``"minimal_norm"`` BABAB (2),
        ``"three_stage"`` BABABAB (3), all of order two, and ``"omelyan"`` BABABABABAB (5), of order
        four.

    Returns
    -------
    Sampler
        Called with a log density, returns the `Algorithm`; state `MicrocanonicalState`, info
        `MicrocanonicalInfo`. ``init`` needs a key, to draw the direction, and at least two
        coordinates. Works in the position's dtype.

    Raises
    ------
    ValueError
        If a number is not positive, ``metric`` not positive definite or ``integrator`` unknown;
        ``init`` raises it for a position of one coordinate.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.mclmc(step_size=0.5)(lambda x: -0.5 * x @ x)
    >>> state = algorithm.init(jnp.ones(3), jax.random.key(0))
    >>> state, info = algorithm.step(jax.random.key(1), state)
    >>> state.position.shape, int(info.status)
    ((3,), 0)
    """
    return make_sampler(
        _build,
        {"step_size": step_size, "decoherence_length": decoherence_length, "metric": metric},
        {
            "step_size": check_positive("step_size"),
            "decoherence_length": as_length("decoherence_length"),
            "metric": as_metric,
        },
        options=(("word", word_of(integrator)),),
        target_acceptance=0.97,
        is_adjusted=False,
    )


@functools.cache
def as_length(name: str) -> Callable[[Any], Any]:
    """Return a check of a positive length; None becomes 0, which `length_or_default` reads.

    A number in place of None keeps the structure of the parameters the same.
    """
    check = check_positive(name)
    return lambda length: 0.0 if length is None else check(length)


def length_or_default(length: Any, x: jax.Array) -> jax.Array:
    """Return a length in the dtype of the flat position, √d where it was not given."""
    length = jnp.asarray(length, x.dtype)
    return jnp.where(length > 0, length, x.size**0.5)


def word_of(integrator: str) -> tuple[float, ...]:
    """Return the times of B, A, B, ... of an integrator of unit step."""
    if not isinstance(integrator, str) or integrator not in INTEGRATORS:
        raise ValueError(f"integrator must be one of {sorted(INTEGRATORS)}, got {integrator!r}")
    return INTEGRATORS[integrator]


def check_dimension(position: Position) -> None:
    """Raise ``ValueError`` for a position of one coordinate."""
    if sum(jnp.size(leaf) for leaf in jax.tree.leaves(position)) < 2:
        raise ValueError(
            "position has 1 coordinate, but microcanonical dynamics need at least 2: a direction "
            "on a line cannot turn"
        )


def _build(
    log_density: LogDensity,
    step_size: Any,
    decoherence_length: Any,
    metric: Metric,
    word: tuple[float, ...],
) -> Algorithm:
    def init(position: Position, key: jax.Array | None = None) -> MicrocanonicalState:
        if key is None:
            raise ValueError("key is None, but mclmc draws its direction: give init a key")
        check_key(key)
        value, score = evaluate_start(log_density, position, metric)
        check_dimension(position)
        return MicrocanonicalState(position, draw_direction(key, score), value, score)

    def step(
        key: jax.Array, state: MicrocanonicalState
    ) -> tuple[MicrocanonicalState, MicrocanonicalInfo]:
        check_key(key)
        x, unravel = ravel_pytree(state.position)
        value_and_score = jax.value_and_grad(lambda flat: log_density(unravel(flat)))
        h = jnp.asarray(step_size, x.dtype)
        path = h / length_or_default(decoherence_length, x)
        begin = state._replace(position=x, direction=refresh(key, state.direction, path))
        new, work = run_word(word, h, in_dtype_of(x, metric), value_and_score, begin)
        energy_error = work - (new.log_density - state.log_density)
        status = proposal_status(new.log_density, jnp.isfinite(work))
        is_accepted = status == Status.OK
        status = jnp.where(is_accepted & (energy_error > 1000), Status.DIVERGENCE, status)
        stay = state._replace(direction=-state.direction)
        kept = choose(is_accepted, new._replace(position=unravel(new.position)), stay)
        rate = jnp.where(is_accepted, jnp.exp(-jnp.maximum(energy_error, 0)), 0)
        info = MicrocanonicalInfo(rate, energy_error, is_accepted, status.astype(jnp.int8))
        return kept, info

    return Algorithm(init, step)


def in_dtype_of(x: jax.Array, metric: Metric) -> Metric:
    """Return the metric in the dtype of the flat position, in which all of a step runs."""
    return jax.tree.map(lambda leaf: leaf.astype(x.dtype), metric)


def draw_direction(key: jax.Array, like: jax.Array) -> jax.Array:
    """Draw a uniform point of the unit sphere, of the shape and dtype of ``like``."""
    noise = jax.random.normal(key, like.shape, like.dtype)
    return noise / _norm(noise)


def refresh(key: jax.Array, direction: jax.Array, path: jax.Array) -> jax.Array:
    """Map O over a path length given in units of ℓ."""
    noise = jax.random.normal(key, direction.shape, direction.dtype)
    spread = jnp.sqrt(-jnp.expm1(-2 * path) / direction.size)
    mixed = jnp.exp(-path) * direction + spread * noise
    return mixed / _norm(mixed)


def run_word(
    word: tuple[float, ...],
    h: jax.Array,
    metric: Metric,
    value_and_score: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    state: MicrocanonicalState,
) -> tuple[MicrocanonicalState, jax.Array]:
    """Run B, A, B, ..., B from a state with a flat position; return it and the work done by B."""
    x, v, value, score = state
    v, work = turn(v, word[0] * h * metric.whiten(score))
    for drift, kick in zip(word[1::2], word[2::2], strict=True):
        x = x + drift * h * metric.color(v)
        value, score = value_and_score(x)
        v, more = turn(v, kick * h * metric.whiten(score))
        work = work + more
    return MicrocanonicalState(x, v, value, score), work


def turn(direction: jax.Array, kick: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Map B, for a kick k of any length; return the direction and the gain of kinetic energy.

    With ζ = e^(-δ) and p = 1 + m nothing overflows, nor cancels where δ is small:

        v ∝ (1 - ζ) (2ζ + p (1 - ζ)) e + 2ζ v,  of length  p + (2 - p) ζ².
    """
    degrees = direction.size - 1
    size = _norm(kick)
    safe_size = jnp.where(size > 0, size, 1)
    delta = size / degrees
    # Held off zero, where rounding would decide the direction of a strong kick against v.
    p = 1 + jnp.sum(kick * direction) / safe_size
    p = jnp.clip(p, jnp.finfo(p.dtype).eps, 2)
    zeta, loss = jnp.exp(-delta), -jnp.expm1(-delta)
    length = p + (2 - p) * zeta**2
    along, before = loss * (2 * zeta + p * loss) / length, 2 * zeta / length
    gain = degrees * (delta + jnp.log1p((p / 2 - 1) * -jnp.expm1(-2 * delta)))
    return along / safe_size * kick + before * direction, gain


def _norm(x: jax.Array) -> jax.Array:
    """Euclidean norm, in float32 of vectors as long as 1e31 and none shorter than 1e-7.

    Without the scale squares overflow at 1e19. What is lost, a kick of less than 1e-7, is an energy
    that the rounding of a log density swallows.
    """
    square = jnp.sum((x * _SCALE) ** 2)
    # The derivative of the root is infinite at zero.
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0) / _SCALE
