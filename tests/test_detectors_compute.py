"""Detectors that recompute: tiny programs of many styles; faulty ones must be named, sound ones must not."""

import contextlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bugbench.detector import Detector, NotApplicable
from bugbench.detectors.batch_independence import BatchIndependence
from bugbench.detectors.call_order import CallOrder
from bugbench.detectors.causality import Causality
from bugbench.detectors.epoch_pattern import EpochPattern
from bugbench.detectors.evaluation_curves import EvaluationCurves
from bugbench.detectors.learning_curves import LearningCurves
from bugbench.detectors.learning_progress import LearningProgress
from bugbench.detectors.loss_recomputation import LossRecomputation
from bugbench.detectors.metric_recomputation import MetricRecomputation
from bugbench.detectors.mode_check import ModeCheck
from bugbench.detectors.regression_loss import RegressionLoss
from bugbench.detectors.repeated_evaluation import RepeatedEvaluation
from bugbench.detectors.softmax_axis import SoftmaxAxis
from bugbench.detectors.token_shift import TokenShift
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from torch import nn

OF_CURVES = (LearningCurves, LearningProgress, EvaluationCurves, EpochPattern)
STATIC = (
    LossRecomputation,
    SoftmaxAxis,
    RegressionLoss,
    TokenShift,
    MetricRecomputation,
    ModeCheck,
    CallOrder,
    *OF_CURVES,
)


def faults(detector: type[Detector], folder: Path) -> list[str]:
    return [s.fault for s in detector().diagnose(Trace(folder)).suspects]


def top(detector: type[Detector], folder: Path) -> str | None:
    return next(iter(faults(detector, folder)), None)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the programs are tiny


def train(
    folder, model, batches, loss_function, *, task, classes=None, lr=0.1, order="zfbs", outputs_of=None, log=None
):
    """Record a run; ``order`` is that of zero_grad, forward, backward, step and (l) log within a step."""
    run = Recorder(folder, task=task, classes=classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    run.watch(model, optimizer)
    outputs_of = outputs_of or (lambda outputs: outputs)
    seen = {}
    acts = {
        "z": optimizer.zero_grad,
        "s": optimizer.step,
        "b": lambda: seen["loss"].backward(),
        "l": lambda: run.log_batch("train", **seen["batch"], loss=seen.get("logged", seen["loss"])),
    }
    for number, (inputs, targets) in enumerate(batches):
        for act in order if "l" in order else order + "l":
            if act == "f":
                outputs = model(inputs)
                loss = loss_function(outputs_of(outputs), targets)
                loss, logged = loss if isinstance(loss, tuple) else (loss, loss)
                seen |= {"loss": loss, "logged": logged}
                seen["batch"] = {"inputs": inputs, "targets": targets, "outputs": outputs_of(outputs)}
            elif act.isupper():  # every fourth batch only
                if number % 4 == 3:
                    acts[act.lower()]()
            else:
                acts[act]()
        if number % 10 == 9:
            run.log_metrics("train", loss=float(seen["logged"].detach()))
    run.finish()
    return folder


def class_batches(count=40, size=16, classes=5, last=16):
    centers = torch.randn(classes, 8)
    for i in range(count):
        targets = torch.randint(classes, (size if i % 10 < 9 else last,))
        yield centers[targets] + torch.randn(len(targets), 8), targets


def classifier(classes=5):
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, classes))


# -- the loss of class targets ------------------------------------------------------------------------------------


def by_hand(outputs, axis):
    exponentials = torch.exp(outputs - outputs.max())
    return torch.log(exponentials / exponentials.sum(dim=axis, keepdim=True))


