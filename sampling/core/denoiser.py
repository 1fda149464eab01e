"""What a trained diffusion model, or an exact one, gives: `Denoiser`, and its forms.

With x = alpha x_0 + sigma z a network may be trained to predict

    "data"      x_0
    "noise"     z
    "velocity"  alpha z - sigma x_0, where alpha² + sigma² = 1
    "flow"      z - x_0
    "score"     -z / sigma

Each follows from any other and x, linearly. Solvers know the prediction of the data alone, at unit
variance; the conversion happens here and nowhere else.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from shoal.sampling.core import _checks
from shoal.sampling.core.schedules import Schedule, VariancePreserving, unit_scales

PREDICTIONS = ("data", "noise", "velocity", "flow", "score")
F = TypeVar("F", bound=Callable[[jax.Array, jax.Array], jax.Array])


class Denoiser(eqx.Module, Generic[F]):
    """A function that predicts the data from noisy data, in one of five forms.

    Parameters
    ----------
    fn
        ``fn(x, t)`` for ``x`` of shape ``(n, ...)`` and a scalar ``t`` of the same dtype; returns
        the prediction, of the shape of ``x``. May be a pytree (an Equinox module) whose arrays are
        then arguments of compiled programs.
    prediction
        What it predicts: ``"noise"``, ``"data"``, ``"velocity"``, ``"flow"`` or ``"score"``.
    schedule
        The schedule whose ``x`` and ``t`` it takes, that is, on which it was trained. None is for
        the one on which it is used. Another is converted to: a network trained on one schedule can
        be solved on all of them.
    num_calls
        Calls of a network that one evaluation costs: 2 where a batch is evaluated with and without
        a condition.

    Examples
    --------
    Of standard normal data, x_0 given x at unit variance has the mean alpha x.

    >>> from shoal.sampling.core.schedules import vp_linear
    >>> denoiser = Denoiser(lambda x, t: 0.5 * x, "data", vp_linear())
    >>> denoiser.data(jnp.ones((1, 2)), jnp.float32(0.0)).round(4)
    Array([[0.5, 0.5]], dtype=float32)
    """

    fn: F
    prediction: str = eqx.field(static=True, default="noise")
    schedule: Schedule | None = eqx.field(static=True, default=None)
    num_calls: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"fn must be a function fn(x, t), got {type(self.fn).__name__}")
        if self.prediction not in PREDICTIONS:
            raise ValueError(
                f"prediction must be one of {', '.join(PREDICTIONS)}; got {self.prediction!r}"
            )
        if self.schedule is not None and not isinstance(self.schedule, Schedule):
            raise TypeError(f"schedule must be a Schedule, got {type(self.schedule).__name__}")
        _checks.integer("num_calls", self.num_calls)
        if self.prediction == "velocity" and not isinstance(
            self.schedule, VariancePreserving | None
        ):
            raise ValueError(
                'prediction "velocity" needs a schedule with alpha² + sigma² = 1, got '
                f'{type(self.schedule).__name__}; of straight paths the velocity is "flow"'
            )

    def on(self, schedule: Schedule) -> "Denoiser[F]":
        """Return the denoiser for use on ``schedule``: its own stays, if it has one."""
        if self.schedule is not None:
            return self
        return Denoiser(self.fn, self.prediction, schedule, self.num_calls)

    @property
    def derivative_calls(self) -> int:
        """Calls of a network that a derivative costs beyond those of the prediction."""
        return self.num_calls

    def data(self, position: jax.Array, half_log_snr: jax.Array) -> jax.Array:
        """Predict the data from ``position`` at unit variance, alpha² + sigma² = 1.

        Parameters
        ----------
        position
            Shape ``(n, ...)``.
        half_log_snr
            λ, a scalar of the same dtype.

        Raises
        ------
        ValueError
            If the schedule is not known, or ``fn`` returns another shape.
        TypeError
            If ``fn`` returns another dtype.
        """
        if self.schedule is None:
            raise ValueError("the denoiser has no schedule: use denoiser.on(schedule)")
        alpha, sigma = self.schedule.scales(half_log_snr)
        x = position * jnp.hypot(alpha, sigma)
        value = self.fn(x, self.schedule.time(half_log_snr))
        if jnp.shape(value) != x.shape:
            raise ValueError(
                f"the denoiser must return the shape of x, {x.shape}; got {jnp.shape(value)}"
            )
        if jnp.result_type(value) != x.dtype:
            raise TypeError(
                f"the denoiser must return the dtype of x, {x.dtype}; got {jnp.result_type(value)}"
            )
        return convert(value, x, alpha, sigma, self.prediction, "data")

    def derivative(
        self, position: jax.Array, half_log_snr: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the prediction of the data and its total derivative in λ along the flow.

        One call and one Jacobian-vector product, which costs about one more. At unit variance the
        probability-flow equation is dx/dλ = alpha (x_0 - alpha x).
        """
        alpha, _ = unit_scales(half_log_snr)
        data, push = jax.linearize(self.data, position, half_log_snr)
        return data, push(alpha * (data - alpha * position), jnp.ones_like(half_log_snr))


def convert(
    value: jax.Array, x: jax.Array, alpha: Any, sigma: Any, given: str, wanted: str
) -> jax.Array:
    """Convert a prediction ``value`` at ``x`` from one form to another.

    Examples
    --------
    >>> convert(jnp.zeros(1), jnp.ones(1), 0.5, 0.5, "noise", "data")
    Array([2.], dtype=float32)
    """
    for name, form in (("given", given), ("wanted", wanted)):
        if form not in PREDICTIONS:
            raise ValueError(f"{name} must be one of {', '.join(PREDICTIONS)}; got {form!r}")
    if given == wanted:
        return value
    if given == "data":
        data = value
    elif given == "noise":
        data = (x - sigma * value) / alpha
    elif given == "velocity":
        data = alpha * x - sigma * value
    elif given == "flow":
        data = (x - sigma * value) / (alpha + sigma)
    else:
        data = (x + sigma**2 * value) / alpha
    if wanted == "data":
        return data
    noise = (x - alpha * data) / sigma
    return {
        "noise": noise,
        "velocity": alpha * noise - sigma * data,
        "flow": noise - data,
        "score": -noise / sigma,
    }[wanted]
