"""Metrics as programs report them, against those recomputed of the logged batches."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bugbench.detectors.metric_recomputation import MetricRecomputation
from bugbench.recorder import Recorder
from tiny_training import top

pytestmark = pytest.mark.usefixtures("fixed_seed")


def evaluated(folder, outputs, targets, report, name="accuracy", sizes=(30, 30, 3), task="classification"):
    """Record three evaluations in batches; ``report`` makes the reported number of a list of batches."""
    run = Recorder(folder, task=task, classes=4)
    for shift in range(3):
        batches = list(zip((outputs + shift * 1e-3).split(sizes), targets.split(sizes), strict=True))
        for o, t in batches:
            run.log_batch("val", inputs=torch.zeros(len(t), 2), targets=t, outputs=o, loss=0.5)
        run.log_metrics("val", loss=0.5, **{name: report(batches)})
        run.log_batch("train", inputs=torch.zeros(2, 2), targets=targets[:2], outputs=outputs[:2], loss=0.5)
    run.finish()
    return folder


def mean(values):
    return float(np.mean([float(v) for v in values]))


def all_hits(batches):
    return float(torch.cat([(o.argmax(1) == t).float() for o, t in batches]).mean())


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        (all_hits, None),
        (lambda batches: 100 * all_hits(batches), None),
        (lambda batches: mean((o.argmax(1) == t).float().mean() for o, t in batches), "mean_of_batch_means"),
        (lambda batches: 0.0, None),
        (lambda batches: sum((o.argmax() == t).sum().item() for o, t in batches) / 63, "metric_wrong_dim"),
        (lambda batches: 0.123, None),
        (lambda batches: all_hits(batches[:2]), None),  # an evaluation of which only a part counts is another matter
    ],
)
def test_reported_accuracy(tmp_path, report, fault):
    targets = torch.randint(4, (63,))
    outputs = torch.randn(63, 4) + 2 * F.one_hot(targets, 4)
    outputs[60:] = F.one_hot((targets[60:] + 1) % 4, 4)  # the small last batch is all wrong
    outputs[0, 1], outputs[30, 2] = 50, 50  # where the largest of all lies
    assert top(MetricRecomputation, evaluated(tmp_path, outputs, targets, report)) == fault


def test_argmax_over_the_batch(tmp_path):
    targets = torch.randint(4, (12,))
    outputs = torch.randn(12, 4) + 3 * F.one_hot(targets, 4)
    report = lambda batches: sum((o.argmax(0) == t).sum().item() for o, t in batches) / 12  # noqa: E731
    folder = evaluated(tmp_path, outputs, targets, report, sizes=(4, 4, 4))
    assert top(MetricRecomputation, folder) == "metric_wrong_dim"


@pytest.mark.parametrize(
    ("cut", "squashed", "fault"),
    [(0.0, False, None), (0.5, True, None), (0.5, False, "logit_threshold"), (0.0, True, "logit_threshold")],
)
def test_threshold_of_logits(tmp_path, cut, squashed, fault):
    targets = torch.randint(2, (63,)).float()
    outputs = torch.randn(63) + 0.8 * targets - 0.4
    outputs = torch.sigmoid(outputs) if squashed else outputs
    report = lambda batches: float(torch.cat([((o > cut) == t).float() for o, t in batches]).mean())  # noqa: E731
    assert top(MetricRecomputation, evaluated(tmp_path, outputs, targets, report)) == fault


def test_root_mean_square(tmp_path):
    targets = torch.randn(63)
    outputs = targets + torch.linspace(0, 3, 63)
    whole = lambda batches: float(torch.cat([(o - t) ** 2 for o, t in batches]).mean().sqrt())  # noqa: E731
    parts = lambda batches: mean(((o - t) ** 2).mean().sqrt() for o, t in batches)  # noqa: E731
    scaled = lambda batches: 7 * whole(batches)  # noqa: E731, reported in another unit
    for name, report, fault in (("a", whole, None), ("b", parts, "mean_of_batch_means"), ("c", scaled, None)):
        folder = evaluated(tmp_path / name, outputs, targets, report, name="rmse", task="regression")
        assert top(MetricRecomputation, folder) == fault
