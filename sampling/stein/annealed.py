"""Annealed SVGD: repulsion first, so that particles spread over modes before they settle in them.

Each particle is moved along

    φ_i = (1/n) Σ_j [ γ(t) k(x_j, x_i) s_j + ∇_{x_j} k(x_j, x_i) ]

with γ from near zero, where particles only shun each other, up to 1, where the method is SVGD. With
T steps in all, C cycles of L = ⌊T/C⌋ steps and a power p, at step t = 0, 1, ...

    cyclic        γ = (((t mod L) + 1) / L)^p,  and 1 from the last cycle on;
    hyperbolic    γ = tanh((1.3 (t + 1) / T)^p),  and 1 from step T on.

The factor multiplies a mean over particles: at γ = 1 the law is that of SVGD, not the target's
n-th power. What it finds is spread as SVGD spreads it; how many particles a mode gets is not its
weight, but what the last cycle's start left there.

Reference: D'Angelo and Fortuin, "Annealed Stein variational gradient descent", AABI 2021, section
3. (NumPyro's ASVGD has a sum in place of the mean.)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from shoal.sampling.core._checks import choice, integer, real_scalar
from shoal.sampling.core._hyperparameters import check_positive, make_sampler
from shoal.sampling.core.algorithm import Algorithm, LogDensity, Sampler
from shoal.sampling.core.kernels import Kernel
from shoal.sampling.stein._direction import Direction, Ensemble, stein_direction
from shoal.sampling.stein._ensemble import Method
from shoal.sampling.stein._options import (
    Bandwidth,
    check_bandwidth,
    check_kernel,
    check_optimizer,
)

SCHEDULES = ("cyclic", "hyperbolic")


def annealed_svgd(
    kernel: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    *,
    num_steps: int,
    schedule: str | Callable[[jax.Array], jax.Array] = "cyclic",
    num_cycles: int = 10,
    power: float = 10.0,
    bandwidth: str | float = "tracked",
) -> Sampler:
    """Annealed Stein variational gradient descent, for targets with several modes.

    Parameters
    ----------
    kernel, optimizer, bandwidth
        As in `svgd`. In a cycle the optimiser has to reach from mode to mode: give it a learning
        rate for that.
    num_steps
        Steps that the schedule is made for, T. Whatever is run beyond them is SVGD.
    schedule
        ``"cyclic"``, ``"hyperbolic"``, or a function of the number of steps made before (int32
        scalar, as optax's schedules) that returns γ, a scalar; see the head of this module.
    num_cycles
        C, from 2 to T: cycles of the cyclic schedule, the last one without annealing.
    power
        p, positive: how late in a cycle the scores come in.

    Returns
    -------
    Sampler
        As `svgd` returns. A step costs what one of SVGD does.

    Raises
    ------
    TypeError, ValueError
        As `svgd`; also for an unknown schedule or numbers out of range.

    Examples
    --------
    All particles start in one of two modes, from which SVGD would not leave:

    >>> import jax, jax.numpy as jnp, optax
    >>> from shoal.inference.run import run
    >>> from shoal.sampling import stein
    >>> log_density = lambda x: jnp.logaddexp(-0.5 * (x - 5) ** 2, -0.5 * (x + 5) ** 2)
    >>> algorithm = stein.annealed_svgd(None, optax.adam(0.2), num_steps=1000)(log_density)
    >>> state = algorithm.init(5 + jax.random.normal(jax.random.key(0), (50,)))
    >>> state = run(jax.random.key(1), algorithm, state, 1000).state
    >>> bool(0.2 < (state.position < 0).mean() < 0.8)
    True
    """
    num_steps = integer("num_steps", num_steps)
    num_cycles = integer("num_cycles", num_cycles, 2)
    if not callable(schedule):
        schedule = choice("schedule", schedule, SCHEDULES)
    if schedule == "cyclic" and num_cycles > num_steps:
        raise ValueError(f"num_cycles must be at most num_steps={num_steps}, got {num_cycles}")
    return make_sampler(
        _build_annealed_svgd,
        {"kernel": kernel, "bandwidth": bandwidth, "power": power},
        {"kernel": check_kernel, "bandwidth": check_bandwidth, "power": check_positive("power")},
        options=(
            ("num_cycles", num_cycles),
            ("num_steps", num_steps),
            ("optimizer", check_optimizer(optimizer)),
            ("schedule", schedule),
        ),
        is_adjusted=False,
        is_ensemble=True,
    )


def _build_annealed_svgd(
    log_density: LogDensity,
    kernel: Kernel,
    bandwidth: Bandwidth,
    power: Any,
    num_cycles: int,
    num_steps: int,
    optimizer: optax.GradientTransformation,
    schedule: str | Callable[[jax.Array], jax.Array],
) -> Algorithm:
    def gamma(step: jax.Array, dtype: Any) -> jax.Array:
        if not isinstance(schedule, str):
            return real_scalar("schedule", schedule(step)).astype(dtype)
        if schedule == "hyperbolic":
            fraction = (step + 1).astype(dtype) / num_steps
            return jnp.where(step < num_steps, jnp.tanh((1.3 * fraction) ** power), 1)
        length = num_steps // num_cycles
        rising = ((step % length + 1).astype(dtype) / length) ** power
        return jnp.where(step < (num_cycles - 1) * length, rising, 1)

    def direction(key: jax.Array, ensemble: Ensemble) -> Direction:
        factor = gamma(ensemble.num_steps, ensemble.points.dtype)
        return stein_direction(kernel, ensemble, factor * ensemble.score)

    return Method(direction, optimizer, bandwidth).algorithm(log_density)