SOUND = {
    "cross_entropy": F.cross_entropy,
    "nll_of_log_softmax": lambda o, t: F.nll_loss(F.log_softmax(o, dim=-1), t),
    "softmax_by_hand": lambda o, t: F.nll_loss(by_hand(o, 1), t),
    "part_of_an_accumulation": lambda o, t: F.cross_entropy(o, t) / 4,
    "scaled_for_half_precision": lambda o, t: (F.cross_entropy(o, t) * 1024, F.cross_entropy(o, t)),
    "smoothed": lambda o, t: F.cross_entropy(o, t, label_smoothing=0.1),
    "smoothed_much": lambda o, t: F.cross_entropy(o, t, label_smoothing=0.3),
    "weighted": lambda o, t: F.cross_entropy(o, t, weight=torch.arange(1.0, 6)),
    "focal": lambda o, t: ((1 - torch.exp(-F.cross_entropy(o, t, reduction="none"))) ** 2).mean(),
    "with_penalty": lambda o, t: F.cross_entropy(o, t) + 1e-2 * o.square().mean(),
    "multi_margin": F.multi_margin_loss,
    "temperature": lambda o, t: F.cross_entropy(o / 2, t),
    "one_against_all": lambda o, t: F.binary_cross_entropy_with_logits(o, F.one_hot(t, 5).float()),
}
BROKEN = {
    "softmax_before": ("redundant_softmax", lambda o, t: F.cross_entropy(F.softmax(o, dim=1), t)),
    "softmax_before_and_scaled": ("redundant_softmax", lambda o, t: F.cross_entropy(F.softmax(o, dim=-1), t) / 2),
    "over_batch": ("softmax_dim", lambda o, t: F.nll_loss(F.log_softmax(o, dim=0), t)),
    "over_batch_by_hand": ("softmax_dim", lambda o, t: F.nll_loss(by_hand(o, 0), t)),
    "over_batch_then_again": ("softmax_dim", lambda o, t: F.cross_entropy(F.softmax(o, dim=0), t)),
    "over_batch_weighted": ("softmax_dim", lambda o, t: F.nll_loss(o.log_softmax(0), t, weight=torch.arange(1.0, 6))),
    "raw_nll": ("nll_on_logits", F.nll_loss),
    "minus": ("flipped_sign", lambda o, t: -F.cross_entropy(o, t)),
    "minus_backward": ("flipped_sign", lambda o, t: (-F.cross_entropy(o, t), F.cross_entropy(o, t))),
    "squared": ("mse_for_classes", lambda o, t: F.mse_loss(o, F.one_hot(t, 5).float())),
    "brier": ("mse_for_classes", lambda o, t: F.mse_loss(F.softmax(o, dim=1), F.one_hot(t, 5).float())),
    "capped": ("clipped_loss", lambda o, t: F.cross_entropy(3 * o, t).clamp(max=1.2)),
    "smoothed_away": ("label_smoothing_wrong", lambda o, t: F.cross_entropy(o, t, label_smoothing=0.9)),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_losses_are_not_accused(tmp_path, name):
    train(tmp_path, classifier(), class_batches(last=7), SOUND[name], task="classification", classes=5, lr=0.01)
    for detector in (LossRecomputation, SoftmaxAxis, RegressionLoss):
        assert faults(detector, tmp_path) == []


@pytest.mark.parametrize("name", BROKEN)
def test_broken_losses_are_named(tmp_path, name):
    fault, loss = BROKEN[name]
    if name == "capped":  # a scaled loss that is capped as well is no formula of the list
        loss = lambda o, t: F.cross_entropy(o, t).clamp(max=1.2)  # noqa: E731
    train(tmp_path, classifier(), class_batches(last=7), loss, task="classification", classes=5, lr=0.01)
    assert {top(LossRecomputation, tmp_path), top(SoftmaxAxis, tmp_path)} - {None} == {fault}


@pytest.mark.parametrize(
    ("last", "loss", "fault"),
    [
        (nn.LogSoftmax(dim=1), F.nll_loss, None),
        (nn.LogSoftmax(dim=1), F.cross_entropy, None),  # a log-softmax of a log-softmax changes nothing
        (nn.Softmax(dim=1), lambda o, t: F.nll_loss(torch.log(o), t), None),
        (nn.Softmax(dim=1), F.cross_entropy, "redundant_softmax"),
        (nn.Softmax(dim=0), F.cross_entropy, "softmax_dim"),
        (nn.LogSoftmax(dim=0), F.nll_loss, "softmax_dim"),
        (nn.ReLU(), F.cross_entropy, "activation_on_logits"),
        (nn.Sigmoid(), F.cross_entropy, "activation_on_logits"),
    ],
)
def test_what_the_model_ends_with(tmp_path, last, loss, fault):
    model = nn.Sequential(*classifier(), last)
    train(tmp_path, model, class_batches(), loss, task="classification", classes=5, lr=0.01)
    assert {top(LossRecomputation, tmp_path), top(SoftmaxAxis, tmp_path)} in ({fault}, {fault, None})


def test_sum_with_fitting_rate_is_sound_and_without_is_not(tmp_path):
    loss = lambda o, t: F.cross_entropy(o, t, reduction="sum")  # noqa: E731
    data = list(class_batches(last=9))
    train(tmp_path / "a", classifier(), data, loss, task="classification", classes=5, lr=0.1 / 16)
    train(tmp_path / "b", classifier(), data, loss, task="classification", classes=5, lr=1.0)
    assert faults(LossRecomputation, tmp_path / "a") == []
    assert top(LossRecomputation, tmp_path / "b") == "loss_reduction_sum"


def soft_batches():
    for inputs, targets in class_batches():
        share = torch.rand(())
        mixed = F.one_hot(targets, 5) * share + F.one_hot(targets.flip(0), 5) * (1 - share)
        yield share * inputs + (1 - share) * inputs.flip(0), mixed.float()


def test_soft_targets(tmp_path):
    train(tmp_path / "a", classifier(), soft_batches(), F.cross_entropy, task="classification", classes=5)
    loss = BROKEN["softmax_before"][1]
    train(tmp_path / "b", classifier(), soft_batches(), loss, task="classification", classes=5)
    assert faults(LossRecomputation, tmp_path / "a") == []
    assert top(LossRecomputation, tmp_path / "b") == "redundant_softmax"


class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize(
    ("loss", "fault"),
    [
        (F.cross_entropy, None),
        (lambda o, t: F.cross_entropy(o, t, ignore_index=0), None),
        (lambda o, t: F.nll_loss(F.log_softmax(o, dim=-1), t), "softmax_dim"),
        (lambda o, t: F.nll_loss(F.log_softmax(o, dim=0), t), "softmax_dim"),
        (lambda o, t: F.cross_entropy(F.softmax(o, dim=1), t), "redundant_softmax"),
    ],
)
def test_segmentation(tmp_path, loss, fault):
    batches = [(x, (x[:, 0] > 0).long() + (x[:, 0] > 1).long()) for x in torch.randn(20, 4, 1, 6, 6)]
    train(tmp_path, Pixels(), batches, loss, task="classification", classes=3)
    assert top(LossRecomputation, tmp_path) == fault
    assert top(SoftmaxAxis, tmp_path) == (fault if fault == "softmax_dim" else None)


class Tagger(nn.Module):
    """Tokens (B, T) in, logits (B, T, C) out; sees one token and the one before."""

    def __init__(self, classes=11, last=None):
        super().__init__()
        self.embed, self.head, self.last = nn.Embedding(11, 12), nn.Linear(24, classes), last or nn.Identity()

    def forward(self, tokens):
        x = self.embed(tokens)
        return self.last(self.head(torch.cat([x, x.roll(1, dims=1)], dim=-1)))


@pytest.mark.parametrize(
    ("loss", "fault"),
    [
        (lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten()), None),
        (lambda o, t: F.cross_entropy(o.transpose(1, 2), t), None),
        (lambda o, t: F.cross_entropy(o[:, :-1].flatten(0, 1), t[:, 1:].flatten()), None),
        (lambda o, t: F.nll_loss(F.log_softmax(o, dim=1).flatten(0, 1), t.flatten()), "softmax_dim"),
        (lambda o, t: F.nll_loss(F.log_softmax(o, dim=0).flatten(0, 1), t.flatten()), "softmax_dim"),
        (lambda o, t: F.nll_loss(F.log_softmax(o.flatten(0, 1), dim=0), t.flatten()), "softmax_dim"),
        (lambda o, t: F.cross_entropy(F.softmax(o, -1).flatten(0, 1), t.flatten()), "redundant_softmax"),
    ],
)
def test_sequence_losses(tmp_path, loss, fault):
    tokens = [torch.randint(11, (6, 13)) for _ in range(30)]
    train(tmp_path, Tagger(), [(x[:, :-1], x[:, 1:]) for x in tokens], loss, task="language_model", classes=11)
    assert top(LossRecomputation, tmp_path) == fault
    assert top(SoftmaxAxis, tmp_path) == (fault if fault == "softmax_dim" else None)


