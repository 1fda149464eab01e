"""From a plan to draws: warm-up and sampling through the driver, and what is made of them."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from shoal._version import __version__
from shoal.inference import bias, checkpoint as checkpoint_file
from shoal.inference._draw_ensembles import move_ensembles, space_of, statistics
from shoal.inference._journal import Checkpoint, warn_unsaved
from shoal.inference._work import Finished
from shoal.inference.chains import Chains, Step, broadcast
from shoal.inference.failures import no_failures
from shoal.inference.gradients import GradientCost, gradient_cost
from shoal.inference.result import Result
from shoal.inference.run import run
from shoal.inference.samplers import as_sampler, is_ensemble, name_of
from shoal.inference.warmup import make_warmup, tune_mclmc
from shoal.sampling.core.algorithm import Status

# A chain that rejected fewer proposals than this in a row is not called stuck.
_ENOUGH_STEPS = 20


class Options(NamedTuple):
    """The numbers and words that `sample` was given."""

    num_chains: int
    num_warmup: int
    num_samples: int
    thin: int
    tune_metric: str | None
    target_acceptance: float | None


class Plan(NamedTuple):
    """All that determines the draws.

    Attributes
    ----------
    key
        The user's key.
    target
        What is sampled.
    sampler
        As it was given: ours, a BlackJAX algorithm or a name.
    positions
        Unconstrained starts, leading chain axis; for ensembles a particle axis follows.
    options
        `Options`.
    """

    key: jax.Array
    target: Any
    sampler: Any
    positions: Any
    options: Options

    @property
    def is_ensemble(self) -> bool:
        """Whether positions have a particle axis after that of the chains."""
        return is_ensemble(self.sampler)

    @property
    def first(self) -> Any:
        """The first start of all."""
        index = (0, 0) if self.is_ensemble else (0,)
        return jax.tree.map(lambda leaf: leaf[index], self.positions)


class Conduct(NamedTuple):
    """How the run is conducted, which changes no draw: devices, folder, progress."""

    mesh: Mesh | None
    checkpoint: Checkpoint | None
    progress: Any

    def phase(self, name: str) -> dict[str, Any]:
        """Options of the driver for one phase, whose folder lies within the run's."""
        folder = self.checkpoint
        if folder is not None:
            folder = folder._replace(directory=Path(folder.directory) / name)
        return {
            "phase": name, "describe": _describe, "progress": self.progress, "checkpoint": folder,
            "mesh": self.mesh, "on_failure": "ignore",
        }  # fmt: skip


def draw(plan: Plan, conduct: Conduct) -> tuple[Result, list[str]]:
    """Draw what a plan says; return it with what deserves attention, in sentences."""
    if plan.is_ensemble:
        return _draw_ensembles(plan, conduct)
    options = plan.options
    _, key_init, key_warmup, key_run = split_key(plan.key)
    kernel, own_target = as_sampler(plan.sampler, plan.positions)
    chains = Chains(
        broadcast(kernel, options.num_chains), plan.target, jnp.arange(options.num_chains)
    )
    states = _init_states(chains, plan.positions, key_init)
    cost = _gradient_cost(chains, states)
    chains, states, warm = _warm_up(
        chains, states, key_warmup, plan, options.target_acceptance or own_target, conduct
    )
    keep = _keep_with_scores if bias.has_scores(kernel, states) else _keep
    finished = run(
        key_run, chains, states, options.num_samples * options.thin,
        first_step=options.num_warmup, keep=keep, tally=_tally, thin=options.thin,
        **conduct.phase("sampling"),
    )  # fmt: skip
    result = _collect(plan, chains, finished, warm, cost)
    return result, _problems(finished, warm, options.num_chains)


