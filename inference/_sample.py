"""The front door: draws from a NumPyro model or a log density, with any sampler."""

import functools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal import _canary
from shoal._version import __version__
from shoal.inference.chains import Chains, Step, broadcast
from shoal.inference.gradients import GradientCost, gradient_cost
from shoal.inference.result import Result, status_counts
from shoal.inference.run import Finished, Progress, run
from shoal.inference.samplers import as_sampler
from shoal.inference.starts import as_target, check_starts, initial_positions
from shoal.inference.warmup import make_warmup, tune_mclmc
from shoal.sampling.core.algorithm import Status
from shoal.sampling.core.random import check_key


class SamplingWarning(UserWarning):
    """The run ended, but something in it deserves attention."""


class SamplingError(RuntimeError):
    """The run went wrong and ``on_failure="raise"``; ``result`` holds what was drawn."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result


# A chain that rejected fewer proposals than this in a row is not called stuck.
_ENOUGH_STEPS = 20


def sample(
    key: jax.Array,
    model: Callable | Any,
    sampler: Any = "nuts",
    *,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    num_chains: int = 4,
    num_warmup: int = 1000,
    num_samples: int = 1000,
    thin: int = 1,
    init: Any = None,
    tune_metric: str | None = "diagonal",
    target_acceptance: float | None = None,
    progress: bool | Callable[[Progress], Any] = True,
    on_failure: str = "warn",
) -> Result:
    """Draw from a posterior.

    Parameters
    ----------
    key
        Typed key of shape ``()``, such as ``jax.random.key(0)``. Same key, same draws.
    model
        A NumPyro model; or a log density over a pytree of floating arrays, with ``init``; or a
        `shoal.inference.Target`.
    sampler
        A sampler of this package (``langevin.mala()``), any BlackJAX algorithm with its parameters
        bound (``functools.partial(blackjax.hmc, step_size=..., ...)``), or a name: ``"nuts"``,
        ``"mclmc"``, ``"mala"``, ``"ula"``, ``"baoab"``, ``"obabo"``.
    model_args, model_kwargs
        Arguments of a NumPyro model. Arrays are arguments of the compiled program: other data of
        the same shape compile nothing.
    num_chains
        Number of independent chains, run side by side.
    num_warmup
        Steps before the draws. They tune step size and metric where the sampler has them; 0 uses
        the sampler's parameters as they are.
    num_samples
        Draws to keep from each chain.
    thin
        Keep every ``thin``-th step.
    init
        Where to start. For a NumPyro model: None (uniform on (-2, 2) in unconstrained space, drawn
        again until density and gradient are finite) or a dict of values on the constrained space,
        of one point or with a leading chain axis; sites left out start at random. For a log
        density: a position with a leading chain axis, one position for all chains, or a function
        ``init(key) -> position`` that is called for every chain.
    tune_metric
        ``"diagonal"``, ``"dense"`` or None, for samplers with an ``inverse_mass_matrix``.
    target_acceptance
        Acceptance rate that warm-up tunes the step size for, in (0, 1); the method's own by
        default.
    progress
        True for a live line, False for silence, or a function that receives a `Progress`.
    on_failure
        When chains got stuck or steps met densities that are not finite: ``"warn"``, ``"raise"``
        (`SamplingError`, which holds the result) or ``"ignore"``. Counts are in the result anyhow.

    Returns
    -------
    Result

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible, or a start is: the message names the argument, the leaf, the
        chain and the value.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference import sample
    >>> from shoal.sampling import langevin
    >>> result = sample(
    ...     jax.random.key(0),
    ...     lambda x: -0.5 * jnp.sum(x**2),
    ...     langevin.mala(step_size=0.5),
    ...     init=jnp.zeros((4, 3)),
    ...     num_warmup=100,
    ...     num_samples=200,
    ...     progress=False,
    ... )
    >>> result.posterior["position"].shape
    (4, 200, 3)
    """
    check_key(key)
    _check_numbers(num_chains=num_chains, num_samples=num_samples, thin=thin)
    _check_numbers(lowest=0, num_warmup=num_warmup)
    _check_choice("tune_metric", tune_metric, ("diagonal", "dense", None))
    _check_choice("on_failure", on_failure, ("warn", "raise", "ignore"))
    if target_acceptance is not None and not 0 < target_acceptance < 1:
        raise ValueError(f"target_acceptance must lie in (0, 1), got {target_acceptance!r}")
    _canary.warn_if_wrong()

    target = as_target(model, tuple(model_args), dict(model_kwargs or {}), init)
    # One key for each purpose; all that follows folds in chain and step.
    key_starts, key_init, key_warmup, key_run = jax.random.split(key, 4)
    positions = initial_positions(target, init, num_chains, key_starts)
    check_starts(target, positions)
    kernel, own_target = as_sampler(sampler, positions)
    chains = Chains(broadcast(kernel, num_chains), target, jnp.arange(num_chains))
    states = _init_states(chains, positions, key_init)
    cost = _gradient_cost(chains, states)

    chains, states, warm = _warm_up(
        chains, states, key_warmup, num_warmup, sampler, target_acceptance or own_target,
        tune_metric, progress,
    )  # fmt: skip
    finished = run(
        key_run, chains, states, num_samples * thin, first_step=num_warmup, keep=_keep,
        tally=_tally, thin=thin, phase="sampling", describe=_describe, progress=progress,
    )  # fmt: skip
    result = _collect(target, chains, finished, warm, cost, num_chains)
    result.attributes.update(
        inference_library="shoal",
        inference_library_version=__version__,
        sampler=_name(sampler),
        num_warmup=num_warmup,
        thin=thin,
        key=str(jax.random.key_data(key).tolist()),
        warmup_time=warm.seconds if warm else 0.0,
        sampling_time=finished.seconds,
        compile_time=finished.compile_seconds + (warm.compile_seconds if warm else 0.0),
    )
    _complain(result, np.asarray(finished.tally["moved"]), on_failure)
    return result


def _keep(states: Any, step: Step) -> Any:
    return states.position, step.statistics, step.status


def _tally(states: Any, step: Step) -> dict[str, jax.Array]:
    codes = jnp.arange(len(Status), dtype=jnp.int8)
    tally = {
        "status": jnp.sum(step.status[:, None] == codes, axis=0, dtype=jnp.int32),
        "moved": step.moved.astype(jnp.int32),
    }
    for name in ("acceptance_rate", "n_steps"):
        if name in step.statistics:
            tally[name] = jnp.sum(step.statistics[name], axis=0)
    return tally


def _tally_warmup(state: Any, step: Step) -> dict[str, jax.Array]:
    return _tally(state.chains, step)


def _describe(tally: dict[str, jax.Array], steps: int) -> str:
    num_chains = tally["moved"].shape[0]
    words = []
    if "acceptance_rate" in tally:
        words.append(f"acceptance {float(tally['acceptance_rate']) / steps / num_chains:.2f}")
    words.append(f"{int(tally['status'][Status.DIVERGENCE])} divergences")
    trouble = int(tally["status"][1:].sum() - tally["status"][Status.DIVERGENCE])
    if trouble:
        words.append(f"{trouble} steps rejected as not finite")
    return ", ".join(words)


@eqx.filter_jit
def _init_states(chains: Chains, positions: Any, key: jax.Array) -> Any:
    return chains.init(positions, key)


def _gradient_cost(chains: Chains, states: Any) -> GradientCost | None:
    """Cost of a step of one chain; None where it cannot be counted."""
    first = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
    try:
        return gradient_cost(first(chains.sampler), chains.target.log_density, first(states))
    except TypeError:
        return None


def _num_gradients(cost: GradientCost | None, finished: Finished | None) -> int | None:
    if finished is None:
        return 0
    if cost is None or (cost.per_iteration and "n_steps" not in finished.tally):
        return None
    steps = int(np.sum(finished.tally["status"]))
    iterations = int(np.sum(finished.tally.get("n_steps", 0)))
    return cost.per_step * steps + cost.per_iteration * iterations


def _warm_up(
    chains: Chains,
    states: Any,
    key: jax.Array,
    num_steps: int,
    sampler: Any,
    target_acceptance: float | None,
    tune_metric: str | None,
    progress: Any,
) -> tuple[Chains, Any, Finished | None]:
    """Run the warm-up that suits the sampler; return tuned chains, their states and the record."""
    if num_steps == 0:
        return chains, states, None
    if isinstance(sampler, str) and sampler == "mclmc":
        start = time.perf_counter()
        states, tuned, steps = tune_mclmc(chains, states, key, num_steps)
        counts = np.zeros(len(Status), int)
        counts[Status.OK] = steps * chains.ids.size
        # One compiled call: what of its time was compiling is not known.
        record = Finished(states, None, {"status": counts}, time.perf_counter() - start, 0.0)
        return eqx.tree_at(lambda c: c.sampler, chains, tuned), states, record
    options = dict(phase="warm-up", describe=_describe, progress=progress)
    if target_acceptance is None or "step_size" not in chains.sampler.parameters:
        record = run(key, chains, states, num_steps, tally=_tally, **options)
        return chains, record.state, record
    warmup = make_warmup(chains, num_steps, target_acceptance, tune_metric)
    record = run(key, warmup, warmup.init(states), num_steps, tally=_tally_warmup, **options)
    tuned = warmup.final_sampler(record.state)
    return eqx.tree_at(lambda c: c.sampler, chains, tuned), record.state.chains, record


def _collect(
    target: Any,
    chains: Chains,
    finished: Finished,
    warm: Finished | None,
    cost: GradientCost | None,
    num_chains: int,
) -> Result:
    """Bring draws to the constrained space and to (chain, draw, ...)."""
    positions, statistics, status = finished.kept
    posterior = constrain_draws(target, positions)
    swap = lambda leaf: np.swapaxes(np.asarray(leaf), 0, 1)
    sample_stats = {name: swap(leaf) for name, leaf in statistics.items()}
    sample_stats["status"] = swap(status)
    if "step_size" in chains.sampler.parameters:
        step_size = np.asarray(chains.sampler.parameters["step_size"])
        sample_stats["step_size"] = np.broadcast_to(
            step_size[:, None], sample_stats["lp"].shape
        ).copy()
    warmup_gradients = _num_gradients(cost, warm)
    return Result(
        posterior={name: swap(leaf) for name, leaf in posterior.items()},
        sample_stats=sample_stats,
        num_gradients=_num_gradients(cost, finished),
        num_gradients_warmup=None if warmup_gradients is None else warmup_gradients + num_chains,
        status=status_counts(finished.tally["status"]),
        status_warmup=status_counts(warm.tally["status"] if warm else np.zeros(len(Status), int)),
        parameters=jax.tree.map(np.asarray, chains.sampler.parameters),
        target=target,
    )


@eqx.filter_jit
def constrain_draws(target: Any, positions: Any) -> dict[str, jax.Array]:
    """Constrain positions with two leading axes; rows are mapped, so that memory stays bounded."""
    return jax.lax.map(jax.vmap(target.constrain), positions)


def _complain(result: Result, moved: np.ndarray, on_failure: str) -> None:
    """Speak up about stuck chains and steps that went wrong."""
    problems = []
    total = sum(result.status.values())
    stuck = np.flatnonzero(moved == 0)
    if stuck.size and total >= _ENOUGH_STEPS * len(moved):
        problems.append(
            f"chains {stuck.tolist()} never moved: every proposal was rejected; try a smaller "
            "step_size or a longer warm-up"
        )
    bad = {name: n for name, n in result.status.items() if n and name != Status.OK.name.lower()}
    # Proposals outside a bounded support are an ordinary rejection, not a fault.
    bad.pop(Status.OUTSIDE_SUPPORT.name.lower(), None)
    for name, count in bad.items():
        problems.append(f"in {count} of {total} steps {Status[name.upper()].sentence}")
    if not problems or on_failure == "ignore":
        return
    message = "; ".join(problems)
    if on_failure == "raise":
        raise SamplingError(message, result)
    warnings.warn(message, SamplingWarning, stacklevel=3)


def _name(sampler: Any) -> str:
    if isinstance(sampler, str):
        return sampler
    if isinstance(sampler, functools.partial):
        sampler = sampler.func
    build = getattr(sampler, "build", sampler)
    word = dict(getattr(sampler, "options", ())).get("word")
    name = word or getattr(build, "__name__", None) or type(build).__name__
    return str(name).removeprefix("_build_").lower()


def _check_numbers(lowest: int = 1, **numbers: Any) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < lowest:
            raise ValueError(f"{name} must be at least {lowest}, got {value}")


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")
