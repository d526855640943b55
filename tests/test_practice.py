"""Debugging practice as detectors: every rule on runs small enough to work its answer out by hand."""

import math
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from bugbench.detector import NotApplicable
from bugbench.detectors.activation_histograms import ActivationHistograms
from bugbench.detectors.confusion import Confusion
from bugbench.detectors.debugging_plan import PLAN, DebuggingPlan
from bugbench.detectors.gradient_check import GradientCheck
from bugbench.detectors.initial_loss import InitialLoss
from bugbench.detectors.lr_range_test import GrowingRate, LrRangeTest
from bugbench.detectors.overfit_batch import OverfitBatch
from bugbench.detectors.rank_calibration import RankCalibration
from bugbench.detectors.update_ratio import UpdateRatio
from bugbench.detectors.zero_rule import ZeroRule
from bugbench.judging import Judge
from bugbench.one_batch import Until, one_batch
from bugbench.plugins import load_detector, project_folder, sources_of
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from torch import nn


@pytest.fixture(autouse=True)
def one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def suspects(detector, folder):
    return [s.fault for s in detector.diagnose(Trace(folder)).suspects]


def top(detector, folder):
    return next(iter(suspects(detector, folder)), None)


# -- the first loss -----------------------------------------------------------------------------------------------


def first(folder, outputs, targets, loss, inputs=None, task="classification"):
    classes = outputs.shape[-1] if task == "classification" else None
    run = Recorder(folder, task=task, classes=classes)
    inputs = torch.zeros(len(outputs), 2) if inputs is None else inputs
    run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
    run.finish()
    return folder


FLAT, LABELS = torch.zeros(4, 10), torch.tensor([0, 3, 9, 9])
LN10 = math.log(10)
TALL = torch.cat([torch.full((4, 1), 20.0), torch.zeros(4, 9)], dim=1)  # class 0 for sure: right once in four
TALL_LOSS = 3 / 4 * 20 + math.log1p(9 * math.exp(-20))


@pytest.mark.parametrize(
    ("outputs", "loss", "inputs", "fault"),
    [
        (FLAT, LN10, None, None),
        (FLAT, 1.99 * LN10, None, None),
        (FLAT, 0.1, None, None),  # trained before, or a share of an accumulated loss
        (FLAT, -LN10, None, "flipped_sign"),
        (FLAT, 4 * LN10, None, "loss_reduction_sum"),
        (FLAT + 0.5, -0.5, None, "nll_on_logits"),
        (FLAT - 0.5, 0.5, None, "nll_on_logits"),
        (FLAT - LN10, LN10, None, None),  # log-probabilities, of which minus the right one is the loss
        (TALL, TALL_LOSS, None, "large_init"),
        (TALL, TALL_LOSS, torch.full((4, 2), 10.0), "missing_normalization"),
    ],
)
def test_first_loss_of_classes(tmp_path, outputs, loss, inputs, fault):
    assert top(InitialLoss(), first(tmp_path, outputs, LABELS, loss, inputs)) == fault


def test_a_first_loss_of_no_known_formula_is_not_judged(tmp_path):
    """Class weights, a second term: where such a loss should start is not known."""
    with pytest.raises(NotApplicable, match="no formula known here"):
        suspects(InitialLoss(), first(tmp_path / "a", FLAT, LABELS, 2.01 * LN10))
    with pytest.raises(NotApplicable, match="no formula known here"):  # pos_weight=8
        targets, weighted = torch.tensor([0.0, 1.0]), (1 + 8) / 2 * math.log(2)
        suspects(InitialLoss(), first(tmp_path / "b", torch.zeros(2), targets, weighted))


def test_first_loss_of_numbers_that_are_far_from_zero_but_small(tmp_path):
    """Images in [0, 1], shares around 0.8: outputs near 0 pay the mean square, which is no fault of the targets."""
    for name, targets in {"image": torch.rand(200) ** 0.5, "share": 0.7 + 0.2 * torch.rand(200)}.items():
        outputs = 0.1 * torch.randn(200)
        loss = float((outputs - targets).square().mean())
        assert loss > 2 * float(targets.var())
        assert top(InitialLoss(), first(tmp_path / name, outputs, targets, loss, task="regression")) is None
    known = torch.full((2,), 10.0)  # outputs that start at the targets' mean, as some set the last bias
    assert top(InitialLoss(), first(tmp_path / "b", known, torch.tensor([9.0, 11.0]), 1.0, task="regression")) is None


