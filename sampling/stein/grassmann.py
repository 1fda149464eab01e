"""Grassmann SVGD: in many dimensions, SVGD on projections that follow where the fit is worst.

SVGD's particles are too close together in many dimensions, where the kernel no longer tells near
from far. With projectors A_b, orthonormal columns (d, M) with M small, the particles move along

    φ_i = Σ_b A_b (1/n) Σ_j [ k(z_j, z_i) A_bᵀ s_j + ∇_{z_j} k(z_j, z_i) ],      z = A_bᵀ x,

which is a sum of SVGD's directions in M dimensions. Each projector moves, before, by a step of
Langevin dynamics on the Grassmann manifold up the projected kernelized Stein discrepancy,

    A <- QR( A + (I - A Aᵀ) (δ ∇_A KSD²(A) + √(2 T δ) ξ) ),

towards the subspace that tells the particles best from the target. The temperature T is raised
tenfold where the mean over particles of max_a |φ_ia| no longer changes, so that in the end the
projectors are random and all directions are served.

What is left of the marginal variances of a standard normal law in d coordinates, with n = 50, the
default kernel and optimiser, and B = d / M projections:

==============  ======  ======  =======
method          d = 10  d = 50  d = 100
==============  ======  ======  =======
`svgd`          0.89    0.59    0.30
M = 1           0.91    0.94    0.94
M = 2           0.93    0.94    0.93
M = 5           0.92    0.90    0.87
==============  ======  ======  =======

The particles do not come to rest, as the projectors do not; and a projection sees no dependence
between more than M directions. A finite ensemble stays a biased quadrature rule.

Reference: Liu, Zhu, Ton, Wynne and Duncan, "Grassmann Stein variational gradient descent", AISTATS
2022, section 4, algorithm 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from shoal.sampling.core import bandwidth as bandwidths
from shoal.sampling.core._checks import integer
from shoal.sampling.core._hyperparameters import check_positive, make_sampler
from shoal.sampling.core._kernel_sums import dot
from shoal.sampling.core._stein_sums import check_stein_kernel, stein_kernel_matvec
from shoal.sampling.core.algorithm import Algorithm, LogDensity, Sampler
from shoal.sampling.core.kernels import Kernel
from shoal.sampling.stein._direction import Direction, Ensemble
from shoal.sampling.stein._ensemble import Method
from shoal.sampling.stein._options import (
    Bandwidth,
    check_bandwidth,
    check_kernel,
    check_optimizer,
)
from shoal.sampling.stein._subspace import check_num_dims, direction_inside

# Numbers that a batch of projections may keep at a time for its pairs.
_PAIRS = 2**22
_LARGEST_TEMPERATURE = 1e6


class GrassmannMemory(NamedTuple):
    """What `grassmann_svgd` keeps in ``state.memory``.

    Attributes
    ----------
    projectors
        A_b, ``(num_projections, d, num_dims)``, columns orthonormal.
    temperature
        T, scalar.
    size
        Mean over particles of max_a |φ_ia| in the last step; infinite at first.
    median
        `shoal.sampling.core.bandwidth.TrackedMedian` of each projection; None for other rules.
    """

    projectors: jax.Array
    temperature: jax.Array
    size: jax.Array
    median: bandwidths.TrackedMedian | None


def grassmann_svgd(
    kernel: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    *,
    num_dims: int = 1,
    num_projections: int | None = None,
    bandwidth: str | float = "tracked",
    projector_step_size: float = 0.1,
    temperature: float = 1e-4,
    threshold: float = 1e-4,
) -> Sampler:
    """SVGD on projections that are learned on the Grassmann manifold.

    Parameters
    ----------
    kernel
        A function of the distance, twice differentiable, from `shoal.sampling.core.kernels`, used
        at z/√h. None is the inverse multiquadric ``IMQ(1.0)``.
    optimizer
        As in `svgd`.
    num_dims
        M, dimensions of a projection, at most d.
    num_projections
        Number of projectors, at first blocks of the coordinates in turn. None is d // M: they cover
        space once.
    bandwidth
        As in `svgd`, for each projection.
    projector_step_size
        δ, positive.
    temperature
        T at the start, positive.
    threshold
        Change of the mean size of φ, for each projector, below which T is raised tenfold (up to
        1e6).

    Returns
    -------
    Sampler
        As `svgd` returns; ``memory`` of the state is a `GrassmannMemory`, ``bandwidth`` of the info
        the mean over projections. A step costs, for B projections, n gradients and about 20 B n² M
        multiplications.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible; ``init`` as for `svgd`, and for more than d dimensions.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference.run import run
    >>> from shoal.sampling import stein
    >>> algorithm = stein.grassmann_svgd()(lambda x: -0.5 * jnp.sum(x**2))
    >>> state = algorithm.init(jax.random.normal(jax.random.key(0), (50, 20)))
    >>> state = run(jax.random.key(1), algorithm, state, 200).state
    >>> bool(state.position.var(axis=0).mean() > 0.9)
    True
    """
    num_projections = (
        None if num_projections is None else integer("num_projections", num_projections)
    )
    return make_sampler(
        _build_grassmann_svgd,
        {
            "kernel": kernel,
            "bandwidth": bandwidth,
            "projector_step_size": projector_step_size,
            "temperature": temperature,
            "threshold": threshold,
        },
        {
            "kernel": _check_kernel,
            "bandwidth": check_bandwidth,
            "projector_step_size": check_positive("projector_step_size"),
            "temperature": check_positive("temperature"),
            "threshold": check_positive("threshold", allow_zero=True),
        },
        options=(
            ("num_dims", integer("num_dims", num_dims)),
            ("num_projections", num_projections),
            ("optimizer", check_optimizer(optimizer)),
        ),
        is_adjusted=False,
        is_ensemble=True,
    )


def _check_kernel(kernel: Any) -> Kernel:
    return check_stein_kernel(check_kernel(kernel))


def _build_grassmann_svgd(
    log_density: LogDensity,
    kernel: Kernel,
    bandwidth: Bandwidth,
    projector_step_size: Any,
    temperature: Any,
    threshold: Any,
    num_dims: int,
    num_projections: int | None,
    optimizer: optax.GradientTransformation,
) -> Algorithm:
    def check(points: jax.Array) -> None:
        check_num_dims(num_dims, points.shape[1], "the number of coordinates")

    def memory(points: jax.Array) -> GrassmannMemory:
        dim, dtype = points.shape[1], points.dtype
        num = dim // num_dims if num_projections is None else num_projections
        columns = (jnp.arange(num)[:, None] * num_dims + jnp.arange(num_dims)) % dim
        projectors = jnp.eye(dim, dtype=dtype)[columns].mT
        start = lambda projector: bandwidth.start(dot(points, projector))
        return GrassmannMemory(
            projectors,
            jnp.asarray(temperature, dtype),
            jnp.asarray(jnp.inf, dtype),
            jax.vmap(start)(projectors),
        )

    def direction(key: jax.Array, ensemble: Ensemble) -> Direction:
        projectors, heat, size, medians = ensemble.memory
        noise = jax.random.normal(key, projectors.shape, projectors.dtype)
        step = jnp.asarray(projector_step_size, noise.dtype)

        def project(entry: Any) -> Any:
            projector, white, median = entry
            h = bandwidth.at(dot(ensemble.points, projector), ensemble.alive, median)
            uphill = jax.grad(_squared_discrepancy)(projector, kernel, ensemble, h)
            moved = move_on_grassmann(projector, step * uphill + jnp.sqrt(2 * heat * step) * white)
            phi, median = direction_inside(kernel, ensemble, moved, h, bandwidth, median)
            return phi, moved, h, median

        batch = min(len(projectors), max(1, _PAIRS // len(ensemble.points) ** 2))
        moves, projectors, h, medians = jax.lax.map(
            project, (projectors, noise, medians), batch_size=batch
        )
        phi = jnp.sum(moves, 0)
        largest = jnp.max(jnp.abs(phi), 1)
        now = jnp.sum(jnp.where(ensemble.alive, largest, 0)) / ensemble.num_alive
        rests = jnp.abs(now - size) < jnp.asarray(threshold, now.dtype) * len(projectors)
        heat = jnp.where(rests, jnp.minimum(10 * heat, _LARGEST_TEMPERATURE), heat)
        kept = GrassmannMemory(projectors, heat, now, medians)
        return Direction(phi, memory=kept, bandwidth=jnp.mean(h))

    method = Method(direction, optimizer, Bandwidth(1.0, None), check=check, memory=memory)
    return method.algorithm(log_density)


def _squared_discrepancy(
    projector: jax.Array, kernel: Kernel, ensemble: Ensemble, bandwidth: jax.Array
) -> jax.Array:
    """Return the squared KSD of the projected particles, with the kernel at z/√h."""
    root = jnp.sqrt(bandwidth)
    points, score = dot(ensemble.points, projector) / root, dot(ensemble.score, projector) * root
    weights = ensemble.weights / ensemble.num_alive
    rows = stein_kernel_matvec(kernel, points, score, points, score, weights)
    return dot(weights, rows) / bandwidth


def move_on_grassmann(projector: jax.Array, move: jax.Array) -> jax.Array:
    """Return an orthonormal basis of what A + (I - A Aᵀ) G spans, ``(d, M)``."""
    tangent = move - dot(projector, dot(projector.T, move))
    return jnp.linalg.qr(projector + tangent)[0]
