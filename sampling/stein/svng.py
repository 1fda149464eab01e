"""Stein variational natural gradient: SVGD that moves with a metric of the parameters.

With a metric G(θ), such as Fisher's information, and σ = G⁻¹∇log π + D_G, the particles move along

    φ_i = G_i⁻¹ Δ_i,    D_G,a = Σ_b ∂(G⁻¹)_ab/∂θ_b = -Σ_bcd (G⁻¹)_ab ∂_d G_bc (G⁻¹)_cd,

where Δ is the direction of `svmd` with G for the Hessian and σ for the dual score: Stein
variational mirror descent, seen from θ. No mirror map is needed, and none exists for most metrics.
For a constant metric, and without truncation, φ is that of SVGD multiplied by G⁻¹.

G may be estimated from minibatches. Each particle then follows an average of its matrices with
weights that fall by ρ_t = min(1 - 1/t, decay) at step t, and of the vectors Σ_cd ∂_d G_bc (G⁻¹)_cd,
d² + d numbers where the derivatives alone would be d³. So they lag behind a particle that moves
fast; give ``decay=0.0`` where the metric is exact.

Reference: Shi, Liu and Mackey, "Sampling with mirrored Stein operators", ICLR 2022, section 5,
algorithm 2.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_solve

from shoal.sampling.core._checks import check_callable, real_parameter
from shoal.sampling.core._hyperparameters import check_positive, make_sampler
from shoal.sampling.core.algorithm import Algorithm, LogDensity, Position, Sampler
from shoal.sampling.core.kernels import Kernel
from shoal.sampling.stein._adaptive_kernel import adaptive_direction
from shoal.sampling.stein._direction import Direction, Ensemble
from shoal.sampling.stein._ensemble import Method
from shoal.sampling.stein._mirror_sums import matrix_hessians
from shoal.sampling.stein._options import Bandwidth, check_bandwidth, check_optimizer
from shoal.sampling.stein.svmd import check_closed_form, check_truncation

# One object, so that samplers made with it share their compiled programs.
_SGD = optax.sgd(0.5)
# Numbers of derivatives of the metric that are held at once.
_BLOCK = 2**22


class Averages(NamedTuple):
    """What the particles have seen of the metric.

    Attributes
    ----------
    metric
        Averages of G_i, ``(n, d, d)``.
    slope
        Averages of Σ_cd ∂_d G_bc (G⁻¹)_cd, ``(n, d)``.
    """

    metric: jax.Array
    slope: jax.Array


@dataclasses.dataclass(frozen=True)
class GaussNewton:
    """The metric weight Jᵀ diag(curvature(f)) J; made by `gauss_newton`."""

    predict: Callable[..., jax.Array]
    curvature: Callable[[jax.Array], jax.Array] | None
    weight: float

    def __call__(self, position: Position, *batch: Any) -> jax.Array:
        """Return G, ``(d, d)``, in the order of the raveled position."""
        flat, unravel = ravel_pytree(position)
        predict = lambda point: jnp.ravel(self.predict(unravel(point), *batch))
        jacobian = jax.jacobian(predict)(flat)
        return self.weight * jacobian.T @ (self._curvature(predict(flat))[:, None] * jacobian)

    def product(self, point: jax.Array, vector: jax.Array, unravel: Any, *batch: Any) -> jax.Array:
        """Return G v at a raveled point, without the matrix."""
        predict = lambda point: jnp.ravel(self.predict(unravel(point), *batch))
        values, moved = jax.jvp(predict, (point,), (vector,))
        pull = jax.vjp(predict, point)[1]
        return self.weight * pull(self._curvature(values) * moved)[0]

    def _curvature(self, values: jax.Array) -> jax.Array:
        return jnp.ones_like(values) if self.curvature is None else self.curvature(values)


def gauss_newton(
    predict: Callable[..., jax.Array],
    curvature: Callable[[jax.Array], jax.Array] | None = None,
    weight: float = 1.0,
) -> GaussNewton:
    """Return the metric of Gauss and Newton, G = weight Σ_i c(f_i) ∇f_i ∇f_iᵀ, for `svng`.

    For a generalised linear model in its natural parameters f it is Fisher's information:
    ``curvature`` is the variance of an observation, p (1 - p) with p = σ(f) for logistic
    regression, exp f for Poisson. For least squares f are the residuals.

    Parameters
    ----------
    predict
        ``predict(position)``, or ``predict(position, batch)`` with minibatches: f, of any shape.
    curvature
        c, elementwise, not negative; None is 1.
    weight
        Positive number: N/B for batches of B among N observations.

    Raises
    ------
    TypeError, ValueError
        If a function is none or ``weight`` is no positive number.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling import stein
    >>> features = jnp.array([[1.0, 0.0], [1.0, 2.0]])
    >>> variance = lambda f: jax.nn.sigmoid(f) * jax.nn.sigmoid(-f)
    >>> fisher = stein.gauss_newton(lambda w: features @ w, variance)
    >>> fisher(jnp.zeros(2)).tolist()
    [[0.5, 0.5], [0.5, 1.0]]
    """
    check_callable("predict", predict)
    if curvature is not None:
        check_callable("curvature", curvature)
    real_parameter("weight", weight, 0.0, scalar=True)
    return GaussNewton(predict, curvature, float(weight))


def svng(
    metric: Callable[..., jax.Array],
    kernel: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    *,
    bandwidth: str | float = "tracked",
    truncation: float = 0.98,
    jitter: float = 1e-5,
    decay: float = 0.95,
    damping: float = 0.0,
) -> Sampler:
    """Stein variational natural gradient.

    Parameters
    ----------
    metric
        ``metric(position)``, where the log density comes from minibatches ``metric(position,
        batch)``: G, ``(d, d)`` in the order of the raveled position, positive semi-definite and
        differentiable. See `gauss_newton`. Its scale is that of the steps, so it should be that of
        the whole log density.
    kernel, truncation, jitter
        As in `svmd`, of the raveled positions.
    optimizer
        Any optax transformation; it is given -φ. None is ``optax.sgd(0.5)``: 1 would be Newton's
        step. One that scales each coordinate, such as Adam, undoes what the metric does.
    bandwidth
        h as in `svgd`.
    decay
        In [0, 1), of the average of metrics.
    damping
        λ >= 0, added to G as λ I: at least the precision of the prior, more for a metric from small
        batches.

    Returns
    -------
    Sampler
        As `svgd` returns; ``state.memory`` holds n d² averages. A step costs n gradients, metrics
        and derivatives of them along d directions, the eigenvalues of an n x n matrix, n d³ for
        inverses and n² d² for sums.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible; ``init`` as for `svgd`; a step if ``metric`` returns another
        shape.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference.run import run
    >>> from shoal.sampling import stein
    >>> scales = jnp.array([1e-2, 1.0, 1e2])
    >>> metric = stein.gauss_newton(lambda x: x / scales)
    >>> algorithm = stein.svng(metric)(lambda x: -0.5 * jnp.sum((x / scales - 3.0) ** 2))
    >>> state = algorithm.init(jax.random.normal(jax.random.key(0), (50, 3)) * scales)
    >>> state = run(jax.random.key(1), algorithm, state, 100).state
    >>> [f"{value:.1f}" for value in (state.position / scales).mean(axis=0)]
    ['3.0', '3.0', '3.0']
    """
    check_callable("metric", metric)
    return make_sampler(
        _build_svng,
        {
            "kernel": kernel,
            "bandwidth": bandwidth,
            "truncation": truncation,
            "jitter": jitter,
            "decay": decay,
            "damping": damping,
        },
        {
            "kernel": check_closed_form,
            "bandwidth": check_bandwidth,
            "truncation": check_truncation,
            "jitter": check_positive("jitter", allow_zero=True),
            "decay": _check_decay,
            "damping": check_positive("damping", allow_zero=True),
        },
        options=(
            ("metric", metric),
            ("optimizer", _SGD if optimizer is None else check_optimizer(optimizer)),
        ),
        is_adjusted=False,
        is_ensemble=True,
    )


def _build_svng(
    log_density: LogDensity,
    kernel: Kernel,
    bandwidth: Bandwidth,
    truncation: Any,
    jitter: Any,
    decay: Any,
    damping: Any,
    metric: Callable[..., jax.Array],
    optimizer: optax.GradientTransformation,
) -> Algorithm:
    def direction(key: jax.Array, ensemble: Ensemble) -> Direction:
        matrices = jax.vmap(_matrix(metric, ensemble))(ensemble.points)
        usable = ensemble.alive & jnp.isfinite(matrices).all((1, 2))
        rho = jnp.minimum(1 - 1 / (ensemble.num_steps + 1.0), decay).astype(matrices.dtype)
        average = lambda where, old, new: jnp.where(
            where.reshape(-1, *[1] * (new.ndim - 1)), rho * old + (1 - rho) * new, old
        )
        seen = average(usable, ensemble.memory.metric, matrices)
        eye = jnp.eye(seen.shape[1], dtype=seen.dtype)
        # In the place of a matrix that has never been finite any other will do.
        damped = jnp.where(usable[:, None, None], seen + damping * eye, eye)
        inverses = jax.vmap(lambda one: cho_solve((jnp.linalg.cholesky(one), True), eye))(damped)
        hessians = matrix_hessians(damped, inverses)
        slopes = _slopes(metric, ensemble, inverses)
        usable &= jnp.isfinite(slopes).all(1)
        slope = average(usable, ensemble.memory.slope, slopes)
        score = hessians.solve(ensemble.score - slope)
        num = jnp.maximum(jnp.sum(usable), 1).astype(seen.dtype)
        of_usable = ensemble._replace(
            alive=usable, num_alive=num, score=jnp.where(usable[:, None], score, 0)
        )
        found = adaptive_direction(kernel, of_usable, hessians, truncation, jitter)
        # A particle without a metric dies.
        phi = jnp.where(usable[:, None], hessians.solve(found.phi), jnp.nan)
        return Direction(phi, found.near, Averages(seen, slope))

    def memory(points: jax.Array) -> Averages:
        num, dim = points.shape
        return Averages(jnp.zeros((num, dim, dim), points.dtype), jnp.zeros_like(points))

    return Method(direction, optimizer, bandwidth, memory=memory).algorithm(log_density)


def _matrix(metric: Callable[..., jax.Array], ensemble: Ensemble) -> Callable[..., jax.Array]:
    """Return the metric as a function of a raveled point."""
    batch = () if ensemble.batch is None else (ensemble.batch,)
    dim = ensemble.points.shape[1]

    def matrix(point: jax.Array) -> jax.Array:
        found = metric(ensemble.unravel(point), *batch)
        if getattr(found, "shape", None) != (dim, dim):
            raise ValueError(
                f"metric must return an array ({dim}, {dim}) for a position of {dim} numbers, got "
                f"{getattr(found, 'shape', type(found).__name__)}"
            )
        return found.astype(point.dtype)

    return matrix


def _slopes(metric: Callable[..., jax.Array], ensemble: Ensemble, inverses: jax.Array) -> jax.Array:
    """Return Σ_cd ∂_d G_bc (G⁻¹)_cd, ``(n, d)``: the derivatives of G (G⁻¹)_:d along e_d."""
    batch = () if ensemble.batch is None else (ensemble.batch,)
    dim = ensemble.points.shape[1]
    product = lambda point, vector: _matrix(metric, ensemble)(point) @ vector
    if isinstance(metric, GaussNewton):
        product = lambda point, vector: metric.product(point, vector, ensemble.unravel, *batch)

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        point, inverse = pair
        along = lambda vector, axis: jax.jvp(lambda x: product(x, vector), (point,), (axis,))[1]
        return jnp.sum(jax.vmap(along)(inverse, jnp.eye(dim, dtype=point.dtype)), 0)

    size = min(len(inverses), max(1, _BLOCK // dim**3))
    return jax.lax.map(one, (ensemble.points, inverses), batch_size=size)


def _check_decay(value: Any) -> Any:
    wanted = "in [0, 1)"
    return real_parameter("decay", value, 0.0, 1.0, include_low=True, scalar=True, wanted=wanted)