def test_first_loss_of_numbers(tmp_path):
    targets, zero = torch.tensor([9.0, 11.0]), torch.zeros(2)  # variance 1, mean square 101
    assert top(InitialLoss(), first(tmp_path / "raw", zero, targets, 101.0, task="regression")) == "unscaled_targets"
    assert top(InitialLoss(), first(tmp_path / "fine", zero, targets - 10, 1.0, task="regression")) is None
    far = torch.tensor([3.0, -3.0])  # targets -1 and 1: squared errors 16
    assert top(InitialLoss(), first(tmp_path / "far", far, targets - 10, 16.0, task="regression")) == "large_init"
    with pytest.raises(NotApplicable, match="no formula known here"):
        suspects(InitialLoss(), first(tmp_path / "mae", far, targets - 10, 4.0, task="regression"))


def test_first_loss_of_binary_targets(tmp_path):
    targets, zero = torch.tensor([0.0, 1.0]), torch.zeros(2)
    assert top(InitialLoss(), first(tmp_path / "a", zero, targets, math.log(2), task="segmentation")) is None
    assert top(InitialLoss(), first(tmp_path / "b", zero, targets, -math.log(2), task="segmentation")) == "flipped_sign"
    with pytest.raises(NotApplicable):
        suspects(InitialLoss(), first(tmp_path / "c", zero, targets, 2 * math.log(2), task="generation"))


# -- evaluations --------------------------------------------------------------------------------------------------


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
    assert suspects(Confusion(), evaluated(tmp_path, said, ROUND, classes=4)) == expected


def test_confusion_reads_the_training_labels(tmp_path):
    said = [0 if c == 1 else c for c in ROUND]
    none = [c for c in ROUND if c != 1]
    assert suspects(Confusion(), evaluated(tmp_path / "a", said, ROUND, classes=4, trained_on=none)) == [
        "dropped_class"
    ]
    rare = [*none, 1]
    assert suspects(Confusion(), evaluated(tmp_path / "b", said, ROUND, classes=4, trained_on=rare)) == [
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
    assert suspects(Confusion(), tokens(tmp_path / "share", said, true, true)) == ["data", "labels"]
    assert suspects(Confusion(), tokens(tmp_path / "none", said, true, said)) == ["dropped_class"]
    rare = [c for c in range(4) for _ in range(100)] + [4] * 12  # in the evaluation, too: less than 1 / 25
    said = [min(c, 3) for c in rare]
    assert suspects(Confusion(), tokens(tmp_path / "rare", said, rare, rare)) == []
    assert suspects(Confusion(), evaluated(tmp_path / "one", said, rare, classes=5)) == []


def test_few_training_labels_cannot_lack_a_class(tmp_path):
    true = [c for c in range(4) for _ in range(40)] + [4] * 40
    folder = tokens(tmp_path, [min(c, 3) for c in true], true, [0, 1, 2, 3] * 8)  # 96 in all: 19 were due
    assert suspects(Confusion(), folder) == ["data", "labels"]


def test_confusion_needs_classes(tmp_path):
    with pytest.raises(NotApplicable, match="twenty"):
        suspects(Confusion(), evaluated(tmp_path, ROUND[::4], ROUND[::4], classes=4))


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
    assert suspects(ZeroRule(), folder) == ["accuracy_on_imbalance"]
    assert suspects(ZeroRule(), evaluated(tmp_path / "b", true, true, classes=2)) == []


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
    assert suspects(ZeroRule(), reported(tmp_path / "ood", val=good, ood=bad)) == []
    assert suspects(ZeroRule(), reported(tmp_path / "bad", val=bad, ood=good)) != []
    assert suspects(ZeroRule(), reported(tmp_path / "train", train_clean=bad, val=good)) == []
    assert suspects(ZeroRule(), reported(tmp_path / "five", val={"acc_top5": 0.2, "accuracy": 0.9})) == []
    with pytest.raises(NotApplicable):
        suspects(ZeroRule(), reported(tmp_path / "balanced", val={"balanced_accuracy": 0.25}))


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
    assert suspects(RankCalibration(), confidence(tmp_path / "fine", [0.8] * 400, right)) == []
    assert top(RankCalibration(), confidence(tmp_path / "sure", [0.99] * 400, right)) == "preprocessing"
    grown = confidence(tmp_path / "grown", [0.99] * 400, right, earlier=[0.8] * 400)
    assert top(RankCalibration(), grown) == "miscalibrated"
    assert top(RankCalibration(), confidence(tmp_path / "shy", [0.55] * 400, right)) == "label_smoothing_wrong"
    turned = confidence(tmp_path / "turned", [0.75 if r else 0.85 for r in right], right)
    assert top(RankCalibration(), turned) == "class_map_mismatch"
    ordered = confidence(tmp_path / "ordered", [0.85 if r else 0.65 for r in right], right)
    assert suspects(RankCalibration(), ordered) == []


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
        suspects(RankCalibration(), tmp_path)
    with pytest.raises(NotApplicable):
        suspects(Confusion(), tmp_path)


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
        suspects(RankCalibration(), tmp_path)


def test_expected_calibration_error_by_hand():
    """Two of 0.9 of which one is right, two of 0.6 that are: (2 * 0.4 + 2 * 0.4) / 4."""
    error = RankCalibration()._calibration_error(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, False, True, True]))
    assert error == pytest.approx(0.4)


