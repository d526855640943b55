"""What a program claims of itself, read from the metrics it reports."""

import numpy as np
import pandas as pd
import pytest
from bugbench.runner import reported_value

METRICS = pd.DataFrame(
    [
        ("train", 0, 4, "accuracy", 1.0),
        ("val", 0, 4, "accuracy", 0.7),
        ("val", 0, 4, "loss", 0.9),
        ("val", 1, 8, "accuracy", 0.9),
        ("val", 2, 12, "accuracy", 0.8),
    ],
    columns=["split", "epoch", "step", "name", "value"],
)


@pytest.mark.parametrize(
    ("moment", "direction", "expected"),
    [
        ("last", "maximize", 0.8),
        ("last", "minimize", 0.8),
        ("best", "maximize", 0.9),
        ("best", "minimize", 0.7),
    ],
)
def test_reported_value(moment, direction, expected):
    report = {"split": "val", "metric": "accuracy", "moment": moment}
    assert reported_value(METRICS, report, {"direction": direction}) == expected


def test_nothing_reported():
    report = {"split": "test", "metric": "accuracy", "moment": "best"}
    assert reported_value(METRICS, report, {"direction": "maximize"}) is None


def test_report_of_nan():
    report = {"split": "val", "metric": "accuracy", "moment": "last"}
    metrics = METRICS.assign(value=[1.0, 0.7, 0.9, 0.9, np.nan])
    assert np.isnan(reported_value(metrics, report, {"direction": "maximize"}))
    assert reported_value(metrics, {**report, "moment": "best"}, {"direction": "maximize"}) == 0.9
