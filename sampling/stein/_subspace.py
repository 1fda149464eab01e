"""What methods share that see the particles in a subspace."""

from typing import Any

import jax

from shoal.sampling.core._kernel_sums import dot
from shoal.sampling.core.bandwidth import TrackedMedian
from shoal.sampling.core.kernels import Kernel
from shoal.sampling.stein._direction import Ensemble, stein_direction
from shoal.sampling.stein._options import Bandwidth


def check_num_dims(num_dims: int, most: int, of_what: str) -> None:
    """Raise ``ValueError`` for a subspace that is larger than ``most``."""
    if num_dims > most:
        raise ValueError(f"num_dims must be at most {of_what}, {most}, got {num_dims}")


def direction_inside(
    kernel: Kernel,
    ensemble: Ensemble,
    basis: jax.Array,
    h: jax.Array,
    bandwidth: Bandwidth,
    median: TrackedMedian | None,
) -> tuple[jax.Array, Any]:
    """Return SVGD's φ for the coordinates in a basis ``(d, r)``, ``(n, d)``, and their median."""
    points = dot(ensemble.points, basis)
    here = ensemble._replace(
        points=points,
        score=dot(ensemble.score, basis),
        bandwidth=h,
        threshold=None if median is None else median.threshold,
    )
    found = stein_direction(kernel, here)
    return dot(found.phi, basis.T), bandwidth.follow(median, points, ensemble.alive, found.near)
