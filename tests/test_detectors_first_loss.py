"""The first loss of a run against what chance gives, worked out by hand."""

import math

import pytest
import torch
from bugbench.detector import NotApplicable
from bugbench.detectors.initial_loss import InitialLoss
from bugbench.recorder import Recorder
from tiny_training import faults, top


@pytest.fixture(autouse=True)
def one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


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
        faults(InitialLoss(), first(tmp_path / "a", FLAT, LABELS, 2.01 * LN10))
    with pytest.raises(NotApplicable, match="no formula known here"):  # pos_weight=8
        targets, weighted = torch.tensor([0.0, 1.0]), (1 + 8) / 2 * math.log(2)
        faults(InitialLoss(), first(tmp_path / "b", torch.zeros(2), targets, weighted))


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
        faults(InitialLoss(), first(tmp_path / "mae", far, targets - 10, 4.0, task="regression"))


def test_first_loss_of_binary_targets(tmp_path):
    targets, zero = torch.tensor([0.0, 1.0]), torch.zeros(2)
    assert top(InitialLoss(), first(tmp_path / "a", zero, targets, math.log(2), task="segmentation")) is None
    assert top(InitialLoss(), first(tmp_path / "b", zero, targets, -math.log(2), task="segmentation")) == "flipped_sign"
    with pytest.raises(NotApplicable):
        faults(InitialLoss(), first(tmp_path / "c", zero, targets, 2 * math.log(2), task="generation"))
