"""Integrals of the step of DPM-Solver-v3, between any two values of λ.

Statistics l, s and b are splines through their estimates, so L = ∫ l and S = ∫ s are exact. What
is left, with e^{L + S} in it, is done by Gauss and Legendre's rule on panels no longer than the
step and `_PANEL`, with the inner integral of b carried along from node to node. Nothing is rounded
to the grid of the statistics, and no error is left but one that falls with the step.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from shoal.sampling.core.multistep import polynomial_weights
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion.statistics import Statistics, spline

_PANEL = 0.25
_NODES, _WEIGHTS = (part / 2 for part in np.polynomial.legendre.leggauss(8))
_NODES = _NODES + 0.5
# Takes values at the nodes to integrals from 0 to each node.
_INNER = (
    (_NODES[:, None] ** np.arange(1, 9) / np.arange(1, 9)) @ polynomial_weights(_NODES)
)  # fmt: skip


class Weights(NamedTuple):
    """A step is ``base * x + points @ f + constant``; entries are of the shape of the statistics.

    Attributes
    ----------
    base, constant
        One array.
    points
        One array for each point.
    """

    base: np.ndarray
    points: list[np.ndarray]
    constant: np.ndarray


class Curves:
    """Statistics as functions of λ, and the integrals that steps need."""

    def __init__(self, statistics: Statistics, along_axes: bool = False) -> None:
        """Take statistics; ``along_axes`` says that the caller turns to their axes."""
        if statistics.axes is not None and not along_axes:
            raise ValueError(
                'statistics must be of axes "entries" for this solver; these are along '
                f"{len(statistics.axes)} other axes"
            )
        self.ends = statistics.half_log_snr[[0, -1]]
        grid = statistics.half_log_snr
        self.l, self.s, self.b = (spline(grid, values) for values in statistics[1:4])
        self.L, self.S = self.l.antiderivative(), self.s.antiderivative()

    def step(
        self, s: float, t: float, points: Sequence[float],
        rule: Callable[[np.ndarray], np.ndarray] = polynomial_weights,
    ) -> Weights:  # fmt: skip
        """Return the weights of the step from ``s`` to ``t``.

        Parameters
        ----------
        s, t
            λ at start and end.
        points
            λ of the points at which f is known, the first of which is ``s``.
        rule
            The matrix from values of g at nodes to coefficients of powers, row k of θ^k.

        Raises
        ------
        ValueError
            If a λ is beyond those of the statistics.
        """
        self._check([s, t, *points])
        at, lengths = _panels(s, t)
        values = lambda curve: curve(at.ravel()).reshape(*at.shape, *curve.c.shape[1:])
        wide = lambda array: array.reshape(*array.shape, *[1] * (self.l.c.ndim - 1))
        grown = values(self.S) - self.S(s)
        # Of the two exponents only the sum is taken to the exponential; L grows.
        factor = np.exp(values(self.L) - self.L(t) + grown) * wide(_WEIGHTS * lengths[:, None])
        offset = self._offsets(at, lengths, np.exp(-grown))
        theta = wide((at - s) / (t - s))
        nodes = (np.asarray(points) - s) / (t - s)
        matrix = rule(nodes)
        moments = [np.sum(factor * theta**k, axis=(0, 1)) for k in range(len(matrix))]
        integrals = [
            sum(c * m for c, m in zip(column, moments, strict=True)) for column in matrix.T
        ]
        known = [self._from(s, point) for point in points]
        drift = sum(w * apart for w, (_, apart) in zip(integrals, known, strict=True))
        (alpha_s, _), (alpha_t, _) = unit_scales(np.array(s)), unit_scales(np.array(t))
        return Weights(
            alpha_t / alpha_s * np.exp(self.L(s) - self.L(t)),
            [-alpha_t * w * shrink for w, (shrink, _) in zip(integrals, known, strict=True)],
            alpha_t * (drift - np.sum(factor * offset, axis=(0, 1))),
        )

    def _check(self, clock: Sequence[float]) -> None:
        low, high = self.ends
        slack = 1e-9 * (high - low)
        for half_log_snr in clock:
            if not low - slack <= half_log_snr <= high + slack:
                raise ValueError(
                    f"grid reaches log(alpha / sigma) = {half_log_snr:.4g}, the statistics only "
                    f"from {low:.4g} to {high:.4g}: estimate them on a schedule of that range"
                )

    def _from(self, s: float, point: float) -> tuple[np.ndarray, np.ndarray]:
        """Return e^{-(S_i - S_s)} and ∫_s^i e^{-(S - S_s)} b, which g = e^{..} f - ∫ .. needs."""
        shrink = np.exp(self.S(s) - self.S(point))
        if point == s:
            return shrink, np.zeros_like(shrink)
        at, lengths = _panels(s, point)
        shape = (*at.shape, *[1] * (self.l.c.ndim - 1))
        weights = (_WEIGHTS * lengths[:, None]).reshape(shape)
        grown = (self.S(at.ravel()) - self.S(s)).reshape(*at.shape, *shrink.shape)
        b = self.b(at.ravel()).reshape(*at.shape, *shrink.shape)
        return shrink, np.sum(weights * np.exp(-grown) * b, axis=(0, 1))

    def _offsets(self, at: np.ndarray, lengths: np.ndarray, shrunk: np.ndarray) -> np.ndarray:
        """Return ∫_s^r e^{-(S - S_s)} b at all nodes r."""
        values = shrunk * self.b(at.ravel()).reshape(shrunk.shape)
        per_panel = lambda rule: np.tensordot(rule, values, axes=(-1, 1))
        scale = lengths.reshape(-1, *[1] * (values.ndim - 2))
        whole = scale * per_panel(_WEIGHTS)
        before = np.cumsum(whole, axis=0) - whole
        return before[:, None] + scale[:, None] * np.moveaxis(per_panel(_INNER), 0, 1)


def newton_weights(nodes: np.ndarray) -> np.ndarray:
    """Return the matrix of divided differences of falling reach, row k over the first k + 1 nodes.

    Newton's coefficients taken as those of powers: exact for a straight line only.

    Examples
    --------
    >>> newton_weights(np.array([0.0, -1.0, -2.0]))
    array([[ 1. ,  0. ,  0. ],
           [ 1. , -1. ,  0. ],
           [ 0.5, -1. ,  0.5]])
    """
    matrix = np.zeros((len(nodes), len(nodes)))
    for k in range(len(nodes)):
        apart = nodes[: k + 1, None] - nodes[: k + 1] + np.eye(k + 1)
        matrix[k, : k + 1] = 1 / np.prod(apart, axis=1)
    return matrix


def _panels(s: float, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes ``(panels, 8)`` between ``s`` and ``t``, and signed lengths of panels."""
    edges = np.linspace(s, t, max(1, int(np.ceil(abs(t - s) / _PANEL))) + 1)
    lengths = np.diff(edges)
    return edges[:-1, None] + lengths[:, None] * _NODES, lengths
