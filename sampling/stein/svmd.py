"""Stein variational mirror descent: mirrored SVGD whose kernel adapts to the geometry of the set.

In the dual space of a mirror map η = ∇ψ(θ), H = ∇²ψ, the particles move along

    Δη_i = (1/n) Σ_l [ K(θ_i, θ_l) H_l⁻¹ ∇log π(θ_l) + ∇_{θ_l}·(K(θ_i, θ_l) H_l⁻¹) ],

    K(θ, θ') = E_t[ k^½(θ, θ_t) H(θ_t) k^½(θ_t, θ') ],

with the particles' average over t and k^½ the root of a kernel k as an operator on their law,
extended from its eigenvectors on the particles by Nyström's formula. Where `msvgd` gives the dual
score weights alone, H in the kernel takes each coordinate at the scale it has there: the moves are
those of mirror descent, averaged.

Eigenvalues beyond the share ``truncation`` of their sum are cut off, since 1/√λ multiplies the
repulsion: where the kernel is smooth the small ones are noise.

For one particle Δη = k [∇log π + H D], D the divergence of H⁻¹, which is not mirror descent. The
reason is that θ_t, the particle l itself for one t in n, is held fixed in the divergence. With
``md=True`` its derivative is taken too, which adds terms of order 1/n, and one particle follows
mirror descent, Δη = k ∇log π. The paper's experiments, and the default, are without.

On a sparse Dirichlet law of 20 probabilities (alpha of 90.1, 5.1, 5.1 and 0.1), 50 particles, 500
iterations of RMSprop whose rate falls from 0.1: over 16 starts the energy distance has the median
0.00036, that of `msvgd` 0.00026, that of 50 draws 0.0011. But with a constant rate of 0.1 one start
in four has particles on their way still, at 0.005 to 0.04. Look at more than one start.

Each step needs the n x n Gram matrix and its eigenvalues, n³. In float32 H is bounded by 1e17; that
changes the kernel and not the law that is at rest.

Reference: Shi, Liu and Mackey, "Sampling with mirrored Stein operators", ICLR 2022, section 4.3,
algorithm 1.
"""

from typing import Any

import jax
import optax

from shoal.sampling.core._checks import check_flag, real_parameter
from shoal.sampling.core._hyperparameters import check_mirror, check_positive, make_sampler
from shoal.sampling.core.algorithm import Algorithm, LogDensity, Sampler
from shoal.sampling.core.kernels import Kernel
from shoal.sampling.core.mirror import MirrorMap
from shoal.sampling.stein._adaptive_kernel import adaptive_direction
from shoal.sampling.stein._direction import Direction, Ensemble
from shoal.sampling.stein._ensemble import Method
from shoal.sampling.stein._mirror_sums import mirror_hessians
from shoal.sampling.stein._options import (
    Bandwidth,
    check_bandwidth,
    check_kernel,
    check_optimizer,
)


def svmd(
    mirror: MirrorMap | None = None,
    kernel: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    *,
    bandwidth: str | float = "tracked",
    truncation: float = 0.98,
    jitter: float = 1e-5,
    md: bool = False,
) -> Sampler:
    """Stein variational mirror descent, on a convex set.

    Parameters
    ----------
    mirror
        As in `msvgd`.
    kernel
        From `shoal.sampling.core.kernels`, without a function of one's own, of points in the set
        (on the simplex of all m probabilities: with plain gradient steps it does not matter then
        which is the last), used at θ/√h. None is ``IMQ(1.0)``.
    optimizer
        Any optax transformation, of η; it is given -Δη, whose size is that of the Hessian near the
        boundary: take one that adapts to it. None is ``optax.adam(0.05)``.
    bandwidth
        h as in `svgd`.
    truncation
        Share of the sum of eigenvalues that is kept, in (0, 1]; 1 keeps all.
    jitter
        Added to the eigenvalues of the Gram matrix, at least 0. Below 1e-6 float32 has no digit of
        the smallest.
    md
        Whether the derivative of H in the kernel is taken too.

    Returns
    -------
    Sampler
        As `msvgd`. A step costs n gradients, the eigenvalues of an n x n matrix and about 10 n² m
        multiplications, in O(n² + n m) memory.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible. ``init`` raises as that of `msvgd`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference.run import run
    >>> from shoal.sampling import stein
    >>> from shoal.sampling.core import mirror
    >>> dirichlet = lambda p: jnp.sum((jnp.array([2.0, 3.0, 5.0]) - 1) * jnp.log(p))
    >>> algorithm = stein.svmd(mirror.simplex())(dirichlet)
    >>> state = algorithm.init(jax.random.dirichlet(jax.random.key(0), jnp.ones(3), (50,)))
    >>> state = run(jax.random.key(1), algorithm, state, 300).state
    >>> [f"{value:.1f}" for value in state.position.mean(axis=0)]
    ['0.2', '0.3', '0.5']
    """
    check_flag("md", md)
    return make_sampler(
        _build_svmd,
        {
            "mirror": mirror,
            "kernel": kernel,
            "bandwidth": bandwidth,
            "truncation": truncation,
            "jitter": jitter,
        },
        {
            "mirror": check_mirror,
            "kernel": check_closed_form,
            "bandwidth": check_bandwidth,
            "truncation": check_truncation,
            "jitter": check_positive("jitter", allow_zero=True),
        },
        options=(("md", bool(md)), ("optimizer", check_optimizer(optimizer))),
        is_adjusted=False,
        is_ensemble=True,
    )


def _build_svmd(
    log_density: LogDensity,
    mirror: MirrorMap,
    kernel: Kernel,
    bandwidth: Bandwidth,
    truncation: Any,
    jitter: Any,
    md: bool,
    optimizer: optax.GradientTransformation,
) -> Algorithm:
    def direction(key: jax.Array, ensemble: Ensemble) -> Direction:
        hessians = mirror_hessians(mirror, ensemble.points)
        self_term = hessians.multiply(mirror.divergence(ensemble.points)) if md else None
        return adaptive_direction(kernel, ensemble, hessians, truncation, jitter, self_term)

    return Method(direction, optimizer, bandwidth, mirror=mirror).algorithm(log_density)


def check_truncation(value: Any) -> Any:
    """Pass on a share in (0, 1]; else raise."""
    real_parameter("truncation", value, 0.0, scalar=True)
    return real_parameter("truncation", value, 0.0, 1.0 + 1e-12, scalar=True, wanted="in (0, 1]")


def check_closed_form(kernel: Any) -> Kernel:
    """Return a kernel whose derivatives are known in closed form, `check_kernel`'s for None."""
    kernel = check_kernel(kernel)
    if not kernel.has_jet:
        raise TypeError(
            "kernel must be one of shoal.sampling.core.kernels, without a function of one's own, "
            f"got {kernel}"
        )
    return kernel
