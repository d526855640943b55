"""The onset of a bug: the first step at which a run differs from its twin."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bugbench.runner import onset


def tables():
    """Four training steps, an evaluation after the second and the fourth; norms of the first two steps alone."""
    steps = pd.DataFrame(
        {
            "split": ["train", "train", "val", "train", "train", "val"],
            "step": [0, 1, 2, 2, 3, 4],
            "loss": [4.0, 3.0, 3.5, 2.0, 1.0, 1.5],
            "grad_norm": [1.0, 0.5, np.nan, np.nan, np.nan, np.nan],
            "labels": [[1, 1], [0, 2], None, None, None, None],
        }
    )
    metrics = pd.DataFrame({"split": ["val", "val"], "step": [2, 4], "name": "loss", "value": [3.5, 1.5]})
    return steps, metrics


def trace_of(folder: Path, steps: pd.DataFrame, metrics: pd.DataFrame, predictions: bytes | None = b"same") -> Path:
    folder.mkdir()
    steps.to_parquet(folder / "steps.parquet", index=False)
    metrics.to_parquet(folder / "metrics.parquet", index=False)
    if predictions is not None:
        (folder / "predictions.safetensors").write_bytes(predictions)
    return folder


@pytest.fixture
def onset_of(tmp_path):
    """Return a function: the onset of a trace against the trace of `tables()`."""

    def measure(steps=None, metrics=None, predictions=b"same"):
        twin = trace_of(tmp_path / "twin", *tables())
        ours = trace_of(
            tmp_path / "ours",
            tables()[0] if steps is None else steps,
            tables()[1] if metrics is None else metrics,
            predictions,
        )
        found = onset(ours, twin)
        assert onset(twin, ours) == found, "it does not matter which is the twin"
        return found

    return measure


def changed(table, row, column, value):
    steps_or_metrics = tables()[table]
    steps_or_metrics.at[row, column] = value
    return steps_or_metrics


def test_equal_traces_have_no_onset_in_spite_of_their_nans(onset_of):
    assert onset_of() is None


@pytest.mark.parametrize(
    ("row", "column", "value", "expected"),
    [
        (0, "loss", 4.5, 0),
        (1, "grad_norm", 0.75, 1),
        (1, "labels", [2, 0], 1),
        (3, "loss", np.nextafter(2.0, 3), 2),
        (4, "loss", np.nan, 3),
        (2, "loss", 3.0, 1),  # an evaluation belongs to the step before it
        (5, "loss", np.nan, 3),
        (3, "grad_norm", 0.1, 2),
    ],
)
def test_first_difference_in_the_steps(onset_of, row, column, value, expected):
    assert onset_of(changed(0, row, column, value)) == expected


@pytest.mark.parametrize(("row", "expected"), [(0, 1), (1, 3)])
def test_difference_in_what_is_reported_alone(onset_of, row, expected):
    assert onset_of(metrics=changed(1, row, "value", 9.0)) == expected


def test_the_earlier_of_two_differences_counts(onset_of):
    assert onset_of(changed(0, 4, "loss", 9.0), changed(1, 0, "value", 9.0)) == 1


@pytest.mark.parametrize(("length", "expected"), [(5, 3), (4, 3), (3, 2), (1, 1), (0, 0)])
def test_run_that_ended_early(onset_of, length, expected):
    """The first step that is missing; a missing evaluation belongs to the step before it."""
    steps, metrics = tables()
    assert onset_of(steps.iloc[:length], metrics) == expected


def test_run_that_failed_before_its_first_step(onset_of):
    none = pd.DataFrame({name: [] for name in ("split", "step", "epoch", "loss", "lr")})
    assert onset_of(none, tables()[1].iloc[:0], None) == 0


def test_evaluation_before_training_belongs_to_step_0(onset_of):
    first = pd.DataFrame({"split": ["val"], "step": [0], "loss": [9.0]})
    assert onset_of(pd.concat([first, tables()[0]], ignore_index=True)) == 0


@pytest.mark.parametrize("predictions", [b"other", None])
def test_difference_in_the_predictions_alone_is_one_at_the_last_step(onset_of, predictions):
    assert onset_of(predictions=predictions) == 3


def test_columns_of_one_trace_alone_do_not_count(onset_of):
    steps, _ = tables()
    assert onset_of(steps.assign(update_norm=1.0)) is None
