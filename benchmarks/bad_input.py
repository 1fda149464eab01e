"""What becomes of bad input: Shoal, BlackJAX and NumPyro on the same rows.

The rows are those of the tests (``tests/faults``) that make sense for a sampler of one chain. Each
contender is used as its documentation shows, without warm-up. An outcome is silent where a call
returns draws that are NaN, never moved, are none or are of something else than was asked for, and
nothing it returns or warns of says so. Peers are credited with every warning, and with a step
marked as divergent.
"""

import functools
import runpy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from _harness import Report, parse_options
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import initialize_model

from shoal.inference import sample
from shoal.sampling import langevin

FAULTS = Path(__file__).parent.parent / "tests" / "faults"
TABLE = runpy.run_path(str(FAULTS / "bad_input_inference.py"))
KIND = TABLE["kind"]
# Where draws may be right: an old key is a key, dtypes may be promoted, True is one, and NUTS goes
# both ways in time.
HARMLESS = {
    "key | old-style key", "init | two dtypes", "num_samples | bool", "step_size | bool",
    "step_size | negative",
}  # fmt: skip
DENSITY_SLOTS = {
    "key": KIND.key(),
    "log_density": KIND.log_density(),
    "init": KIND.start(),
    "step_size": KIND.positive(0.5).without("ragged", "object"),
    "num_samples": KIND.count(20),
}
MODEL_SLOTS = {"model": TABLE["MODELS"], "model_args": TABLE["DATA"].without("number")}


class Problem(NamedTuple):
    """What a contender is to sample, one thing in it bad; a model in place of a log density."""

    key: Any
    step_size: Any = 0.5
    num_samples: Any = 20
    log_density: Any = None
    init: Any = None
    model: Any = None
    model_args: Any = ()


class Draws(NamedTuple):
    """Draws with a leading axis, and whether the result tells of trouble."""

    draws: Any
    is_reported: bool


def shoal(sampler: Callable[[Any, int], Any], problem: Problem) -> Draws:
    chosen = sampler(problem.step_size, 2)
    result = sample(
        problem.key, problem.log_density if problem.model is None else problem.model, chosen,
        model_args=problem.model_args, init=problem.init, num_chains=1, num_warmup=0,
        num_samples=problem.num_samples, progress=False,
    )  # fmt: skip
    draws = {name: value[0] for name, value in result.posterior.items()}
    return Draws(draws, bool(result.report()))


def shoal_nuts(step_size: Any, dim: int) -> Any:
    return functools.partial(blackjax.nuts, step_size=step_size, inverse_mass_matrix=jnp.ones(dim))


def blackjax_chain(algorithm: Callable[..., Any], problem: Problem) -> Draws:
    log_density, position = problem.log_density, problem.init
    if problem.model is not None:
        info, potential, *_ = initialize_model(
            problem.key, problem.model, model_args=problem.model_args
        )
        position, log_density = info.z, lambda z: -potential(z)
    dim = sum(map(np.size, jax.tree.leaves(position)))
    kernel = algorithm(log_density, problem.step_size, dim)
    state = kernel.init(position)

    @jax.jit
    def one_step(state, key):
        state, info = kernel.step(key, state)
        return state, (state.position, getattr(info, "is_divergent", False))

    keys = jax.random.split(problem.key, problem.num_samples)
    draws, divergent = jax.lax.scan(one_step, state, keys)[1]
    return Draws(draws, bool(np.any(divergent)))


def blackjax_mala(log_density: Any, step_size: Any, dim: int) -> Any:
    return blackjax.mala(log_density, step_size)


def blackjax_nuts(log_density: Any, step_size: Any, dim: int) -> Any:
    return blackjax.nuts(log_density, step_size=step_size, inverse_mass_matrix=jnp.ones(dim))


