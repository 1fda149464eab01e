"""Projected SVGD: the particles move where the data say more than the prior, and only there.

For a posterior π ∝ f p with a Gaussian prior p = N(m, P⁻¹), in the coordinates y = P^½(x - m) in
which the prior is the standard normal law, the leading eigenvectors V of the gradient information
matrix

    G = E[∇log f ∇log fᵀ] ≈ (1/n) Σ_j (s_j + y_j)(s_j + y_j)ᵀ,      s = ∇_y log π,

span the subspace in which f varies. (In x these are the generalised eigenvectors of the matrix
against P.) SVGD runs on the coefficients w = Vᵀy with the scores Vᵀs,

    φ_i = V (1/n) Σ_j [ k(w_j, w_i) Vᵀs_j + ∇_{w_j} k(w_j, w_i) ],

and what the particles hold in the complement stays what it was: draws from the prior, which there
is the posterior. How narrow a finite ensemble gets depends on the number of informed directions
rather than on d.

Exact for n -> ∞ where f depends on Vᵀy alone; a direction left out costs at most half of its
eigenvalue, for E over π, in the divergence KL (Zahm, Cui, Law, Spantini and Marzouk, "Certified
dimension reduction in nonlinear Bayesian inverse problems", 2022).

On a linear problem with 50 coordinates that depend on each other, two of whose combinations are
observed, 100 particles keep 0.98 of the posterior variance of both; those of `svgd`, after 1000
steps, 0.06.

Reference: Chen and Ghattas, "Projected Stein variational gradient descent", NeurIPS 2020,
section 3, algorithms 1 and 2.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from shoal.sampling.core import bandwidth as bandwidths
from shoal.sampling.core._checks import integer
from shoal.sampling.core._hyperparameters import check_positive, make_sampler
from shoal.sampling.core._kernel_sums import dot
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
from shoal.sampling.stein._prior import check_mean, check_precision, quadratic
from shoal.sampling.stein._subspace import check_num_dims, direction_inside


class ProjectedMemory(NamedTuple):
    """What `projected_svgd` keeps in ``state.memory``.

    Attributes
    ----------
    basis
        V, ``(d, num_dims)``: orthonormal columns; zero for eigenvalues below the tolerance.
    eigenvalues
        The leading ones of G when the basis was last computed, ``(num_dims,)``, falling.
    median
        `shoal.sampling.core.bandwidth.TrackedMedian` of the coefficients; None for other rules.
    """

    basis: jax.Array
    eigenvalues: jax.Array
    median: bandwidths.TrackedMedian | None


def projected_svgd(
    kernel: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    *,
    num_dims: int,
    prior_mean: Any = 0.0,
    prior_precision: Any = 1.0,
    tolerance: float = 0.01,
    update_period: int = 10,
    bandwidth: str | float = "tracked",
) -> Sampler:
    """SVGD in the subspace that the likelihood informs.

    Start from draws of the prior: what they hold outside of the subspace is never changed.

    Parameters
    ----------
    kernel
        From `shoal.sampling.core.kernels`, or a function ``k(w, w') -> scalar`` of two vectors of
        coefficients, used at w/√h. None is the inverse multiquadric ``IMQ(1.0)``.
    optimizer
        As in `svgd`, in the coordinates y; its updates are projected on the subspace.
    num_dims
        Largest number of directions, at most d and n.
    prior_mean
        m: a number or ``(d,)``, in the order of the raveled position.
    prior_precision
        P: a positive number, a diagonal ``(d,)`` or a positive definite matrix ``(d, d)``.
    tolerance
        Directions with an eigenvalue below, in units of the prior's precision, are left to it.
    update_period
        The subspace is computed anew in every so manieth step, from the particles there.
    bandwidth
        As in `svgd`, of the coefficients.

    Returns
    -------
    Sampler
        As `svgd` returns, for the log density of the posterior; ``dual`` of the state holds y,
        ``score`` is with respect to y, ``memory`` a `ProjectedMemory` whose eigenvalues tell
        whether ``num_dims`` is enough. A step costs n gradients and about 4 n² r + 4 n d r
        multiplications for r directions, that with a new subspace a singular value decomposition
        of (n, d) besides.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible; ``init`` as for `svgd`, for more directions than coordinates
        or particles, and for a prior of another size.

    Examples
    --------
    One of 50 coordinates is observed, as 2 with variance 1/4: its posterior is N(1.6, 0.2).

    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference.run import run
    >>> from shoal.sampling import stein
    >>> log_density = lambda x: -0.5 * jnp.sum(x**2) - 2.0 * (x[0] - 2.0) ** 2
    >>> algorithm = stein.projected_svgd(num_dims=3)(log_density)
    >>> state = algorithm.init(jax.random.normal(jax.random.key(0), (100, 50)))
    >>> state = run(jax.random.key(1), algorithm, state, 300).state
    >>> observed = state.position[:, 0]
    >>> [f"{value:.1f}" for value in (observed.mean(), observed.var())]
    ['1.6', '0.2']
    """
    return make_sampler(
        _build_projected_svgd,
        {
            "kernel": kernel,
            "bandwidth": bandwidth,
            "prior_mean": prior_mean,
            "prior_precision": prior_precision,
            "tolerance": tolerance,
        },
        {
            "kernel": check_kernel,
            "bandwidth": check_bandwidth,
            "prior_mean": check_mean,
            "prior_precision": check_precision,
            "tolerance": check_positive("tolerance", allow_zero=True),
        },
        options=(
            ("num_dims", integer("num_dims", num_dims)),
            ("optimizer", check_optimizer(optimizer)),
            ("update_period", integer("update_period", update_period)),
        ),
        is_adjusted=False,
        is_ensemble=True,
    )


def _build_projected_svgd(
    log_density: LogDensity,
    kernel: Kernel,
    bandwidth: Bandwidth,
    prior_mean: jax.Array,
    prior_precision: jax.Array,
    tolerance: Any,
    num_dims: int,
    optimizer: optax.GradientTransformation,
    update_period: int,
) -> Algorithm:
    mirror = quadratic(prior_mean, prior_precision)

    def check(points: jax.Array) -> None:
        check_num_dims(num_dims, min(points.shape), "the number of particles and of coordinates")

    def memory(points: jax.Array) -> ProjectedMemory:
        basis = jnp.zeros((points.shape[1], num_dims), points.dtype)
        return ProjectedMemory(basis, basis[0], bandwidth.start(points))

    def renewed(ensemble: Ensemble) -> ProjectedMemory:
        gradients = jnp.where(ensemble.alive[:, None], ensemble.score + ensemble.points, 0)
        scaled = gradients / jnp.sqrt(ensemble.num_alive)
        _, singular, rows = jnp.linalg.svd(scaled, full_matrices=False)
        eigenvalues = singular[:num_dims] ** 2
        is_informed = eigenvalues > jnp.asarray(tolerance, scaled.dtype)
        basis = jnp.where(is_informed, rows[:num_dims].T, 0)
        median = bandwidth.start(dot(ensemble.points, basis), ensemble.alive)
        return ProjectedMemory(basis, eigenvalues, median)

    def direction(key: jax.Array, ensemble: Ensemble) -> Direction:
        is_due = ensemble.num_steps % update_period == 0
        basis, eigenvalues, median = jax.lax.cond(
            is_due, lambda: renewed(ensemble), lambda: ensemble.memory
        )
        h = bandwidth.at(dot(ensemble.points, basis), ensemble.alive, median)
        phi, median = direction_inside(kernel, ensemble, basis, h, bandwidth, median)
        kept = ProjectedMemory(basis, eigenvalues, median)
        return Direction(phi, memory=kept, bandwidth=h, basis=basis)

    method = Method(
        direction,
        optimizer,
        Bandwidth(1.0, None),
        mirror=mirror,
        check=check,
        memory=memory,
        sees_dual=True,
    )
    return method.algorithm(log_density)
