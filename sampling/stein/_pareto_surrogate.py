"""Gaussian processes that stand for the objectives: gpjax's, Matérn 5/2, one for each objective.

Length-scales (one for each coordinate), variance and noise maximise the marginal likelihood times
a prior that draws length-scales to each other, by L-BFGS-B within wide limits. Growing data are
padded to a power of two, so that few programs are compiled: points carry a mark, 1 or 0, as a last
coordinate, and a kernel that is multiplied by it leaves the padding independent of all else. The
likelihood of the padding, which is that of its noise, is taken off again: what is fitted is that of
the data, exactly.
"""

import math
from typing import Any, NamedTuple

import gpjax as gpx
import jax
import jax.numpy as jnp
import numpy as np
from gpjax.kernels.computations import DenseKernelComputation
from gpjax.parameters import val
from scipy.optimize import minimize

# Limits of length-scales, variance and noise variance, for inputs in the unit cube and outputs of
# unit variance.
_LIMITS = {"length": (0.02, 200.0), "variance": (1e-3, 1e3), "noise": (1e-6, 1.0)}
# The logarithms of length-scales are about a common centre, by a Student law of this width and two
# degrees of freedom: most are alike, and some may be far off. Without it, twenty points in thirty
# dimensions leave most coordinates out. The centre is normal, with mean √2 + log(d) / 2.
_WIDTH = 0.3
_CENTRE = 2**0.5, 3**0.5
_SMALLEST_SIZE = 128


class Surrogate(NamedTuple):
    """Conditioned processes of m objectives, of which `predict` gives means and deviations.

    Attributes
    ----------
    parameters
        Logarithms of d length-scales, variance and noise variance, ``(m, d + 2)``.
    inputs
        Marked and padded inputs, ``(size, d + 1)``.
    weights
        (K + noise)⁻¹ y, ``(m, size)``.
    inverse_factor
        Inverse of the lower Cholesky factor of K + noise, ``(m, size, size)``.
    """

    parameters: jax.Array
    inputs: jax.Array
    weights: jax.Array
    inverse_factor: jax.Array


class _MarkedMatern(DenseKernelComputation):
    """Matérn 5/2 between marked points by one matrix product: gpjax's own engine takes n²d."""

    def _cross_covariance(self, kernel: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        scale = val(kernel.lengthscale)
        a, b = x[:, :-1] / scale, y[:, :-1] / scale
        q = jnp.sum(a * a, 1)[:, None] + jnp.sum(b * b, 1) - 2 * a @ b.T
        # Below this the kernel is one; the root's slope at zero would be infinite.
        r = jnp.sqrt(jnp.maximum(5 * q, 1e-20))
        return val(kernel.variance) * (1 + r + r * r / 3) * jnp.exp(-r) * x[:, -1:] * y[:, -1]


_ENGINE = _MarkedMatern()


def fit(x: np.ndarray, y: np.ndarray, max_iterations: int) -> Surrogate:
    """Return the processes for points ``(n, d)`` of the unit cube and standardised ``(n, m)``.

    Needs 64 bits enabled.
    """
    (num, dim), num_outputs = x.shape, y.shape[1]
    size = max(_SMALLEST_SIZE, 1 << (num - 1).bit_length())
    inputs, outputs = np.zeros((size, dim + 1)), np.zeros((size, num_outputs))
    inputs[:num], outputs[:num] = np.concatenate([x, np.ones((num, 1))], 1), y
    # Random points of the unit cube are about √(d/6) apart.
    typical = 0.5 * dim**0.5
    start = np.log([*[typical] * dim, 1.0, 1e-3, typical])
    lengths = [_LIMITS["length"]] * dim
    limits = np.log([*lengths, _LIMITS["variance"], _LIMITS["noise"], _LIMITS["length"]])
    found = []
    for column in outputs.T:
        objective = lambda p, y=column: [
            np.asarray(part, float) for part in _loss_and_gradient(p, inputs, y)
        ]
        options = {"maxiter": max_iterations}
        found.append(
            minimize(
                objective, start, jac=True, method="L-BFGS-B", bounds=limits, options=options
            ).x[:-1]
        )
    return _condition(jnp.asarray(np.stack(found)), jnp.asarray(inputs), jnp.asarray(outputs))


def predict(surrogate: Surrogate, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return means and deviations ``(n, m)`` of the processes, without noise, at ``(n, d)``."""
    marked = jnp.concatenate([x, jnp.ones((len(x), 1), x.dtype)], 1)

    def one(parameters: jax.Array, weights: jax.Array, inverse_factor: jax.Array) -> Any:
        kernel = _model(parameters).prior.kernel
        cross = kernel.cross_covariance(surrogate.inputs, marked)
        variance = val(kernel.variance) - jnp.sum((inverse_factor @ cross) ** 2, 0)
        return weights @ cross, jnp.sqrt(jnp.maximum(variance, 1e-12))

    return jax.vmap(one, out_axes=1)(
        surrogate.parameters, surrogate.weights, surrogate.inverse_factor
    )


def _model(parameters: jax.Array) -> Any:
    """Return the joint model of logarithms ``(d + 2,)``."""
    *_, variance, noise = values = jnp.exp(parameters)
    kernel = gpx.kernels.Matern52(
        lengthscale=values[:-2], variance=variance, compute_engine=_ENGINE
    )
    prior = gpx.gps.Prior(kernel=kernel, mean_function=gpx.mean_functions.Zero())
    return prior * gpx.likelihoods.Gaussian(obs_stddev=jnp.sqrt(noise))


@jax.jit
def _loss_and_gradient(parameters: Any, inputs: Any, outputs: Any) -> tuple[jax.Array, jax.Array]:
    return jax.value_and_grad(_loss)(parameters, inputs, outputs)


def _loss(parameters: Any, inputs: Any, outputs: Any) -> jax.Array:
    """Return minus the log posterior density of the parameters' logarithms."""
    *_, centre = parameters
    apart = 1.5 * jnp.sum(jnp.log1p((parameters[:-3] - centre) ** 2 / (2 * _WIDTH**2)))
    typical, spread = _CENTRE
    off = (centre - typical - math.log(parameters.size - 3) / 2) ** 2 / (2 * spread**2)
    return off + apart + negative_log_likelihood(parameters[:-1], inputs, outputs)


def negative_log_likelihood(parameters: Any, inputs: Any, outputs: Any) -> jax.Array:
    """Return minus the log marginal likelihood of the data, without their padding."""
    model = _model(parameters)
    total = gpx.objectives.conjugate_mll(model, gpx.Dataset(X=inputs, y=outputs[:, None]))
    noise = jnp.exp(parameters[-1]) + model.prior.jitter
    return -total - jnp.sum(inputs[:, -1] == 0) * jnp.log(2 * jnp.pi * noise) / 2


@jax.jit
def _condition(parameters: jax.Array, inputs: jax.Array, outputs: jax.Array) -> Surrogate:
    def one(parameters: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        posterior = _model(parameters).condition(gpx.Dataset(X=inputs, y=y[:, None]))
        factor, unit = posterior.cholesky_factor, jnp.eye(len(inputs))
        inverse = jax.scipy.linalg.solve_triangular(factor, unit, lower=True)
        return posterior.representer_weights[:, 0], inverse

    weights, inverse_factor = jax.vmap(one)(parameters, outputs.T)
    return Surrogate(parameters, inputs, weights, inverse_factor)
