"""Generated images side by side.

As in `shoal.inference.plot`, a function returns a ``matplotlib.figure.Figure`` that belongs to no
window, and matplotlib is imported when the first picture is drawn.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.inference.plot import new_figure
from shoal.sampling.core._checks import integer, real_parameter, real_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK, _LOST = "#333333", (0.84, 0.37, 0.0)
_INCHES, _GAP = 0.55, 1


def image_grid(
    images: Any,
    *,
    columns: int = 10,
    shape: tuple[int, int] | None = None,
    low: float = -1.0,
    high: float = 1.0,
    headings: Sequence[str] = (),
    title: str = "",
) -> "Figure":
    """Draw grey images in rows.

    Parameters
    ----------
    images
        Shape ``(n, height, width)``, or ``(n, height * width)`` with ``shape``. Pixels that are NaN
        are orange, so that a sample that failed cannot be overlooked.
    columns
        Images in a row; the last row may be shorter.
    shape
        Height and width; by default a square.
    low, high
        What is black and what is white.
    headings
        Words above the columns, one for each.
    title
        Heading of all.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If ``images`` are no images of that shape, or a number is impossible.

    Examples
    --------
    >>> import numpy as np
    >>> figure = image_grid(np.linspace(-1, 1, 7 * 16).reshape(7, 16), columns=3)
    >>> figure.axes[0].images[0].get_array().shape
    (16, 16, 3)
    """
    images = _as_images(images, shape)
    columns = integer("columns", columns)
    low, high = (real_parameter(name, v, scalar=True) for name, v in (("low", low), ("high", high)))
    if not low < high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    if headings and len(headings) != columns:
        raise ValueError(f"headings must hold {columns} words, one for a column, got {headings!r}")
    mosaic = _mosaic((images - low) / (high - low), columns)
    num_rows = -(-len(images) // columns)
    room = 0.3 * bool(title) + 0.25 * bool(headings) + 0.1
    figure = new_figure(max(3.0, columns * _INCHES), max(0.6, num_rows * _INCHES) + room)
    ax = figure.subplots()
    ax.imshow(mosaic, interpolation="nearest")
    ax.set_yticks([])
    width = images.shape[2] + _GAP
    ax.set_xticks(_GAP + (width - _GAP - 1) / 2 + width * np.arange(len(headings)), headings)
    ax.tick_params(top=False, bottom=False, labeltop=True, labelbottom=False, labelcolor=_INK)
    ax.spines[:].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=10, color=_INK)
    return figure


def _as_images(images: Any, shape: tuple[int, int] | None) -> np.ndarray:
    """Return ``(n, height, width)``."""
    images = np.asarray(real_values("images", images), np.float64)
    if images.ndim == 3 and images.size and shape is None:
        return images
    if images.ndim != 2 or not images.size:
        raise ValueError(
            f"images must have shape (n, height, width) or (n, pixels), got {images.shape}"
        )
    size = images.shape[1]
    if shape is None:
        shape = (math.isqrt(size), math.isqrt(size))
    sizes = tuple(integer(f"shape={shape}: a size", part) for part in shape)
    if len(sizes) != 2 or sizes[0] * sizes[1] != size:
        raise ValueError(f"shape must be (height, width) of {size} pixels, got {shape}")
    return images.reshape(-1, *sizes)


def _mosaic(grey: np.ndarray, columns: int) -> np.ndarray:
    """Put images between 0 and 1 into one, in colour, with white gaps around each."""
    num, height, width = grey.shape
    colour = np.where(np.isnan(grey)[..., None], _LOST, np.clip(grey, 0, 1)[..., None])
    rows = -(-num // columns)
    step = height + _GAP, width + _GAP
    mosaic = np.ones((rows * step[0] + _GAP, columns * step[1] + _GAP, 3))
    for i, image in enumerate(colour):
        top, left = i // columns * step[0] + _GAP, i % columns * step[1] + _GAP
        mosaic[top : top + height, left : left + width] = image
    return mosaic