def _draw_ensembles(plan: Plan, conduct: Conduct) -> tuple[Result, list[str]]:
    """Draw with an ensemble method: the particles after all steps are the draws."""
    options = plan.options
    _, *keys, _ = split_key(plan.key)
    space = space_of(plan.sampler, plan.target)
    state, finished, num_gradients = move_ensembles(
        space.sampler, space.target, space.enter(plan.positions), (keys[0], keys[1]),
        options.num_warmup, {**conduct.phase("sampling"), "describe": None},
    )  # fmt: skip
    positions = space.leave(state.position)
    stats, log_weights = statistics(plan.target, state, positions)
    problems = list(finished.problems)
    if finished.outcome == "interrupted":
        problems.append(f"interrupted after {finished.num_steps} of {options.num_warmup} steps")
    posterior = constrain_draws(plan.target, positions)
    result = Result(
        posterior={name: np.asarray(leaf) for name, leaf in posterior.items()},
        sample_stats=stats,
        log_weights=log_weights,
        outcome="interrupted" if finished.outcome == "interrupted" else "completed",
        num_gradients=num_gradients,
        num_gradients_warmup=options.num_chains * options.num_samples,
        status=finished.failures.by_name(),
        parameters=jax.tree.map(np.asarray, space.sampler.parameters),
        target=plan.target,
        attributes=_attributes(plan, 0.0, finished.seconds, finished.compile_seconds),
    )
    return result, problems


def split_key(key: jax.Array) -> jax.Array:
    """Make keys for starts, states, warm-up and sampling; all else folds in step and chain."""
    return jax.random.split(key, 4)


def _keep(states: Any, step: Step) -> Any:
    return states.position, step.statistics, step.status


def _keep_with_scores(states: Any, step: Step) -> Any:
    return *_keep(states, step), bias.scores(states)


def _tally(states: Any, step: Step) -> dict[str, jax.Array]:
    counted = ("acceptance_rate", "n_steps")
    tally = {name: step.statistics[name] for name in counted if name in step.statistics}
    return {"moved": step.moved.astype(jnp.int32), **tally}


def _tally_warmup(state: Any, step: Step) -> dict[str, jax.Array]:
    return _tally(state.chains, step)


def _describe(tally: dict[str, Any], steps: int) -> str:
    if "acceptance_rate" not in tally:
        return ""
    return f"acceptance {float(np.mean(tally['acceptance_rate'])) / steps:.2f}"


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
    steps = int(np.sum(finished.failures.count))
    iterations = int(np.sum(finished.tally.get("n_steps", 0)))
    return cost.per_step * steps + cost.per_iteration * iterations


def _warm_up(
    chains: Chains,
    states: Any,
    key: jax.Array,
    plan: Plan,
    target_acceptance: float | None,
    conduct: Conduct,
) -> tuple[Chains, Any, Finished | None]:
    """Run the warm-up that suits the sampler; return tuned chains, their states and the record."""
    num_steps = plan.options.num_warmup
    if num_steps == 0:
        return chains, states, None
    if isinstance(plan.sampler, str) and plan.sampler == "mclmc":
        sampler, record = _tuned_mclmc(chains, states, key, num_steps, conduct)
        return eqx.tree_at(lambda c: c.sampler, chains, sampler), record.state, record
    phase = conduct.phase("warm-up")
    own = chains.sampler.warm_up
    is_tuned = own is not None or "step_size" in chains.sampler.parameters
    if not is_tuned or target_acceptance is None:
        record = run(key, chains, states, num_steps, tally=_tally, **phase)
        return chains, record.state, record
    warmup: Any
    if own is not None:
        warmup = own(chains, num_steps)
    else:
        warmup = make_warmup(chains, num_steps, target_acceptance, plan.options.tune_metric)
    record = run(key, warmup, warmup.init(states), num_steps, tally=_tally_warmup, **phase)
    tuned = warmup.final_sampler(record.state)
    return eqx.tree_at(lambda c: c.sampler, chains, tuned), record.state.chains, record


