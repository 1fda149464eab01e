"""Ensembles that learn the scale of the target from one another, invariant under affine maps.

`stretch`, the move of Goodman and Weare, needs no gradient and has nothing to tune. Of an ensemble
of J particles in d coordinates each half is moved in turn. A particle x is stretched away from or
towards a random partner p of the other half,

    y = p + z (x - p),    z with density ∝ 1/√z on [1/a, a],

and accepted with probability min(1, z^(d-1) π(y) / π(x)). The product law of J independent draws of
π stays exactly invariant. In many dimensions (above about 20) it mixes slowly.

`aldi` moves J > d + 1 particles by Langevin dynamics preconditioned by their own covariance C,

    dx_j = C ∇log π(x_j) dt + ((d + 1) / J) (x_j - m) dt + √2 C^½ dW_j,
    m = mean x,    C = (1 / J) Σ_j (x_j - m)(x_j - m)ᵀ,    C^½ = (1 / √J) (x_1 - m, ..., x_J - m),

with a J-dimensional Brownian motion for each particle. The second term is the divergence of C; with
it the product law is exactly invariant in continuous time, without it (the ensemble Kalman sampler)
the ensemble is too narrow. The step, Euler and Maruyama's, has a bias of order h. `kalman_aldi`
is the same for a posterior with Gaussian noise, with no derivative of the forward map.

Both follow every affine change of coordinates: the moves of the changed ensemble for the changed
target are the changed moves.

References: Goodman and Weare, "Ensemble samplers with affine invariance", CAMCoS 5 (2010), section
2; Foreman-Mackey, Hogg, Lang and Goodman, "emcee: the MCMC hammer", PASP 125 (2013), section 2 for
the halves; Garbuno-Inigo, Nüsken and Reich, "Affine invariant interacting Langevin dynamics for
Bayesian inference", SIAM J. Appl. Dyn. Syst. 19 (2020), equations 1.6 and 4.2; Garbuno-Inigo,
Hoffmann, Li and Stuart, "Interacting Langevin diffusions", same volume, for the Kalman form.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from shoal.sampling.core._checks import (
    check_callable,
    check_finite,
    check_flag,
    real_array,
    real_parameter,
)
from shoal.sampling.core.algorithm import Position, Sampler
from shoal.sampling.langevin._interacting import AldiInfo, AldiState, build_aldi, build_kalman_aldi
from shoal.sampling.langevin._stretch_move import StretchInfo, StretchState, build_stretch
from shoal.sampling.langevin.options import check_positive, make_sampler

__all__ = [
    "AldiInfo",
    "AldiState",
    "StretchInfo",
    "StretchState",
    "aldi",
    "kalman_aldi",
    "stretch",
]


def stretch(a: Any = 2.0) -> Sampler:
    """Affine-invariant stretch move: exact, without gradients.

    Parameters
    ----------
    a
        Largest factor of the stretch, above 1.

    Returns
    -------
    Sampler
        Called with a log density of one particle, returns the `Algorithm`; state `StretchState`,
        info `StretchInfo`. ``init(position)`` takes an ensemble, leaves ``(J, ...)``. A step moves
        every particle once and costs J log densities. Works in the dtype of the position.

    Raises
    ------
    TypeError, ValueError
        If ``a`` is not above 1. ``init`` raises for fewer than 2 d or 4 particles, or one whose log
        density is not finite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference.run import run
    >>> from shoal.sampling.langevin import ensemble
    >>> algorithm = ensemble.stretch()(lambda x: -0.5 * jnp.sum((x / jnp.array([1, 100.0])) ** 2))
    >>> state = algorithm.init(jax.random.normal(jax.random.key(0), (50, 2)))
    >>> state = run(jax.random.key(1), algorithm, state, 500).state
    >>> bool(50 < state.position[:, 1].std() < 200)
    True
    """
    return make_sampler(build_stretch, {"a": a}, {"a": _check_stretch}, is_ensemble=True)


def aldi(
    step_size: Any = 0.01, *, has_correction: bool = True, is_adaptive: bool = False
) -> Sampler:
    """Affine-invariant interacting Langevin dynamics, by gradients.

    Parameters
    ----------
    step_size
        h > 0 in units of the target's own scale: on a Gaussian every direction relaxes in time 1.
    has_correction
        Whether to add ((d + 1) / J) (x_j - m); without it this is the ensemble Kalman sampler's
        dynamics, biased for finite J.
    is_adaptive
        Makes the step h / (1 + |D|), with the Frobenius norm of D_jk = (x_k - m)·s_j / J, which
        affine maps leave as it is: an ensemble far out moves with care. Weights averages over steps
        by `AldiInfo.step_size`, for time does not pass evenly.

    Returns
    -------
    Sampler
        Called with a log density of one particle, returns the `Algorithm`; state `AldiState`, info
        `AldiInfo`. ``init(position)`` takes an ensemble, leaves ``(J, ...)``. A step costs J
        gradients, J² normal numbers and 3 J² d multiplications. Works in the dtype of the position.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible. ``init`` raises unless J > d + 1, and for a particle whose log
        density or gradient is not finite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.langevin import ensemble
    >>> algorithm = ensemble.aldi(0.05)(lambda x: -0.5 * jnp.sum((x / jnp.array([1, 100.0])) ** 2))
    >>> state = algorithm.init(jax.random.normal(jax.random.key(0), (50, 2)))
    >>> state, info = jax.jit(algorithm.step)(jax.random.key(1), state)
    >>> state.position.shape, round(float(info.step_size), 3)
    ((50, 2), 0.05)
    """
    return _aldi(build_aldi, step_size, has_correction, is_adaptive, {})


def kalman_aldi(
    forward: Callable[[Position], jax.Array],
    observation: Any,
    noise_covariance: Any,
    step_size: Any = 0.01,
    *,
    has_correction: bool = True,
    is_adaptive: bool = False,
) -> Sampler:
    """`aldi` for a posterior with Gaussian noise, without derivatives of the forward map.

    The posterior is prior(x) N(y; G(x), Γ). The preconditioned gradient of the likelihood is
    replaced by its difference quotient over the ensemble,

        C ∇log N(y; G(x_j), Γ) ≈ -(1 / J) Σ_k ⟨G(x_k) - mean G, Γ⁻¹ (G(x_j) - y)⟩ (x_k - m),

    which is the same for a linear G and an approximation, not controlled by the step size, for any
    other.

    Parameters
    ----------
    forward
        G, from the position of one particle to ``(m,)``.
    observation
        y, ``(m,)``, float32 or float64.
    noise_covariance
        Γ, ``(m, m)``, symmetric positive definite, of the same dtype.
    step_size, has_correction, is_adaptive
        As in `aldi`.

    Returns
    -------
    Sampler
        Called with the log **prior** of one particle, returns the `Algorithm`, as `aldi`'s;
        ``log_density`` in its state is that of the posterior.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible, or (from ``init``) as for `aldi`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.langevin import ensemble
    >>> sampler = ensemble.kalman_aldi(jnp.exp, jnp.array([1.2]), jnp.array([[0.01]]))
    >>> algorithm = sampler(lambda x: -0.5 * jnp.sum(x**2))
    >>> state = algorithm.init(jax.random.normal(jax.random.key(0), (8, 1)))
    >>> state, info = jax.jit(algorithm.step)(jax.random.key(1), state)
    >>> state.position.shape
    (8, 1)
    """
    check_callable("forward", forward)
    y = real_array("observation", observation, ("m",))
    covariance = real_array("noise_covariance", noise_covariance, (y.size, y.size))
    check_finite("observation", y)
    check_finite("noise_covariance", covariance)
    factor = jnp.linalg.cholesky(covariance)
    if not isinstance(factor, jax.core.Tracer):
        is_symmetric = bool(jnp.allclose(covariance, covariance.T, rtol=1e-4))
        if not is_symmetric or not bool(jnp.isfinite(factor).all()):
            raise ValueError(f"noise_covariance must be symmetric positive definite: {covariance}")
    whitener = jax.scipy.linalg.solve_triangular(factor, jnp.eye(y.size, dtype=y.dtype), lower=True)
    data = {"observation": y, "whitener": whitener.astype(y.dtype)}
    return _aldi(
        build_kalman_aldi, step_size, has_correction, is_adaptive, data, (("forward", forward),)
    )


def _aldi(
    build: Any,
    step_size: Any,
    has_correction: bool,
    is_adaptive: bool,
    data: dict[str, Any],
    options: tuple[tuple[str, Any], ...] = (),
) -> Sampler:
    check_flag("has_correction", has_correction)
    check_flag("is_adaptive", is_adaptive)
    flags = (("has_correction", bool(has_correction)), ("is_adaptive", bool(is_adaptive)))
    return make_sampler(
        build,
        {"step_size": step_size, **data},
        {"step_size": check_positive("step_size"), **dict.fromkeys(data, jnp.asarray)},
        options=(*options, *flags),
        is_adjusted=False,
        is_ensemble=True,
    )


def _check_stretch(a: Any) -> Any:
    return real_parameter("a", a, 1.0, scalar=True, wanted="above 1 and finite")