# -- layers -------------------------------------------------------------------------------------------------------


def trained(folder, model, lr, steps=12, parameters=None):
    run = Recorder(folder, task="regression")
    optimizer = torch.optim.SGD(parameters or model.parameters(), lr=lr)
    run.watch(model, optimizer)
    for _ in range(steps):
        inputs = torch.randn(16, 4)
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = outputs.square().mean()
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=torch.zeros(16, 1), outputs=outputs, loss=loss)
    run.finish()
    return folder


def test_update_ratio(tmp_path):
    def model():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    assert top(UpdateRatio(), trained(tmp_path / "fine", model(), 1e-2)) is None
    assert top(UpdateRatio(), trained(tmp_path / "low", model(), 1e-5)) == "lr_too_low"
    assert top(UpdateRatio(), trained(tmp_path / "high", model(), 2.0)) == "lr_too_high"
    assert top(UpdateRatio(), trained(tmp_path / "none", model(), 0.0)) == "missing_step"


def test_weights_that_stand_still(tmp_path):
    """Fine-tuning keeps weights that were trained; nobody needs to keep those that were drawn."""

    def model():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

    def pretrained():
        found = model()
        for layer in (found[0], found[2]):
            layer.weight.data += 0.5 * torch.randn_like(layer.weight) ** 3  # the long tails of trained weights
        return found

    def frozen(found):
        return found[:4].requires_grad_(False) and found

    drawn, meant = frozen(model()), frozen(pretrained())
    assert suspects(UpdateRatio(), trained(tmp_path / "meant", meant, 1e-2)) == []
    assert suspects(UpdateRatio(), trained(tmp_path / "drawn", drawn, 1e-2))[:2] == ["model", "frozen_layers"]
    assert top(UpdateRatio(), trained(tmp_path / "high", meant, 2.0)) == "lr_too_high"  # of the layer that moves
    part, head = model(), pretrained()
    folder = trained(tmp_path / "part", part, 1e-2, parameters=list(part[4].parameters()))
    assert top(UpdateRatio(), folder) == "optimizer_partial_params"
    assert suspects(UpdateRatio(), trained(tmp_path / "b", head, 1e-2, parameters=list(head[4].parameters()))) == []


def scaled(kind, weight, bias):
    layer = nn.Linear(4, 8)
    nn.init.constant_(layer.bias, bias)
    layer.weight.data.mul_(weight)
    return nn.Sequential(layer, kind, nn.Linear(8, 1))


