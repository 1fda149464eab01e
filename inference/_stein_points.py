"""Points that stand for a law, found by minimising the Stein discrepancy over where they lie."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from shoal.inference._points import as_points
from shoal.inference._stein_discrepancy import scores_of, stein_kernel_or_default
from shoal.sampling.core import pairwise
from shoal.sampling.core._checks import check_callable, integer
from shoal.sampling.core._kernel_algebra import Kernel
from shoal.sampling.core._stein_sums import cast_kernel, stein_diagonal, stein_kernel_sum


class KSDDescent(NamedTuple):
    """Particles after a descent of the Stein discrepancy.

    Attributes
    ----------
    particles
        The best that were found, of the shape of the start.
    ksd
        Squared discrepancy at the start and after each step, shape ``(num_steps + 1,)``.
    """

    particles: jax.Array
    ksd: jax.Array


def stein_points(
    log_density: Callable[[Any], Any],
    candidates: Any,
    num: int,
    kernel: Kernel | None = None,
    *,
    num_starts: int = 4,
    num_steps: int = 20,
) -> jax.Array:
    """Lay points one by one, each where the discrepancy of those laid is then least.

        x_t = argmin_x  k_p(x, x) / 2 + sum_{i < t} k_p(x_i, x)

    over all x, with the Stein kernel k_p of `ksd`: an extensible sequence of points. Each search
    starts at the ``num_starts`` best candidates and follows the gradient by L-BFGS.

    Parameters
    ----------
    log_density
        Function of one point that returns a scalar, differentiable twice.
    candidates
        Places to start from, such as rough samples that cover the law, shape ``(m, ...)``, float32
        or float64.
    num
        How many points to lay.
    kernel
        As for `ksd`; the default's bandwidth is that of the candidates.
    num_starts
        Candidates that each search starts from, at most m.
    num_steps
        Steps of L-BFGS from each.

    Returns
    -------
    jax.Array
        Points in the order laid, shape ``(num, ...)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or the log density or its gradient is not finite at a
        candidate.

    Notes
    -----
    Chen, Mackey, Gorham, Briol and Oates, "Stein points", ICML 2018. The searches are
    local: a basin without a candidate is not found. Takes O(num (m + num_starts num_steps num) d)
    time beside the log density. The blind spots are those of `ksd`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.core.kernels import IMQ
    >>> rough = 2.0 * jax.random.normal(jax.random.key(0), (100, 1))
    >>> points = stein_points(lambda x: -0.5 * jnp.sum(x**2), rough, 3, IMQ(1.0))
    >>> [f"{abs(x):.1f}" for x in points.ravel().tolist()]
    ['0.0', '0.9', '0.9']
    """
    check_callable("log_density", log_density)
    num_steps = integer("num_steps", num_steps)
    x, s = _with_scores(log_density, candidates=candidates)
    kernel = cast_kernel(stein_kernel_or_default(kernel, x), x.dtype)
    num, num_starts = integer("num", num), integer("num_starts", num_starts)
    if num_starts > len(x):
        raise ValueError(f"num_starts must be at most the {len(x)} candidates, got {num_starts}")
    shape = candidates.shape[1:]
    points = _laid(log_density, shape, kernel, x, s, num, num_starts, num_steps)
    return points.reshape(num, *shape)


def ksd_descent(
    log_density: Callable[[Any], Any],
    particles: Any,
    num_steps: int = 100,
    kernel: Kernel | None = None,
) -> KSDDescent:
    """Move all particles together downhill on their squared discrepancy from a law.

        min over x_1 .. x_n of  1/n² sum_ij k_p(x_i, x_j)

    with the Stein kernel k_p of `ksd`, by L-BFGS: nothing to tune, and an objective that can be
    watched, unlike that of Stein variational gradient descent.

    Parameters
    ----------
    log_density
        Function of one particle that returns a scalar, differentiable twice.
    particles
        Start, shape ``(n, ...)``, float32 or float64.
    num_steps
        Steps of L-BFGS.
    kernel
        As for `ksd`; the default's bandwidth is that of the start, and stays.

    Returns
    -------
    KSDDescent
        ``(particles, ksd)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or the gradient of the log density is not finite at the
        start.

    Notes
    -----
    Korba, Aubin-Frankowski, Majewski and Ablin, "Kernel Stein discrepancy descent", ICML 2021. A
    step takes O(n² d) time and O(n d) memory beside the log density's Hessian-vector products.

    It stops at spurious minima: particles on a plane of symmetry of the law stay on it, those
    between two modes may stay between them, and those in one of several far modes stay there, as
    the KSD is blind to the modes' weights. Start from a wide cloud, or anneal.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.core.kernels import IMQ
    >>> start = 3.0 + jax.random.normal(jax.random.key(0), (30, 2))
    >>> end, ksd = ksd_descent(lambda x: -0.5 * jnp.sum(x**2), start, 50, IMQ(1.0))
    >>> print(f"{ksd[0]:.0f} {ksd[-1]:.3f} {abs(end.mean()):.1f}")
    11 0.008 0.0
    """
    check_callable("log_density", log_density)
    num_steps = integer("num_steps", num_steps)
    x, _ = _with_scores(log_density, particles=particles)
    kernel = cast_kernel(stein_kernel_or_default(kernel, x), x.dtype)
    best, values = _descended(log_density, particles.shape[1:], kernel, x, num_steps)
    return KSDDescent(best.reshape(particles.shape), values)


def _with_scores(log_density: Callable[[Any], Any], **named: Any) -> tuple[jax.Array, jax.Array]:
    """Return the points and the gradients there, flattened, if all are finite; else raise."""
    ((name, points),) = named.items()
    x = as_points(name, points)
    return x, scores_of("log_density", log_density, name, points)


def _score(log_density: Callable[[Any], Any], shape: tuple[int, ...]) -> Callable[[Any], Any]:
    return jax.grad(lambda x: log_density(x.reshape(shape)))


@eqx.filter_jit
def _laid(
    log_density: Callable[[Any], Any],
    shape: tuple[int, ...],
    kernel: Kernel,
    x: jax.Array,
    s: jax.Array,
    num: int,
    num_starts: int,
    num_steps: int,
) -> jax.Array:
    score = _score(log_density, shape)
    one = jnp.ones(1, x.dtype)

    def lay(carry: tuple[jax.Array, ...], t: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        points, scores, objective = carry
        is_laid = (jnp.arange(num) < t).astype(x.dtype)

        def value(y: jax.Array) -> jax.Array:
            s = score(y)[None]
            others = pairwise.stein_kernel_matvec(kernel, y[None], s, points, scores, is_laid)
            return (stein_diagonal(kernel, s) / 2 + others)[0]

        starts = x[jax.lax.top_k(-objective, num_starts)[1]]
        found, values = jax.vmap(lambda start: _minimised(value, start, num_steps))(starts)
        best = found[jnp.argmin(jnp.min(values, axis=1))]
        its = score(best)
        added = pairwise.stein_kernel_matvec(kernel, x, s, best[None], its[None], one)
        return (points.at[t].set(best), scores.at[t].set(its), objective + added), None

    # Any finite points do where none is laid yet.
    places = [jnp.broadcast_to(array[:1], (num, x.shape[1])) for array in (x, s)]
    start = (*places, stein_diagonal(kernel, s) / 2)
    return jax.lax.scan(lay, start, jnp.arange(num))[0][0]


@eqx.filter_jit
def _descended(
    log_density: Callable[[Any], Any],
    shape: tuple[int, ...],
    kernel: Kernel,
    x: jax.Array,
    num_steps: int,
) -> tuple[jax.Array, jax.Array]:
    score = jax.vmap(_score(log_density, shape))
    w = jnp.full(len(x), 1 / len(x), x.dtype)

    def value(x: jax.Array) -> jax.Array:
        s = score(x)
        return stein_kernel_sum(kernel, x, s, w)

    return _minimised(value, x, num_steps)


def _minimised(
    objective: Callable[[jax.Array], jax.Array], start: jax.Array, num_steps: int
) -> tuple[jax.Array, jax.Array]:
    """Minimise by L-BFGS; return the best place and the values, ``(num_steps + 1,)``."""
    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], jax.Array]:
        x, state, best, least = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = optimizer.update(
            grad, state, x, value=value, grad=grad, value_fn=objective
        )
        x = x + updates
        reached = optax.tree.get(state, "value")
        # A search along a line may fail, and climb or leave the numbers, at the end of digits.
        is_better = reached < least
        best, least = jnp.where(is_better, x, best), jnp.where(is_better, reached, least)
        return (x, state, best, least), reached

    first = objective(start)
    carry, values = jax.lax.scan(
        step, (start, optimizer.init(start), start, first), length=num_steps
    )
    return carry[2], jnp.concatenate([first[None], values])
