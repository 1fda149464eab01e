"""The protocol that every method follows, and the codes with which a step reports trouble.

A *sampler* is anything that, called with a log density, returns an object with ``init`` and
``step``. `Sampler` is the form this package gives its own: hyperparameters in, pytree out.
"""

import functools
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp

Position: TypeAlias = Any
LogDensity: TypeAlias = Callable[[Position], jax.Array]


class Algorithm(NamedTuple):
    """A method as two pure functions, call-compatible with ``blackjax.SamplingAlgorithm``.

    Attributes
    ----------
    init
        ``init(position, key=None) -> state``. ``position`` is one point, or for an ensemble
        method a pytree with a leading particle axis. ``state.position`` holds it again.
    step
        ``step(key, state) -> (state, info)``. ``key`` is used up by this one step. ``info.status``
        holds a `Status` code for each particle.
    """

    init: Callable[..., Any]
    step: Callable[[jax.Array, Any], tuple[Any, Any]]


class Status(IntEnum):
    """What happened to a particle in a step. Zero is the only good news.

    Examples
    --------
    >>> Status(3).sentence
    'the energy error of a step exceeded 1000: the step size is too large there'
    """

    OK = 0
    NONFINITE_LOG_DENSITY = 1
    NONFINITE_GRADIENT = 2
    DIVERGENCE = 3
    OUTSIDE_SUPPORT = 4
    MAX_ITERATIONS = 5
    FROZEN = 6

    @property
    def sentence(self) -> str:
        """The code in words."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.OK: "all went well",
    Status.NONFINITE_LOG_DENSITY: "the log density was NaN or +inf: the particle stayed",
    Status.NONFINITE_GRADIENT: "the gradient was not finite: the particle stayed",
    Status.DIVERGENCE: "the energy error of a step exceeded 1000: the step size is too large there",
    Status.OUTSIDE_SUPPORT: "the log density was -inf (outside the support): the particle stayed",
    Status.MAX_ITERATIONS: "the step's inner loop ended at its maximal number of iterations",
    Status.FROZEN: "the particle was frozen: it had failed before, or its weights or the bandwidth "
    "were degenerate",
}


def proposal_status(log_density: jax.Array, gradient_is_finite: jax.Array) -> jax.Array:
    """Judge a proposed point by its log density and gradient.

    Parameters
    ----------
    log_density
        Log density at the proposal, any shape.
    gradient_is_finite
        Boolean of the same shape: whether every entry of the gradient there is finite.

    Returns
    -------
    jax.Array
        int8 of the same shape: ``OK``, ``NONFINITE_LOG_DENSITY``, ``OUTSIDE_SUPPORT`` or
        ``NONFINITE_GRADIENT``, the first that applies.
    """
    status = jnp.where(gradient_is_finite, Status.OK, Status.NONFINITE_GRADIENT)
    status = jnp.where(log_density == -jnp.inf, Status.OUTSIDE_SUPPORT, status)
    broken = jnp.isnan(log_density) | (log_density == jnp.inf)
    return jnp.where(broken, Status.NONFINITE_LOG_DENSITY, status).astype(jnp.int8)


class Sampler(eqx.Module):
    """A method with its hyperparameters: a pytree that makes an `Algorithm` of a log density.

    Arrays and floats among the hyperparameters are leaves, so changing one compiles nothing.
    Integers, functions and strings are static.

    Attributes
    ----------
    build
        ``build(log_density, **parameters, **options) -> Algorithm`` (or any object with ``init``
        and ``step``). Static.
    parameters
        Dynamic hyperparameters by name.
    options
        Static hyperparameters, sorted ``(name, value)`` pairs.
    target_acceptance
        The acceptance rate to which warm-up tunes ``parameters["step_size"]``, in (0, 1), or
        None where the method has nothing to tune. Static.
    is_adjusted
        Whether the method itself accepts or rejects. Warm-up does it for one that does not, so that
        a step size tried too large cannot throw a chain out. Static.
    prepare
        Maps the value given for a parameter to the form held in ``parameters`` (a matrix to its
        factors, say), by name. Static.
    is_ensemble
        Whether ``init`` takes an ensemble, positions with a leading particle axis. Static.
    warm_up
        ``warm_up(chains, num_steps)`` returns the algorithm that tunes this sampler, as
        `shoal.inference.warmup.Warmup` is one; None for that one. Static.

    Examples
    --------
    >>> from shoal.sampling import langevin
    >>> sampler = langevin.mala(step_size=0.1)
    >>> sampler.replace(step_size=0.2).parameters["step_size"]
    0.2
    """

    build: Callable[..., Any] = eqx.field(static=True)
    parameters: dict[str, Any]
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True, default=())
    target_acceptance: float | None = eqx.field(static=True, default=None)
    is_adjusted: bool = eqx.field(static=True, default=True)
    prepare: tuple[tuple[str, Callable[[Any], Any]], ...] = eqx.field(static=True, default=())
    is_ensemble: bool = eqx.field(static=True, default=False)
    warm_up: Callable[[Any, int], Any] | None = eqx.field(static=True, default=None)

    def __call__(self, log_density: LogDensity) -> Any:
        """Return the `Algorithm` that moves particles towards ``log_density``."""
        return self.build(log_density, **self.parameters, **dict(self.options))

    def replace(self, **parameters: Any) -> "Sampler":
        """Return the same method with other hyperparameters; unknown names raise ``TypeError``."""
        unknown = sorted(set(parameters) - set(self.parameters))
        if unknown:
            raise TypeError(f"unknown hyperparameters {unknown}; known: {sorted(self.parameters)}")
        prepare = dict(self.prepare)
        prepared = {k: prepare[k](v) if k in prepare else v for k, v in parameters.items()}
        return eqx.tree_at(lambda s: s.parameters, self, {**self.parameters, **prepared})

    @staticmethod
    def from_partial(
        partial: functools.partial, target_acceptance: float | None = None
    ) -> "Sampler":
        """Wrap ``functools.partial(blackjax.nuts, step_size=..., ...)`` and the like.

        Floats and floating arrays among the keywords become dynamic, all else static.
        Positional arguments raise ``TypeError``: they would take the log density's place.
        """
        if partial.args:
            raise TypeError(
                f"sampler={partial} binds positional arguments {partial.args}; bind keywords only"
            )
        dynamic = {k: v for k, v in partial.keywords.items() if _is_dynamic(v)}
        static = sorted((k, v) for k, v in partial.keywords.items() if k not in dynamic)
        return Sampler(partial.func, dynamic, tuple(static), target_acceptance)


def _is_dynamic(value: Any) -> bool:
    """Whether a keyword's every leaf is a float or a floating array."""
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(
        isinstance(leaf, float)
        or (eqx.is_array_like(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating))
        for leaf in leaves
    )
