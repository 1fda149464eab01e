"""Exponential-integrator functions and multistep coefficients, in float64 on the host.

Steps over h of dx/dλ = z x / h + p(θ) with θ = (λ - λ_s) / h and p the polynomial through values at
nodes need the integrals ∫_0^1 e^{z (1 - θ)} p(θ) dθ. They are linear in the values; the weights
follow from

    φ_{k+1}(z) = ∫_0^1 e^{z (1 - θ)} θ^k / k! dθ,    φ_1(z) = (e^z - 1) / z.
"""

import math

import numpy as np

_SMALL = 1.0
_NUM_TERMS = 20


def phi(k: int, z: float) -> float:
    """Return φ_k(z) for k >= 0, accurate to a few units of rounding for every finite z.

    Examples
    --------
    >>> phi(1, 0.0), phi(3, 0.0)
    (1.0, 0.16666666666666666)
    """
    if abs(z) <= _SMALL:  # the recurrence would lose k digits for each digit of 1 / z
        return sum(z**i / math.factorial(i + k) for i in reversed(range(_NUM_TERMS)))
    if k == 0:
        return math.exp(z)
    if k == 1:
        return math.expm1(z) / z
    return (phi(k - 1, z) - 1 / math.factorial(k - 1)) / z


def polynomial_weights(nodes: np.ndarray) -> np.ndarray:
    """Return the matrix that takes values at distinct ``nodes`` to a polynomial's coefficients.

    Entry (k, j) is the coefficient of θ^k in the Lagrange polynomial of node j, shape ``(n, n)``.
    """
    return np.linalg.inv(np.vander(np.asarray(nodes, np.float64), increasing=True))


def exponential_weights(z: float, nodes: np.ndarray) -> np.ndarray:
    """Return w such that Σ_j w_j p(θ_j) = ∫_0^1 e^{z (1 - θ)} p(θ) dθ for polynomials p.

    Exact for polynomials of a degree below the number of nodes, which are given as θ. With z = 0
    and equally spaced nodes these are the coefficients of Adams and Bashforth.

    Examples
    --------
    >>> exponential_weights(0.0, np.array([0.0, -1.0]))
    array([ 1.5, -0.5])
    """
    moments = [math.factorial(k) * phi(k + 1, z) for k in range(len(nodes))]
    return np.asarray(moments) @ polynomial_weights(nodes)
