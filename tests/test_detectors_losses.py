"""Detectors that recompute the loss: formulas of many styles; faulty ones must be named, sound ones must not."""

import pytest
import torch
import torch.nn.functional as F
from bugbench.detectors.loss_recomputation import LossRecomputation
from bugbench.detectors.regression_loss import RegressionLoss
from bugbench.detectors.softmax_axis import SoftmaxAxis
from bugbench.recorder import Recorder
from tiny_training import Tagger, class_batches, classifier, faults, top, train
from torch import nn

pytestmark = pytest.mark.usefixtures("fixed_seed")

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
    "squared": lambda o, t: F.mse_loss(o, F.one_hot(t, 5).float()),
    "brier": lambda o, t: F.mse_loss(F.softmax(o, dim=1), F.one_hot(t, 5).float()),
    "brier_summed": lambda o, t: ((F.softmax(o, dim=1) - F.one_hot(t, 5)) ** 2).sum(dim=1).mean(),
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
    "to_the_index": ("mse_for_classes", lambda o, t: F.mse_loss(o, t[:, None].expand_as(o).float())),
    "to_the_index_summed": ("mse_for_classes", lambda o, t: ((o - t[:, None]) ** 2).sum(dim=1).mean()),
    "capped": ("clipped_loss", lambda o, t: F.cross_entropy(o, t).clamp(max=1.2)),
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
        (nn.Identity(), F.mse_loss, None),  # Brier's score
        (nn.Sigmoid(), F.mse_loss, None),
        (nn.Identity(), lambda o, t: F.binary_cross_entropy_with_logits(o, t, pos_weight=torch.tensor(3.0)), None),
    ],
)
def test_binary_losses(tmp_path, last, loss, fault):
    batches = [(x, (y > 0).float()) for x, y in number_batches()]
    train(tmp_path, nn.Sequential(nn.Linear(4, 1), last), batches, loss, task="classification", classes=2, lr=0.01)
    assert top(RegressionLoss, tmp_path) == fault
    assert faults(LossRecomputation, tmp_path) == []


def test_distance_to_class_indices_or_to_one_hot_labels(tmp_path):
    settings = {"task": "classification", "classes": 5, "lr": 0.01}
    indices = [(x, y.float()[:, None]) for x, y in class_batches()]
    train(tmp_path / "i", nn.Linear(8, 1), indices, F.mse_loss, **settings)
    one_hot = [(x, F.one_hot(y, 5).float()) for x, y in class_batches()]
    train(tmp_path / "h", classifier(), one_hot, F.mse_loss, **settings)
    assert top(RegressionLoss, tmp_path / "i") == "mse_for_classes"
    for detector in (LossRecomputation, RegressionLoss):
        assert faults(detector, tmp_path / "h") == []


def test_one_hot_distances_of_sequences(tmp_path):
    tokens = [torch.randint(11, (6, 13)) for _ in range(30)]
    data = [(x[:, :-1], x[:, 1:]) for x in tokens]
    settings = {"task": "language_model", "classes": 11}
    train(tmp_path / "h", Tagger(), data, lambda o, t: F.mse_loss(o, F.one_hot(t, 11).float()), **settings)
    train(tmp_path / "i", Tagger(), data, lambda o, t: F.mse_loss(o, t[..., None].expand_as(o).float()), **settings)
    assert faults(LossRecomputation, tmp_path / "h") == []
    assert top(LossRecomputation, tmp_path / "i") == "mse_for_classes"
