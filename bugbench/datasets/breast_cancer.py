"""Breast cancer Wisconsin (diagnostic): 569 biopsies, 20 measurements of the cell nuclei, malignant or benign.

Measurements and diagnoses are those of ``sklearn.datasets.load_breast_cancer`` (Street, Wolberg and Mangasarian,
1993): mean and standard error of ten quantities in their own units, from ``mean_area``, up to 2501, to
``fractal_dimension_error``, down to 0.001. The ten "worst" columns are left out: with them the diagnosis is so easy
that not even a leak changes much. ``biopsies.csv`` holds 369 rows, sorted by diagnosis. Simulated, always alike, are

- ``patient``, a number without meaning;
- missing cells: 3 % of the cells of five columns are empty, in the file and in the hidden test;
- ``therapy_weeks``, the weeks of therapy that followed the biopsy: none after a benign one, 6 to 30 after a malignant
  one, but none where it was declined (5 %). Nobody is treated before the diagnosis, so in the hidden test it is empty:
  an illegitimate feature in the sense of Kapoor and Narayanan (Patterns 4, 2023).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

ORIGIN = "sklearn/datasets/data"

LABEL = "malignant"
INCOMPLETE = ["mean_texture", "mean_concavity", "mean_symmetry", "area_error", "compactness_error"]
MISSING_SHARE = 0.03
HIDDEN_SHARE = 0.35
SPLIT_SEED = 8  # logistic regression finds both parts about equally hard: 0.95 cross-validated, 0.96 hidden
SAMPLE_SIZE = 64


def write_training_data(folder: Path) -> None:
    """Write ``biopsies.csv``: one row per biopsy, the benign ones first."""
    training, _ = _partition()
    training.to_csv(Path(folder) / "biopsies.csv", index=False)


def training_sample() -> tuple[pd.DataFrame, np.ndarray]:
    """Return 64 rows of ``biopsies.csv`` without their labels, and the labels (64,), int64."""
    training, _ = _partition()
    rows = np.linspace(0, len(training) - 1, SAMPLE_SIZE).astype(int)
    sample = training.iloc[rows].reset_index(drop=True)
    return sample.drop(columns=LABEL), sample[LABEL].to_numpy(copy=True)


def hidden_test() -> tuple[pd.DataFrame, np.ndarray]:
    """Return the 200 rows that no program sees in training, ``therapy_weeks`` empty, and their labels (200,)."""
    _, hidden = _partition()
    return hidden.drop(columns=LABEL).assign(therapy_weeks=np.nan), hidden[LABEL].to_numpy(copy=True)


def oracle_metric(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the accuracy of logits (N, 2) against labels (N,); a row with NaN or infinity is wrong."""
    finite = np.isfinite(outputs).all(axis=1)
    predicted = np.where(finite, np.nan_to_num(outputs).argmax(axis=1), -1)
    return float(accuracy_score(targets, predicted))


def _partition() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the training rows, sorted by label, and the hidden rows."""
    table = _biopsies()
    training, hidden = train_test_split(table, test_size=HIDDEN_SHARE, stratify=table[LABEL], random_state=SPLIT_SEED)
    return training.sort_values(LABEL, kind="stable", ignore_index=True), hidden.reset_index(drop=True)


def _biopsies() -> pd.DataFrame:
    """Return all rows, with the simulated columns and the holes."""
    source = load_breast_cancer(as_frame=True)
    table = source.data.filter(regex="^mean|error$").rename(columns=lambda name: name.replace(" ", "_"))
    malignant = 1 - source.target  # scikit-learn counts benign as 1
    generator = np.random.default_rng(0)
    for column in INCOMPLETE:
        table.loc[generator.random(len(table)) < MISSING_SHARE, column] = np.nan
    weeks = generator.integers(6, 31, len(table))
    accepted = generator.random(len(table)) >= 0.05
    table.insert(0, "patient", 100_000 + generator.permutation(len(table)))
    return table.assign(therapy_weeks=weeks * accepted * malignant, malignant=malignant)
