"""Data sets for denoisers, with one split into training and test data for all."""

import functools

import numpy as np

_NUM_TEST = 360
_SEED = 0


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
