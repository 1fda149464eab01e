"""Local entropy (Entropy-SGD): the gradient of a smoothed loss, by an inner Langevin loop.

The loss f is replaced by its free energy in a neighbourhood of width 1/√γ,

    f_γ(x) = -T log ∫ exp(-(f(x') + γ|x' - x|²/2) / T) dx',    ∇f_γ(x) = γ (x - E[x']),

which is low where a minimum is wide rather than deep. The mean is that of the local Gibbs law, and
is estimated along L Langevin steps of size η from x' = x,

    x' ← x + e (x' - x) - ((1 - e)/γ) ∇f(x') + √(T (1 - e²)/γ) ξ,    e = e^(-γη),

that solve the pull towards x exactly and hold ∇f fixed, and so are stable for every γ. The mean is
estimated by the average of the points visited with weights ∝ βᴸ⁻ⁱ. On a quadratic f with Hessian A
the estimate's expectation tends to the exact γ A (A + γ I)⁻¹ x as L → ∞, at any step size for which
the loop is stable; for γη → ∞ it is ∇f(x) itself. What is biased: finite L underestimates it (the
loop has not left x far enough behind), and on other losses there is an error of order η.

Differences from the official code, whose loop is x' ← x' - η (∇f(x') + γ(x' - x)) + ε √(2η) ξ with
T = ε²: it is unstable for γη > 2, its average keeps the weight βᴸ of the start, and what it hands
on is x - E[x'] rather than γ times that, so that its learning rate is γ times the one here.

Reference: Chaudhari et al., "Entropy-SGD: biasing gradient descent into wide valleys", ICLR 2017,
algorithm 1; official code github.com/ucla-vision/entropy-sgd.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from shoal.sampling.core._checks import check_callable, integer, real_parameter
from shoal.sampling.core.random import check_key, step_key
from shoal.sampling.langevin.options import check_positive


class LocalEntropyState(NamedTuple):
    """State of `local_entropy`.

    Attributes
    ----------
    num_updates
        Number of updates made, int32.
    key
        Typed key of the run; the noise of an update is a function of it and of ``num_updates``.
        Replicas under ``vmap`` share it unless it is replaced (``state._replace(key=...)``).
    """

    num_updates: jax.Array
    key: jax.Array


def local_entropy(
    key: jax.Array,
    num_steps: int = 20,
    inner_step_size: Any = 0.1,
    scope: Any = 0.01,
    averaging: Any = 0.75,
    temperature: Any = 1e-8,
    grad_fn: Callable[..., Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Replace gradients of a loss by those of its local entropy.

    ``update(gradient, state, params, grad_fn=..., batches=...)`` returns an estimate of γ(x - E x')
    at x = ``params``. The gradient it is given serves the first inner step, so that an update costs
    L - 1 more. Learning rate and momentum go outside, by ``optax.chain``.

    Parameters
    ----------
    key
        Typed key of the noise.
    num_steps
        L >= 0. Zero passes gradients on unchanged.
    inner_step_size
        η > 0.
    scope
        γ > 0, a number or an optax schedule of the number of updates. Paper's scoping
        γ₀(1 + γ₁)ᵗ: ``optax.exponential_decay(gamma_0, 1, 1 + gamma_1)``.
    averaging
        β in [0, 1): 0 takes the last point, values near 1 average over 1/(1 - β) of them.
    temperature
        T >= 0; the paper's and the code's noise ε is √T (there 1e-4, nearly none).
    grad_fn
        ``grad_fn(params)``, or ``grad_fn(params, batch)`` where ``update`` gets ``batches``:
        gradient of f, of the structure of ``params``. May be given to ``update`` instead.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        State `LocalEntropyState`. ``batches`` is a pytree of arrays whose leading axis has L - 1
        entries, one for each inner step after the first.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range; from ``update``, if there are no ``params`` or no
        ``grad_fn``, or ``batches`` has not L - 1 rows.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> from shoal.sampling.langevin.local_entropy import local_entropy
    >>> loss = lambda x: jnp.sum(jnp.array([1.0, 4.0]) * x**2) / 2
    >>> optimizer = optax.chain(local_entropy(jax.random.key(0), scope=1.0), optax.sgd(0.5))
    >>> x = jnp.ones(2)
    >>> state = optimizer.init(x)
    >>> for _ in range(20):
    ...     updates, state = optimizer.update(jax.grad(loss)(x), state, x, grad_fn=jax.grad(loss))
    ...     x = optax.apply_updates(x, updates)
    >>> float(jnp.abs(x).max()) < 0.01
    True
    """
    check_key(key)
    num_steps = integer("num_steps", num_steps, 0)
    eta = check_positive("inner_step_size")(inner_step_size)
    temperature = check_positive("temperature", allow_zero=True)(temperature)
    wanted = "in [0, 1)"
    beta = real_parameter("averaging", averaging, 0.0, 1.0, True, scalar=True, wanted=wanted)
    if not callable(scope):
        scope = optax.constant_schedule(check_positive("scope")(scope))
    if grad_fn is not None:
        check_callable("grad_fn", grad_fn)
    default_grad_fn = grad_fn

    def init(params: Any) -> LocalEntropyState:
        return LocalEntropyState(jnp.zeros((), jnp.int32), key)

    def update(
        updates: Any,
        state: LocalEntropyState,
        params: Any = None,
        *,
        grad_fn: Callable[..., Any] | None = None,
        batches: Any = None,
        **extra: Any,
    ) -> tuple[Any, LocalEntropyState]:
        new_state = LocalEntropyState(optax.safe_increment(state.num_updates), state.key)
        if num_steps == 0:
            return updates, new_state
        gradient = _flat_gradient(grad_fn or default_grad_fn, params, batches, num_steps)
        x = ravel_pytree(params)[0]
        first, unravel = ravel_pytree(updates)
        numbers = (scope(state.num_updates), eta, beta, temperature)
        gamma, h, weight, heat = (jnp.asarray(number, x.dtype) for number in numbers)
        keys = jax.random.split(step_key(state.key, state.num_updates), num_steps)
        mean = _mean_distance(gradient, x, first, keys, batches, gamma, h, weight, heat)
        # The weights of the points visited sum to 1 - βᴸ.
        return unravel(-gamma / (1 - weight**num_steps) * mean), new_state

    return optax.GradientTransformationExtraArgs(init, update)


