"""Points for tests of pairwise reductions."""

import numpy as np


def points(m: int, n: int, d: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return x (m, d), y (n, d), v (n, d), w (n,) in float64, with a zero among the weights."""
    rng = np.random.default_rng(seed)
    x, y, v = (rng.normal(size=(k, d)) for k in (m, n, n))
    w = rng.normal(size=n)
    w[n // 2] = 0.0
    return x, y + 0.3, v, w