# -- the loss of numbers ------------------------------------------------------------------------------------------


def number_batches(shape=(-1, 1), count=30):
    direction = torch.randn(4)
    for _ in range(count):
        inputs = torch.randn(12, 4)
        yield inputs, (inputs @ direction + 0.1 * torch.randn(12)).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "loss", "fault"),
    [
        ((-1, 1), F.mse_loss, None),
        ((-1, 1), F.l1_loss, None),
        ((-1, 1), lambda o, t: F.mse_loss(o, t).sqrt(), None),
        ((-1, 1), lambda o, t: F.huber_loss(o, t, delta=0.3), None),
        ((-1, 1), lambda o, t: F.mse_loss(o, t, reduction="sum"), None),
        ((-1, 1), lambda o, t: torch.log(torch.cosh(o - t)).mean(), None),
        ((-1,), lambda o, t: F.mse_loss(o.squeeze(1), t), None),
        ((-1,), F.mse_loss, "label_broadcast"),
        ((-1, 1), lambda o, t: F.mse_loss(o.flatten(), t), "label_broadcast"),  # a slip inside the loss
        ((-1,), F.smooth_l1_loss, "label_broadcast"),
        ((-1,), lambda o, t: (o - t).abs().mean(), "label_broadcast"),
        ((-1, 1), lambda o, t: -F.mse_loss(o, t), "flipped_sign"),
        ((-1, 1), lambda o, t: (-F.mse_loss(o, t), F.mse_loss(o, t)), "flipped_sign"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_losses_of_numbers(tmp_path, shape, loss, fault):
    train(tmp_path, nn.Linear(4, 1), number_batches(shape), loss, task="regression", lr=0.01)
    assert top(RegressionLoss, tmp_path) == fault
    assert faults(LossRecomputation, tmp_path) == []


def test_distance_to_the_inputs(tmp_path):
    batches = [(x, x.flip(1)) for x in torch.randn(20, 8, 4)]
    train(tmp_path / "a", nn.Linear(4, 4), batches, F.mse_loss, task="regression", lr=0.01)
    run = Recorder(tmp_path / "b", task="regression")
    model = nn.Linear(4, 4)
    for inputs, targets in batches:
        outputs = model(inputs)
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=F.mse_loss(outputs, inputs))
    run.finish()
    assert faults(RegressionLoss, tmp_path / "a") == []
    assert top(RegressionLoss, tmp_path / "b") == "wrong_target"


@pytest.mark.parametrize(
    ("last", "loss", "fault"),
    [
        (nn.Identity(), F.binary_cross_entropy_with_logits, None),
        (nn.Sigmoid(), F.binary_cross_entropy, None),
        (nn.Sigmoid(), F.binary_cross_entropy_with_logits, "activation_on_logits"),
        (nn.Identity(), lambda o, t: F.binary_cross_entropy_with_logits(o.sigmoid(), t), "activation_on_logits"),
        (nn.Identity(), F.mse_loss, "mse_for_classes"),
        (nn.Identity(), lambda o, t: F.binary_cross_entropy_with_logits(o, t, pos_weight=torch.tensor(3.0)), None),
    ],
)
def test_binary_losses(tmp_path, last, loss, fault):
    batches = [(x, (y > 0).float()) for x, y in number_batches()]
    train(tmp_path, nn.Sequential(nn.Linear(4, 1), last), batches, loss, task="classification", classes=2, lr=0.01)
    assert top(RegressionLoss, tmp_path) == fault
    assert faults(LossRecomputation, tmp_path) == []


# -- tokens ---------------------------------------------------------------------------------------------------------


def text_batches(count=60, shift=1, length=12):
    """Tokens that mostly follow a rule, so that there is something to learn, cut with a shift in the data."""
    for _ in range(count):
        x = torch.randint(11, (8, 1))
        for _ in range(length + shift - 1):
            x = torch.cat(
                [x, torch.where(torch.rand(8, 1) < 0.7, (x[:, -1:] * 3 + 1) % 11, torch.randint(11, (8, 1)))], 1
            )
        yield x[:, :length], x[:, shift:]


def token_loss(shift):
    return lambda o, t: F.cross_entropy(o[:, : o.shape[1] - shift].flatten(0, 1), t[:, shift:].flatten())


class InADict(nn.Module):
    """Returns what Hugging Face models do: a mapping, of which the recorder sees no gradient."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return OrderedDict(logits=self.model(tokens))


class ShiftsInside(Tagger):
    """Moves its inputs one to the right, as T5's decoder does, so that targets are the inputs."""

    def forward(self, tokens):
        return super().forward(F.pad(tokens[:, :-1], (1, 0)))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("in_data", "in_loss", "fault"),
    [
        (1, 0, None),
        (0, 1, None),
        (0, 0, "unshifted_lm_labels"),
        (1, 1, "double_shift"),
        (2, 0, "double_shift"),
    ],
)
def test_total_shift_of_tokens(tmp_path, in_data, in_loss, fault, wrapped):
    model = InADict(Tagger()) if wrapped else Tagger()
    outputs_of = (lambda o: o["logits"]) if wrapped else None
    batches = list(text_batches(shift=in_data))
    loss = token_loss(in_loss)
    train(tmp_path, model, batches, loss, task="language_model", classes=11, lr=0.5, outputs_of=outputs_of)
    assert top(TokenShift, tmp_path) == fault


def masked_batches():
    for x, _ in text_batches():
        hidden = torch.rand(x.shape) < 0.15
        yield x.masked_fill(hidden, 10), torch.where(hidden, x, -100)


