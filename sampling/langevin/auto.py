"""The tuned default: kinetic Langevin dynamics, or microcanonical paths, with nothing to set.

`auto` runs BAOAB (see `kinetic`), which is exact in position on Gaussians and costs one gradient a
step. Its warm-up (see `_tuning`) learns from all chains together

- a diagonal metric M_i = (Var x_i / Var ∂_i log π)^(1/2), from positions and scores;
- the friction γ = 2 / √λ, with λ the largest variance along a direction, in coordinates whitened
  by M: the slowest direction is damped critically;
- the step size at which the mean of min(Δ² / d, 1)², with Δ the energy error of a step, is what a
  normal Δ with Δ² / d = 0.01 in the mean would have.

Where the density is much stiffer than where the step size was tuned, a step fails: its energy error
exceeds 2 + 4 √(d / 20), more than eight standard deviations of a usual one. It is then taken as 4,
if need be as 16 smaller steps over the same time, so that no chain gets stuck or flies off.

What is exact and what is biased: like every unadjusted method this one has a bias, hardly any on a
Gaussian. Its step size is chosen such that it is small elsewhere; `shoal.inference.sample`
estimates it from the draws and their scores and reports it (`shoal.inference.bias`).
``auto(adjusted=True)`` runs `mams` and is exact: each chain's warm-up learns from the others, but
what it learnt is fixed before the first draw.

References: Leimkuhler and Matthews, Applied Mathematics Research eXpress 2013, for BAOAB; the
metric is that of the sampler nutpie, which minimises the Fisher divergence to a normal law; energy
errors for the step size as in Robnik, De Luca, Silverstein and Seljak, "Microcanonical Hamiltonian
Monte Carlo", JMLR 24 (2023), section 4.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import check_flag
from shoal.sampling.core.algorithm import Algorithm, LogDensity, Sampler, Status
from shoal.sampling.core.random import check_key
from shoal.sampling.langevin import kinetic
from shoal.sampling.langevin._accept import choose
from shoal.sampling.langevin._tuning import warm_up
from shoal.sampling.langevin.mams import mams
from shoal.sampling.langevin.metric import Metric, as_metric
from shoal.sampling.langevin.options import check_positive, make_sampler

# A failed step is taken as 4 steps; if one of these fails too, as 16.
_FEWER, _LEVELS = 4, 2


class AutoInfo(NamedTuple):
    """What happened in a step.

    Attributes
    ----------
    acceptance_rate, energy_error
        Those of `kinetic.KineticInfo`, for the step as it was tried first.
    num_integration_steps
        Smaller steps, each a gradient, that a failed step was taken in; 0 as a rule.
    is_accepted
        Whether the step was taken. False only where 16 smaller steps failed too: the particle then
        stays and turns back.
    status
        int8 `shoal.sampling.core.algorithm.Status` code; ``DIVERGENCE`` where it stayed although
        all was finite.
    """

    acceptance_rate: jax.Array
    energy_error: jax.Array
    num_integration_steps: jax.Array
    is_accepted: jax.Array
    status: jax.Array


def auto(adjusted: bool = False) -> Sampler:
    """Set step size, friction or path length, and metric by itself: the tuned default.

    All of it is learnt in the warm-up of `shoal.inference.sample`, whose ``num_warmup`` is the
    budget: as many gradients for each chain (paths, if adjusted). A few hundred will do for a
    logistic regression; the default of 1,000 suffices for all but hard targets. All chains learn
    together, so that more of them learn faster. Without warm-up the parameters are placeholders.

    Parameters
    ----------
    adjusted
        False: kinetic Langevin dynamics, one gradient a draw, with a small bias that the result
        reports. True: Metropolis-adjusted microcanonical paths, exact, many gradients a draw.

    Returns
    -------
    Sampler
        Called with a log density, returns the `Algorithm`; state `kinetic.KineticState` and info
        `AutoInfo`, or those of `mams`. Works in the position's dtype.

    Raises
    ------
    TypeError
        If ``adjusted`` is no bool.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference import sample
    >>> from shoal.sampling import langevin
    >>> scales = jnp.array([0.1, 1.0, 10.0])
    >>> result = sample(
    ...     jax.random.key(0),
    ...     lambda x: -0.5 * jnp.sum((x / scales) ** 2),
    ...     langevin.auto(),
    ...     init=jnp.ones((4, 3)),
    ...     num_warmup=300,
    ...     num_samples=1000,
    ...     progress=False,
    ... )
    >>> result.num_gradients_warmup
    1204
    >>> bool((abs(result.posterior["position"].std((0, 1)) / scales - 1) < 0.1).all())
    True
    """
    check_flag("adjusted", adjusted)
    if adjusted:
        paths = mams()
        return Sampler(
            _build_auto_adjusted,
            paths.parameters,
            paths.options,
            target_acceptance=0.8,
            prepare=paths.prepare,
            warm_up=warm_up,
        )
    return make_sampler(
        _build,
        {"step_size": 0.1, "friction": 1.0, "metric": None},
        {
            "step_size": check_positive("step_size"),
            "friction": check_positive("friction", allow_zero=True),
            "metric": as_metric,
        },
        target_acceptance=0.9,
        is_adjusted=False,
        warm_up=warm_up,
    )


def _build_auto_adjusted(log_density: LogDensity, **parameters: Any) -> Algorithm:
    return mams().build(log_density, **parameters)


def _build(log_density: LogDensity, step_size: Any, friction: Any, metric: Metric) -> Algorithm:
    def baoab(step_size: Any) -> Algorithm:
        return kinetic.baoab(1.0).build(log_density, step_size, friction, metric, word="BAOAB")

    def step(key: jax.Array, state: kinetic.KineticState) -> tuple[Any, AutoInfo]:
        check_key(key)
        key_first, key_again = jax.random.split(key)
        new, info = baoab(step_size).step(key_first, state)
        has_failed = ~_is_good(info, state)
        again, failed_again, num_steps = _refine(baoab, step_size, key_again, state, has_failed)
        is_accepted = ~failed_again
        new = choose(has_failed, again, new)
        new = choose(is_accepted, new, state._replace(momentum=-state.momentum))
        # Where the first attempt met a finite density, what stopped the others was the energy.
        stuck = jnp.where(info.status == Status.OK, Status.DIVERGENCE, info.status)
        status = jnp.where(is_accepted, Status.OK, stuck).astype(jnp.int8)
        info = AutoInfo(info.acceptance_rate, info.energy_error, num_steps, is_accepted, status)
        return new, info

    return Algorithm(baoab(step_size).init, step)


def _is_good(info: kinetic.KineticInfo, state: kinetic.KineticState) -> jax.Array:
    """Whether a step is finite and its energy error not much larger than those usual."""
    largest = 2 + 4 * (state.momentum.size / 20) ** 0.5
    return info.is_accepted & (info.energy_error < largest)


def _refine(
    baoab: Any, step_size: Any, key: jax.Array, start: kinetic.KineticState, is_needed: jax.Array
) -> tuple[kinetic.KineticState, jax.Array, jax.Array]:
    """Take a step as 4 or 16; return its end, whether that failed too, and how many were tried.

    One loop over all smaller steps, so that chains in a batch that need none wait only for those
    that do. Without need no step is taken.
    """

    def goes_on(carry: tuple[Any, ...]) -> jax.Array:
        return carry[1] & (carry[2] <= _LEVELS)

    def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        state, _, level, done, tried = carry
        parts = _FEWER**level
        small = baoab(jnp.asarray(step_size, start.score.dtype) / parts)
        new, info = small.step(jax.random.fold_in(key, tried), state)
        is_good = _is_good(info, start)
        state = choose(is_good, new, start)
        done = jnp.where(is_good, done + 1, 0)
        is_unfinished = ~(is_good & (done == parts))
        return state, is_unfinished, jnp.where(is_good, level, level + 1), done, tried + 1

    one, none = jnp.int32(1), jnp.int32(0)
    carry = start, is_needed, one, none, none
    state, is_unfinished, _, _, tried = jax.lax.while_loop(goes_on, advance, carry)
    return state, is_unfinished, tried
