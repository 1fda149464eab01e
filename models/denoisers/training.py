"""Training of denoising networks: minibatches, labels dropped at random, averaged weights.

Each step draws a batch with replacement, replaces the labels of a tenth of it by "no label" (so
that one network knows the data with and without them, as classifier-free guidance needs; Ho and
Salimans 2022), and takes one step of an Optax optimizer on a loss of
`shoal.models.denoisers.losses`. What is returned are the averaged weights: after step n = 0, 1, ...

    average <- decay average + (1 - decay) weights,    decay = min(ema_decay, (1 + n) / (10 + n)).

A run is a pure function of its key; what it draws at a step does not depend on how steps are cut
into chunks.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from shoal.models.denoisers.losses import LOSSES, row_losses
from shoal.models.denoisers.network import PreconditionedNetwork
from shoal.sampling.core._checks import (
    check_callable,
    check_finite,
    integer,
    real_array,
    real_parameter,
)
from shoal.sampling.core.random import check_key, step_key

__all__ = ["TrainResult", "default_optimizer", "held_out_loss", "train"]


class TrainResult(NamedTuple):
    """What training returns.

    Attributes
    ----------
    network
        The network with averaged weights: sample from this one.
    losses
        Loss of each step's batch, ``(num_steps,)``, or fewer if it was stopped.
    last_network
        The network with the weights of the last step.
    """

    network: PreconditionedNetwork
    losses: np.ndarray
    last_network: PreconditionedNetwork


class _State(NamedTuple):
    weights: Any
    average: Any
    optimizer: Any


def train(
    key: jax.Array,
    network: PreconditionedNetwork,
    images: Any,
    labels: Any = None,
    *,
    num_steps: int,
    batch_size: int = 256,
    loss: str = "denoising",
    log_sigma: tuple[float, float] | None = None,
    optimizer: optax.GradientTransformation | None = None,
    label_dropout: float = 0.1,
    ema_decay: float = 0.999,
    residual: Callable[[jax.Array], jax.Array] | None = None,
    residual_weight: float = 0.1,
    residual_estimate: str = "mean",
    callback: Callable[[int, PreconditionedNetwork, float], Any] | None = None,
    chunk_size: int = 500,
) -> TrainResult:
    """Train a network to predict data from noisy data.

    Parameters
    ----------
    key
        A typed key.
    network
        Where to start, as from `residual_mlp`. Its arrays of floats are trained.
    images
        The data, ``(n, ...)``, float32 or float64.
    labels
        Classes ``(n,)``, integers from 0; None to train without.
    num_steps, batch_size
        Steps, and rows per step.
    loss
        ``"denoising"``, ``"flow"`` or ``"velocity"``: see `shoal.models.denoisers.losses`. Each
        trains the same network for the same use.
    log_sigma
        Mean and standard deviation of log sigma, in place of the law that belongs to the loss. For
        the flow (0, 1) is the logit-normal law of t (Esser et al. 2024).
    optimizer
        An Optax optimizer; `default_optimizer` if None.
    label_dropout
        Probability that a row is trained without its label.
    ema_decay
        Decay of the average of the weights.
    residual
        ``residual(x_0)``, ``(n, ...)`` to ``(n, r)``, zero for all data: physics. It adds
        ``residual_weight`` times `shoal.models.denoisers.losses.residual_penalty`.
    residual_weight
        Weight of that penalty.
    residual_estimate
        Where the residual is taken: at the prediction, ``"mean"``, or after a DDIM step of it to
        little noise and a second prediction there, ``"sample"``, at the cost of two calls.
    callback
        ``callback(step, network, loss)`` after each chunk, with the averaged network and the mean
        loss of the chunk. Training stops if it returns true.
    chunk_size
        Steps per compiled call.

    Returns
    -------
    TrainResult

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong; the message names it.
    FloatingPointError
        If the loss becomes infinite or NaN.

    Notes
    -----
    The prediction is the mean of the data given x. A residual that is zero for all data is not zero
    at their mean unless it is linear (the Jensen gap): at high noise the penalty pulls the
    prediction off the mean, and so samples off the law of the data. ``"sample"`` narrows the gap
    without closing it. Judge such a network by a distance to the data beside the residual.

    Examples
    --------
    >>> from shoal.models.denoisers.network import residual_mlp
    >>> images = jax.random.normal(jax.random.key(0), (64, 2))
    >>> network = residual_mlp(jax.random.key(1), 2, sigma_data=1.0, width=8, num_blocks=1)
    >>> result = train(jax.random.key(2), network, images, num_steps=20, batch_size=16)
    >>> result.losses.shape, bool(result.losses.mean() < 1.3)
    ((20,), True)
    """
    check_key(key)
    images, labels = _check_data(network, images, labels)
    num_steps, chunk_size = integer("num_steps", num_steps), integer("chunk_size", chunk_size)
    batch_size = integer("batch_size", batch_size)
    if callback is not None:
        check_callable("callback", callback)
    if optimizer is None:
        optimizer = default_optimizer(num_steps)
    elif not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"optimizer must be an Optax optimizer, got {type(optimizer).__name__}")
    weights, rest = eqx.partition(network, eqx.is_inexact_array)
    dropout = _check_probability("label_dropout", label_dropout)
    options = (
        *_check_loss(loss, log_sigma),
        *_check_residual(residual, residual_weight, residual_estimate),
    )

    def objective(weights: Any, key: jax.Array, images: jax.Array, labels: jax.Array) -> jax.Array:
        key_labels, key_loss = jax.random.split(key)
        labels = drop_labels(key_labels, labels, dropout, network.no_label)
        return jnp.mean(row_losses(key_loss, eqx.combine(weights, rest), images, labels, *options))

    decay = _check_probability("ema_decay", ema_decay)
    advance = _compiled(objective, optimizer, batch_size, decay)
    state = _State(weights, weights, optimizer.init(weights))
    losses: list[np.ndarray] = []
    for start in range(0, num_steps, chunk_size):
        numbers = jnp.arange(start, min(start + chunk_size, num_steps))
        state, values = advance(state, numbers, key, images, labels)
        losses.append(np.asarray(values))
        _check_losses(losses[-1], start)
        done, mean = start + len(numbers), float(losses[-1].mean())
        if callback is not None and callback(done, eqx.combine(state.average, rest), mean):
            break
    networks = [eqx.combine(part, rest) for part in (state.average, state.weights)]
    return TrainResult(networks[0], np.concatenate(losses), networks[1])


def _compiled(
    objective: Callable[..., jax.Array],
    optimizer: optax.GradientTransformation,
    batch_size: int,
    ema_decay: float,
) -> Callable[..., tuple[_State, jax.Array]]:
    """Return the function that takes steps of the given numbers, one compiled program."""

    def step(state: _State, number: jax.Array, key: jax.Array, images: Any, labels: Any) -> Any:
        key_batch, key_loss = jax.random.split(step_key(key, number))
        rows = jax.random.randint(key_batch, (batch_size,), 0, images.shape[0])
        value, gradient = jax.value_and_grad(objective)(
            state.weights, key_loss, images[rows], labels[rows]
        )
        update, memory = optimizer.update(gradient, state.optimizer, state.weights)
        weights = optax.apply_updates(state.weights, update)
        average = averaged(state.average, weights, number, ema_decay)
        return _State(weights, average, memory), value

    @jax.jit
    def advance(state: _State, numbers: jax.Array, *given: Any) -> tuple[_State, jax.Array]:
        return jax.lax.scan(lambda state, number: step(state, number, *given), state, numbers)

    return advance


def held_out_loss(
    key: jax.Array,
    network: PreconditionedNetwork,
    images: Any,
    labels: Any = None,
    *,
    loss: str = "denoising",
    log_sigma: tuple[float, float] | None = None,
    num_draws: int = 32,
) -> jax.Array:
    """Return the loss of a network on data it was not trained on, a scalar.

    Parameters
    ----------
    key, network, images, labels, loss, log_sigma
        As for `train`.
    num_draws
        Noise levels and noises per row of ``images``, over which the loss is averaged.

    Examples
    --------
    >>> from shoal.models.denoisers.network import residual_mlp
    >>> network = residual_mlp(jax.random.key(1), 2, sigma_data=1.0)
    >>> images = jax.random.normal(jax.random.key(0), (500, 2))
    >>> print(f"{held_out_loss(jax.random.key(2), network, images):.1f}")
    1.0
    """
    check_key(key)
    images, labels = _check_data(network, images, labels)
    keys = jax.random.split(key, integer("num_draws", num_draws))
    return _mean_loss(keys, network, images, labels, *_check_loss(loss, log_sigma))


@eqx.filter_jit
def _mean_loss(
    keys: jax.Array, network: Any, images: jax.Array, labels: jax.Array, loss: str, log_sigma: Any
) -> jax.Array:
    one = lambda key: jnp.mean(row_losses(key, network, images, labels, loss, log_sigma))
    return jnp.mean(jax.lax.map(one, keys))


def default_optimizer(
    num_steps: int, learning_rate: float = 2e-3, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Return Adam with clipped gradients, a linear warm-up and a cosine decay to zero.

    Parameters
    ----------
    num_steps
        Steps of the training; a twentieth of them is warm-up.
    learning_rate
        Its largest value.
    weight_decay
        Decoupled decay of the weights (AdamW).

    Examples
    --------
    >>> state = default_optimizer(100).init(jnp.zeros(3))
    """
    num_steps = integer("num_steps", num_steps)
    rate = real_parameter("learning_rate", learning_rate, 0.0, scalar=True)
    decay = real_parameter("weight_decay", weight_decay, 0.0, include_low=True, scalar=True)
    warmup = math.ceil(num_steps / 20)
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, warmup, max(num_steps, warmup + 1))
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=decay))


