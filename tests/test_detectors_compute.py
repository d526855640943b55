"""Detectors that recompute: tiny programs of many styles, faulty ones that must be named and sound ones that must not."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bugbench.detector import Detector
from bugbench.detectors.call_order import CallOrder
from bugbench.detectors.learning_curves import LearningCurves
from bugbench.detectors.loss_recomputation import LossRecomputation
from bugbench.detectors.metric_recomputation import MetricRecomputation
from bugbench.detectors.mode_check import ModeCheck
from bugbench.detectors.regression_loss import RegressionLoss
from bugbench.detectors.token_shift import TokenShift
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from torch import nn

STATIC = (LossRecomputation, RegressionLoss, TokenShift, MetricRecomputation, ModeCheck, CallOrder, LearningCurves)


def faults(detector: type[Detector], folder: Path) -> list[str]:
    return [s.fault for s in detector().diagnose(Trace(folder)).suspects]


def top(detector: type[Detector], folder: Path) -> str | None:
    return next(iter(faults(detector, folder)), None)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def train(folder, model, batches, loss_function, *, task, classes=None, lr=0.1, order="zfbs", outputs_of=None, log=None):
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
            run.log_metrics("train", loss=float(seen["logged"]))
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
    assert faults(LossRecomputation, tmp_path) == []
    assert faults(RegressionLoss, tmp_path) == []


@pytest.mark.parametrize("name", BROKEN)
def test_broken_losses_are_named(tmp_path, name):
    fault, loss = BROKEN[name]
    if name == "capped":  # a scaled loss that is capped as well is no formula of the list
        loss = lambda o, t: F.cross_entropy(o, t).clamp(max=1.2)  # noqa: E731
    train(tmp_path, classifier(), class_batches(last=7), loss, task="classification", classes=5, lr=0.01)
    assert top(LossRecomputation, tmp_path) == fault


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
    assert top(LossRecomputation, tmp_path) == fault


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
            x = torch.cat([x, torch.where(torch.rand(8, 1) < 0.7, (x[:, -1:] * 3 + 1) % 11, torch.randint(11, (8, 1)))], 1)
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
        (lambda batches: mean((o.argmax(0)[:3] == t[:3]).sum() for o, t in batches) * 3 / 63, None),  # its own rule
        (lambda batches: sum((o.argmax() == t).sum().item() for o, t in batches) / 63, "metric_wrong_dim"),
        (lambda batches: sum((o.argmax(0) == t[:4]).sum().item() for o, t in batches[:2]) / 63, None),
        (lambda batches: 0.123, None),
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
