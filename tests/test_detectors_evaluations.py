"""What an evaluation tells of classes, baselines and confidence, on numbers small enough to work out by hand."""

import numpy as np
import pytest
import torch
from bugbench.detector import NotApplicable
from bugbench.detectors.confusion import Confusion
from bugbench.detectors.rank_calibration import RankCalibration
from bugbench.detectors.zero_rule import ZeroRule
from bugbench.recorder import Recorder
from tiny_training import faults, top


@pytest.fixture(autouse=True)
def one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def evaluated(folder, said, true, *, classes, sure=5.0, accuracy=None, train_accuracy=None, trained_on=None, rounds=3):
    """Record evaluations in which class ``said[i]`` is said of a sample of class ``true[i]``."""
    run = Recorder(folder, task="classification", classes=classes)
    true, said = torch.tensor(true), torch.tensor(said)
    outputs = sure * torch.nn.functional.one_hot(said, classes)
    outputs = outputs.float() if not isinstance(sure, torch.Tensor) else outputs
    labels = true if trained_on is None else torch.tensor(trained_on)
    inputs = torch.arange(len(true), dtype=torch.float32)[:, None]
    for _ in range(rounds):
        scores = 5.0 * torch.nn.functional.one_hot(labels, classes)
        run.log_batch("train", inputs=torch.rand(len(labels), 1), targets=labels, outputs=scores, loss=1.0)
        if train_accuracy is not None:
            run.log_metrics("train", accuracy=train_accuracy)
        run.log_batch("val", inputs=inputs, targets=true, outputs=outputs, loss=1.0)
        run.log_metrics("val", accuracy=float((said == true).float().mean()) if accuracy is None else accuracy)
    run.finish()
    return folder


ROUND = [c for c in range(4) for _ in range(10)]  # ten samples of each of four classes


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (ROUND, []),
        ([(c + 1) % 4 for c in ROUND], ["label_off_by_one", "class_map_mismatch"]),
        ([(c - 1) % 4 for c in ROUND], ["label_off_by_one", "class_map_mismatch"]),
        ([max(c - 1, 0) for c in ROUND], []),  # two classes are taken for class 0: no permutation
        ([3 - c for c in ROUND], ["class_map_mismatch", "label_off_by_one"]),
        ([{0: 2, 2: 0}.get(c, c) for c in ROUND], ["class_map_mismatch", "label_off_by_one"]),
        ([2] * 40, ["preprocessing", "evaluation"]),
        ([0 if c == 1 else c for c in ROUND], ["data", "labels"]),
    ],
)
def test_confusion(tmp_path, said, expected):
    assert faults(Confusion(), evaluated(tmp_path, said, ROUND, classes=4)) == expected


def test_confusion_reads_the_training_labels(tmp_path):
    said = [0 if c == 1 else c for c in ROUND]
    none = [c for c in ROUND if c != 1]
    assert faults(Confusion(), evaluated(tmp_path / "a", said, ROUND, classes=4, trained_on=none)) == ["dropped_class"]
    rare = [*none, 1]
    assert faults(Confusion(), evaluated(tmp_path / "b", said, ROUND, classes=4, trained_on=rare)) == [
        "class_imbalance"
    ]
    most = [2] * 30 + [0, 1, 3]
    assert top(Confusion(), evaluated(tmp_path / "c", [2] * 40, ROUND, classes=4, trained_on=most)) == "class_imbalance"


def tokens(folder, said, true, trained_on, classes=5):
    """Record evaluations of windows of four tokens."""
    run = Recorder(folder, task="language_model", classes=classes)
    said, true, trained_on = (torch.tensor(part).reshape(-1, 4) for part in (said, true, trained_on))
    scores = lambda part: 5.0 * torch.nn.functional.one_hot(part, classes)  # noqa: E731
    for _ in range(3):
        run.log_batch("train", inputs=trained_on, targets=trained_on, outputs=scores(trained_on), loss=1.0)
        run.log_batch("val", inputs=true, targets=true, outputs=scores(said), loss=1.0)
        run.log_metrics("val", loss=1.0)
    run.finish()
    return folder