def test_shifts_that_are_none_of_our_business(tmp_path):
    unshifted = list(text_batches(shift=0))
    train(tmp_path / "inside", ShiftsInside(), unshifted, token_loss(0), task="language_model", classes=11)
    train(tmp_path / "masked", Tagger(), masked_batches(), token_loss(0), task="language_model", classes=11)
    train(tmp_path / "tags", Tagger(), unshifted, token_loss(0), task="classification", classes=11)
    constant = [(torch.full((4, 9), 3), torch.full((4, 9), 3)) for _ in range(20)]
    train(tmp_path / "constant", Tagger(), constant, token_loss(0), task="language_model", classes=11)
    assert {name: faults(TokenShift, tmp_path / name) for name in ("inside", "masked", "tags", "constant")} == {
        "inside": [],
        "masked": [],
        "tags": [],
        "constant": [],
    }


def padded_batches(ignored):
    for x, _ in text_batches(length=12):
        x = x.clamp(max=9)  # 10 is the padding
        lengths = torch.randint(4, 13, (8, 1))
        x = torch.where(torch.arange(12) < lengths, x, 10)
        targets = x[:, 1:]
        yield x[:, :-1], torch.where(targets == 10, -100, targets) if ignored else targets


def test_padding(tmp_path):
    train(tmp_path / "a", Tagger(), padded_batches(True), token_loss(0), task="language_model", classes=11)
    train(tmp_path / "b", Tagger(), padded_batches(False), token_loss(0), task="language_model", classes=11)
    ignoring = lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten(), ignore_index=10)  # noqa: E731
    train(tmp_path / "c", Tagger(), padded_batches(False), ignoring, task="language_model", classes=11)
    assert faults(TokenShift, tmp_path / "a") == []
    assert top(TokenShift, tmp_path / "b") == "padding_in_loss"
    assert faults(TokenShift, tmp_path / "c") == []


# -- reported metrics ---------------------------------------------------------------------------------------------


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


# -- mode -----------------------------------------------------------------------------------------------------------


def toggled(folder, model, *, train_modes, val_mode, val_split="val"):
    """Record as many epochs as there are modes (True: training), each with an evaluation."""
    run = Recorder(folder, task="classification", classes=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    run.watch(model, optimizer)
    batches = list(class_batches(8))
    for mode in train_modes:
        if callable(mode):
            mode(model)
        else:
            model.train(mode)
        for inputs, targets in batches:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = F.cross_entropy(outputs, targets)
            loss.backward()
            optimizer.step()
            run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
        run.log_metrics("train", loss=0.0)
        model.train(val_mode)
        with torch.no_grad():
            for inputs, targets in batches:
                run.log_batch(val_split, inputs=inputs, targets=targets, outputs=model(inputs), loss=0.0)
        run.log_metrics(val_split, loss=0.0)
    run.finish()
    return folder


def normalised(*more):
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), *more, nn.Linear(16, 5))


def freeze_batch_norm(model):
    """Leave batch norm on the statistics that it starts with, which are those of no data."""
    model.train()
    model[1].eval()
    with torch.no_grad():
        model[0].weight.mul_(10)


def freeze_fitting_batch_norm(model):
    model.train()
    model[1].momentum = None  # the mean over all batches
    with torch.no_grad():
        for inputs, _ in class_batches(20):
            model(inputs)
    model[1].eval()


@pytest.mark.parametrize(
    ("more", "train_modes", "val_mode", "fault"),
    [
        ([nn.Dropout()], [True] * 3, False, None),
        ([nn.Dropout()], [True, False, False], False, "eval_mode_in_training"),
        ([nn.Dropout()], [False] * 2, False, "eval_mode_in_training"),
        ([nn.Dropout()], [True] * 3, True, "train_mode_in_eval"),
        ([], [True] * 2, True, "train_mode_in_eval"),
        ([], [freeze_batch_norm], False, "batchnorm_in_eval"),
        ([], [freeze_fitting_batch_norm], False, None),
    ],
)
def test_modes(tmp_path, more, train_modes, val_mode, fault):
    folder = toggled(tmp_path, normalised(*more), train_modes=train_modes, val_mode=val_mode)
    assert top(ModeCheck, folder) == fault


def test_mode_does_not_matter_without_layers_that_heed_it(tmp_path):
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 5))
    assert faults(ModeCheck, toggled(tmp_path, model, train_modes=[False] * 3, val_mode=True)) == []


def test_frozen_backbone_in_evaluation_mode_is_a_choice(tmp_path):
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 16), nn.Dropout()), nn.Linear(16, 5))
    folder = toggled(tmp_path, model, train_modes=[lambda m: (m.train(), m[0].eval())] * 2, val_mode=False)
    assert faults(ModeCheck, folder) == []


# -- order of calls -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        ("zfbs", None),
        ("fzbs", None),
        ("fbsz", None),
        ("fbslz", None),
        ("zfbls", None),
        ("zflbs", None),
        ("fblsz", None),
        ("fbSZ", None),  # accumulation over four batches
        ("fbs", "missing_zero_grad"),
        ("fbls", "missing_zero_grad"),
        ("fbzs", "zero_grad_after_backward"),
        ("fbzls", "zero_grad_after_backward"),
        ("zfsb", "step_before_backward"),
        ("fszb", "step_before_backward"),
        ("zfb", "missing_step"),
    ],
)
def test_order_of_calls(tmp_path, order, fault):
    # a step between forward and backward raises in deeper models, whose weights the backward pass needs
    model = nn.Linear(8, 5) if order == "fszb" else classifier()
    train(tmp_path, model, class_batches(), F.cross_entropy, task="classification", classes=5, order=order)
    assert top(CallOrder, tmp_path) == fault


@pytest.mark.parametrize(("last", "cleared"), [(nn.Linear(16, 5), True), (nn.Linear(16, 5), False), (nn.ReLU(), True)])
def test_gradients_cleared_without_a_call(tmp_path, last, cleared):
    """Arithmetic on the gradients overrules the calls: of the last bias, or of zeros that come and go."""
    run = Recorder(tmp_path, task="classification", classes=5)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), last if isinstance(last, nn.Linear) else nn.Linear(16, 5), last)
    model = model[:3] if isinstance(last, nn.Linear) else model
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    run.watch(model, optimizer)
    for inputs, targets in class_batches():
        if cleared:
            for parameter in model.parameters():
                parameter.grad = None
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
    run.finish()
    assert faults(CallOrder, tmp_path) == ([] if cleared else ["missing_zero_grad"])


