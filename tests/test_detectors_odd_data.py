"""Runs that the detectors of data are not made for: all must come to an end, on prefixes as well."""

import contextlib
import itertools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from bugbench.detector import NotApplicable
from bugbench.detectors.finite_checks import FiniteChecks
from bugbench.recorder import Recorder
from data_runs import DATA_DETECTORS, LanguageModel, Run, faults, silent, suspects, table, text, token_loss
from torch import nn


def unharmed(folder: Path) -> None:
    """Assert that every detector comes to an end, on the whole trace and on prefixes of it."""
    for detector, until in itertools.product(DATA_DETECTORS, [None, 0, 1, 5]):
        with contextlib.suppress(NotApplicable), np.errstate(all="raise", under="ignore"):
            suspects(detector, folder, until)


def test_empty_run(tmp_path):
    Recorder(tmp_path / "t").finish(error="KeyboardInterrupt")
    unharmed(tmp_path / "t")


def test_one_step_and_no_validation(tmp_path):
    train, _ = table()
    Run(tmp_path / "t", train, None, classes=3, epochs=1, batches=lambda n: [torch.arange(16)])
    unharmed(tmp_path / "t")
    silent(tmp_path / "t")


def test_nothing_but_nan(tmp_path):
    (x, y), (u, v) = table()
    Run(tmp_path / "t", (x * float("nan"), y), (u * float("nan"), v), classes=3)
    unharmed(tmp_path / "t")
    assert faults(FiniteChecks, tmp_path / "t") == ["nan_inputs"]


def test_sequences_segmentation_and_many_labels(tmp_path):
    torch.manual_seed(0)
    Run(tmp_path / "l", text(80), text(30), task="language_model", classes=30, model=LanguageModel(), loss=token_loss)
    x = torch.randn(120, 1, 8, 8)
    y = (x[:, 0] > 0.5).long()
    Run(tmp_path / "s", (x[:80], y[:80]), (x[80:], y[80:]), classes=2, model=nn.Conv2d(1, 2, 3, padding=1))
    z = torch.randn(200, 5)
    many = (z @ torch.randn(5, 4) > 0).float()
    Run(tmp_path / "m", (z[:150], many[:150]), (z[150:], many[150:]), loss=F.binary_cross_entropy_with_logits)
    for name in ("l", "s", "m"):
        unharmed(tmp_path / name)
    silent(tmp_path / "s")
    silent(tmp_path / "m")


def test_a_model_that_nobody_watches(tmp_path):
    run = Recorder(tmp_path / "t", task="classification", classes=3)
    (x, y), _ = table()
    for index in torch.arange(len(x)).split(50):
        run.log_batch("train", inputs=x[index], targets=y[index], outputs=torch.zeros(len(index), 3), loss=1.1)
    run.finish()
    unharmed(tmp_path / "t")
    silent(tmp_path / "t")
