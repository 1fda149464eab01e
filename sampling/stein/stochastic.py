"""SVGD with noise: exact for many steps, whatever the number of particles.

SVGD's direction is a preconditioned score: with X all n particles at once, K the matrix of the
k(x_i, x_j) and D = K/n acting on particles, φ = D ∇log π(X) + ∇·D, where π is the product of n
targets. With the noise that belongs to it,

    X <- X + ε φ + √(2ε/n) L ξ,    L Lᵀ = K,    ξ ~ N(0, I) (n, d),

the steps follow a diffusion that leaves the product law invariant: unlike SVGD's, particles are
draws, with the right spread in any number of dimensions, and averages over steps converge. Adding
λ to the kernel of each particle with itself,

    X <- X + ε (φ + λ s) + √(2ε) (K/n + λ I)^½ ξ,

moves each particle by its own Langevin dynamics as well; the law stays. Without the noise of K this
is stochastic particle-optimisation sampling (SPOS): no n x n matrix, exact only for n -> ∞.

Exact: the law of the diffusion, for a fixed kernel (a number as ``bandwidth``). Biased: Euler's
step, of order ε; and a bandwidth that follows the particles, as the term ∇·D then lacks the
derivative of h. That bias is small (for ten particles and a standard normal law in 2 and in 20
dimensions the variances were within 4 percent of 1, the error of the measurement); without it: fix
the bandwidth once the ensemble has settled, ``sampler.replace(bandwidth=...)``.
A kernel that is not radial needs half of the gradient of k(x_i, x_i) that SVGD's sum leaves out;
it is added here.

References: Gallego and Insua, "Stochastic gradient MCMC with repulsive forces", 2018; Leviyev,
Chen, Wang, Ghattas and Zimmerman, "A stochastic Stein variational Newton method", 2022; Zhang,
Zhang, Carin and Chen, "Stochastic particle-optimization sampling and the non-asymptotic convergence
theory", AISTATS 2020.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from shoal.sampling.core._checks import check_flag
from shoal.sampling.core._hyperparameters import check_positive, make_sampler
from shoal.sampling.core._kernel_sums import dot
from shoal.sampling.core.algorithm import Algorithm, LogDensity, Sampler
from shoal.sampling.core.kernels import Kernel
from shoal.sampling.core.random import particle_keys
from shoal.sampling.stein._direction import Direction, Ensemble, stein_direction
from shoal.sampling.stein._ensemble import Method
from shoal.sampling.stein._options import Bandwidth, check_bandwidth, check_kernel
from shoal.sampling.stein._pairs import kernel_matrix, own_pairs


def stochastic_svgd(
    kernel: Any = None,
    step_size: float = 0.1,
    *,
    bandwidth: str | float = "tracked",
    langevin: float = 0.0,
    has_kernel_noise: bool = True,
) -> Sampler:
    """Stein variational gradient descent with the noise that makes it a sampler.

    Parameters
    ----------
    kernel, bandwidth
        As in `svgd`. For the exact law give the bandwidth as a number.
    step_size
        ε, positive. Particles move by ε times a mean over n of scores: the fewer are near, the
        larger it may be, but ε k(x, x) / n + ε λ has to be small against the target's variances.
    langevin
        λ >= 0: weight of each particle's own Langevin dynamics.
    has_kernel_noise
        False leaves out the noise of the kernel's part (SPOS): biased, but without a matrix of
        n x n.

    Returns
    -------
    Sampler
        As `svgd` returns. A step costs a Cholesky factor besides, n³/3 multiplications, and n²
        numbers of memory; not so without kernel noise.

    Raises
    ------
    TypeError, ValueError
        As `svgd`; also for a step size that is not positive or a negative ``langevin``.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference.run import run
    >>> from shoal.sampling import stein
    >>> algorithm = stein.stochastic_svgd(step_size=0.5, bandwidth=20.0)(
    ...     lambda x: -0.5 * jnp.sum(x**2)
    ... )
    >>> state = algorithm.init(jax.random.normal(jax.random.key(0), (100, 10)))
    >>> state = run(jax.random.key(1), algorithm, state, 500).state
    >>> bool(abs(state.position.var() - 1) < 0.1)
    True
    """
    check_flag("has_kernel_noise", has_kernel_noise)
    return make_sampler(
        _build_stochastic_svgd,
        {"kernel": kernel, "step_size": step_size, "bandwidth": bandwidth, "langevin": langevin},
        {
            "kernel": check_kernel,
            "step_size": check_positive("step_size"),
            "bandwidth": check_bandwidth,
            "langevin": check_positive("langevin", allow_zero=True),
        },
        options=(("has_kernel_noise", bool(has_kernel_noise)),),
        is_adjusted=False,
        is_ensemble=True,
    )


def _build_stochastic_svgd(
    log_density: LogDensity,
    kernel: Kernel,
    step_size: Any,
    bandwidth: Bandwidth,
    langevin: Any,
    has_kernel_noise: bool,
) -> Algorithm:
    def direction(key: jax.Array, ensemble: Ensemble) -> Direction:
        phi, near, *_ = stein_direction(kernel, ensemble)
        points, count = ensemble.scaled(kernel), ensemble.num_alive
        num, dim = points.shape
        values, gradients = own_pairs(kernel, points)
        draw = lambda k: jax.random.normal(k, (dim,), points.dtype)
        noise = jax.vmap(draw)(particle_keys(key, jnp.arange(num)))
        own = jnp.asarray(langevin, points.dtype)
        if has_kernel_noise:
            phi = phi + gradients * jax.lax.rsqrt(ensemble.bandwidth) / count
            # As a kernel of its own it changes no law, and the matrix has a factor.
            own = own + 4 * jnp.finfo(points.dtype).eps * jnp.max(values)
            both = ensemble.alive[:, None] & ensemble.alive
            matrix = jnp.where(both, kernel_matrix(kernel, points) / count, 0)
            matrix = matrix + jnp.diag(jnp.where(ensemble.alive, own, 1))
            noise = dot(jnp.linalg.cholesky(matrix), noise)
        else:
            noise = jnp.sqrt(own) * noise
        phi = phi + own * ensemble.score
        noise = jnp.sqrt(2 * jnp.asarray(step_size, noise.dtype)) * noise
        return Direction(phi, near, noise=noise)

    return Method(direction, optax.sgd(step_size), bandwidth).algorithm(log_density)
