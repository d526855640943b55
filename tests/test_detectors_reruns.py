"""Two examples, gradients and rates: what running a program again tells."""

from pathlib import Path

import pytest
import torch
from bugbench.detector import NotApplicable
from bugbench.detectors.gradient_check import GradientCheck
from bugbench.detectors.lr_range_test import GrowingRate, LrRangeTest
from bugbench.detectors.overfit_batch import OverfitBatch
from bugbench.one_batch import Until, one_batch
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from tiny_training import faults, top


@pytest.fixture(autouse=True)
def one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


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
    assert faults(OverfitBatch(), program(tmp_path / "t", **FITS[name])) == []


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
        faults(OverfitBatch(), folder)


def test_gradients(tmp_path):
    assert faults(GradientCheck(), program(tmp_path / "fine")) == []
    relu = "nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 3))"
    assert faults(GradientCheck(), program(tmp_path / "relu", model=relu)) == []
    zero = "nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).apply("
    zero += "lambda m: [nn.init.zeros_(p) for p in m.parameters(recurse=False)])"
    assert faults(GradientCheck(), program(tmp_path / "kink", model=zero)) == []
    cut = "nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), Cut(), nn.Tanh(), nn.Linear(8, 3))"
    found = GradientCheck().diagnose(Trace(program(tmp_path / "cut", model=cut))).suspects
    assert (found[0].fault, found[0].layer) == ("detached_features", "2")
    assert "4 of 6 parameters" in found[0].evidence
    frozen = "nn.Sequential(nn.Linear(6, 8).requires_grad_(False), nn.Tanh(), nn.Linear(8, 3))"
    assert faults(GradientCheck(), program(tmp_path / "frozen", model=frozen)) == []


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
        faults(LrRangeTest(), folder)
