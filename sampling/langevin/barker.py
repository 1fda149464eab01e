"""The Barker proposal: a gradient-based move that a steep gradient cannot throw far.

With inverse mass matrix M = L Lᵀ, c(x) = Lᵀ∇log π(x) and z_i ~ N(0, 2h), each coordinate of the
increment keeps its sign with probability σ(c_i z_i), σ(t) = 1 / (1 + exp(-t)), and flips it else:

    y = x + L w,    w_i = z_i with probability σ(c_i z_i), else -z_i.

The gradient only tilts the signs, so that a move is never longer than its noise. Where `mala` is
stuck, because its drift overshoots in light tails, `barker` goes on. For small h both follow the
same diffusion. The proposal has density 2 φ(w_i) σ(c_i w_i) in each coordinate of w, hence

    log a = log π(y) - log π(x) + Σ_i [softplus(-c_i(x) w_i) - softplus(c_i(y) w_i)],

which cannot overflow. It leaves π exactly invariant and costs one value and gradient a step.

As d → ∞ the best acceptance rate is 0.574, that of `mala`; the paper that proposed the method used
0.4. On standard normal laws in 2, 10 and 50 dimensions the expected squared jump is largest near
0.5, the target of the warm-up here, and within 10 % of that at either of the two.

References: Livingstone and Zanella, "The Barker proposal: combining robustness and efficiency in
gradient-based MCMC", JRSS B 84 (2022), section 3 and algorithm 2; Vogrinc, Livingstone and Zanella,
"Optimal design of the Barker proposal and other locally balanced Metropolis-Hastings algorithms",
Biometrika 110 (2023), for the limiting acceptance rate.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from shoal.sampling.core.algorithm import (
    Algorithm,
    LogDensity,
    Position,
    Sampler,
    Status,
    proposal_status,
)
from shoal.sampling.langevin.metric import Metric, as_metric
from shoal.sampling.langevin.options import check_positive, evaluate_start, make_sampler
from shoal.sampling.langevin.overdamped import OverdampedState, Scheme, adjusted


def barker(step_size: Any = 0.1, metric: Any = None) -> Sampler:
    """Barker's Metropolis-Hastings algorithm: exact, and robust to a wrong step size.

    Parameters
    ----------
    step_size
        h > 0, a float or scalar array: the increments have variance 2h in units of ``metric``, as
        those of `mala`. The initial value where warm-up tunes it, to an acceptance rate of 0.5.
    metric
        M, the inverse mass matrix: None (identity), scalar, ``(d,)`` diagonal, ``(d, d)`` or a
        `shoal.sampling.langevin.metric.low_rank`, over the raveled position.

    Returns
    -------
    Sampler
        Called with a log density, returns the `Algorithm`; state `OverdampedState`, info
        `OverdampedInfo`. Works in the dtype of the position.

    Raises
    ------
    TypeError, ValueError
        If ``step_size`` is not a positive number or ``metric`` not positive definite.

    Examples
    --------
    From far out on a quartic, whose gradient is 8000 there:

    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import langevin
    >>> algorithm = langevin.barker(step_size=0.5)(lambda x: -jnp.sum(x**4) / 4)
    >>> state = algorithm.init(jnp.array([20.0, -20.0]))
    >>> keys = jax.random.split(jax.random.key(0), 200)
    >>> state, info = jax.lax.scan(lambda s, k: algorithm.step(k, s), state, keys)
    >>> bool(jnp.abs(state.position).max() < 4)
    True
    """
    return make_sampler(
        _build,
        {"step_size": step_size, "metric": metric},
        {"step_size": check_positive("step_size"), "metric": as_metric},
        target_acceptance=0.5,
    )


def _build(log_density: LogDensity, step_size: Any, metric: Metric) -> Algorithm:
    def init(position: Position, key: jax.Array | None = None) -> OverdampedState:
        return OverdampedState(position, *evaluate_start(log_density, position, metric))

    def propose(
        key: jax.Array, state: OverdampedState
    ) -> tuple[OverdampedState, jax.Array, jax.Array]:
        key_size, key_sign = jax.random.split(key)
        x, unravel = ravel_pytree(state.position)
        scale = jnp.sqrt(2 * jnp.asarray(step_size, x.dtype))
        pull = metric.whiten(state.score)
        white = _tilted(key_size, key_sign, scale, pull)
        y = x + metric.color(white)
        value, score = jax.value_and_grad(lambda flat: log_density(unravel(flat)))(y)
        push = metric.whiten(score)
        tilt = jax.nn.softplus(-pull * white) - jax.nn.softplus(push * white)
        correction = jnp.sum(tilt)
        status = proposal_status(value, jnp.isfinite(correction))
        ratio = value - state.log_density + correction
        ratio = jnp.where(status == Status.OK, ratio, -jnp.inf)
        return OverdampedState(unravel(y), value, score), ratio, status

    return adjusted(Scheme(init, propose))


def _tilted(
    key_size: jax.Array, key_sign: jax.Array, scale: jax.Array, pull: jax.Array
) -> jax.Array:
    """Draw w: normal numbers whose signs lean towards those of ``pull``."""
    noise = scale * jax.random.normal(key_size, pull.shape, pull.dtype)
    uniform = jax.random.uniform(key_sign, pull.shape, pull.dtype)
    return jnp.where(uniform < jax.nn.sigmoid(pull * noise), noise, -noise)