def _mean_distance(
    gradient: Callable[[jax.Array, Any], jax.Array],
    x: jax.Array,
    first: jax.Array,
    keys: jax.Array,
    batches: Any,
    gamma: jax.Array,
    h: jax.Array,
    weight: jax.Array,
    heat: jax.Array,
) -> jax.Array:
    """Walk from x, a step for each key, and average x' - x with weights (1 - β) βᴸ⁻ⁱ.

    ``first`` is the gradient at x, for the first step.
    """
    decay = jnp.exp(-gamma * h)
    slope = -jnp.expm1(-gamma * h) / gamma
    spread = jnp.sqrt(-jnp.expm1(-2 * gamma * h) * heat / gamma)

    def inner(distance: jax.Array, gradient: jax.Array, key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, x.shape, x.dtype)
        return decay * distance - slope * gradient + spread * noise

    def body(carry: Any, given: Any) -> tuple[Any, None]:
        distance, mean = carry
        key, batch = given
        distance = inner(distance, gradient(x + distance, batch), key)
        return (distance, weight * mean + (1 - weight) * distance), None

    distance = inner(jnp.zeros_like(x), first, keys[0])
    start = (distance, (1 - weight) * distance)
    (_, mean), _ = jax.lax.scan(body, start, (keys[1:], batches))
    return mean


def _flat_gradient(
    grad_fn: Callable[..., Any] | None, params: Any, batches: Any, num_steps: int
) -> Callable[[jax.Array, Any], jax.Array]:
    """Return ``gradient(flat point, batch)``, after checking what ``update`` was given."""
    if params is None:
        raise ValueError("params is None, but local entropy looks around them: give them to update")
    if grad_fn is None:
        raise ValueError(
            "grad_fn is None: give the gradient's function to update or to the factory"
        )
    check_callable("grad_fn", grad_fn)
    unravel = ravel_pytree(params)[1]
    if batches is None:
        return lambda x, batch: ravel_pytree(grad_fn(unravel(x)))[0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(batches):
        if jnp.shape(leaf)[:1] != (num_steps - 1,):
            name = f"batches{jax.tree_util.keystr(path)}"
            raise ValueError(
                f"{name} must have num_steps - 1 = {num_steps - 1} rows, got {jnp.shape(leaf)}"
            )
    return lambda x, batch: ravel_pytree(grad_fn(unravel(x), batch))[0]