def test_confusion_of_tokens(tmp_path):
    """Where samples have no single label, the recorded targets say how frequent a class is."""
    true = [c for c in range(4) for _ in range(40)] + [4] * 40
    said = [min(c, 3) for c in true]
    assert faults(Confusion(), tokens(tmp_path / "share", said, true, true)) == ["data", "labels"]
    assert faults(Confusion(), tokens(tmp_path / "none", said, true, said)) == ["dropped_class"]
    rare = [c for c in range(4) for _ in range(100)] + [4] * 12  # in the evaluation, too: less than 1 / 25
    said = [min(c, 3) for c in rare]
    assert faults(Confusion(), tokens(tmp_path / "rare", said, rare, rare)) == []
    assert faults(Confusion(), evaluated(tmp_path / "one", said, rare, classes=5)) == []


def test_few_training_labels_cannot_lack_a_class(tmp_path):
    true = [c for c in range(4) for _ in range(40)] + [4] * 40
    folder = tokens(tmp_path, [min(c, 3) for c in true], true, [0, 1, 2, 3] * 8)  # 96 in all: 19 were due
    assert faults(Confusion(), folder) == ["data", "labels"]


def test_confusion_needs_classes(tmp_path):
    with pytest.raises(NotApplicable, match="twenty"):
        faults(Confusion(), evaluated(tmp_path, ROUND[::4], ROUND[::4], classes=4))


@pytest.mark.parametrize(
    ("accuracy", "train", "expected"),
    [
        (0.25, 0.3, "optimizer"),
        (0.25, 0.95, "preprocessing"),
        (0.2999, None, "optimizer"),  # 0.25 + 1.645 sqrt(0.25 * 0.75 / 40) is 0.363, but 0.05 is less
        (0.3001, None, None),
        (25.0, None, "optimizer"),  # percent
    ],
)
def test_zero_rule(tmp_path, accuracy, train, expected):
    folder = evaluated(tmp_path, ROUND, ROUND, classes=4, accuracy=accuracy, train_accuracy=train)
    assert top(ZeroRule(), folder) == expected


def test_zero_rule_where_one_class_is_nearly_all(tmp_path):
    true = [0] * 95 + [1] * 5
    folder = evaluated(tmp_path / "a", [0] * 100, true, classes=2)
    assert faults(ZeroRule(), folder) == ["accuracy_on_imbalance"]
    assert faults(ZeroRule(), evaluated(tmp_path / "b", true, true, classes=2)) == []


@pytest.mark.parametrize(("r2", "expected"), [(-0.1, "optimizer"), (0.0, "optimizer"), (0.2, None)])
def test_zero_rule_of_the_mean(tmp_path, r2, expected):
    run = Recorder(tmp_path, task="regression")
    for _ in range(3):
        one = torch.ones(2)
        run.log_batch("train", inputs=one, targets=one, outputs=one, loss=1.0)
        run.log_metrics("val", r2=r2)
    run.finish()
    assert top(ZeroRule(), tmp_path) == expected


def test_zero_rule_takes_the_accuracy_of_the_first_evaluation_split(tmp_path):
    def reported(folder, **splits):
        run = Recorder(folder, task="classification", classes=4)
        labels, inputs = torch.tensor(ROUND), torch.rand(40, 1)
        for _ in range(3):
            for split, metrics in {"train": {}, **splits}.items():
                run.log_batch(split, inputs=inputs, targets=labels, outputs=torch.zeros(40, 4), loss=1.0)
                run.log_metrics(split, **metrics)
        run.finish()
        return folder

    good, bad = {"accuracy": 0.9}, {"accuracy": 0.2}
    assert faults(ZeroRule(), reported(tmp_path / "ood", val=good, ood=bad)) == []
    assert faults(ZeroRule(), reported(tmp_path / "bad", val=bad, ood=good)) != []
    assert faults(ZeroRule(), reported(tmp_path / "train", train_clean=bad, val=good)) == []
    assert faults(ZeroRule(), reported(tmp_path / "five", val={"acc_top5": 0.2, "accuracy": 0.9})) == []
    with pytest.raises(NotApplicable):
        faults(ZeroRule(), reported(tmp_path / "balanced", val={"balanced_accuracy": 0.25}))


