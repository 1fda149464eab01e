"""How many gradients a sampler's step evaluates, read off the program that JAX traces of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import jaxprs_in_params

_NAME = "shoal_counted_value_and_grad"


class GradientCost(NamedTuple):
    """Gradient evaluations of one step of one chain.

    Attributes
    ----------
    per_step
        Evaluations that happen in every step.
    per_iteration
        Evaluations in each iteration of a loop whose length depends on the data (a leapfrog step
        of NUTS). The number of iterations is what the step's info calls ``num_integration_steps``.
    """

    per_step: int
    per_iteration: int


def gradient_cost(make: Callable[[Any], Any], log_density: Callable, state: Any) -> GradientCost:
    """Count the gradient evaluations in ``make(log_density).step``.

    The log density is replaced by one whose gradient is a named subprogram; the step is traced,
    not run, and the calls of that name are counted through all loops and branches. Of a branch the
    dearer side counts.

    Parameters
    ----------
    make
        A sampler: ``make(log_density)`` has ``step(key, state)``.
    log_density
        Log density of one position.
    state
        A state of one chain; only its shapes matter.

    Raises
    ------
    TypeError
        If the algorithm differentiates in a way other than reverse mode.
    """
    evaluate = jax.jit(jax.value_and_grad(log_density))

    def named(position: Any) -> Any:
        return evaluate(position)

    named.__name__ = _NAME
    marked = jax.jit(named)

    @jax.custom_vjp
    def counted(position: Any) -> jax.Array:
        return log_density(position)

    def forward(position: Any) -> tuple[jax.Array, Any]:
        return marked(position)

    def backward(gradient: Any, cotangent: jax.Array) -> tuple[Any]:
        return (jax.tree.map(lambda g: cotangent * g, gradient),)

    counted.defvjp(forward, backward)
    step = lambda key, state: make(counted).step(key, state)
    jaxpr = jax.make_jaxpr(step)(jax.random.key(0), state).jaxpr
    return GradientCost(*_count(jaxpr))


def _count(jaxpr: Any) -> tuple[int, int]:
    """Return evaluations at fixed places and in loops of unknown length."""
    fixed = looped = 0
    for equation in jaxpr.eqns:
        if equation.params.get("name") == _NAME:
            # Mapped over replicas, one call evaluates as many values.
            fixed += equation.outvars[0].aval.size
            continue
        inside = [_count(inner) for inner in jaxprs_in_params(equation.params)]
        if not inside:
            continue
        primitive = equation.primitive.name
        if primitive == "cond":
            once, many = max(a for a, _ in inside), max(b for _, b in inside)
        else:
            once, many = sum(a for a, _ in inside), sum(b for _, b in inside)
        if primitive == "while":
            once, many = 0, once + many
        elif primitive == "scan":
            once = once * equation.params["length"]
        fixed, looped = fixed + once, looped + many
    return fixed, looped