def test_activations(tmp_path):
    fine = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid()}
    for name, kind in fine.items():
        assert top(ActivationHistograms(), trained(tmp_path / name, scaled(kind, 1, 0), 1e-3)) is None
    found = ActivationHistograms().diagnose(Trace(trained(tmp_path / "flat", scaled(nn.Tanh(), 100, 0), 1e-3)))
    assert (found.suspects[0].fault, found.suspects[0].layer) == ("saturating_activation", "1")
    assert top(ActivationHistograms(), trained(tmp_path / "s", scaled(nn.Sigmoid(), 1, -20), 1e-3)) == (
        "saturating_activation"
    )
    assert top(ActivationHistograms(), trained(tmp_path / "dead", scaled(nn.ReLU(), 1, -50), 1e-3)) == "dead_relu"
    last = nn.Sequential(nn.Linear(4, 1), nn.Tanh())  # nothing behind it: it may be as sure as it likes
    with pytest.raises(NotApplicable):
        suspects(ActivationHistograms(), trained(tmp_path / "last", last, 1e-3))


def flat(*widths, last):
    """A stack of saturated tanh layers, and what comes last."""
    layers = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [nn.Linear(a, b), nn.ReLU() if i < len(widths) - 2 else last]
    layers[-2].weight.data.mul_(1000)
    return layers


def test_the_order_of_layers_is_that_of_their_calls(tmp_path):
    """By name "11" comes before "2", and "fc" before "relu"."""
    twelve = nn.Sequential(*flat(4, 8, 8, 8, 8, 8, 1, last=nn.Sigmoid()))
    assert suspects(ActivationHistograms(), trained(tmp_path / "last", twelve, 1e-3)) == []
    behind = nn.Sequential(*flat(4, 8, 8, 8, 8, 8, 8, last=nn.Tanh()), nn.Linear(8, 1))
    assert top(ActivationHistograms(), trained(tmp_path / "hidden", behind, 1e-3)) == "saturating_activation"
    dead = nn.Sequential(OrderedDict(conv1=nn.Linear(4, 8), relu=nn.ReLU(), fc=nn.Linear(8, 1)))
    nn.init.constant_(dead.conv1.bias, -50)
    found = ActivationHistograms().diagnose(Trace(trained(tmp_path / "dead", dead, 1e-3))).suspects
    assert (found[0].fault, found[0].layer) == ("dead_relu", "relu")


def test_each_model_has_a_last_activation_of_its_own(tmp_path):
    """What comes after it in the other model is not behind it."""
    run = Recorder(tmp_path, task="generation")
    generator = nn.Sequential(*flat(4, 8, 8, last=nn.Tanh()))
    critic = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(), nn.Linear(8, 1))
    optimizers = {m: torch.optim.SGD(m.parameters(), lr=1e-3) for m in (generator, critic)}
    run.watch(generator, optimizers[generator], "a_generator")
    run.watch(critic, optimizers[critic], "critic")
    for _ in range(12):
        fake = generator(torch.randn(16, 4))
        outputs = critic(fake)
        loss = outputs.square().mean()
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        run.log_batch("train", inputs=fake, targets=torch.zeros(16, 1), outputs=outputs, loss=loss)
    run.finish()
    assert suspects(ActivationHistograms(), tmp_path) == []


# -- reruns -------------------------------------------------------------------------------------------------------

PROGRAM = """
import torch
import torch.nn.functional as F
from torch import nn

class Cut(nn.Module):
    def forward(self, x):
        return x.detach()

def augment(inputs):
    return inputs + 100 * torch.randn_like(inputs)

def loss_function(outputs, targets):
    return {loss}

def train_epoch(model, loader, optimizer, run):
    for inputs, targets in loader:
        inputs = {inputs}
        {order}
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)

def main(config, run):
    torch.manual_seed(config.seed)
    x, y = torch.randn(64, 6), torch.arange(64) % 3
    x[:, 0] += 3 * y
    model = {model}
    optimizer = {optimizer}
    run.watch(model, optimizer)
    for _ in range(20):
        train_epoch(model, [(x[i : i + 8], y[i : i + 8]) for i in range(0, 64, 8)], optimizer, run)
"""
GOOD = {
    "loss": "F.cross_entropy(outputs, targets)",
    "inputs": "inputs",
    "order": "optimizer.zero_grad(); outputs = model(inputs); loss = loss_function(outputs, targets); "
    "loss.backward(); optimizer.step()",
    "model": "nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3))",
    "optimizer": "torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)",
}


def program(folder, task="classification", **parts):
    Recorder(folder, task=task, classes=3).finish()
    (folder / "data").mkdir()
    (folder / "config.yaml").write_text("seed: 3\n")
    (folder / "program.py").write_text(PROGRAM.format(**{**GOOD, **parts}))
    return folder