def confidence(folder, sure, right, rounds=1, earlier=None):
    """Record two classes: the outputs are probabilities, ``sure`` of a class that is right or not."""
    run = Recorder(folder, task="classification", classes=2)
    for values in [earlier] * (earlier is not None) + [sure] * rounds:
        p = torch.tensor(values, dtype=torch.float64)
        outputs, targets = torch.stack([p, 1 - p], dim=1), torch.tensor([0 if r else 1 for r in right])
        run.log_batch("train", inputs=p[:, None], targets=targets, outputs=outputs, loss=1.0)
        run.log_batch("val", inputs=p[:, None], targets=targets, outputs=outputs, loss=1.0)
        run.log_metrics("val", accuracy=0.5)
    run.finish()
    return folder


def test_calibration(tmp_path):
    right = [i % 5 > 0 for i in range(400)]  # 0.8
    assert faults(RankCalibration(), confidence(tmp_path / "fine", [0.8] * 400, right)) == []
    assert top(RankCalibration(), confidence(tmp_path / "sure", [0.99] * 400, right)) == "preprocessing"
    grown = confidence(tmp_path / "grown", [0.99] * 400, right, earlier=[0.8] * 400)
    assert top(RankCalibration(), grown) == "miscalibrated"
    assert top(RankCalibration(), confidence(tmp_path / "shy", [0.55] * 400, right)) == "label_smoothing_wrong"
    turned = confidence(tmp_path / "turned", [0.75 if r else 0.85 for r in right], right)
    assert top(RankCalibration(), turned) == "class_map_mismatch"
    ordered = confidence(tmp_path / "ordered", [0.85 if r else 0.65 for r in right], right)
    assert faults(RankCalibration(), ordered) == []


@pytest.mark.parametrize(("last", "expected"), [(0.5, "label_smoothing_wrong"), (0.4, None)])
def test_scores_that_still_grow_are_no_lack_of_confidence(tmp_path, last, expected):
    run = Recorder(tmp_path, task="classification", classes=2)
    outputs, targets = torch.tensor([[0.55, 0.45]] * 400), torch.tensor([0, 0, 0, 0, 1] * 80)
    for step in range(50):
        loss = 0.5 if step < 40 else last
        run.log_batch("train", inputs=outputs, targets=targets, outputs=outputs, loss=loss)
    run.log_batch("val", inputs=outputs, targets=targets, outputs=outputs, loss=1.0)
    run.log_metrics("val", accuracy=0.8)
    run.finish()
    assert top(RankCalibration(), tmp_path) == expected


def test_a_part_of_an_evaluation_may_be_all_of_one_class(tmp_path):
    run = Recorder(tmp_path, task="classification", classes=2)
    outputs = torch.tensor([[0.99, 0.01]] * 200)
    for targets in (torch.ones(200).long(), torch.zeros(200).long()):
        run.log_batch("val", inputs=torch.zeros(200, 2**12), targets=targets, outputs=outputs, loss=1.0)
    run.log_metrics("val", accuracy=0.5)
    run.finish()
    with pytest.raises(NotApplicable):
        faults(RankCalibration(), tmp_path)
    with pytest.raises(NotApplicable):
        faults(Confusion(), tmp_path)


def test_squared_distances_make_no_probabilities(tmp_path):
    """Outputs near 0 and 1 are what squared errors to one-hot labels ask for, and a softmax takes for doubt."""
    run = Recorder(tmp_path, task="classification", classes=2)
    targets = torch.arange(400) % 2
    outputs = torch.nn.functional.one_hot(targets, 2) + 0.1 * torch.randn(400, 2)
    loss = torch.nn.functional.mse_loss(outputs, torch.nn.functional.one_hot(targets, 2).float())
    run.log_batch("val", inputs=outputs, targets=targets, outputs=outputs, loss=loss)
    run.log_metrics("val", accuracy=1.0)
    run.finish()
    with pytest.raises(NotApplicable):
        faults(RankCalibration(), tmp_path)


def test_expected_calibration_error_by_hand():
    """Two of 0.9 of which one is right, two of 0.6 that are: (2 * 0.4 + 2 * 0.4) / 4."""
    error = RankCalibration()._calibration_error(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, False, True, True]))
    assert error == pytest.approx(0.4)
