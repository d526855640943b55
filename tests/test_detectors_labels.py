"""Labels that are missing, constant, unscaled, permuted or of other samples, and those that are only hard to learn."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bugbench.detectors.label_alignment import LabelAlignment
from bugbench.detectors.label_checks import LabelChecks
from bugbench.detectors.label_coverage import LabelCoverage
from bugbench.recorder import Recorder
from data_runs import Run, changed, digits, faults, parts, regression, sequential, silent, table
from torch import nn

# -- label_coverage and label_checks -----------------------------------------------------------------------------------


def test_end_of_sorted_data_held_out(tmp_path):
    (x, y), (u, v) = digits()
    x, y = torch.cat([x, u]), torch.cat([y, v])
    order = y.argsort(stable=True)
    x, y = x[order], y[order]
    Run(tmp_path / "t", (x[:1600], y[:1600]), (x[1600:], y[1600:]), classes=10)
    assert faults(LabelCoverage, tmp_path / "t")[0] == "unshuffled_split"
    Run(tmp_path / "e", (x, y), (x[:150] + 0.01, y[:150]), classes=10)
    assert faults(LabelCoverage, tmp_path / "e")[0] == "eval_on_subset"


def test_end_of_data_sorted_by_target_held_out(tmp_path):
    (x, y), (u, v) = regression()
    x, y = torch.cat([x, u]), torch.cat([y, v])
    order = y.argsort()
    x, y = x[order], y[order]
    Run(tmp_path / "t", (x[:500], y[:500]), (x[500:], y[500:]), task="regression")
    assert faults(LabelCoverage, tmp_path / "t") == ["unshuffled_split"]


def test_classes_missing_in_training(tmp_path):
    (x, y), val = digits()
    Run(tmp_path / "d", (x[y != 4], y[y != 4]), val, classes=10)
    keep = (y != 4) | (torch.arange(len(y)) % 20 == 0)
    Run(tmp_path / "s", (x[keep], y[keep]), val, classes=10)
    assert faults(LabelCoverage, tmp_path / "d") == ["dropped_class"]
    assert faults(LabelCoverage, tmp_path / "s") == ["class_imbalance"]


def test_constant_and_missing_labels(tmp_path):
    (x, y), val = table()
    Run(tmp_path / "c", (x, torch.zeros_like(y)), val, classes=3)
    (p, q), held_out = regression()
    Run(tmp_path / "n", (p, q * float("nan")), held_out, task="regression")
    assert faults(LabelChecks, tmp_path / "c") == ["constant_labels"]
    assert faults(LabelChecks, tmp_path / "n") == ["constant_labels"]
    Run(
        tmp_path / "s",
        (p, changed(q, lambda z: z[5].fill_(float("nan")))),
        held_out,
        task="regression",
        batches=sequential,
    )
    assert faults(LabelChecks, tmp_path / "s") == ["labels"]


def test_unscaled_targets(tmp_path):
    (x, y), (u, v) = regression()
    Run(tmp_path / "t", (x, 3000 + 500 * y), (u, 3000 + 500 * v), task="regression", lr=1e-9)
    Run(tmp_path / "a", (x, 40 + 10 * y), (u, 40 + 10 * v), task="regression", lr=1e-4)  # ages
    assert faults(LabelChecks, tmp_path / "t") == ["unscaled_targets"]
    assert faults(LabelChecks, tmp_path / "a") == []


def test_labels_permuted_in_training(tmp_path):
    (x, y), val = digits()
    Run(tmp_path / "o", (x, (y + 1) % 10), val, classes=10)
    Run(tmp_path / "m", (x, torch.tensor([3, 0, 7, 1, 9, 2, 4, 5, 8, 6])[y]), val, classes=10)
    assert faults(LabelChecks, tmp_path / "o")[0] == "label_off_by_one"
    assert faults(LabelChecks, tmp_path / "m")[0] == "class_map_mismatch"


def test_missing_targets_that_the_loss_leaves_out(tmp_path):
    """As in tables of many assays, of which each compound has gone through some (Tox21)."""
    (x, _), (u, _) = table()
    many = (x @ torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) > 0).float()
    holes = torch.where(torch.rand(many.shape, generator=torch.Generator().manual_seed(1)) < 0.2, torch.nan, many)

    def masked(outputs, targets):
        known = ~targets.isnan()
        return F.binary_cross_entropy_with_logits(outputs[known], targets[known])

    run = {"val": (u, many[: len(u)]), "task": "classification"}
    Run(tmp_path / "m", (x, holes), loss=masked, **run)
    Run(tmp_path / "n", (x, holes), loss=F.binary_cross_entropy_with_logits, **run)
    assert faults(LabelChecks, tmp_path / "m") == []
    assert faults(LabelChecks, tmp_path / "n") == ["labels"]


def test_an_index_that_the_loss_ignores(tmp_path):
    (x, y), val = table()
    y = torch.where(torch.arange(len(y)) % 10 == 0, 255, y)
    Run(tmp_path / "t", (x, y), val, classes=3, loss=functools.partial(F.cross_entropy, ignore_index=255))
    assert faults(LabelChecks, tmp_path / "t") == []


@pytest.mark.parametrize("lengths", [(4, 5, 6), (4, 4, 4)])
def test_targets_apart_with_inputs_of_many_lengths(tmp_path, lengths):
    generator = torch.Generator().manual_seed(0)
    run = Recorder(tmp_path / "t", task="regression")
    for step in range(9):
        for split, low in (("train", step / 20), ("val", 1.0 + step / 20)):
            x = torch.randn(16, lengths[step % 3], 1, generator=generator)
            y = low + 0.05 * torch.rand(16, generator=generator)
            run.log_batch(split, inputs=x, targets=y, outputs=y, loss=0.1)
        run.log_metrics("val", loss=0.1)
    run.finish()
    assert faults(LabelCoverage, tmp_path / "t") == ["unshuffled_split"]


# -- label_alignment ---------------------------------------------------------------------------------------------------


def test_labels_of_other_samples(tmp_path):
    torch.manual_seed(0)
    for name, data, task, classes in (
        ("t", table(), "classification", 3),
        ("d", digits(), "classification", 10),
        ("r", regression(), "regression", None),
    ):
        (x, y), (u, v) = data
        settings = {"task": task, "classes": classes, "epochs": 8}
        Run(tmp_path / name, (x, y[torch.randperm(len(y))]), (u, v[torch.randperm(len(v))]), **settings)
        assert faults(LabelAlignment, tmp_path / name) == ["misaligned_labels"]
        silent(tmp_path / name, LabelAlignment)


def test_a_failed_run_on_sound_data_is_not_misaligned(tmp_path):
    Run(tmp_path / "t", *table(), classes=3, lr=0.0)
    assert faults(LabelAlignment, tmp_path / "t") == []


def test_parity_is_hard_but_sound(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.integers(0, 2, (900, 4)) * 2.0 - 1 + generator.normal(0, 0.1, (900, 4))
    y = (x.prod(axis=1) > 0).astype(int)
    model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
    Run(tmp_path / "t", *parts(x, y), classes=2, model=model, lr=1.0, epochs=25)
    assert faults(LabelAlignment, tmp_path / "t") == []
