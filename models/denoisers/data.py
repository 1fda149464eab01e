"""Data sets for denoisers, with one split into training and test data for all."""

import functools
import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

__all__ = ["digits_data", "fashion_mnist"]

_NUM_TEST = 360
_SEED = 0
_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
# Magic number: two zero bytes, the code of unsigned bytes, the number of axes.
_UNSIGNED_BYTES = 8


@functools.cache
def digits_data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return scikit-learn's handwritten digits, split the same way every time.

    Returns
    -------
    tuple of numpy.ndarray
        ``(train_images, train_labels, test_images, test_labels)``: 1437 and 360 images of 8 by 8
        pixels as rows of 64 between -1 and 1, float32, and their digits, int32. Both parts hold
        the ten digits in equal proportions. The arrays are shared and cannot be written to.

    Notes
    -----
    Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning
    Repository, 1998 (its test set), as ``sklearn.datasets.load_digits`` holds it. A pixel counts
    0 to 16 and becomes ``x / 8 - 1``.

    Examples
    --------
    >>> train_images, train_labels, test_images, test_labels = digits_data()
    >>> train_images.shape, test_images.shape, train_images.min().item(), train_images.max().item()
    ((1437, 64), (360, 64), -1.0, 1.0)
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 8 - 1).astype(np.float32), labels.astype(np.int32)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=_NUM_TEST, random_state=_SEED, stratify=labels
    )
    arrays = (train_images, train_labels, test_images, test_labels)
    for array in arrays:
        array.flags.writeable = False
    return arrays


def fashion_mnist(
    folder: str | os.PathLike[str] = _FASHION_MNIST,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return Fashion-MNIST from the files of the Debian package ``dataset-fashion-mnist``.

    Parameters
    ----------
    folder
        Where the four files are; the default is where the package puts them.

    Returns
    -------
    tuple of numpy.ndarray
        ``(train_images, train_labels, test_images, test_labels)``: 60000 and 10000 images of 28 by
        28 pixels as rows of 784 between -1 and 1, float32, and their classes, int32.

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message says how to install them.
    ValueError
        If a file is damaged or is no IDX file of unsigned bytes.

    Notes
    -----
    Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
    learning algorithms", arXiv:1708.07747, 2017; MIT licence. A pixel counts 0 to 255 and becomes
    ``x / 127.5 - 1``.

    Examples
    --------
    >>> fashion_mnist("/nowhere")
    Traceback (most recent call last):
    ...
    FileNotFoundError: folder '/nowhere' lacks train-images-idx3-ubyte.gz; ...
    """
    parts = []
    for part in ("train", "t10k"):
        images = _read_idx(Path(folder), f"{part}-images-idx3-ubyte.gz", 3)
        labels = _read_idx(Path(folder), f"{part}-labels-idx1-ubyte.gz", 1)
        if len(images) != len(labels):
            raise ValueError(
                f"folder {str(folder)!r} holds {len(images)} {part} images but {len(labels)} labels"
            )
        rows = images.reshape(len(images), -1).astype(np.float32)
        parts += [rows / np.float32(127.5) - 1, labels.astype(np.int32)]
    return parts[0], parts[1], parts[2], parts[3]


def _read_idx(folder: Path, name: str, num_axes: int) -> np.ndarray:
    """Return the bytes of a gzipped IDX file, the format of MNIST, with their axes."""
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(
            f"folder {str(folder)!r} lacks {name}; on Debian and Ubuntu the files come with "
            "`apt-get install dataset-fashion-mnist`"
        )
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"folder {str(folder)!r}: {name} is damaged: {error}") from None
    start = 4 + 4 * num_axes
    if len(data) < start or data[:4] != bytes([0, 0, _UNSIGNED_BYTES, num_axes]):
        raise ValueError(
            f"folder {str(folder)!r}: {name} is no IDX file of unsigned bytes with {num_axes} axes"
        )
    shape = struct.unpack(f">{num_axes}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(
            f"folder {str(folder)!r}: {name} should hold {shape} bytes but holds "
            f"{len(data) - start}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
