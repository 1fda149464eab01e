"""Mitosis: every particle of a Stein ensemble becomes several, and the run goes on.

A run may begin with few particles, whose steps cost little, and end with many: SVGD's cost grows as
n², and a coarse ensemble near the target is a better start for a fine one than any other. Child c
of particle i is put at

    x_ic = x_i + a r_i diag(σ) (ξ_ic - mean_c ξ_ic) √(m / (m - 1)) / √d,    ξ ~ N(0, I),

with m children, σ the standard deviations of the d coordinates over the ensemble, r_i the distance
from particle i to its nearest neighbour in units of them, and a the ``spread``: the children stand
around their parent, at a part of the distance to the next one, and their mean is their parent.
"""

from typing import Any

import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import check_entries, integer, real_parameter
from shoal.sampling.core.algorithm import Algorithm
from shoal.sampling.core.mirror import MirrorMap
from shoal.sampling.core.particles import park_dead, to_matrix
from shoal.sampling.core.random import check_key, particle_keys
from shoal.sampling.stein._ensemble import SteinState


def split(
    key: jax.Array,
    algorithm: Algorithm,
    state: SteinState,
    *,
    num: int = 2,
    spread: float = 0.3,
    mirror: MirrorMap | None = None,
) -> SteinState:
    """Make several particles of each, around it.

    Parameters
    ----------
    key
        Typed key.
    algorithm
        The one that the state is of: it evaluates the new particles.
    state
        n particles; two at least alive, not all in one place.
    num
        Children of a particle, at least 2.
    spread
        Root mean square distance of children to their parent, in units of its distance to the
        nearest particle.
    mirror
        Mirror map of the algorithm: the children are put into the dual space. Needed for the state
        of a mirrored method, and for no other.

    Returns
    -------
    SteinState
        Of ``num * n`` particles; the children of particle i are ``num * i, ..., num * i + num - 1``
        and inherit what optimiser and memory hold of it. Children of the dead are dead. A child
        whose log density or gradient is not finite is dead, where its parent was. The bandwidth and
        the number of steps are carried on.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference.run import run
    >>> from shoal.sampling import stein
    >>> algorithm = stein.svgd()(lambda x: -0.5 * jnp.sum(x**2))
    >>> state = algorithm.init(3 + jax.random.normal(jax.random.key(0), (20, 2)))
    >>> state = run(jax.random.key(1), algorithm, state, 200).state
    >>> state = stein.split(jax.random.key(2), algorithm, state, num=5)
    >>> state.position.shape
    (100, 2)
    >>> state = run(jax.random.key(3), algorithm, state, 100).state
    >>> f"{state.position.var(axis=0).mean():.1f}"
    '1.0'
    """
    check_key(key)
    if not callable(getattr(algorithm, "init", None)):
        raise TypeError(f"algorithm must have init and step, got {algorithm!r}")
    if not isinstance(state, SteinState):
        raise TypeError(f"state must be a SteinState, got {type(state).__name__}")
    num = integer("num", num, 2)
    spread = real_parameter("spread", spread, 0.0, scalar=True)
    if (mirror is None) != (state.dual is None):
        is_mirrored = "is" if mirror is None else "is not"
        raise ValueError(f"mirror is {mirror}, but the state {is_mirrored} of a mirrored method")
    num_alive = jnp.sum(state.alive)
    check_entries("number of living particles in state", num_alive, lambda n: n > 1, "at least 2")
    return _split(key, algorithm, state, num, spread, mirror)


def _split(
    key: jax.Array,
    algorithm: Algorithm,
    state: SteinState,
    num: int,
    spread: Any,
    mirror: MirrorMap | None,
) -> SteinState:
    key_noise, key_batch = jax.random.split(key)
    points, from_matrix = to_matrix(state.position)
    parents = points if state.dual is None else state.dual
    repeat = lambda leaf: jnp.repeat(leaf, num, axis=0)
    children = repeat(parents) + _shifts(key_noise, parents, state.alive, num, spread)
    position = from_matrix(children if mirror is None else mirror.to_primal(children))
    # Within a program a start is not refused: a child's values are looked at here.
    made = jax.jit(algorithm.init)(position, key_batch)
    if mirror is not None:
        made = made._replace(dual=children)
    is_finite = jnp.isfinite(made.log_density) & jnp.isfinite(made.score).all(1)
    alive = repeat(state.alive) & is_finite & jnp.isfinite(children).all(1)
    own = lambda s: (s.position, s.dual, s.log_density, s.score)
    position, dual, log_density, score = jax.tree.map(
        lambda a, b: jnp.where(alive.reshape(-1, *[1] * (a.ndim - 1)), a, b),
        own(made),
        jax.tree.map(repeat, own(state)),
    )
    # What a new start of that many particles has more of is kept for each particle.
    inherit = lambda old, new: old if jnp.shape(new) == jnp.shape(old) else repeat(old)
    return state._replace(
        position=position,
        dual=dual,
        log_density=log_density,
        score=score,
        alive=alive,
        optimizer=jax.tree.map(inherit, state.optimizer, made.optimizer),
        memory=jax.tree.map(inherit, state.memory, made.memory),
    )


def _shifts(
    key: jax.Array, parents: jax.Array, alive: jax.Array, num: int, spread: Any
) -> jax.Array:
    """Return where children stand from their parents, ``(num * n, k)``; zero for the dead's."""
    count, dim = parents.shape
    parked = park_dead(parents, alive)
    sigma = jnp.std(parked, axis=0, where=alive[:, None])
    white = (parked - parked[0]) * jnp.where(sigma > 0, 1 / sigma, 0)

    def nearest(i: jax.Array) -> jax.Array:
        q = jnp.sum((white - white[i]) ** 2, axis=1)
        return jnp.min(jnp.where(alive & (jnp.arange(count) != i), q, jnp.inf))

    r = jnp.where(alive, jnp.sqrt(jax.lax.map(nearest, jnp.arange(count))), 0)
    draw = lambda k: jax.random.normal(k, (num, dim), parents.dtype)
    xi = jax.vmap(draw)(particle_keys(key, jnp.arange(count)))
    xi = (xi - jnp.mean(xi, axis=1, keepdims=True)) * jnp.sqrt(num / (num - 1) / dim)
    return (jnp.asarray(spread, xi.dtype) * r[:, None, None] * sigma * xi).reshape(-1, dim)