def numpyro_nuts(problem: Problem) -> Draws:
    options = dict(step_size=problem.step_size, adapt_step_size=False, adapt_mass_matrix=False)
    if problem.model is None:
        potential = lambda z: -problem.log_density(z)
        kernel = NUTS(potential_fn=potential, **options)
    else:
        kernel = NUTS(problem.model, **options)
    chain = MCMC(kernel, num_warmup=0, num_samples=problem.num_samples, progress_bar=False)
    start = {} if problem.model is not None else {"init_params": problem.init}
    chain.run(problem.key, *problem.model_args, extra_fields=("diverging",), **start)
    divergent = chain.get_extra_fields()["diverging"]
    return Draws(chain.get_samples(), bool(np.any(divergent)))


CONTENDERS = {
    "Shoal mala": functools.partial(shoal, lambda h, dim: langevin.mala(h)),
    "Shoal nuts": functools.partial(shoal, shoal_nuts),
    "BlackJAX mala": functools.partial(blackjax_chain, blackjax_mala),
    "BlackJAX nuts": functools.partial(blackjax_chain, blackjax_nuts),
    "NumPyro nuts": numpyro_nuts,
}


def outcome(run: Callable[[Problem], Draws], problem: Problem, is_harmless: bool) -> str:
    """Run a contender and say in a few words what came of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = run(problem)
            leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(found.draws)]
        except Exception as error:
            words = " ".join(str(error).split())
            return f"raises: {type(error).__name__}: {words}"
    told = [w for w in caught if issubclass(w.category, UserWarning) and "dtype" not in str(w)]
    what = fault(leaves)
    if is_harmless and what == "wrong":
        return "runs fine"
    return f"{'reported' if told or found.is_reported else 'silent'}: {what}"


def fault(leaves: list[np.ndarray]) -> str:
    """Say what is wrong with draws that were returned."""
    if not leaves or any(leaf.size == 0 for leaf in leaves):
        return "empty result"
    if any(leaf.dtype.kind == "f" and np.isnan(leaf).any() for leaf in leaves):
        return "NaN draws"
    if all(len(leaf) > 1 and (leaf == leaf[:1]).all() for leaf in leaves):
        return "never moved"
    return "wrong"


def problems() -> dict[str, Problem]:
    """Return the rows: every bad value of every slot, the others good."""
    rows = {}
    density = Problem(KIND.KEY, log_density=KIND.normal, init=jnp.zeros(2))
    model = Problem(KIND.KEY, model=TABLE["model"], model_args=(TABLE["Y"],))
    for base, slots in ((density, DENSITY_SLOTS), (model, MODEL_SLOTS)):
        for argument, slot in slots.items():
            for row, bad in slot.bad.items():
                value = bad.make(slot.good)
                rows[f"{argument} | {row}"] = base._replace(**{argument: value})
    return rows


def main() -> None:
    options = parse_options("Outcomes of bad input: Shoal, BlackJAX and NumPyro")
    report = Report(options)
    rows = problems()
    if options.quick:
        rows = dict(list(rows.items())[::4])
    silent = dict.fromkeys(CONTENDERS, 0)
    width = max(map(len, rows))
    print(f"{'row':{width}}  " + "  ".join(f"{name:30}" for name in CONTENDERS))
    for name, problem in rows.items():
        found = {
            contender: outcome(run, problem, name in HARMLESS)
            for contender, run in CONTENDERS.items()
        }
        for contender, words in found.items():
            silent[contender] += words.startswith("silent")
        print(f"{name:{width}}  " + "  ".join(f"{words[:30]:30}" for words in found.values()))
    print("silent of", len(rows), silent)
    for contender, count in silent.items():
        method = contender.split()[1]
        if not contender.startswith("Shoal"):
            ours = silent[f"Shoal {method}"]
            name = f"silent failures in {len(rows)} rows, {method}, against {contender}"
            report.row(name, ours, count, ratio=ours, bar=0.0)
    report.finish()


if __name__ == "__main__":
    main()
