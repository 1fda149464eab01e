"""Coin SVGD: SVGD without a learning rate, by betting on its directions.

A particle's coordinate bets on the next direction what it has won so far. With g_t = φ of one
coordinate at step t and all of the following kept for each coordinate,

    L_t = max(L_{t-1}, |g_t|),                       the largest direction seen,
    G_t = G_{t-1} + g_t,    A_t = A_{t-1} + |g_t|,   their sums,
    R_t = max(R_{t-1} + (x_t - x_0) g_t, 0),         what was won,
    x_{t+1} = x_0 + G_t / (L_t (A_t + L_t)) (L_t + R_t),

with L_0 = 1e-10 and zeros for the rest. The first steps are small, of length 1/2, then they grow as
long as directions agree; scales of different coordinates need no tuning. Near the fixed point it
oscillates with an amplitude that falls slowly; what it converges to is what SVGD does.

Reference: Sharrock and Nemeth, "Coin sampling: gradient-based Bayesian inference without learning
rates", ICML 2023, in the adaptive form of the authors' code; after Orabona and Tommasi, "Training
deep networks without learning rates through coin betting", NIPS 2017.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from shoal.sampling.core.algorithm import Sampler
from shoal.sampling.stein.svgd import svgd

_FIRST_SCALE = 1e-10


class CoinState(NamedTuple):
    """What coordinates have won; pytrees like the parameters.

    Attributes
    ----------
    offset
        x - x_0.
    scale
        L, the largest gradient.
    gradients, magnitudes
        G and A, the sums.
    reward
        R.
    """

    offset: Any
    scale: Any
    gradients: Any
    magnitudes: Any
    reward: Any


def coin_betting() -> optax.GradientTransformation:
    """Optimiser without a learning rate, by betting on each coordinate's gradients.

    Returns
    -------
    optax.GradientTransformation
        State `CoinState`. Minimises, as all of optax; its updates are those of the head of this
        module with g the negative gradient. Others may follow it in ``optax.chain`` only if they
        keep its updates as they are.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> from shoal.sampling import stein
    >>> optimizer = stein.coin_betting()
    >>> value = lambda x: (x[0] - 1.0) ** 2 + (1000 * x[1] - 2000.0) ** 2
    >>> def step(i, carry):
    ...     x, state = carry
    ...     updates, state = optimizer.update(jax.grad(value)(x), state)
    ...     return optax.apply_updates(x, updates), state
    >>> x = jnp.zeros(2)
    >>> x, _ = jax.jit(lambda x: jax.lax.fori_loop(0, 3000, step, (x, optimizer.init(x))))(x)
    >>> [f"{value:.2f}" for value in x]
    ['1.00', '2.00']
    """
    return _COIN


def coin_svgd(kernel: Any = None, *, bandwidth: str | float = "tracked") -> Sampler:
    """Stein variational gradient descent without a learning rate.

    Parameters
    ----------
    kernel, bandwidth
        As in `svgd`.

    Returns
    -------
    Sampler
        ``svgd(kernel, coin_betting(), bandwidth=bandwidth)``.

    Raises
    ------
    TypeError, ValueError
        As `svgd`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference.run import run
    >>> from shoal.sampling import stein
    >>> scale = jnp.array([0.01, 100.0])
    >>> algorithm = stein.coin_svgd()(lambda x: -0.5 * jnp.sum((x / scale) ** 2))
    >>> state = algorithm.init(scale * (3 + jax.random.normal(jax.random.key(0), (50, 2))))
    >>> state = run(jax.random.key(1), algorithm, state, 2000).state
    >>> [f"{value:.1f}" for value in abs(state.position.mean(axis=0) / scale)]
    ['0.0', '0.0']
    """
    return svgd(kernel, coin_betting(), bandwidth=bandwidth)


def _init(params: Any) -> CoinState:
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)
    scale = jax.tree.map(lambda leaf: jnp.full_like(leaf, _FIRST_SCALE), params)
    return CoinState(zeros(), scale, zeros(), zeros(), zeros())


def _update(updates: Any, state: CoinState, params: Any = None) -> tuple[Any, CoinState]:
    del params
    leaves, structure = jax.tree.flatten(updates)
    rows = zip(leaves, *map(jax.tree.leaves, state), strict=True)
    new = [_bet(-leaf, *row) for leaf, *row in rows]
    made = CoinState(*(jax.tree.unflatten(structure, column) for column in zip(*new, strict=True)))
    return jax.tree.map(jnp.subtract, made.offset, state.offset), made


def _bet(
    g: jax.Array,
    offset: jax.Array,
    scale: jax.Array,
    gradients: jax.Array,
    magnitudes: jax.Array,
    reward: jax.Array,
) -> tuple[jax.Array, ...]:
    scale = jnp.maximum(scale, jnp.abs(g))
    gradients = gradients + g
    magnitudes = magnitudes + jnp.abs(g)
    reward = jnp.maximum(reward + offset * g, 0)
    # Not one product in the denominator: it would underflow, or overflow, for small or large g.
    offset = gradients / (magnitudes + scale) * (1 + reward / scale)
    return offset, scale, gradients, magnitudes, reward


# One object, so that samplers made with it share their compiled programs.
_COIN = optax.GradientTransformation(_init, _update)
