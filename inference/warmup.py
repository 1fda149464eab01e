"""Warm-up: tune step size and metric while the chains find the typical set.

Stan's three phases (a fast one, doubling slow windows that estimate the metric, a fast one) with
dual averaging of the step size towards the method's own acceptance rate, made of BlackJAX's parts
so that they run inside the driver: with progress, in chunks, for any sampler that has a
``step_size``. Each chain tunes for itself, so that chains stay independent. A sampler that accepts
every step is given an accept-reject step for as long as the warm-up lasts.

References: Stan reference manual, "HMC algorithm parameters"; Hoffman and Gelman, "The No-U-Turn
sampler", JMLR 15 (2014), section 3.2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from shoal.inference.chains import Chains, Step
from shoal.inference.devices import Layout
from shoal.sampling.core.algorithm import Sampler
from shoal.sampling.core.random import particle_keys


class WarmupState(NamedTuple):
    """Chains on their way, what they have learnt, and the sampler they use meanwhile.

    Attributes
    ----------
    chains
        States of the chains, leading chain axis.
    sampler
        `Sampler` with per-chain parameters.
    step_size
        BlackJAX dual-averaging state, per chain.
    metric
        BlackJAX mass-matrix adaptation state, per chain, or None where the metric is not tuned.
    step
        Steps done, int32.
    """

    chains: Any
    sampler: Sampler
    step_size: Any
    metric: Any
    step: jax.Array


class Warmup(eqx.Module):
    """The warm-up as an algorithm for the driver.

    Attributes
    ----------
    chains
        The `Chains` to tune; their sampler holds the initial parameters.
    target_acceptance
        Acceptance rate aimed at.
    is_slow, is_window_end
        Boolean schedule, a row for each step.
    metric
        ``"diagonal"``, ``"dense"`` or None (leave the metric alone). Static.
    """

    chains: Chains
    target_acceptance: jax.Array
    is_slow: jax.Array
    is_window_end: jax.Array
    metric: str | None = eqx.field(static=True)

    def layout(self, state: WarmupState) -> Layout:
        """Tell the driver which arrays have a leading chain axis: all but the schedule."""
        chains = self.chains.layout(state.chains)
        algorithm = Warmup(chains.algorithm, False, False, False, self.metric)  # type: ignore[arg-type]
        return Layout(algorithm, WarmupState(True, True, True, True, False))  # type: ignore[arg-type]

    def init(self, states: Any) -> WarmupState:
        """Start from the states of the chains."""
        averaging, adaptation = self._parts()
        sampler = self.chains.sampler
        step_size = jax.vmap(averaging[0])(sampler.parameters["step_size"])
        metric = None
        if adaptation is not None:
            flat = jax.vmap(lambda p: ravel_pytree(p)[0])(states.position)
            initial = jax.vmap(lambda m: _expand(m, flat.shape[1], self.metric, flat.dtype))(
                sampler.parameters[_named_metric(sampler)]
            )
            metric = jax.vmap(lambda m: adaptation[0](flat.shape[1], m))(initial)
            sampler = _with_metric(sampler, initial)
        return WarmupState(states, sampler, step_size, metric, jnp.asarray(0, jnp.int32))

    def step(self, key: jax.Array, state: WarmupState) -> tuple[WarmupState, Step]:
        """Advance the chains by one step and learn from it."""
        averaging, adaptation = self._parts()
        chains = eqx.tree_at(lambda c: c.sampler, self.chains, state.sampler)
        states, step = chains.step(key, state.chains)
        rate = step.statistics["acceptance_rate"]
        if not state.sampler.is_adjusted:
            states = self._adjust(key, rate, states, state.chains)
        step_size = jax.vmap(averaging[1])(state.step_size, rate)
        sampler, metric = state.sampler, state.metric
        if adaptation is not None:
            learn = lambda m: jax.vmap(adaptation[1])(m, states.position)
            metric = jax.lax.cond(self.is_slow[state.step], learn, lambda m: m, metric)
            sampler, step_size, metric = jax.lax.cond(
                self.is_window_end[state.step],
                lambda *parts: self._end_window(*parts),
                lambda *same: same,
                sampler,
                step_size,
                metric,
            )
        sampler = _with_step_size(sampler, jnp.exp(step_size.log_step_size))
        return WarmupState(states, sampler, step_size, metric, state.step + 1), step

    def final_sampler(self, state: WarmupState) -> Sampler:
        """Return the tuned sampler, with the averaged step sizes."""
        return _with_step_size(state.sampler, jnp.exp(state.step_size.log_step_size_avg))

    def _adjust(self, key: jax.Array, rate: jax.Array, new: Any, old: Any) -> Any:
        """Accept or reject for a sampler that does neither, lest a wild step size win."""
        # Chain ids are non-negative, so that no chain's own key is used twice.
        uniform = jax.vmap(jax.random.uniform)(particle_keys(key, -1 - self.chains.ids))
        accept = uniform < rate
        where = lambda a, b: jnp.where(accept.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        return jax.tree.map(where, new, old)

    def _end_window(self, sampler: Sampler, step_size: Any, metric: Any) -> tuple[Any, Any, Any]:
        averaging, adaptation = self._parts()
        assert adaptation is not None
        metric = jax.vmap(adaptation[2])(metric)
        step_size = jax.vmap(lambda s: averaging[0](averaging[2](s)))(step_size)
        new = _with_metric(sampler, metric.inverse_mass_matrix)
        same_types = lambda a, b: jnp.asarray(a, b.dtype)
        return jax.tree.map(same_types, new, sampler), step_size, metric

    def _parts(self) -> tuple[tuple[Callable, ...], tuple[Callable, ...] | None]:
        from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
        from blackjax.adaptation.step_size import dual_averaging_adaptation

        averaging = dual_averaging_adaptation(self.target_acceptance)
        if self.metric is None:
            return averaging, None
        return averaging, mass_matrix_adaptation(self.metric == "diagonal")


def make_warmup(
    chains: Chains, num_steps: int, target_acceptance: float, metric: str | None
) -> Warmup:
    """Lay out the windows for ``num_steps`` steps (under 20 only the step size is tuned).

    Parameters
    ----------
    chains
        The chains to tune.
    num_steps
        Length of the warm-up.
    target_acceptance
        In (0, 1).
    metric
        ``"diagonal"``, ``"dense"`` or None; None too where the sampler takes none.
    """
    from blackjax.adaptation.window_adaptation import build_schedule

    schedule = np.array(build_schedule(num_steps), dtype=bool).reshape(num_steps, 2)
    if metric_name(chains.sampler) is None:
        metric = None
    is_slow, is_window_end = jnp.asarray(schedule[:, 0]), jnp.asarray(schedule[:, 1])
    return Warmup(chains, jnp.asarray(target_acceptance), is_slow, is_window_end, metric)


def tune_mclmc(
    chains: Chains, states: Any, key: jax.Array, num_steps: int
) -> tuple[Any, Sampler, int]:
    """Tune MCLMC by BlackJAX's own procedure; return states, sampler and steps taken in a chain.

    ``num_steps`` is about what the tuning takes in all: it uses a tenth of the run length it is
    told for each of its three parts and a thirtieth more.
    """
    states, tuned, steps_taken = _tune_mclmc(chains, states, key, int(num_steps))
    sampler = chains.sampler.replace(
        L=tuned.L, step_size=tuned.step_size, inverse_mass_matrix=tuned.inverse_mass_matrix
    )
    return states, sampler, int(steps_taken[0])


# One compiled program for all calls with as many steps: an int is static here.
@eqx.filter_jit
def _tune_mclmc(chains: Chains, states: Any, key: jax.Array, num_steps: int) -> Any:
    import blackjax

    kernel = blackjax.mcmc.mclmc.build_kernel()

    def one(state: Any, key: jax.Array) -> Any:
        return blackjax.mclmc_find_L_and_step_size(
            kernel, 3 * num_steps, state, key, logdensity_fn=chains.target.log_density
        )

    return jax.vmap(one)(states, particle_keys(key, chains.ids))


def metric_name(sampler: Sampler) -> str | None:
    """Return what a sampler calls its metric: ours or BlackJAX's word, None if it has none."""
    names = ("metric", "inverse_mass_matrix")
    return next((name for name in names if name in sampler.parameters), None)


def _named_metric(sampler: Sampler) -> str:
    name = metric_name(sampler)
    assert name is not None, "make_warmup tunes no metric where there is none"
    return name


def _with_metric(sampler: Sampler, metric: jax.Array) -> Sampler:
    name = _named_metric(sampler)
    return jax.vmap(lambda s, m: s.replace(**{name: m}))(sampler, metric)


def _with_step_size(sampler: Sampler, step_size: jax.Array) -> Sampler:
    step_size = step_size.astype(jnp.result_type(sampler.parameters["step_size"]))
    return jax.vmap(lambda s, h: s.replace(step_size=h))(sampler, step_size)


def _expand(given: Any, dim: int, kind: str | None, dtype: Any) -> jax.Array:
    """Spread a scalar or diagonal to the shape that is tuned."""
    factor = getattr(given, "factor", None)
    if factor is None:
        value = jnp.asarray(given, dtype)
    else:
        value = jnp.asarray(factor @ factor.T if factor.ndim == 2 else factor**2, dtype)
    if kind == "dense":
        return value if value.ndim == 2 else jnp.diag(jnp.broadcast_to(value, (dim,)))
    return jnp.diagonal(value) if value.ndim == 2 else jnp.broadcast_to(value, (dim,))
