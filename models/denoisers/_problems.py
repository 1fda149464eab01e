"""Mixtures on which solvers are compared: their denoisers, moments and densities are exact."""

import numpy as np
from sklearn.datasets import load_digits

from shoal.models.denoisers._mixture import MixtureMean, gaussian_mixture
from shoal.sampling.core.denoiser import Denoiser


def digits_mixture() -> Denoiser[MixtureMean]:
    """Return the denoiser of one Gaussian for each of the ten digits of scikit-learn, 64 numbers.

    Of all 1797 images ``x / 8 - 1`` with pixels between -1 and 1, each class has its mean, its
    sample covariance plus 0.05² (many pixels are constant), and its frequency as weight.

    Examples
    --------
    >>> digits_mixture().fn.means.shape
    (10, 64)
    """
    images, labels = load_digits(return_X_y=True)
    classes = [images[labels == digit] / 8 - 1 for digit in range(10)]
    return gaussian_mixture(
        np.bincount(labels),
        np.stack([one.mean(axis=0) for one in classes]),
        np.stack([np.cov(one, rowvar=False) + 0.05**2 * np.eye(64) for one in classes]),
    )


def ring_mixture() -> Denoiser[MixtureMean]:
    """Return the denoiser of eight equal modes on the unit circle, of standard deviation 0.1.

    Examples
    --------
    >>> ring_mixture().fn.means.shape
    (8, 2)
    """
    angle = 2 * np.pi * np.arange(8) / 8
    return gaussian_mixture(np.ones(8), np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.1**2)