def _tuned_mclmc(
    chains: Chains, states: Any, key: jax.Array, num_steps: int, conduct: Conduct
) -> tuple[Any, Finished]:
    """Tune MCLMC in one compiled call, whose outcome is what is saved."""
    path = None
    if conduct.checkpoint is not None:
        path = Path(conduct.checkpoint.directory) / "tuned.ckpt"
    start = time.perf_counter()
    if path is not None and path.exists():
        shapes = jax.eval_shape(lambda: (states, chains.sampler.parameters))
        (states, parameters), meta = checkpoint_file.load(path, shapes)
        sampler, steps = chains.sampler.replace(**parameters), meta["steps"]
    else:
        states, sampler, steps = tune_mclmc(chains, states, key, num_steps)
        if path is not None and jax.process_index() == 0:
            try:
                checkpoint_file.save(path, (states, sampler.parameters), {"steps": steps})
            except OSError as error:
                warn_unsaved(error)
    failures = no_failures(np)
    failures.count[Status.OK] = steps * chains.ids.size
    # One compiled call: what of its time was compiling is not known.
    seconds = time.perf_counter() - start
    return sampler, Finished(states, None, {}, failures, steps, "completed", (), seconds, 0.0)


def _collect(
    plan: Plan, chains: Chains, finished: Finished, warm: Finished | None, cost: GradientCost | None
) -> Result:
    """Bring draws to the constrained space and to (chain, draw, ...)."""
    positions, statistics, status, *scores = finished.kept
    posterior = constrain_draws(plan.target, positions)
    swap = lambda leaf: np.swapaxes(np.asarray(leaf), 0, 1)
    sample_stats = {name: swap(leaf) for name, leaf in statistics.items()}
    sample_stats["status"] = swap(status)
    if "step_size" in chains.sampler.parameters:
        step_size = np.asarray(chains.sampler.parameters["step_size"])
        shape = sample_stats["lp"].shape
        sample_stats["step_size"] = np.broadcast_to(step_size[:, None], shape).copy()
    warmup_gradients = _num_gradients(cost, warm)
    if warmup_gradients is not None:
        warmup_gradients += plan.options.num_chains
    was_interrupted = warm is not None and warm.outcome == "interrupted"
    return Result(
        posterior={name: swap(leaf) for name, leaf in posterior.items()},
        sample_stats=sample_stats,
        outcome="interrupted" if was_interrupted else finished.outcome,
        num_gradients=_num_gradients(cost, finished),
        num_gradients_warmup=warmup_gradients,
        status=finished.failures.by_name(),
        status_warmup=(warm.failures if warm else no_failures(np)).by_name(),
        parameters=jax.tree.map(np.asarray, chains.sampler.parameters),
        target=plan.target,
        bias=bias.estimate(positions, *scores) if scores else None,
        attributes=_attributes(
            plan,
            warm.seconds if warm else 0.0,
            finished.seconds,
            finished.compile_seconds + (warm.compile_seconds if warm else 0.0),
        ),
    )


def _attributes(plan: Plan, warmup: float, sampling: float, compiling: float) -> dict[str, Any]:
    """Return facts for the record; the last three are seconds."""
    return {
        "inference_library": "shoal",
        "inference_library_version": __version__,
        "sampler": name_of(plan.sampler),
        "num_warmup": plan.options.num_warmup,
        "thin": plan.options.thin,
        "key": str(jax.random.key_data(plan.key).tolist()),
        "warmup_time": warmup,
        "sampling_time": sampling,
        "compile_time": compiling,
    }


@eqx.filter_jit
def constrain_draws(target: Any, positions: Any) -> dict[str, jax.Array]:
    """Constrain positions with two leading axes; rows are mapped, so that memory stays bounded."""
    return jax.lax.map(jax.vmap(target.constrain), positions)


def _problems(finished: Finished, warm: Finished | None, num_chains: int) -> list[str]:
    """Say which chains got stuck, what went wrong, and how far an interrupted run came."""
    problems = []
    stuck = np.flatnonzero(finished.tally["moved"] == 0)
    if stuck.size and finished.num_steps >= _ENOUGH_STEPS:
        problems.append(
            f"chains {stuck.tolist()} never moved: every proposal was rejected; try a smaller "
            "step_size or a longer warm-up"
        )
    problems += finished.problems
    if warm is not None and warm.outcome == "interrupted":
        problems.append(f"interrupted in the warm-up, after {warm.num_steps} steps: no draws yet")
    elif finished.outcome == "interrupted":
        problems.append(f"interrupted after {finished.num_steps} steps of sampling")
    return problems
