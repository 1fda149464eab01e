"""Langevin dynamics in a convex set, by a mirror map (`shoal.sampling.core.mirror`).

With η = ∇ψ(θ) there are two ways, and both stay inside of the set whatever the step size.

`mirrored` runs any sampler on the dual density, the push-forward of π under ∇ψ,

    log p(η) = log π(θ(η)) + log det ∇²ψ*(η),    θ = ∇ψ*(η),

and maps the points back. The map is exact: with `mala` inside so are the draws, and with `ula` the
bias is that of `ula` on the dual density, which is often close to a well-conditioned one (for a
Dirichlet law on the simplex it is strictly log-concave whatever the parameters).

`mirror_langevin` discretises the diffusion whose noise carries the metric instead,

    η' = η + h ∇log π(θ) + √(2h) [∇²ψ(θ)]^½ ξ.

It is unadjusted and poor near the boundary, where ∇²ψ is large: noise and drift throw points to the
edge. For the Dirichlet law with parameters 2, 3 and 4 variances are 25 to 50 % too large at
h = 0.01, while the means are right within 0.01, and within 5 % only at h = 0.001. Where a point is
thrown so far that the gradient overflows the chain stays, in 2 % of the steps at h = 0.01. Take
`mirrored` unless it is this method that you want.

References: Hsieh, Kavis, Rolland and Cevher, "Mirrored Langevin dynamics", NeurIPS 2018, section 3;
for the second Zhang, Peyré, Fadili and Pereyra, "Wasserstein control of mirror Langevin Monte
Carlo", COLT 2020.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core._checks import check_callable, check_position, real_scalar
from shoal.sampling.core._hyperparameters import check_mirror
from shoal.sampling.core.algorithm import (
    Algorithm,
    LogDensity,
    Position,
    Sampler,
    Status,
    proposal_status,
)
from shoal.sampling.core.mirror import MirrorMap
from shoal.sampling.core.random import check_key
from shoal.sampling.langevin._accept import choose
from shoal.sampling.langevin.metric import as_metric
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler
from shoal.sampling.langevin.overdamped import OverdampedInfo, OverdampedState, mala


class MirroredState(NamedTuple):
    """Where a chain is, in the set and in the dual space.

    Attributes
    ----------
    position
        The point θ in the set, a pytree of floating arrays.
    log_density
        The log density of the dual law at ``dual.position``, a scalar.
    dual
        State of the inner sampler, with position η, ``(k,)``.
    """

    position: Position
    log_density: jax.Array
    dual: Any


def mirrored(
    mirror: MirrorMap | None = None, sampler: Sampler | None = None, step_size: Any = None
) -> Sampler:
    """Any sampler on a convex set: it runs in the dual space, exactly mapped back.

    Parameters
    ----------
    mirror
        From `shoal.sampling.core.mirror`: ``simplex()``, ``orthant()``, ``box(low, high)``; None is
        ``euclidean()``. It acts on the raveled position.
    sampler
        A sampler with a ``step_size``; its ``metric`` is one of the dual space, which warm-up does
        not tune. None is ``mala()``.
    step_size
        Step size of ``sampler``, in its place if given. The initial value where warm-up tunes it,
        to the acceptance rate of ``sampler``.

    Returns
    -------
    Sampler
        Called with a log density of points in the set, returns the `Algorithm`; state
        `MirroredState`, info that of ``sampler``. ``init`` needs a key where that of ``sampler``
        does. Works in the dtype of the position. For the simplex the log density is one with
        respect to the first m - 1 of the m probabilities, as those of Dirichlet laws are.

    Raises
    ------
    TypeError, ValueError
        If ``mirror`` is no mirror map, ``sampler`` no `Sampler` with a step size or ``step_size``
        not positive. ``init`` raises for a point that is not inside of the set.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> from shoal.sampling.core import mirror
    >>> dirichlet = lambda p: jnp.sum((jnp.array([2.0, 3.0, 4.0]) - 1) * jnp.log(p))
    >>> algorithm = langevin.mirrored(mirror.simplex(), step_size=0.3)(dirichlet)
    >>> state = algorithm.init(jnp.full(3, 1 / 3))
    >>> state, info = algorithm.step(jax.random.key(0), state)
    >>> state.position.shape, round(float(state.position.sum()), 5)
    ((3,), 1.0)
    """
    mirror = check_mirror(mirror)
    inner = _check_sampler(sampler)
    size = inner.parameters["step_size"] if step_size is None else step_size
    return make_sampler(
        _build_mirrored,
        {"step_size": size, "mirror": mirror, "sampler": inner},
        {
            "step_size": check_positive("step_size"),
            "mirror": check_mirror,
            "sampler": _check_sampler,
        },
        # Samplers of other parts are other samplers: their options must differ.
        options=(("parts", jax.tree.structure((mirror, inner))),),
        target_acceptance=inner.target_acceptance,
        is_adjusted=inner.is_adjusted,
    )


def mirror_langevin(mirror: MirrorMap | None = None, step_size: Any = 0.001) -> Sampler:
    """Mirror Langevin dynamics, the metric in the noise: unadjusted and biased.

    Parameters
    ----------
    mirror
        As in `mirrored`.
    step_size
        h > 0, a float or scalar array. Warm-up does not tune it: the method has no acceptance rate
        that would tell its error.

    Returns
    -------
    Sampler
        Called with a log density of points in the set, returns the `Algorithm`; state
        `MirroredState`, whose ``log_density`` is that of the set and whose ``dual`` is an
        `OverdampedState` with the score ∇log π(θ), ``(k,)``, info `OverdampedInfo` with acceptance
        rate 1 where all is finite. Works in the dtype of the position.

    Raises
    ------
    TypeError, ValueError
        If ``mirror`` is no mirror map or ``step_size`` not positive. ``init`` raises for a point
        that is not inside of the set.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> from shoal.sampling.core import mirror
    >>> gamma = lambda x: jnp.sum(2 * jnp.log(x) - x)
    >>> algorithm = langevin.mirror_langevin(mirror.orthant(), step_size=0.01)(gamma)
    >>> state, info = algorithm.step(jax.random.key(0), algorithm.init(jnp.ones(2)))
    >>> bool((state.position > 0).all())
    True
    """
    mirror = check_mirror(mirror)
    return make_sampler(
        _build_mirror_langevin,
        {"step_size": step_size, "mirror": mirror},
        {"step_size": check_positive("step_size"), "mirror": check_mirror},
        options=(("parts", jax.tree.structure(mirror)),),
        is_adjusted=False,
    )


def _build_mirrored(
    log_density: LogDensity, step_size: Any, mirror: MirrorMap, sampler: Sampler, parts: Any
) -> Algorithm:
    inner = sampler.replace(step_size=step_size)

    def algorithm(unravel: Any) -> Algorithm:
        def dual_log_density(dual: jax.Array) -> jax.Array:
            value = real_scalar("log_density", log_density(unravel(mirror.to_primal(dual))))
            return value + mirror.log_det_dual_hessian(dual)

        return inner(dual_log_density)

    def init(position: Position, key: jax.Array | None = None) -> MirroredState:
        check_callable("log_density", log_density)
        check_position("position", position)
        flat, unravel = ravel_pytree(position)
        mirror.check(flat)
        dual = algorithm(unravel).init(mirror.to_dual(flat), key)
        return MirroredState(position, dual.log_density, dual)

    def step(key: jax.Array, state: MirroredState) -> tuple[MirroredState, Any]:
        unravel = ravel_pytree(state.position)[1]
        dual, info = algorithm(unravel).step(key, state.dual)
        position = unravel(mirror.to_primal(dual.position))
        return MirroredState(position, dual.log_density, dual), info

    return Algorithm(init, step)


def _build_mirror_langevin(
    log_density: LogDensity, step_size: Any, mirror: MirrorMap, parts: Any
) -> Algorithm:
    def init(position: Position, key: jax.Array | None = None) -> MirroredState:
        value, score = evaluate_start(log_density, position, as_metric(None))
        flat = ravel_pytree(position)[0]
        mirror.check(flat)
        dual = OverdampedState(mirror.to_dual(flat), value, mirror.along(score))
        return MirroredState(position, value, dual)

    def step(key: jax.Array, state: MirroredState) -> tuple[MirroredState, OverdampedInfo]:
        check_key(key)
        primal, unravel = ravel_pytree(state.position)
        h = jnp.asarray(step_size, primal.dtype)
        noise = mirror.hessian_noise(key, primal)
        dual = state.dual.position + h * state.dual.score + jnp.sqrt(2 * h) * noise
        target = lambda flat: log_density(unravel(flat))
        primal = mirror.to_primal(dual)
        value, gradient = jax.value_and_grad(target)(primal)
        score = mirror.along(gradient)
        status = proposal_status(value, jnp.isfinite(jnp.sum(score)) & jnp.isfinite(dual).all())
        is_accepted = status == Status.OK
        new = MirroredState(unravel(primal), value, OverdampedState(dual, value, score))
        info = OverdampedInfo(is_accepted.astype(primal.dtype), is_accepted, status)
        return choose(is_accepted, new, state), info

    return Algorithm(init, step)


def _check_sampler(sampler: Any) -> Sampler:
    if sampler is None:
        return mala()
    if not isinstance(sampler, Sampler) or "step_size" not in sampler.parameters:
        raise TypeError(
            "sampler must be a sampler with a step_size, such as langevin.mala(), got "
            f"{type(sampler).__name__}: {sampler!r}"
        )
    return sampler
