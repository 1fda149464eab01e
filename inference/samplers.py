"""What may stand as a sampler: ours, any BlackJAX algorithm, or a name."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from shoal.sampling import langevin
from shoal.sampling.core._checks import real_parameter
from shoal.sampling.core.algorithm import Sampler

NAMES = ("nuts", "auto", "malt", "mams", "mclmc", "mala", "ula", "baoab", "obabo")


def as_sampler(sampler: Any, positions: Any) -> tuple[Sampler, float | None]:
    """Return a `Sampler` and the acceptance rate to tune it for (None where there is none).

    Parameters
    ----------
    sampler
        A `Sampler`, a ``functools.partial`` of a BlackJAX algorithm, any other function of a log
        density, or one of `NAMES`.
    positions
        Positions of all chains, leading chain axis; tells the dimension.

    Raises
    ------
    TypeError, ValueError
        If ``sampler`` is none of these, or binds a step size that is not positive.
    """
    if isinstance(sampler, str):
        sampler = _by_name(sampler, positions)
    if isinstance(sampler, functools.partial):
        if "step_size" in sampler.keywords:
            step_size = sampler.keywords["step_size"]
            if not callable(step_size):  # a schedule of the stochastic-gradient methods
                real_parameter("step_size", step_size, 0.0, scalar=True)
        sampler = Sampler.from_partial(sampler, _blackjax_target(sampler.func))
    if isinstance(sampler, Sampler):
        return sampler, sampler.target_acceptance
    if callable(sampler) and not isinstance(sampler, type):
        return Sampler(sampler, {}), None
    raise TypeError(
        f"sampler must be a sampler such as langevin.mala(), a functools.partial of a BlackJAX "
        f"algorithm or one of {NAMES}, got {sampler!r}"
    )


def is_ensemble(sampler: Any) -> bool:
    """Whether a sampler moves ensembles of particles."""
    return isinstance(sampler, Sampler) and sampler.is_ensemble


def name_of(sampler: Any) -> str:
    """Return what to call a sampler in a report."""
    if isinstance(sampler, str):
        return sampler
    if isinstance(sampler, functools.partial):
        sampler = sampler.func
    if isinstance(sampler, Sampler):
        found = factory_of(sampler)
        if found is not None:
            return found
    build = getattr(sampler, "build", sampler)
    name = getattr(build, "__name__", None) or type(build).__name__
    return str(name).removeprefix("_build_").lower()


def factory_of(sampler: Sampler) -> str | None:
    """Name the factory of ``langevin.__all__`` that made a sampler, None if none of them did."""
    form = lambda s: (s.build, s.options, jax.tree.structure(s.parameters))
    names = (name for name in langevin.__all__ if form(getattr(langevin, name)()) == form(sampler))
    return next(names, None)


def _by_name(name: str, positions: Any) -> Any:
    if name in NAMES and name not in ("nuts", "mclmc"):
        return getattr(langevin, name)()
    import blackjax

    leaves = jax.tree.leaves(positions)
    dim = sum(leaf[0].size for leaf in leaves)
    one = jnp.ones(dim, leaves[0].dtype)
    if name == "nuts":
        return functools.partial(blackjax.nuts, step_size=0.5, inverse_mass_matrix=one)
    if name == "mclmc":
        length = float(dim) ** 0.5
        return functools.partial(
            blackjax.mclmc, L=length, step_size=length / 4, inverse_mass_matrix=one
        )
    raise ValueError(f"sampler must be one of {NAMES}, got {name!r}")


def _blackjax_target(algorithm: Any) -> float | None:
    """Return the acceptance rate that BlackJAX or the literature tunes an algorithm for."""
    import blackjax

    rates = {"nuts": 0.8, "hmc": 0.8, "mala": 0.574, "barker": 0.4}
    return next(
        (rate for name, rate in rates.items() if algorithm is getattr(blackjax, name)), None
    )