ORDER = GOOD["order"]
SGD = GOOD["optimizer"]
FITS = {
    "plain": {},
    "augmented": {"inputs": "augment(inputs)"},
    "decayed": {"optimizer": SGD.replace("momentum=0.9", "momentum=0.9, weight_decay=1.0")},
    "smoothed": {"loss": "F.cross_entropy(outputs, targets, label_smoothing=0.3)"},
    "log_probabilities": {
        "loss": "F.nll_loss(outputs, targets)",
        "model": "nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3), nn.LogSoftmax(1))",
    },
    "summed": {"loss": "F.cross_entropy(outputs, targets, reduction='sum')"},
}
DOES_NOT = {
    "no_step": ({"order": ORDER.replace("; optimizer.step()", "")}, "zero_grad_after_backward"),
    "cleared": ({"order": ORDER.replace("optimizer.step()", "optimizer.zero_grad(); optimizer.step()")}, None),
    "clipped": (
        {
            "order": ORDER.replace(
                "optimizer.step()", "nn.utils.clip_grad_norm_(model.parameters(), 1e-4); optimizer.step()"
            )
        },
        "clip_too_small",
    ),
    "slow": ({"optimizer": SGD.replace("lr=0.1", "lr=1e-6")}, "lr_too_low"),
    "other_model": (
        {"optimizer": SGD.replace("model.parameters()", "nn.Linear(6, 3).parameters()")},
        "optimizer_wrong_params",
    ),
    "softmax": (
        {"model": "nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3), nn.Softmax(1))"},
        "redundant_softmax",
    ),
    "blind": ({"model": "nn.Sequential(nn.Linear(6, 3), nn.Hardtanh(0, 1e-3))"}, "model"),
}


@pytest.mark.parametrize("name", FITS)
def test_two_examples_are_learnt(tmp_path, name):
    assert suspects(OverfitBatch(), program(tmp_path / "t", **FITS[name])) == []


@pytest.mark.parametrize("name", DOES_NOT)
def test_two_examples_are_not_learnt(tmp_path, name):
    parts, fault = DOES_NOT[name]
    assert top(OverfitBatch(), program(tmp_path / "t", **parts)) == (fault or "zero_grad_after_backward")


def test_the_two_examples_differ_and_nothing_regularises(tmp_path):
    run = one_batch(Trace(program(tmp_path / "t")))
    inputs, targets = run.few(2)
    assert targets.tolist() == [0, 1]
    assert torch.equal(inputs, run.inputs[:2])
    assert run.few(5)[1].tolist() == [0, 1, 2, 0, 1]
    model, optimizer = run.fresh()
    assert model[2].p == 0.0
    assert optimizer.param_groups[0]["params"][0] is model[0].weight
    assert run.untrained[0][2].p == 0.5
    assert run.lowest_loss((inputs, targets), 200) < 0.01
    assert Until(0.5, 3).reached([1.0, 0.5])
    assert not Until(0.5, 3).reached([0.5, 1.0])


def test_a_program_without_a_loss_function_is_not_judged(tmp_path):
    folder = program(tmp_path / "t")
    path = Path(folder / "program.py")
    path.write_text(path.read_text().replace("loss_function", "criterion"))
    with pytest.raises(NotApplicable, match="no function loss_function"):
        suspects(OverfitBatch(), folder)


def test_gradients(tmp_path):
    assert suspects(GradientCheck(), program(tmp_path / "fine")) == []
    relu = "nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 3))"
    assert suspects(GradientCheck(), program(tmp_path / "relu", model=relu)) == []
    zero = "nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).apply("
    zero += "lambda m: [nn.init.zeros_(p) for p in m.parameters(recurse=False)])"
    assert suspects(GradientCheck(), program(tmp_path / "kink", model=zero)) == []
    cut = "nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), Cut(), nn.Tanh(), nn.Linear(8, 3))"
    found = GradientCheck().diagnose(Trace(program(tmp_path / "cut", model=cut))).suspects
    assert (found[0].fault, found[0].layer) == ("detached_features", "2")
    assert "4 of 6 parameters" in found[0].evidence
    frozen = "nn.Sequential(nn.Linear(6, 8).requires_grad_(False), nn.Tanh(), nn.Linear(8, 3))"
    assert suspects(GradientCheck(), program(tmp_path / "frozen", model=frozen)) == []


