"""Whether samples are the training data over again."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import mannwhitneyu

from shoal.inference._points import alike
from shoal.sampling.core._kernel_sums import distance_factors, squared_distances
from shoal.sampling.core._tiles import Reduction, block_sides, check_block_size, reduce_pairs


class Neighbours(NamedTuple):
    """For each sample the nearest point of a data set.

    Attributes
    ----------
    distances
        Euclidean distance to it, shape ``(m,)``.
    indices
        Its place in the data, int32 ``(m,)``.
    """

    distances: jax.Array
    indices: jax.Array


class Memorisation(NamedTuple):
    """How near samples are to the training data, beside fresh data; ``print`` says it.

    Attributes
    ----------
    sample_median
        Median over the samples of the distance to the nearest training point.
    held_out_median
        The same of the held-out data.
    ratio
        ``sample_median / held_out_median``: 0 for copies, about 1 for fresh draws.
    p_value
        One-sided p value of the rank test (Mann and Whitney): small if samples are nearer to the
        training data than held-out data are.
    num_closer
        Samples nearer to the training data than every held-out point is. Of m fresh draws, beside
        h held-out points, m / (h + 1) are so on average: many more are copies, even where they are
        too few to move the medians.
    """

    sample_median: float
    held_out_median: float
    ratio: float
    p_value: float
    num_closer: int

    def __str__(self) -> str:
        return (
            f"median distance to the nearest training point: {self.sample_median:.3g} for samples, "
            f"{self.held_out_median:.3g} for held-out data (ratio {self.ratio:.2f}, "
            f"p = {self.p_value:.2g}); {self.num_closer} samples are nearer than any held-out point"
        )


def nearest_neighbours(samples: Any, data: Any, *, block_size: int | None = None) -> Neighbours:
    """Find the nearest point of a data set for each sample.

    Parameters
    ----------
    samples, data
        Shapes ``(m, ...)`` and ``(n, ...)``, float32 or float64.
    block_size
        As in `shoal.sampling.core.pairwise`.

    Returns
    -------
    Neighbours
        ``(distances, indices)``. Neighbours are looked for tile by tile, in O(m n d) time and
        O((m + n) d) memory, by squared distances that are rounded as in
        `shoal.sampling.core.pairwise`: of points equally near up to that, any may be returned. The
        distance is then that of the two points themselves, so that it is 0 for a copy.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> data = jnp.array([[0.0, 0.0], [10.0, 0.0]])
    >>> found = nearest_neighbours(jnp.array([[7.0, 4.0], [1.0, 0.0]]), data)
    >>> found.distances.tolist(), found.indices.tolist()
    ([5.0, 1.0], [1, 0])
    """
    x, y = alike(samples=samples, data=data)
    return _nearest(x, y, check_block_size(block_size))


def memorisation(samples: Any, train: Any, held_out: Any) -> Memorisation:
    """Compare how near samples and held-out data are to the training data.

    Given the training data, draws of the law that both it and the held-out data come from are as
    near to it as the held-out data are, which is what the rank test tests.

    Parameters
    ----------
    samples, train, held_out
        Shapes ``(m, ...)``, ``(n, ...)`` and ``(h, ...)``, float32 or float64. Samples are
        independent draws of the generator.

    Returns
    -------
    Memorisation
        Medians, their ratio, the p value and a count of likely copies. Two cautions: samples that
        are too tame, such as strongly guided ones, lie near the training data without being
        copies, and distances between raw images do not see a copy that is shifted by a pixel.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or half of the held-out points are training points.

    Notes
    -----
    Nearest neighbours against held-out data: Meehan, Chaudhuri and Dasgupta, "A non-parametric
    test to detect data-copying in generative models", AISTATS 2020, section 3, with one cell.

    Examples
    --------
    >>> import jax
    >>> train, held_out, fresh = jax.random.normal(jax.random.key(0), (3, 200, 5))
    >>> memorisation(fresh, train, held_out).p_value > 0.001
    True
    >>> print(memorisation(train[:50] + 0.01, train, held_out))
    median distance to the nearest training point: 0.0224 for samples, ...
    """
    x, train, held_out = alike(samples=samples, train=train, held_out=held_out)
    near, usual = (
        np.asarray(nearest_neighbours(points, train).distances, np.float64)
        for points in (x, held_out)
    )
    sample_median, held_out_median = float(np.median(near)), float(np.median(usual))
    if held_out_median == 0:
        raise ValueError("held_out must be fresh data, but half of it or more is in train")
    return Memorisation(
        sample_median,
        held_out_median,
        sample_median / held_out_median,
        float(mannwhitneyu(near, usual, alternative="less").pvalue),
        int(np.sum(near < usual.min())),
    )


@functools.partial(jax.jit, static_argnames="block_size")
def _nearest(x: jax.Array, y: jax.Array, block_size: int | None) -> Neighbours:
    rows, points = {"x": x}, {"y": y, "index": jnp.arange(len(y), dtype=jnp.int32)}
    sides = block_sides(len(x), len(y), block_size, 1, aspect=2)
    reduction = Reduction(_nearest_in_tile, _nearer, (jnp.inf, 0), 0.0)
    # What pads the columns is the last point again, as near as that one.
    _, index = reduce_pairs(reduction, None, rows, points, None, sides)
    return Neighbours(jnp.linalg.norm(x - y[index], axis=1), index)


def _nearest_in_tile(_: Any, rows: Any, points: Any, __: Any) -> tuple[jax.Array, jax.Array]:
    q = squared_distances(*distance_factors(rows["x"], points["y"]))
    return jnp.min(q, axis=1), points["index"][jnp.argmin(q, axis=1)]


def _nearer(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    is_nearer = b[0] < a[0]
    return jnp.where(is_nearer, b[0], a[0]), jnp.where(is_nearer, b[1], a[1])
