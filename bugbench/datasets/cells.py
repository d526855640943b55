"""Simulated micrographs of 32x32 pixels: cells to be outlined, among debris that looks like them, on uneven ground.

A cell is an ellipse with grains in it and a rim; debris is a disc of the same brightness without grains, and no cell.
What lies on top hides what lies below. Each plate has been exposed longer than the one before: it is brighter and has
more contrast. 360 images are written for the program, plate by plate, 120 are kept as the hidden test set; none of it
depends on a run's seed.
"""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

PLATES = 12
TRAINING_SIZE = 360
HIDDEN_SIZE = 120
SIZE = 32  # pixels
SAMPLE_SIZE = 64
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]


def _distance(generator: np.random.Generator, low: float, high: float, roundness: float) -> np.ndarray:
    """Return each pixel's distance from the centre of a random ellipse, in its radii."""
    row, column = generator.uniform(1, SIZE - 2, 2)
    angle, radius = generator.uniform(0, np.pi), generator.uniform(low, high)
    along = (COLUMNS - column) * np.cos(angle) + (ROWS - row) * np.sin(angle)
    across = (ROWS - row) * np.cos(angle) - (COLUMNS - column) * np.sin(angle)
    stretch = generator.uniform(roundness, 1) ** 0.5
    return np.hypot(along * stretch, across / stretch) / radius


def _micrograph(generator: np.random.Generator, exposure: float) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (32, 32), uint8, and the mask of its cells, uint8."""
    slope = generator.normal(0, 0.5, 2) @ np.stack([ROWS, COLUMNS]).reshape(2, -1) / SIZE
    image = slope.reshape(SIZE, SIZE) + 2 * gaussian_filter(generator.normal(0, 1, (SIZE, SIZE)), 4)
    mask = np.zeros((SIZE, SIZE), bool)
    things = ["cell"] * generator.integers(1, 5) + ["debris"] * generator.integers(1, 4)
    for thing in generator.permutation(things):
        cell, contrast = thing == "cell", generator.uniform(1.0, 1.8)
        distance = _distance(generator, 3, 6, 0.5) if cell else _distance(generator, 1.2, 3, 0.9)
        inside = distance < 1
        surface = np.full((SIZE, SIZE), contrast)
        if cell:
            grains = gaussian_filter(generator.normal(0, 1, (SIZE, SIZE)), 0.6)
            surface += 1.5 * grains + 0.4 * contrast * (distance > 0.75)
        image = np.where(inside, image + surface, image)
        mask = (mask | inside) if cell else (mask & ~inside)
    image = gaussian_filter(image, 0.5) + generator.normal(0, 0.15, (SIZE, SIZE))
    brightness = exposure * (80 + 30 * image)
    return brightness.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


def _micrographs(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images and masks, both (size, 32, 32), uint8, in the order of their plates."""
    generator = np.random.default_rng(seed)
    plates = np.sort(np.arange(size) % PLATES)
    pairs = [_micrograph(generator, exposure) for exposure in np.linspace(0.8, 1.2, PLATES)[plates]]
    images, masks = zip(*pairs, strict=True)
    return np.stack(images), np.stack(masks)


def write_training_data(folder: Path) -> None:
    """Write ``train.npz`` with ``images`` and ``masks``, both (360, 32, 32), uint8; a mask is 1 where a cell is."""
    images, masks = _micrographs(TRAINING_SIZE, seed=1)
    np.savez(Path(folder) / "train.npz", images=images, masks=masks)


def training_sample() -> tuple[np.ndarray, np.ndarray]:
    """Return 64 training images (64, 32, 32), uint8, of all plates, with their masks."""
    images, masks = _micrographs(TRAINING_SIZE, seed=1)
    rows = np.linspace(0, len(images) - 1, SAMPLE_SIZE).astype(int)
    return images[rows], masks[rows]


def hidden_test() -> tuple[np.ndarray, np.ndarray]:
    """Return 120 images (120, 32, 32), uint8, that no program sees in training, with their masks."""
    return _micrographs(HIDDEN_SIZE, seed=2)


def oracle_metric(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the Dice coefficient of masks (N, 32, 32) with the true ones, over all pixels of all images.

    A pixel is one of a cell where the output is above 0.5, which NaN is not.
    """
    predicted, true = outputs.reshape(targets.shape) > 0.5, targets > 0.5
    return float(2 * (predicted & true).sum() / (predicted.sum() + true.sum()))