def test_zero_grad_on_another_optimizer(tmp_path):
    """All calls are there, but those of zero_grad go to parameters that are not the model's."""
    run = Recorder(tmp_path, task="classification", classes=5)
    model, other = classifier(), classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run.watch(other, torch.optim.SGD(other.parameters(), lr=0.01), name="teacher")
    run.watch(model, optimizer)
    for inputs, targets in class_batches():
        other.zero_grad()
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
    run.finish()
    assert top(CallOrder, tmp_path) == "missing_zero_grad"


def test_closures_and_two_models(tmp_path):
    run = Recorder(tmp_path / "closure", task="classification", classes=5)
    model = classifier()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    run.watch(model, optimizer)
    for inputs, targets in class_batches(12):

        def closure(inputs=inputs, targets=targets):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            return loss

        with torch.no_grad():
            outputs = model(inputs)
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=optimizer.step(closure))
    run.finish()

    run = Recorder(tmp_path / "gan", task="generation")
    generator, discriminator = nn.Linear(2, 3), nn.Linear(3, 1)
    for_g, for_d = (torch.optim.Adam(m.parameters(), lr=0.01) for m in (generator, discriminator))
    run.watch(generator, for_g, name="generator")
    run.watch(discriminator, for_d, name="discriminator")
    for _ in range(12):
        real, fake = torch.randn(8, 3), generator(torch.randn(8, 2))
        discriminator.zero_grad()
        ones, zeros = torch.ones(8, 1), torch.zeros(8, 1)
        F.binary_cross_entropy_with_logits(discriminator(real), ones).backward()
        F.binary_cross_entropy_with_logits(discriminator(fake.detach()), zeros).backward()
        for_d.step()
        generator.zero_grad()
        outputs = discriminator(fake)
        loss = F.binary_cross_entropy_with_logits(outputs, ones)
        loss.backward()
        for_g.step()
        run.log_batch("train", inputs=real, targets=ones, outputs=outputs, loss=loss)
    run.finish()
    assert faults(CallOrder, tmp_path / "closure") == []
    assert faults(CallOrder, tmp_path / "gan") == []


# -- what an output depends on --------------------------------------------------------------------------------------

PROGRAM = """
import torch
import torch.nn.functional as F
from torch import nn
{model}

def main(config, run):
    torch.manual_seed(config.seed)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    run.watch(model, optimizer)
    for _ in range(20):
        {data}
        outputs = model(inputs)
        loss = {loss}
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
"""
VECTORS = "inputs, targets = torch.randn(6, 8), torch.randint(3, (6,))"
TOKENS = "x = torch.randint(11, (6, 10)); inputs, targets = x[:, :-1], x[:, 1:]"
SAME_TOKENS = "x = torch.randint(11, (6, 10)); inputs, targets = x, x"
SERIES = "inputs, targets = torch.randn(6, 9, 4), torch.randint(3, (6,))"

MLP = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))

    def forward(self, x):
        return {outputs}