def averaged(average: Any, weights: Any, number: jax.Array, ema_decay: float) -> Any:
    """Return the average of the weights after step ``number`` (from 0)."""
    decay = jnp.minimum(ema_decay, (1 + number) / (10 + number))
    return jax.tree.map(
        lambda old, new: new + (decay * (old - new)).astype(new.dtype), average, weights
    )


def drop_labels(key: jax.Array, labels: jax.Array, probability: float, no_label: int) -> jax.Array:
    """Replace each label by ``no_label`` with a probability."""
    return jnp.where(jax.random.bernoulli(key, probability, labels.shape), no_label, labels)


def _check_data(network: Any, images: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    if not isinstance(network, PreconditionedNetwork):
        raise TypeError(f"network must be a PreconditionedNetwork, got {type(network).__name__}")
    images = real_array("images", images, (..., "d"))
    if images.ndim < 2 or not images.size:
        raise ValueError(f"images must have shape (n, ...) with n >= 1, got {images.shape}")
    check_finite("images", images)
    if labels is None:
        return images, jnp.full(images.shape[0], network.no_label)
    array = network.check_labels("labels", labels)
    if array.shape != images.shape[:1]:
        raise ValueError(
            f"labels must have shape ({images.shape[0]},), one for each image, got {array.shape}"
        )
    return images, array


def _check_choice(name: str, value: Any, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}; got {value!r}")


def _check_probability(name: str, value: Any) -> float:
    return float(real_parameter(name, value, 0.0, 1.0, include_low=True, scalar=True))


def _check_loss(loss: Any, log_sigma: Any) -> tuple[str, tuple[float, float] | None]:
    _check_choice("loss", loss, LOSSES)
    if log_sigma is None:
        return loss, None
    if not isinstance(log_sigma, tuple) or len(log_sigma) != 2:
        raise TypeError(f"log_sigma must be a pair (mean, standard deviation), got {log_sigma!r}")
    mean = real_parameter("log_sigma[0]", log_sigma[0], scalar=True)
    std = real_parameter("log_sigma[1]", log_sigma[1], 0.0, scalar=True)
    return loss, (float(mean), float(std))


def _check_residual(function: Any, weight: Any, estimate: Any) -> tuple[Any, float, str]:
    if function is not None:
        check_callable("residual", function)
    _check_choice("residual_estimate", estimate, ("mean", "sample"))
    weight = real_parameter("residual_weight", weight, 0.0, include_low=True, scalar=True)
    return function, float(weight), estimate


def _check_losses(values: np.ndarray, start: int) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise FloatingPointError(
            f"the loss is {values[bad[0]]} at step {start + bad[0]}: try a smaller learning rate"
        )
