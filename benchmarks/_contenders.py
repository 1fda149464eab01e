"""Samplers side by side: draws of all steps, gradients counted, CPU seconds.

Every contender is made for a problem, a number of warm-up steps and of draws; called with a key,
it runs four chains in float32 from the problem's own starts, which are the same for all. At its
first call it runs twice, with two keys, so that no run that is measured compiles anything.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from _targets import Problem, as_target
from numpyro.infer import MCMC, NUTS

from shoal.inference import sample
from shoal.sampling import langevin

CHAINS = 4


class Run(NamedTuple):
    """Draws ``(chain, draw, d)`` and what they cost.

    Attributes
    ----------
    gradients
        Gradients of each draw, ``(chain, draw)``, warm-up apart.
    warmup
        Gradients of the warm-up of one chain, in the mean.
    seconds
        CPU seconds of all threads, warm-up included.
    """

    draws: np.ndarray
    gradients: np.ndarray
    warmup: float
    seconds: float


Contender: TypeAlias = Callable[[jax.Array], Run]


class Measured:
    """A function of a key; called, it returns its result and the CPU seconds that took."""

    def __init__(self, call: Callable[[jax.Array], Any]):
        self._call = call
        self._is_compiled = False

    def __call__(self, key: jax.Array) -> tuple[Any, float]:
        if not self._is_compiled:
            self._call(jax.random.fold_in(key, 1))
            self._is_compiled = True
        start = time.process_time()
        result = self._call(key)
        return result, time.process_time() - start


def starts(problem: Problem, key: jax.Array) -> jax.Array:
    """Return the starts of all chains, ``(chain, d)``."""
    return jax.vmap(problem.start)(jax.random.split(jax.random.fold_in(key, 7), CHAINS))


def shoal(
    sampler: Any, per_step: int, per_iteration: int, problem: Problem, num_warmup: int,
    num_samples: int,
) -> Contender:  # fmt: skip
    """Run `shoal.inference.sample`, whose result counts its own gradients."""
    target = as_target(problem)
    call = lambda key: sample(
        key, target, sampler, init=starts(problem, key), num_chains=CHAINS, num_warmup=num_warmup,
        num_samples=num_samples, progress=False, on_failure="ignore",
    )  # fmt: skip
    measured = Measured(call)

    def run(key: jax.Array) -> Run:
        result, seconds = measured(key)
        draws = result.posterior["position"]
        gradients = np.full(draws.shape[:2], per_step)
        if per_iteration:
            gradients = gradients + per_iteration * result.sample_stats["n_steps"]
        return Run(draws, gradients, result.num_gradients_warmup / CHAINS, seconds)

    return run


def numpyro_nuts(problem: Problem, num_warmup: int, num_samples: int) -> Contender:
    """Run NumPyro's NUTS with its vectorised chains."""
    potential = lambda x: -problem.log_density(x)
    mcmc = MCMC(
        NUTS(potential_fn=potential), num_warmup=num_warmup, num_samples=num_samples,
        num_chains=CHAINS, chain_method="vectorized", progress_bar=False,
    )  # fmt: skip

    def call(key: jax.Array) -> Any:
        init = starts(problem, key)
        mcmc.warmup(key, init_params=init, extra_fields=("num_steps",), collect_warmup=True)
        warmup = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["num_steps"])
        mcmc.run(key, init_params=init, extra_fields=("num_steps",))
        steps = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["num_steps"])
        return np.asarray(mcmc.get_samples(group_by_chain=True)), steps, warmup.mean(0).sum()

    measured = Measured(call)

    def run(key: jax.Array) -> Run:
        (draws, steps, warmup), seconds = measured(key)
        return Run(draws, steps, float(warmup), seconds)

    return run


def blackjax_adjusted_mclmc(problem: Problem, num_warmup: int, num_samples: int) -> Contender:
    """Run BlackJAX's adjusted MCLMC with its own tuning, at its defaults, two steps a path."""
    mean_steps = lambda key, mean: jnp.ceil(jax.random.uniform(key) * _rescale(mean))
    kernel = blackjax.adjusted_mclmc_dynamic.build_kernel(integration_steps_fn=mean_steps)

    def chain(key: jax.Array, position: jax.Array) -> Any:
        key_init, key_tune, key_run = jax.random.split(key, 3)
        state = blackjax.adjusted_mclmc_dynamic.init(position, problem.log_density, key_init)
        # It takes a tenth of the run it is told for each of two parts, the second one twice.
        state, tuned, taken = blackjax.adjusted_mclmc_find_L_and_step_size(
            kernel, problem.log_density, 4 * num_warmup, state, key_tune, target=0.9
        )
        params = (tuned.L / tuned.step_size,)

        def step(state: Any, key: jax.Array) -> Any:
            state, info = kernel(
                key, state, problem.log_density, tuned.step_size,
                inverse_mass_matrix=tuned.inverse_mass_matrix, integration_steps_params=params,
            )  # fmt: skip
            return state, (state.position, info.num_integration_steps)

        _, kept = jax.lax.scan(step, state, jax.random.split(key_run, num_samples))
        return kept, taken

    chains = jax.jit(jax.vmap(chain))

    def call(key: jax.Array) -> Any:
        found = chains(jax.random.split(key, CHAINS), starts(problem, key))
        return jax.tree.map(np.asarray, found)

    measured = Measured(call)

    def run(key: jax.Array) -> Run:
        ((draws, steps), taken), seconds = measured(key)
        return Run(draws, 2 * steps, 2 * float(np.mean(taken)), seconds)

    return run


def _rescale(mean: jax.Array) -> jax.Array:
    """Return s such that ⌈u s⌉ has about the mean that is asked for."""
    return 2 * mean - 1


def contenders() -> dict[str, Callable[[Problem, int, int], Contender]]:
    """Return makers of all contenders by name: functions of problem, warm-up steps and draws."""
    ours = functools.partial
    return {
        "auto": ours(shoal, langevin.auto(), 1, 1),
        "auto, adjusted": ours(shoal, langevin.auto(adjusted=True), 0, 2),
        "BlackJAX NUTS": ours(shoal, "nuts", 0, 1),
        "NumPyro NUTS": numpyro_nuts,
        "BlackJAX MCLMC": ours(shoal, "mclmc", 2, 0),
        "BlackJAX adjusted MCLMC": blackjax_adjusted_mclmc,
    }