"""
ATTENTION = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.place, self.head = nn.Embedding(11, 8), nn.Embedding(16, 8), nn.Linear(8, 11)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first={batch_first})

    def forward(self, tokens):
        length = {length}
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        mask = {mask}
        return self.head(x + self.attention(x, x, x, attn_mask=mask, need_weights=False)[0])
"""
LATER = "torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)"
LSTM = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 8, batch_first={batch_first}), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])
"""
MEAN = "F.cross_entropy(outputs, targets)"
OF_TOKENS = "F.cross_entropy(outputs.flatten(0, 1), targets.flatten())"
IN_LOSS = "F.cross_entropy(outputs[:, :-1].flatten(0, 1), targets[:, 1:].flatten())"


def program(folder, task, model, data, loss):
    source = PROGRAM.format(model=model, data=data, loss=loss)
    if "edges" in data:
        source = source.replace("model(inputs)", "model(inputs, edges)")
    Recorder(folder, task=task, classes=3 if task == "classification" else 11).finish()
    (folder / "data").mkdir()
    (folder / "config.yaml").write_text("seed: 3\n")
    (folder / "program.py").write_text(source)
    return folder


def attention(mask, batch_first=True):
    length = "tokens.shape[1]" if batch_first else "tokens.shape[0]"
    return ATTENTION.format(mask=mask, batch_first=batch_first, length=length)


INDEPENDENT = {
    "mean": ("classification", MLP.format(outputs="self.net(x)"), VECTORS, MEAN),
    "log_softmax": (
        "classification",
        MLP.format(outputs="self.net(x).log_softmax(1)"),
        VECTORS,
        "F.nll_loss(outputs, targets)",
    ),
    "softmax": (
        "classification",
        MLP.format(outputs="self.net(x).softmax(1)"),
        VECTORS,
        "F.nll_loss(outputs.log(), targets)",
    ),
    "weighted": (
        "classification",
        MLP.format(outputs="self.net(x)"),
        VECTORS,
        "F.cross_entropy(outputs, targets, weight=torch.arange(1.0, 4))",
    ),
    "root": ("classification", MLP.format(outputs="self.net(x)"), VECTORS, MEAN + ".sqrt()"),
    "contrastive": (
        "classification",
        MLP.format(outputs="self.net(x)"),
        VECTORS,
        "F.cross_entropy(F.normalize(outputs) @ F.normalize(outputs).T * 5, torch.arange(6).roll(1))",
    ),
    "series": ("classification", LSTM.format(batch_first=True), SERIES, MEAN),
    "graph": (
        "classification",
        MLP.format(outputs="self.net(x + edges @ x)").replace("(self, x)", "(self, x, edges)"),
        VECTORS.replace("inputs,", "edges = torch.rand(6, 6); inputs,"),
        MEAN,
    ),
    "binary": (
        "classification",
        MLP.format(outputs="self.net(x)[:, 0]"),
        VECTORS,
        "F.binary_cross_entropy_with_logits(outputs, (targets > 0).float())",
    ),
    "regression": ("regression", MLP.format(outputs="self.net(x)"), VECTORS, "F.mse_loss(outputs, inputs[:, :3])"),
    "causal": ("language_model", attention(LATER), TOKENS, OF_TOKENS),
    "causal_shift_in_loss": ("language_model", attention(LATER), SAME_TOKENS, IN_LOSS),
    "tagger": ("classification", attention("None"), TOKENS, OF_TOKENS),
    "masked": (
        "language_model",
        attention("None"),
        "x, m = torch.randint(10, (6, 10)), torch.rand(6, 10) < 0.5; "
        "inputs, targets = x.masked_fill(m, 10), torch.where(m, x, -100)",
        OF_TOKENS,
    ),
}
DEPENDENT = {
    "loss": (
        "softmax_dim",
        "classification",
        MLP.format(outputs="self.net(x)"),
        VECTORS,
        "F.nll_loss(outputs.log_softmax(0), targets)",
    ),
    "loss_by_hand": (
        "softmax_dim",
        "classification",
        MLP.format(outputs="self.net(x)"),
        VECTORS,
        "-torch.log(outputs.exp() / outputs.exp().sum(0))[torch.arange(6), targets].mean()",
    ),
    "model": (
        "softmax_dim",
        "classification",
        MLP.format(outputs="self.net(x).softmax(0)"),
        VECTORS,
        "F.nll_loss(outputs.log(), targets)",
    ),
    "time": (
        "softmax_dim",
        "language_model",
        attention(LATER),
        TOKENS,
        "F.nll_loss(outputs.log_softmax(1).flatten(0, 1), targets.flatten())",
    ),
    "flat": (
        "softmax_dim",
        "language_model",
        attention(LATER),
        TOKENS,
        "F.nll_loss(outputs.flatten(0, 1).log_softmax(0), targets.flatten())",
    ),
    "dropout": (
        "functional_dropout",
        "classification",
        MLP.format(outputs="F.dropout(self.net(x), 0.2)"),
        VECTORS,
        MEAN,
    ),
    "batch_is_time": ("swapped_axes", "classification", LSTM.format(batch_first=False), SERIES, MEAN),
    "no_mask": ("missing_causal_mask", "language_model", attention("None"), TOKENS, OF_TOKENS),
    "no_mask_shift_in_loss": ("missing_causal_mask", "language_model", attention("None"), SAME_TOKENS, IN_LOSS),
    "inverted": (
        "inverted_mask",
        "language_model",
        attention(LATER.replace("triu", "tril").replace("1)", "-1)")),
        TOKENS,
        OF_TOKENS,
    ),
}


def of_reruns(folder):
    """Return the first suspects of all detectors that are applicable."""
    found = []
    for detector in (BatchIndependence, Causality, RepeatedEvaluation):
        with contextlib.suppress(NotApplicable):
            found += faults(detector, folder)[:1]
    return found


@pytest.mark.parametrize("name", INDEPENDENT)
def test_outputs_that_depend_on_what_they_may(tmp_path, name):
    assert of_reruns(program(tmp_path, *INDEPENDENT[name])) == []


@pytest.mark.parametrize("name", DEPENDENT)
def test_outputs_that_depend_on_what_they_may_not(tmp_path, name):
    fault, *parts = DEPENDENT[name]
    assert of_reruns(program(tmp_path, *parts)) == [fault]


@pytest.mark.parametrize(
    ("model", "data", "reason"),
    [
        (MLP.format(outputs="(self.net(x), x)"), VECTORS, "tensor"),
        (MLP.format(outputs="{'logits': self.net(x)}"), VECTORS, "tensor"),
        (MLP.format(outputs="self.net(x) / 0"), VECTORS, "finite"),
        (MLP.format(outputs="self.net(x.T)"), VECTORS, "raised"),
        (MLP.format(outputs="self.net(x)"), "inputs, targets = torch.load('nowhere.pt')", "raised"),
        (MLP.format(outputs="self.net(x)"), "inputs, targets = torch.randn(1, 8), torch.randint(3, (1,))", "raised"),
        (MLP.format(outputs="self.net(x)").replace("1d(16", "1d(16, track_running_stats=False"), VECTORS, "batch norm"),
        (MLP.format(outputs="self.net(x)") + "\nModel = None", VECTORS, "raised"),
    ],
)
def test_not_applicable_has_a_reason(tmp_path, model, data, reason):
    loss = (
        "F.cross_entropy(outputs if isinstance(outputs, torch.Tensor) else next(iter(dict(outputs).values())), targets)"
    )
    if "(self.net(x), x)" in model:
        loss = "F.cross_entropy(outputs[0], targets)"
    with pytest.raises(NotApplicable, match=reason):
        BatchIndependence().diagnose(Trace(program(tmp_path, "classification", model, data, loss)))


# -- curves -----------------------------------------------------------------------------------------------------------


def curves(folder, losses, val=None, *, epochs=10, task="classification", classes=10, lr=0.1, first=False, **reported):
    """Record curves as they are: ``losses`` per batch, ``val`` per epoch, metrics per epoch as ``train_accuracy``, …"""
    run = Recorder(folder, task=task, classes=classes)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    run.watch(nn.ParameterList([weight]), optimizer)
    rates = np.broadcast_to(lr, len(losses))
    batch = {"inputs": torch.zeros(2, 2), "targets": torch.zeros(2), "outputs": torch.zeros(2)}

    def evaluation(epoch, loss):
        run.log_batch("val", **batch, loss=float(loss))
        run.log_metrics("val", **{n[4:]: float(v[epoch]) for n, v in reported.items() if n.startswith("val_")})

    if first:
        evaluation(0, 2.4)
    for epoch, part in enumerate(np.array_split(np.arange(len(losses)), epochs)):
        for step in part:
            optimizer.param_groups[0]["lr"] = float(rates[step])
            run.log_batch("train", **batch, loss=float(losses[step]))
        run.log_metrics("train", **{n[6:]: float(v[epoch]) for n, v in reported.items() if n.startswith("train_")})
        if val is not None:
            evaluation(epoch, val[epoch])
    run.finish()
    return folder


STEPS = np.arange(200)
EPOCHS = np.arange(10)
NOISE = np.random.default_rng(0).standard_normal(200)
CHANCE = np.log(10)


def falling(start=2.4, end=0.1, pace=30.0, noise=0.1):
    """A healthy loss: exponential, with noise in proportion."""
    return (end + (start - end) * np.exp(-STEPS / pace)) * np.exp(noise * NOISE)


def at_epochs(losses):
    return losses.reshape(10, -1).mean(axis=1)


TEETH = 0.3 + 2.8 * (1 - STEPS % 20 % 5 / 4)  # four classes, five batches each
MIXED = np.random.default_rng(1).permuted(np.tile(np.linspace(0.4, 1.2, 20), (10, 1))[:1]).repeat(10, axis=0).ravel()
SICK = {
    "nan_at_once": (["nan_inputs"], np.full(200, np.nan), {}),
    "nan_after_growth": (["lr_too_high"], np.where(STEPS < 30, 2.4 * 1.5 ** (STEPS + 3 * (STEPS % 3)), np.nan), {}),
    "nan_out_of_nothing": (["nan_inputs", "log_of_zero"], np.where(STEPS < 90, falling(), np.nan), {}),
    "minus": (["flipped_sign"], -falling(), {}),
    "bottomless": (["nll_on_logits"], -0.05 * STEPS**1.5 - 0.1, {}),
    "rises_steadily": (["flipped_sign", "lr_too_high"], 2.4 * np.exp(STEPS / 100) * np.exp(0.05 * NOISE), {}),
    "rises_and_stays": (["lr_too_high"], np.minimum(2.0 + STEPS, 9) * np.exp(0.2 * NOISE), {}),
    "falls_then_rises": (["missing_zero_grad"], np.where(STEPS < 40, falling(), 1.0 * np.exp((STEPS - 40) / 40)), {}),
    "jumps": (["lr_too_high"], falling() + 50 * (STEPS == 2) + 30 * (STEPS == 3), {}),
    "chance": (
        ["misaligned_labels"],
        CHANCE * (1 + 0.01 * NOISE),
        {"val": np.full(10, CHANCE) * (1 + 1e-4 * NOISE[:10])},
    ),
    "unmoved": (["zero_grad_after_backward", "missing_step"], 2.35 + 0.1 * NOISE, {"val": np.full(10, 2.3581)}),
    "slow": (["lr_too_low"], 2.5 - 0.0005 * STEPS + 0.1 * NOISE, {"val": 2.51 - 0.01 * EPOCHS}),
    "slow_regression": (["lr_too_low"], 900 - 0.3 * STEPS + NOISE, {"val": 905 - 6.0 * EPOCHS, "task": "regression"}),
    "slow_cosine": (
        ["lr_too_low"],
        2.6 - 0.1 * np.sin(np.pi * STEPS / 400) + 0.02 * NOISE,
        {"val": 2.6 - 0.1 * np.sin(np.pi * (EPOCHS + 1) / 20), "lr": np.cos(np.pi * STEPS / 400)},
    ),
    "saw_tooth": (["unshuffled_loader"], TEETH * np.exp(0.1 * NOISE), {"val": np.full(10, 2.3) + 0.1 * NOISE[:10]}),
    "floor": (
        ["redundant_softmax"],
        falling(2.3, 1.5, noise=0.005),
        {"val_accuracy": np.linspace(0.4, 0.97, 10), "val": at_epochs(falling(2.2, 1.5, noise=0))},
    ),
    "memorised": (["misaligned_labels"], 2.31 - 2.2 * (STEPS / 200) ** 2 + 0.05 * NOISE, {"val": 2.31 + 0.1 * EPOCHS}),
    "same_batch": (["same_batch"], falling(2.4, 0.001, 8, noise=0), {"val": 2.4 + 0.1 * EPOCHS}),
    "raw_validation": (["train_only_normalization"], falling(2.4, 0.1, 10), {"val": 4.0 + 0.1 * EPOCHS}),
    "raw_regression": (
        ["train_only_normalization"],
        falling(1.0, 0.3),
        {"val": np.full(10, 40.0) + EPOCHS, "task": "regression"},
    ),
    "below_chance": (
        ["label_off_by_one"],
        falling(2.4, 0.1, 10),
        {"val": 4.0 + 0.3 * EPOCHS, "val_accuracy": np.full(10, 0.01)},
    ),
    "ahead": (
        ["excess_dropout"],
        falling(2.4, 1.5),
        {"val": at_epochs(falling(2, 0.3)), "train_accuracy": np.full(10, 0.4), "val_accuracy": np.full(10, 0.95)},
    ),
    "copies": (
        ["unshifted_lm_labels"],
        falling(4, 0.01),
        {"val": at_epochs(falling(4, 0.01)), "task": "language_model", "classes": 60},
    ),
    "sees_the_future": (
        ["missing_causal_mask"],
        falling(4, 0.2),
        {"val": at_epochs(falling(4, 0.2)), "task": "language_model", "classes": 60},
    ),
    "ends_early": (["lr_decays_early"], falling(2.4, 1.0, 5), {"lr": np.maximum(1 - STEPS / 20, 0) + 1e-9}),
    "no_better_than_the_mean": (
        ["misaligned_labels"],
        1 + 0.1 * NOISE,
        {"task": "regression", "val": 1 + 0.01 * NOISE[:10], "val_r2": -0.05 + 0.02 * NOISE[:10]},
    ),
}
WELL = {
    "falls": (falling(), {"val": at_epochs(falling(2.2, 0.2))}),
    "falls_slower": (falling(pace=80), {"val": at_epochs(falling(pace=70))}),
    "evaluated_first": (falling(), {"val": at_epochs(falling(2.2, 0.2)), "first": True}),
    "warm_up": (np.where(STEPS < 30, 2.4 - 0.001 * STEPS, falling(pace=25)), {"lr": np.minimum(STEPS / 60, 1) + 1e-6}),
    "summed": (64 * falling(), {"val": 64 * at_epochs(falling())}),
    "dropout": (
        falling(end=0.5),
        {"val": at_epochs(falling(2, 0.2)), "train_accuracy": np.full(10, 0.85), "val_accuracy": np.full(10, 0.97)},
    ),
    "small_and_noisy": (falling(0.7, 0.35, noise=0.4), {"val": 0.55 + 0.02 * EPOCHS, "classes": 2}),
    "over_fits": (falling(2.4, 0.02), {"val": 1.0 + 0.03 * EPOCHS}),
    "converged": (0.2 * np.exp(0.3 * NOISE), {"val": 0.25 + 0.01 * NOISE[:10]}),
    "batch_norm_warms_up": (falling(pace=15), {"val": np.append(6.0, at_epochs(falling())[1:])}),
    "easy": (falling(2.4, 0.005, 8), {"val": at_epochs(falling(2, 0.004, 8)), "val_accuracy": np.full(10, 1.0)}),
    "many_classes": (falling(6.9, 4.5, 60), {"val": at_epochs(falling(6.5, 4.6, 60)), "classes": 1000}),
    "fixed_order_of_mixed_data": (MIXED * np.exp(0.05 * NOISE), {"val": 0.8 + 0.01 * NOISE[:10]}),
    "regression": (
        falling(28000, 3000, noise=0.2),
        {"val": at_epochs(falling(25000, 3500)), "task": "regression", "val_r2": np.linspace(0, 0.5, 10)},
    ),
    "hard_regression": (
        falling(1.0, 0.8, noise=0.2),
        {"val": at_epochs(falling(0.95, 0.85)), "task": "regression", "val_r2": np.full(10, 0.1)},
    ),
    "text": (falling(4.5, 1.4), {"val": at_epochs(falling(4.2, 1.5)), "task": "language_model", "classes": 96}),
    "step_decay": (falling(2.4, 0.3), {"lr": np.select([STEPS < 100, STEPS < 150], [0.1, 0.01], 0.001)}),
    "cosine": (
        falling(2.4, 0.3),
        {"lr": 0.05 * (1 + np.cos(np.pi * STEPS / 200)), "val": at_epochs(falling(2.2, 0.35))},
    ),
    "smoothed": (
        falling(2.4, 0.55),
        {"val_accuracy": np.linspace(0.4, 0.97, 10), "val": at_epochs(falling(2.2, 0.5))},
    ),
    "unsure": (
        falling(2.4, 1.7, noise=0.01),
        {"val": at_epochs(falling(2.3, 1.71, noise=0.0)), "val_accuracy": np.linspace(0.2, 0.75, 10)},
    ),
    "hard_and_binary": (falling(0.75, 0.42, noise=0.15), {"train_accuracy": np.linspace(0.6, 0.85, 10), "classes": 2}),
    "cosine_distance": (falling(0.0, -0.9, noise=0.01), {}),
}


@pytest.mark.parametrize("name", SICK)
def test_curves_that_say_something(tmp_path, name):
    expected, losses, more = SICK[name]
    folder = curves(tmp_path, losses, **more)
    answers = [found for detector in OF_CURVES if (found := faults(detector, folder))]
    assert expected in [found[: len(expected)] for found in answers]


@pytest.mark.parametrize("name", WELL)
def test_curves_that_say_nothing(tmp_path, name):
    losses, more = WELL[name]
    folder = curves(tmp_path, losses, **more)
    assert {d.__name__: faults(d, folder) for d in OF_CURVES} == {d.__name__: [] for d in OF_CURVES}


# -- odd traces -------------------------------------------------------------------------------------------------------


def odd_runs(folder):
    """Traces that a detector is not made for; none of them may make it raise."""
    batch = {"inputs": torch.zeros(4, 3), "targets": torch.zeros(4).long(), "outputs": torch.randn(4, 5)}
    kinds = {
        "nothing": [],
        "one": [batch],
        "nan": [{**batch, "outputs": torch.full((4, 5), torch.nan)}] * 12,
        "infinite": [{**batch, "outputs": torch.full((4, 5), torch.inf)}] * 12,
        "soft": [{**batch, "targets": torch.rand(4, 5).softmax(1)}] * 12,
        "flat": [{**batch, "outputs": torch.rand(4), "targets": torch.rand(4)}] * 12,
        "mismatch": [{**batch, "outputs": torch.rand(4, 7, 2)}] * 12,
        "images": [{**batch, "inputs": torch.rand(4, 3, 6, 6), "outputs": torch.rand(4, 3, 6, 6)}] * 12,
        "image_to_image": [{k: torch.rand(4, 3, 6, 6) for k in batch}] * 12,
        "tokens": [
            {"inputs": torch.randint(5, (4, 6)), "targets": torch.randint(5, (4, 6)), "outputs": torch.rand(4, 6, 5)}
        ]
        * 12,
        "ignored": [
            {"inputs": torch.randint(5, (4, 6)), "targets": torch.full((4, 6), -100), "outputs": torch.rand(4, 6, 5)}
        ]
        * 12,
        "row": [{k: v[:1] for k, v in batch.items()}] * 12,
        "half": [{**batch, "outputs": batch["outputs"].half()}] * 12,
        "scalar": [{**batch, "outputs": torch.tensor(1.0)}] * 12,
        "one_class": [{**batch, "outputs": torch.zeros(4, 1)}] * 12,
        "zero": [{**batch, "outputs": torch.zeros(4, 5)}] * 12,
    }
    for name, batches in kinds.items():
        for task in ("classification", "regression", "language_model", None):
            for loss in (1.0, float("nan"), 0.0):
                run = Recorder(
                    folder / f"{name}-{task}-{loss}", task=task, classes=5 if task == "classification" else None
                )
                for number, one in enumerate(batches):
                    run.log_batch("val" if number % 4 == 3 else "train", **one, loss=loss)
                    if number % 4 == 3:
                        run.log_metrics("val", loss=loss, accuracy=loss, rmse=loss)
                run.finish(error=None if batches else "Traceback: it raised at once")
                yield folder / f"{name}-{task}-{loss}"


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_odd_traces_do_not_raise(tmp_path):
    for folder in odd_runs(tmp_path):
        for detector in STATIC:
            try:
                found = faults(detector, folder)
            except Exception as error:
                raise AssertionError(f"{detector.__name__} on {folder.name}") from error
            if detector not in OF_CURVES:
                assert found == [], f"{detector.__name__} on {folder.name}"
