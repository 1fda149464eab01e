"""Matrix-valued SVGD: the kernel and the moves take the shape of the target.

With a matrix Q(x) that is large where and along which the density falls off quickly (the mean of
the curvatures H_i = -∇² log π(x_i), or of Fisher's information), the kernel Q⁻¹ k(|x - y|_Q²),
|v|_Q² = vᵀQv, in Stein's operator moves the particles along

    φ(x) = Q⁻¹ (1/n) Σ_j [ k(x_j, x) s_j + ∇_{x_j} k(x_j, x) ].                         (average)

That is SVGD in the coordinates in which Q is one: it follows any linear map of space that the
curvatures follow (Hessians do, where no eigenvalue is set to zero), and no target is badly scaled.
Where the curvature differs from place to place, the mixture of such kernels around
anchors z_l with Q_l,

    K(x, x') = Σ_l w_l(x) Q_l⁻¹ k(|x - x'|²_{Q_l}) w_l(x'),   w_l(x) ∝ N(x; z_l, Q_l⁻¹),
    φ(x) = (1/n) Σ_l w_l(x) Q_l⁻¹ Σ_j [ w_l k s_j + ∇_{x_j} (w_l k) ](x_j, x),          (mixture)

gives each region its own. The anchors are the particles, and Q_l is half of their mean curvature
and half of H_l, as in the authors' code. It moves slower: kernels around different anchors do not
see each other.

On a logistic regression with 40,000 rows and 55 features, batches of 256 and 20 particles, the
average with Fisher's information and ``optax.sgd(0.5)`` has a test log likelihood within 0.01 of
the best after 12 updates, SVGD after 67 with Adam and 82 at the best of three constant rates.

As in `svgd` a finite ensemble is a biased quadrature rule; on a Gaussian the bias is that of SVGD
on the standard normal law.

Reference: Wang, Tang, Bajaj and Liu, "Stein variational gradient descent with matrix-valued
kernels", NeurIPS 2019, section 3.2, equations 11 (average) and 13 (mixture).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from shoal.sampling.core import pairwise
from shoal.sampling.core._checks import choice, real_parameter
from shoal.sampling.core._hyperparameters import check_positive, make_sampler
from shoal.sampling.core._kernel_sums import dot
from shoal.sampling.core.algorithm import Algorithm, LogDensity, Sampler
from shoal.sampling.core.kernels import Kernel
from shoal.sampling.stein._direction import Direction, Ensemble, stein_direction
from shoal.sampling.stein._ensemble import Method
from shoal.sampling.stein._metric import (
    Curvature,
    check_curvature,
    check_radial,
    curvatures,
    whiten,
)
from shoal.sampling.stein._options import Bandwidth, check_bandwidth, check_optimizer

# One object, so that samplers made with it share their compiled programs.
_SGD = optax.sgd(0.5, momentum=0.9)


def matrix_svgd(
    kernel: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    *,
    preconditioner: str = "average",
    curvature: Curvature = None,
    bandwidth: str | float = "tracked",
    decay: float = 0.0,
    damping: float = 0.0,
) -> Sampler:
    """SVGD with a matrix-valued kernel, preconditioned by the curvature of the target.

    Parameters
    ----------
    kernel
        A function of the distance from `shoal.sampling.core.kernels`, used at the distances
        |x - y|_Q / √h. None is the inverse multiquadric ``IMQ(1.0)``.
    optimizer
        Any optax transformation; it is given -φ. None is ``optax.sgd(0.5, momentum=0.9)``;
        with minibatches take a rate of 0.1 to 0.5 without momentum. One that scales each
        coordinate, such as Adam, undoes the preconditioning.
    preconditioner
        ``"average"``: one Q for all of space. ``"mixture"``: one around each particle, for targets
        whose shape changes from place to place.
    curvature
        ``curvature(position)``, or ``curvature(position, batch)`` with minibatches: H_i, ``(d, d)``
        in the order of the raveled position, positive semi-definite, such as Fisher's information
        (`gauss_newton`). None is the Hessian of the negative log density (of the minibatch's
        estimate, where there are minibatches) with negative eigenvalues set to zero.
    bandwidth
        h as in `svgd`, of squared distances |x - y|²_Q (with a mixture too, of the mean's Q): some
        2 d in a target's bulk.
    decay
        In [0, 1): Q is the average of mean curvatures with weights that fall by this factor from
        step to step. 0 takes that of the step alone; for minibatches give 0.95.
    damping
        λ >= 0, added to Q as λ I, such as the precision of a prior that ``curvature`` lacks. Where
        the density is flat or turned up in some direction for most particles, Q is nearly singular
        and the step far too long; this bounds it.

    Returns
    -------
    Sampler
        As `svgd` returns. The n matrices H_i are computed in every step and kept, n d² numbers;
        without ``curvature`` they cost as much as n d gradients and n eigenvalue decompositions.
        The average costs about 4 n² d + 3 n d² multiplications besides, the mixture n² (4 d + 5 d²)
        and n² numbers of memory. No array is n x n x d.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible; ``init`` as for `svgd`; a step if ``curvature`` gives another
        shape.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference.run import run
    >>> from shoal.sampling import stein
    >>> scales = jnp.array([1e-2, 1.0, 1e2])
    >>> algorithm = stein.matrix_svgd()(lambda x: -0.5 * jnp.sum((x / scales) ** 2))
    >>> state = algorithm.init(scales * (3.0 + jax.random.normal(jax.random.key(0), (200, 3))))
    >>> state = run(jax.random.key(1), algorithm, state, 100).state
    >>> [f"{value:.1f}" for value in (state.position / scales).var(axis=0)]
    ['1.0', '1.0', '1.0']
    """
    choice("preconditioner", preconditioner, ("average", "mixture"))
    return make_sampler(
        _build_matrix_svgd,
        {"kernel": kernel, "bandwidth": bandwidth, "decay": decay, "damping": damping},
        {
            "kernel": check_radial,
            "bandwidth": check_bandwidth,
            "decay": _check_decay,
            "damping": check_positive("damping", allow_zero=True),
        },
        options=(
            ("curvature", check_curvature(curvature)),
            ("optimizer", check_optimizer(_SGD if optimizer is None else optimizer)),
            ("preconditioner", preconditioner),
        ),
        is_adjusted=False,
        is_ensemble=True,
    )


def _check_decay(decay: Any) -> Any:
    return real_parameter(
        "decay", decay, 0.0, 1.0, include_low=True, scalar=True, wanted="in [0, 1)"
    )


def _build_matrix_svgd(
    log_density: LogDensity,
    kernel: Kernel,
    bandwidth: Bandwidth,
    decay: Any,
    damping: Any,
    curvature: Curvature,
    optimizer: optax.GradientTransformation,
    preconditioner: str,
) -> Algorithm:
    def memory(points: jax.Array) -> Any:
        return bandwidth.start(points), jnp.zeros((points.shape[1],) * 2, points.dtype)

    def direction(key: jax.Array, ensemble: Ensemble) -> Direction:
        median, before = ensemble.memory
        matrices = curvatures(curvature, ensemble)
        mean = jnp.sum(matrices, 0) / ensemble.num_alive
        count = ensemble.num_steps.astype(mean.dtype)
        weight = jnp.minimum(count / (count + 1), jnp.asarray(decay, mean.dtype))
        mean = weight * before + (1 - weight) * mean
        white = whiten(mean, damping)
        points = white.points(ensemble.points)
        if median is not None:
            # The one at the start was of x.
            start = lambda: bandwidth.start(points, ensemble.alive)
            is_first = ensemble.num_steps == 0
            median = jax.lax.cond(is_first, start, lambda: median)
        h = bandwidth.at(points, ensemble.alive, median)
        here = ensemble._replace(
            points=points,
            score=white.score(ensemble.score),
            bandwidth=h,
            threshold=None if median is None else median.threshold,
        )
        if preconditioner == "average":
            found = stein_direction(kernel, here)
        else:
            own = white.curvature(matrices)
            found = _mixture(kernel, here, (own + jnp.eye(len(mean), dtype=mean.dtype)) / 2)
        median = bandwidth.follow(median, points, ensemble.alive, found.near)
        return Direction(white.back(found.phi), memory=(median, mean), bandwidth=h)

    method = Method(direction, optimizer, Bandwidth(1.0, None), memory=memory)
    return method.algorithm(log_density)


def _mixture(kernel: Kernel, ensemble: Ensemble, matrices: jax.Array) -> Direction:
    """Return the mixture's φ for Q_l ``(n, d, d)`` around the particles, equation 13."""
    points, score = ensemble.points, ensemble.score
    root, count = jnp.sqrt(ensemble.bandwidth), ensemble.num_alive
    whitenings = jax.vmap(whiten)(matrices)
    anchors = whitenings, matrices, points

    def log_weight(anchor: Any) -> jax.Array:
        white, _, center = anchor
        spread = jnp.sum(dot(points - center, white.factor) ** 2, 1)
        return jnp.sum(jnp.log(jnp.diagonal(white.factor))) - spread / 2

    logs = jnp.where(ensemble.alive[:, None], jax.lax.map(log_weight, anchors), -jnp.inf)
    weights = jax.nn.softmax(logs, axis=0)

    def add_pull(pull: jax.Array, entry: Any) -> tuple[jax.Array, None]:
        (_, matrix, center), weight = entry
        return pull + weight[:, None] * dot(points - center, matrix), None

    # ∇log w_l = Σ_m w_m Q_m (x - z_m) - Q_l (x - z_l).
    pull = jax.lax.scan(add_pull, jnp.zeros_like(points), (anchors, weights))[0]

    def add_anchor(phi: jax.Array, entry: Any) -> tuple[jax.Array, None]:
        (white, matrix, center), weight = entry
        gradient = score + pull - dot(points - center, matrix)
        counts = weight * ensemble.weights
        scaled = white.points(points) / root
        moves = pairwise.kernel_matvec_plus_grad_sum(
            kernel, scaled, scaled, counts[:, None] * white.score(gradient), counts / root
        ).total
        return phi + weight[:, None] * white.back(moves), None

    phi = jax.lax.scan(add_anchor, jnp.zeros_like(points), (anchors, weights))[0]
    return Direction(phi / count)
