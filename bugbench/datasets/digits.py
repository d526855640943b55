"""Handwritten digits of 8x8 pixels: scikit-learn's copy of the UCI optical recognition test set.

1,797 scans, pixel values 0 to 16. Seven tenths are written for the program, three tenths are kept as the
hidden test set; the division is stratified and never depends on a run's seed.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

ORIGIN = "sklearn/datasets/data"

HIDDEN_SHARE = 0.3
SPLIT_SEED = 20
SAMPLE_SIZE = 64


def _partition() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training images (1257, 8, 8) uint8, hidden images (540, 8, 8) and their labels, int64."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.uint8)
    images, hidden_images, labels, hidden_labels = train_test_split(
        images, labels.astype(np.int64), test_size=HIDDEN_SHARE, stratify=labels, random_state=SPLIT_SEED
    )
    in_class_order = np.argsort(labels, kind="stable")  # what walking through one folder per class gives
    return images[in_class_order], hidden_images, labels[in_class_order], hidden_labels


def write_training_data(folder: Path) -> None:
    """Write ``train.npz`` with ``images`` (1257, 8, 8), uint8, and ``labels`` (1257,), sorted by label."""
    images, _, labels, _ = _partition()
    np.savez(Path(folder) / "train.npz", images=images, labels=labels)


def training_sample() -> tuple[np.ndarray, np.ndarray]:
    """Return 64 training images (64, 8, 8), uint8, of all classes, with their labels (64,)."""
    images, _, labels, _ = _partition()
    rows = np.linspace(0, len(labels) - 1, SAMPLE_SIZE).astype(int)
    return images[rows], labels[rows]


def hidden_test() -> tuple[np.ndarray, np.ndarray]:
    """Return the 540 images (540, 8, 8), uint8, that no program sees in training, with labels (540,)."""
    _, hidden_images, _, hidden_labels = _partition()
    return hidden_images, hidden_labels


def oracle_metric(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the accuracy of scores (N, 10) against labels (N,); a row with NaN or infinity is wrong."""
    finite = np.isfinite(outputs).all(axis=1)
    predicted = np.where(finite, np.nan_to_num(outputs).argmax(axis=1), -1)
    return float(accuracy_score(targets, predicted))