def test_rates_grow_from_the_lowest_to_the_highest_whatever_a_schedule_says(tmp_path):
    probe = GrowingRate(1e-5, 0.1, 100)
    Trace(program(tmp_path / "t")).rerun(probe)
    assert len(probe.losses) == 100
    assert probe.rates[0] == pytest.approx(1e-5)
    assert probe.rates[-1] == pytest.approx(0.1)
    assert probe.rates[33] == pytest.approx(1e-5 * 10 ** (4 / 3))
    assert probe.own == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("lr", "expected"), [("0.05", None), ("0.01", None), ("1e-5", "lr_too_low"), ("1000.0", "lr_too_high")]
)
def test_the_rate_lies_in_the_range_or_not(tmp_path, lr, expected):
    parts = {"optimizer": SGD.replace("lr=0.1", f"lr={lr}"), "model": "nn.Linear(6, 3)"}
    assert top(LrRangeTest(), program(tmp_path / "t", **parts)) == expected


def test_without_a_step_there_is_no_range(tmp_path):
    folder = program(tmp_path / "t", order=ORDER.replace("; optimizer.step()", ""))
    with pytest.raises(NotApplicable, match="never steps"):
        suspects(LrRangeTest(), folder)


# -- the plan -----------------------------------------------------------------------------------------------------


def test_the_plan_stops_where_it_finds_something(tmp_path, monkeypatch):
    asked = []

    def ask(detector, found):
        def diagnose(self, trace):
            asked.append(detector.__name__)
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(detector, "diagnose", diagnose)

    from bugbench.detector import HEALTHY, suspect

    order = [detector for _, detectors in PLAN for detector in detectors]
    for detector in order:
        ask(detector, HEALTHY)
    assert suspects(DebuggingPlan(), tmp_path) == []
    assert asked == [detector.__name__ for detector in order]
    asked.clear()
    ask(order[1], NotApplicable("no"))
    ask(order[2], suspect("nan_inputs", "three"))
    (found,) = DebuggingPlan().diagnose(Trace(tmp_path)).suspects
    assert (found.fault, found.evidence) == ("nan_inputs", "step 3, inspect the inputs: three")
    assert len(asked) == 3
    for detector in order:
        ask(detector, NotApplicable("no"))
    with pytest.raises(NotApplicable):
        suspects(DebuggingPlan(), tmp_path)


def test_the_plan_declares_what_its_parts_need():
    needed = set().union(*(detector.access for _, detectors in PLAN for detector in detectors))
    assert needed - {"curves"} <= DebuggingPlan.access


def test_a_detectors_sources_hold_those_of_the_detectors_it_asks(tmp_path):
    folder = project_folder("detectors")
    texts = sources_of(folder / "debugging_plan.py")
    for name in ("overfit_batch", "traceback_reader", "epoch_pattern"):
        assert (folder / f"{name}.py").read_text() in texts
    own = tmp_path / "own.py"
    own.write_text("from bugbench.detectors import mode_check\nimport bugbench.detectors.causality\n")
    texts = sources_of(own)
    assert (folder / "mode_check.py").read_text() in texts
    assert (folder / "causality.py").read_text() in texts
    assert (folder / "call_order.py").read_text() not in texts


def test_a_changed_part_makes_a_new_diagnosis(tmp_path, monkeypatch):
    monkeypatch.setattr("bugbench.plugins.project_folder", lambda name: tmp_path / name)
    (tmp_path / "detectors").mkdir()
    part, whole = tmp_path / "detectors" / "part.py", tmp_path / "whole.py"
    part.write_text("limit = 1\n")
    whole.write_text("from bugbench.detectors.part import limit\n")
    judges = [Judge("whole", whole, frozenset({"curves"}), {}) for _ in range(3)]  # a digest is taken once a judge
    assert judges[0].digest == judges[1].digest
    part.write_text("limit = 2\n")
    assert judges[2].digest != judges[0].digest


def test_a_file_that_imports_detectors_defines_one():
    assert load_detector(project_folder("detectors") / "debugging_plan.py").__name__ == "DebuggingPlan"
