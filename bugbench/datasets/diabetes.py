"""Diabetes: 442 patients, ten measurements at the start, the progression of the disease one year later.

Measurements and progression (25 to 346, larger is worse) are those of ``sklearn.datasets.load_diabetes(scaled=False)``
(Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, 2004) in their own units: from ``cholesterol``, up to
301, to ``log_triglycerides``, up to 6.1. ``patients.csv`` holds 287 rows, ranked by progression as on a ward's list.
Simulated, always alike, are

- ``patient``, a number without meaning;
- missing cells: 3 % of the cells of four columns are empty, in the file and in the hidden test;
- ``followup_visits``, how often the patient was seen in the year that followed: once for each 20 points of
  progression, give or take a visit (normal noise, standard deviation 1, rounded). When a prediction is wanted that year
  is yet to come, so in the hidden test it is empty: an illegitimate feature in the sense of Kapoor and Narayanan
  (Patterns 4, 2023).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

ORIGIN = "sklearn/datasets/data"

LABEL = "progression"
FEATURES = ["age", "sex", "bmi", "blood_pressure", "cholesterol", "ldl", "hdl", "cholesterol_per_hdl"]
FEATURES += ["log_triglycerides", "glucose"]
INCOMPLETE = ["blood_pressure", "hdl", "cholesterol_per_hdl", "glucose"]
MISSING_SHARE = 0.03
HIDDEN_SHARE = 0.35
SPLIT_SEED = 8  # ridge regression finds both parts about equally hard: R2 0.50 cross-validated, 0.47 hidden
SAMPLE_SIZE = 64


def write_training_data(folder: Path) -> None:
    """Write ``patients.csv``: one row per patient, the mildest progression first."""
    training, _ = _partition()
    training.to_csv(Path(folder) / "patients.csv", index=False)


def training_sample() -> tuple[pd.DataFrame, np.ndarray]:
    """Return 64 rows of ``patients.csv`` without their progression, and the progression (64,), float64."""
    training, _ = _partition()
    rows = np.linspace(0, len(training) - 1, SAMPLE_SIZE).astype(int)
    sample = training.iloc[rows].reset_index(drop=True)
    return sample.drop(columns=LABEL), sample[LABEL].to_numpy(copy=True)


def hidden_test() -> tuple[pd.DataFrame, np.ndarray]:
    """Return the 155 rows that no program sees in training, ``followup_visits`` empty, and their progression."""
    _, hidden = _partition()
    return hidden.drop(columns=LABEL).assign(followup_visits=np.nan), hidden[LABEL].to_numpy(copy=True)


def oracle_metric(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the R2 of outputs (N,) or (N, 1) against targets (N,); NaN if there is a NaN or infinity among them."""
    if not np.isfinite(outputs).all():
        return float("nan")
    return float(r2_score(targets, outputs.reshape(len(targets))))


def _partition() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the training rows, sorted by progression, and the hidden rows, alike in its distribution."""
    table = _patients()
    quintiles = pd.qcut(table[LABEL], 5, labels=False)
    training, hidden = train_test_split(table, test_size=HIDDEN_SHARE, stratify=quintiles, random_state=SPLIT_SEED)
    return training.sort_values(LABEL, kind="stable", ignore_index=True), hidden.reset_index(drop=True)


def _patients() -> pd.DataFrame:
    """Return all rows, with the simulated columns and the holes."""
    measurements, progression = load_diabetes(return_X_y=True, scaled=False)
    table = pd.DataFrame(measurements, columns=FEATURES)
    generator = np.random.default_rng(0)
    for column in INCOMPLETE:
        table.loc[generator.random(len(table)) < MISSING_SHARE, column] = np.nan
    visits = np.rint(progression / 20 + generator.normal(0, 1, len(table))).clip(min=0)
    table.insert(0, "patient", 100_000 + generator.permutation(len(table)))
    return table.assign(followup_visits=visits.astype(int), progression=progression)
