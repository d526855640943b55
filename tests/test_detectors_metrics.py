"""Metrics as programs report them, against those recomputed of the logged batches."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bugbench.detectors.metric_recomputation import MetricRecomputation
from bugbench.recorder import Recorder
from tiny_training import faults, top

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
    targets = torch.randint(4, (24,))
    outputs = torch.randn(24, 4) + 3 * F.one_hot(targets, 4)
    report = lambda batches: sum((o.argmax(0) == t).sum().item() for o, t in batches) / 24  # noqa: E731
    folder = evaluated(tmp_path, outputs, targets, report, sizes=(4,) * 6)
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


def kept(o, t):
    return o.argmax(1, keepdim=True) == t


@pytest.mark.parametrize(
    ("count", "size", "report", "fault"),
    [
        (60, 20, lambda batches: sum(kept(o, t).sum().item() for o, t in batches) / 60, "metric_wrong_dim"),
        (60, 20, lambda batches: mean(kept(o, t).float().mean() for o, t in batches), "metric_wrong_dim"),
        (60, 20, lambda batches: sum(kept(o, t[:, None]).sum().item() for o, t in batches) / 60, None),
        (60, 1, lambda batches: sum((o.argmax(0) == t).sum().item() for o, t in batches) / 60, "metric_wrong_dim"),
        (60, 1, lambda batches: sum(kept(o, t).sum().item() for o, t in batches) / 60, None),  # one against one
        (4, 4, lambda batches: 1.0, None),  # of four targets nearly any mistake makes such a number
    ],
)
def test_shapes_that_are_broadcast(tmp_path, count, size, report, fault):
    targets = (torch.arange(count) * 7 + torch.arange(count) // 5) % 4
    targets[targets == 3] = torch.arange(int((targets == 3).sum())) % 4  # class 0 is not a quarter
    outputs = torch.randn(count, 4) + 2 * F.one_hot(targets, 4)
    folder = evaluated(tmp_path, outputs, targets, report, sizes=(size,) * (count // size))
    assert top(MetricRecomputation, folder) == fault


def test_targets_with_an_axis_too_many(tmp_path):
    targets = torch.randint(4, (60, 1))
    outputs = torch.randn(60, 4) + 2 * F.one_hot(targets[:, 0], 4)
    wrong = lambda batches: sum((o.argmax(1) == t).sum().item() for o, t in batches) / 60  # noqa: E731
    right = lambda batches: sum((o.argmax(1) == t[:, 0]).sum().item() for o, t in batches) / 60  # noqa: E731
    sizes = (20, 20, 20)
    folder = evaluated(tmp_path / "w", outputs, targets, wrong, sizes=sizes)
    assert top(MetricRecomputation, folder) == "metric_wrong_dim"
    assert top(MetricRecomputation, evaluated(tmp_path / "r", outputs, targets, right, sizes=sizes)) is None


def test_a_part_of_an_evaluation_is_not_judged(tmp_path):
    run = Recorder(tmp_path, task="classification", classes=4)
    targets = torch.randint(4, (60,))
    for _ in range(3):
        outputs, inputs = torch.randn(60, 4), torch.zeros(20, 2**15)  # 2.5 MiB a batch: the first is kept
        for o, t in zip(outputs.split(20), targets.split(20), strict=True):
            run.log_batch("val", inputs=inputs, targets=t, outputs=o, loss=0.5)
        run.log_metrics("val", accuracy=float((kept(outputs[:20], targets[:20])).sum() / 20))
        run.log_batch("train", inputs=torch.zeros(2, 2), targets=targets[:2], outputs=outputs[:2], loss=0.5)
    run.finish()
    assert top(MetricRecomputation, tmp_path) is None


def dice(predicted, targets, axis=None):
    return 2 * (predicted * targets).sum(axis) / (predicted.sum(axis) + targets.sum(axis))


@pytest.mark.parametrize(
    ("cut", "squashed", "fault"),
    [
        (lambda o: o > 0, False, None),
        (lambda o: o > 0.5, True, None),
        (lambda o: o > 0.5, False, "logit_threshold"),
        (lambda o: o.sigmoid() > 0, False, "logit_threshold"),
        (lambda o: o > 0, True, "logit_threshold"),
    ],
)
def test_dice_of_all_of_each_image_and_of_each_batch(tmp_path, cut, squashed, fault):
    targets = (torch.rand(12, 1, 6, 6) < 0.3).float()
    outputs = torch.randn(12, 1, 6, 6) + 2 * targets - 1
    outputs = outputs.sigmoid() if squashed else outputs
    whole = lambda batches: [torch.cat(part).float().flatten(1) for part in zip(*batches, strict=True)]  # noqa: E731
    marked = lambda batches: (cut(whole(batches)[0]).float(), whole(batches)[1])  # noqa: E731
    reports = {
        "all": lambda batches: float(dice(*marked(batches))),
        "image": lambda batches: float(dice(*marked(batches), 1).mean()),
        "batch": lambda batches: mean(dice(cut(o).float(), t) for o, t in batches),
    }
    for name, report in reports.items():
        folder = evaluated(tmp_path / name, outputs, targets, report, name="dice", sizes=(5, 5, 2), task="segmentation")
        assert top(MetricRecomputation, folder) == fault


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (lambda o: o.argmax(1), None),
        (lambda o: (o[:, 1] - o[:, 0]) > 0, None),
        (lambda o: o.softmax(1)[:, 1] > 0.5, None),
        (lambda o: o.softmax(1)[:, 1] > 0, "logit_threshold"),
        (lambda o: (o[:, 1] - o[:, 0]).sigmoid() > 0, "logit_threshold"),
        (lambda o: o[:, 1] > 0.5, "logit_threshold"),
    ],
)
def test_threshold_of_two_outputs(tmp_path, said, fault):
    targets = torch.tensor([0, 0, 1] * 21)
    outputs = torch.randn(63, 2) + F.one_hot(targets, 2)
    report = lambda batches: float(torch.cat([(said(o) == t).float() for o, t in batches]).mean())  # noqa: E731
    assert top(MetricRecomputation, evaluated(tmp_path, outputs, targets, report)) == fault


def test_accuracy_of_one_hot_targets_of_a_model_that_says_one_class(tmp_path):
    """It is 1 / C, as is the share of ones among the targets."""
    targets = F.one_hot(torch.arange(60) % 4, 4).float()
    outputs = torch.randn(60, 4) + torch.tensor([20.0, 0, 0, 0])
    hits = lambda batches: sum((o.argmax(1) == t.argmax(1)).sum().item() for o, t in batches) / 60  # noqa: E731
    assert top(MetricRecomputation, evaluated(tmp_path, outputs, targets, hits, sizes=(20, 20, 20))) is None


def test_probabilities_cut_at_zero_may_be_a_wrong_activation(tmp_path):
    targets = torch.randint(2, (63,)).float()
    outputs = torch.sigmoid(torch.randn(63) + 0.8 * targets - 0.4)
    report = lambda batches: float(torch.cat([((o > 0) == t).float() for o, t in batches]).mean())  # noqa: E731
    found = faults(MetricRecomputation, evaluated(tmp_path, outputs, targets, report))
    assert found == ["logit_threshold", "activation_on_logits"]
