"""Handwritten digits of 8x8 pixels as something to be drawn: the images of :mod:`bugbench.datasets.digits`.

A program that draws turns noise into images. It is asked for as many as there are hidden ones, always from the same
noise, and judged by how much of what is hidden its images cover; no drawing has a right answer of its own.
"""

from pathlib import Path

import numpy as np
from bugbench.datasets import digits
from scipy.spatial.distance import cdist

ORIGIN = "sklearn/datasets/data"

NOISE_SIZE = 16  # numbers from which an image is made
NEIGHBOURS = 5


def _noise(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((size, NOISE_SIZE), dtype=np.float32)


def write_training_data(folder: Path) -> None:
    """Write ``train.npz`` with ``images`` (1257, 8, 8), uint8, values 0 to 16, and ``labels``, sorted by label."""
    digits.write_training_data(folder)


def training_sample() -> tuple[np.ndarray, np.ndarray]:
    """Return noise (64, 16) and as many training images (64, 8, 8), uint8; the two do not belong together."""
    images, _ = digits.training_sample()
    return _noise(len(images), seed=1), images


def hidden_test() -> tuple[np.ndarray, np.ndarray]:
    """Return noise (540, 16) and the 540 images (540, 8, 8), uint8, that no program sees in training."""
    images, _ = digits.hidden_test()
    return _noise(len(images), seed=2), images


def oracle_metric(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the coverage (Naeem et al. 2020, arXiv:2002.09797) of real images by drawn ones, both (N, 8, 8).

    It is the share of the real images with a drawn one nearer than their fifth-nearest real neighbour: drawings that
    resemble nothing do not count, and many of one kind cover only that kind. A drawing with NaN or infinity is none.
    """
    real = targets.reshape(len(targets), -1).astype(np.float64)
    drawn = outputs.reshape(len(outputs), -1).astype(np.float64)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if not len(drawn):
        return 0.0
    # Column 0 of the sorted distances is an image's distance to itself
    radii = np.sort(cdist(real, real), axis=1)[:, NEIGHBOURS]
    return float((cdist(real, drawn).min(axis=1) < radii).mean())
