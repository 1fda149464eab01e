"""GENIE: Taylor steps whose derivative comes from a small network distilled for it.

In the coordinates x̄ = x / alpha and γ = sigma / alpha the noise that a network predicts changes
along the probability-flow equation as

    dε/dγ = ∂ε/∂γ + (∂ε/∂x̄) ε,

one Jacobian-vector product. A head learns it, so that a step of second order costs one call of the
network and one of the head (Dockhorn et al. 2022, eq. 13): from outputs k_1, k_2, k_3

    k = -k_1 / γ + γ k_2 / (γ² + s²) + s² k_3 / (γ (γ² + s²)),

with s the deviation of the data, and the loss γ² |k - dε/dγ|². The mixture is what the derivative
is made of for one datum (0) and for normal data (s² x̄ / (γ² + s²)²) at both ends of γ.

The head is given the network's own prediction of the noise, in training as in sampling. It is as
good as it was trained: the solver is of second order only as far as the head is exact.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from shoal.sampling.core import _checks, random
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import Schedule, unit_scales
from shoal.sampling.diffusion.program import Program
from shoal.sampling.diffusion.solver import LinearSolver, Problem, Record, Steps, execute
from shoal.sampling.diffusion.taylor import FORMS, Taylor

Slope: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

_NUM_FREQUENCIES = 4


class Head(eqx.Module):
    """A head: dε/dγ from a position, the predicted noise there and λ. Made by `distill_head`.

    Attributes
    ----------
    network
        Perceptron from ``2 d + 8`` to ``3 d`` numbers for events of d numbers.
    deviation
        s of the module's head.
    """

    network: eqx.nn.MLP
    deviation: jax.Array

    def __call__(self, position: jax.Array, noise: jax.Array, half_log_snr: jax.Array) -> jax.Array:
        """Return dε/dγ.

        Parameters
        ----------
        position, noise
            At unit variance, and the network's prediction there, ``(n, ...)``.
        half_log_snr
            λ, a scalar, or one for each sample, ``(n,)``.
        """
        n = position.shape[0]
        λ = jnp.broadcast_to(half_log_snr, (n,))[:, None]
        gamma = jnp.exp(-λ)
        total = gamma**2 + self.deviation**2
        flat = position.reshape(n, -1) * jnp.sqrt((1 + gamma**2) / total)
        angles = λ * 2.0 ** jnp.arange(-2, _NUM_FREQUENCIES - 2, dtype=λ.dtype)
        inputs = [flat, noise.reshape(n, -1), jnp.sin(angles), jnp.cos(angles)]
        k1, k2, k3 = jnp.split(jax.vmap(self.network)(jnp.concatenate(inputs, 1)), 3, 1)
        mixed = -k1 / gamma + gamma / total * k2 + self.deviation**2 / (gamma * total) * k3
        return mixed.reshape(position.shape)


class Distilled(Denoiser):
    """A denoiser whose derivative is from a head; that costs no call of the network."""

    base: Denoiser | None = None
    head: Slope | None = None

    @property
    def derivative_calls(self) -> int:
        """None: the head is not the network."""
        return 0

    def data(self, position: jax.Array, half_log_snr: jax.Array) -> jax.Array:
        assert self.base is not None
        return self.base.data(position, half_log_snr)

    def derivative(
        self, position: jax.Array, half_log_snr: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        assert self.head is not None
        alpha, sigma = unit_scales(half_log_snr)
        data = self.data(position, half_log_snr)
        slope = self.head(position, (position - alpha * data) / sigma, half_log_snr)
        if jnp.shape(slope) != position.shape:
            raise ValueError(
                f"head must return the shape of x, {position.shape}; got {jnp.shape(slope)}"
            )
        return data, (sigma / alpha) ** 2 * slope


@dataclasses.dataclass(frozen=True, eq=False)
class Genie(LinearSolver):
    """See `genie`."""

    head: Slope
    form: str

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        return Taylor(2, self.form).program(steps, num_steps, lower_order_final)

    def run(self, problem: Problem) -> tuple[jax.Array, Record]:
        table = self.program(problem.steps, problem.num_steps, problem.lower_order_final)
        given = problem.denoiser
        denoiser = Distilled(
            given.fn, given.prediction, given.schedule, given.num_calls, given, self.head
        )
        return execute(table, problem._replace(denoiser=denoiser))


def genie(head: Slope, form: str = "data") -> Genie:
    """Taylor steps of second order with the derivative from a head, one call a step.

    Parameters
    ----------
    head
        ``head(position, noise, half_log_snr)``: dε/dγ, of the shape of ``position``, where γ is
        sigma / alpha and ``position`` is at unit variance; ``noise`` is the prediction there. From
        `distill_head`, or your own. Calls of it are not in the record's ``num_calls``, which are
        those of the network.
    form
        ``"data"``, ``"noise"`` or, as published, ``"raw"``; see `taylor`.

    Returns
    -------
    LinearSolver
        For `solve`.

    Raises
    ------
    TypeError, ValueError
        For impossible arguments.

    References
    ----------
    Dockhorn, Vahdat and Kreis (2022), GENIE: Higher-order denoising diffusion solvers, section 3.

    Examples
    --------
    Of standard normal data the derivative is alpha³ x:

    >>> head = lambda x, noise, half_log_snr: x * jax.nn.sigmoid(2 * half_log_snr) ** 1.5
    >>> genie(head).form
    'data'
    """
    _checks.check_callable("head", head)
    return Genie(head, _checks.choice("form", form, FORMS))


def distill_head(
    key: jax.Array, denoiser: Denoiser, schedule: Schedule, samples: jax.Array,
    num_steps: int = 4000, *, batch_size: int = 256, learning_rate: float = 2e-3, width: int = 256,
    depth: int = 3,
) -> tuple[Head, jax.Array]:  # fmt: skip
    """Train a head for `genie` on exact derivatives of a denoiser.

    Noisy data are drawn at λ even between the schedule's ends; Adam, with gradients clipped to norm
    1, a warm-up over a tenth of the steps and a cosine after it. Pure; one compiled scan.

    Parameters
    ----------
    key
        Typed key.
    denoiser
        `Denoiser`; one without a schedule is taken to be trained on ``schedule``.
    schedule
        Between its ends, where λ must be finite, the head is trained.
    samples
        Data, ``(n, ...)``, float32 or float64.
    num_steps
        Steps of Adam.
    batch_size
        Noisy data in each.
    learning_rate
        Largest.
    width, depth
        Of the head's hidden layers.

    Returns
    -------
    Head
        For `genie`.
    jax.Array
        Losses, mean over entries, ``(num_steps,)``.

    Raises
    ------
    TypeError, ValueError
        For impossible arguments.

    References
    ----------
    Dockhorn, Vahdat and Kreis (2022), GENIE: Higher-order denoising diffusion solvers, section 3.2
    and algorithm 1; the released trainer gives the head the true noise in place of the predicted.

    Examples
    --------
    >>> from shoal.sampling.core.schedules import edm
    >>> denoiser = Denoiser(lambda x, t: x / (1 + t**2), "data", edm())
    >>> samples = jax.random.normal(jax.random.key(0), (100, 2))
    >>> head, losses = distill_head(
    ...     jax.random.key(1), denoiser, edm(), samples, 2, width=8, depth=1)
    >>> head(samples, samples, jnp.float32(0.0)).shape, losses.shape
    ((100, 2), (2,))
    """
    random.check_key(key)
    if not isinstance(denoiser, Denoiser):
        raise TypeError(f"denoiser must be a Denoiser, got {type(denoiser).__name__}")
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a Schedule, got {type(schedule).__name__}")
    samples = _checks.real_array("samples", samples, ("n", *np.shape(samples)[1:]))
    _checks.check_finite("samples", samples)
    for name, value in (("num_steps", num_steps), ("batch_size", batch_size), ("width", width)):
        _checks.integer(name, value)
    _checks.integer("depth", depth)
    rate = float(_checks.real_parameter("learning_rate", learning_rate, 0.0, scalar=True))
    ends = schedule.half_log_snr(np.array([schedule.t_max, schedule.t_min]))
    if not np.isfinite(ends).all():
        raise ValueError(f"schedule must have finite log(alpha / sigma) at its ends, got {ends}")
    network = perceptron(jax.random.fold_in(key, 0), samples.shape[1:], width, depth, samples.dtype)
    head = Head(network, jnp.std(samples))
    return _train(
        jax.random.fold_in(key, 1), head, denoiser.on(schedule), jnp.asarray(ends, samples.dtype),
        samples, _optimiser(rate, num_steps), num_steps, batch_size,
    )  # fmt: skip


def perceptron(
    key: jax.Array, event: tuple[int, ...], width: int, depth: int, dtype: Any
) -> eqx.nn.MLP:
    """Return a perceptron for a `Head` whose output is zero at first."""
    size = int(np.prod(event))
    shape = (2 * size + 2 * _NUM_FREQUENCIES, 3 * size)
    network = eqx.nn.MLP(*shape, width, depth, jax.nn.silu, dtype=dtype, key=key)
    last = lambda network: (network.layers[-1].weight, network.layers[-1].bias)
    return eqx.tree_at(last, network, replace_fn=jnp.zeros_like)


def _optimiser(learning_rate: float, num_steps: int) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, max(num_steps // 10, 1), max(num_steps, 2)
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def loss(
    head: Head, denoiser: Denoiser, key: jax.Array, samples: jax.Array, ends: jax.Array, num: int
) -> jax.Array:
    """Return the loss of a head on ``num`` noisy data drawn afresh."""
    pick, clock, normal = jax.random.split(key, 3)
    clean = samples[jax.random.randint(pick, (num,), 0, len(samples))]
    λ = jax.random.uniform(clock, (num,), samples.dtype, ends[0], ends[1])
    noise = jax.random.normal(normal, clean.shape, samples.dtype)

    def predict(clean: jax.Array, noise: jax.Array, λ: jax.Array) -> tuple:
        alpha, sigma = unit_scales(λ)
        position = alpha * clean + sigma * noise
        data, derivative = denoiser.derivative(position[None], λ)
        slope = derivative[0] * (alpha / sigma) ** 2
        return position, (position - alpha * data[0]) / sigma, slope

    position, predicted, slope = jax.lax.stop_gradient(jax.vmap(predict)(clean, noise, λ))
    gamma = jnp.exp(-λ).reshape(num, *[1] * (clean.ndim - 1))
    return jnp.mean(gamma**2 * (head(position, predicted, λ) - slope) ** 2)


@eqx.filter_jit
def _train(
    key: jax.Array, head: Head, denoiser: Denoiser, ends: jax.Array, samples: jax.Array,
    optimiser: optax.GradientTransformation, num_steps: int, batch_size: int,
) -> tuple[Head, jax.Array]:  # fmt: skip
    trained, fixed = eqx.partition(head, lambda leaf: eqx.is_array(leaf) and leaf.ndim > 0)

    def step(carry: Any, index: jax.Array) -> Any:
        trained, state = carry
        value, gradient = jax.value_and_grad(
            lambda trained: loss(
                eqx.combine(trained, fixed), denoiser, jax.random.fold_in(key, index), samples,
                ends, batch_size,
            )
        )(trained)  # fmt: skip
        updates, state = optimiser.update(gradient, state, trained)
        return (optax.apply_updates(trained, updates), state), value

    carry = (trained, optimiser.init(trained))
    (trained, _), losses = jax.lax.scan(step, carry, jnp.arange(num_steps))
    return eqx.combine(trained, fixed), losses
