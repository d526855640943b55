"""DeepDiagnosis' rules on numbers worked out by hand, beside their limits."""

import numpy as np
import pytest
import torch
from bugbench.detectors.deepdiagnosis import Deepdiagnosis
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from made_tables import TWELVE, answers, made_trace
from torch import nn

SIGMOID = {"first": "Linear", "act": "Sigmoid", "last": "Linear"}


@pytest.mark.parametrize(
    ("own", "first", "text"),
    [
        (
            {"act": {"mean": lambda s: 0.0 if s == 7 else 0.1 + s}},
            "saturating_activation",
            "numerical error at epoch 1",
        ),
        ({"act": {"mean": lambda s: 0.0 if s == 6 else 0.1 + s}}, None, ""),  # not the last step of an epoch
        ({"act": {"zero_share": 0.7}}, "dead_relu", "dead node at epoch 11"),
        ({"act": {"zero_share": 0.7}, "inputs": (0.0, 1.1)}, "missing_normalization", "inputs in [0, 1.1]"),
        ({"act": {"zero_share": 0.7}, "last_weight": {"std": 3.2}}, "large_init", "the variance of last.weight is 10"),
        (
            {"act": {"zero_share": 0.7}, "last_weight": {"std": 0.003}},
            "zero_init",
            "the variance of last.weight is 9e-06",
        ),
        ({"act": {"zero_share": 0.7}, "lr": 0.2}, "lr_too_high", "lr * |g| / |w| of first.weight is 0.2"),
        ({"act": {"zero_share": 0.7}, "lr": 9e-6}, "lr_too_low", "lr * |g| / |w|"),
        ({"act": {"zero_share": 0.69}, "inputs": (0.0, 9.0), "lr": 9.0}, None, ""),  # causes are no symptoms
        (
            {"layers": SIGMOID, "first": {"mean": lambda s: 0.01 + s / 1e4, "std": 7.5}},
            "saturating_activation",
            "50% of what act gets",
        ),
        ({"layers": SIGMOID, "first": {"mean": lambda s: 0.01 + s / 1e4, "std": 7.3}}, None, ""),
        ({"act": {"mean": lambda s: 0.3 if 20 <= s < 40 else 0.1 + s}}, "optimizer", "unchanged tensor at epoch 9"),
        ({"last_gradient": {"mean": 9e-8, "min": 0.0, "std": 0.0}}, "lr_too_low", "vanishing gradient"),
        ({"last_weight": {"mean": np.nan}}, "saturating_activation", "the weight of last has mean nan"),
        ({"loss": [1.0] * 12}, "optimizer", "loss stands still at epoch 4"),
        ({"loss": [1.0, np.inf, *[1.0] * 10]}, "optimizer", "loss inf"),
        ({"acc": [*TWELVE[:3], 0.0, *TWELVE[4:]]}, "optimizer", "acc 0"),
        ({"acc": [0.5] * 20}, "optimizer", "acc stands still at epoch 19"),
        ({"acc": [0.5] * 19}, None, ""),
        ({"acc": [*TWELVE[:3], None, *TWELVE[4:]]}, None, ""),  # an epoch without one
    ],
)
def test_deepdiagnosis(own, first, text, tmp_path):
    suspects = Deepdiagnosis().diagnose(made_trace(tmp_path / "t", **{"acc": TWELVE, **own})).suspects
    assert [s.fault for s in suspects][:1] == ([first] if first else [])
    assert all(text in s.evidence for s in suspects)


def test_deepdiagnosis_names_what_else_makes_weights_small_or_large(tmp_path):
    small = made_trace(tmp_path / "small", acc=TWELVE, act={"zero_share": 0.7}, last_weight={"std": 0.003})
    assert answers(Deepdiagnosis(), small) == ["zero_init", "excess_weight_decay", "regulariser_dominates"]
    large = made_trace(tmp_path / "large", acc=TWELVE, act={"zero_share": 0.7}, last_weight={"std": 4.0})
    assert answers(Deepdiagnosis(), large) == ["large_init", "lr_too_high"]


@pytest.mark.parametrize(
    ("last", "task", "targets", "alarm"),
    [
        (nn.Sigmoid(), "classification", torch.tensor([0, 1, 2]), True),
        (nn.Sigmoid(), "classification", torch.tensor([0, 1, 1]), False),
        (nn.Tanh(), "regression", torch.tensor([-2.0, 0.0, 0.5]), True),
        (nn.ReLU(), "classification", torch.tensor([0, 1, 2]), True),
        (nn.ReLU(), "regression", torch.tensor([0.0, 1.0, 2.0]), False),
        (nn.Linear(3, 3), "classification", torch.tensor([0, 1, 2]), False),  # scores: right in PyTorch
        (nn.Linear(3, 3), "regression", torch.tensor([0.0, 1.0, 2.0]), False),
        (nn.Linear(3, 3), "regression", torch.tensor([0.0, 1e-3, 0.0]), True),
        (nn.ReLU(), "regression", torch.tensor([0.0, np.nan, np.inf]), False),  # what is finite is in range
        (nn.ReLU(), "regression", torch.tensor([np.nan, -1.0, 2.0]), True),
    ],
)
def test_deepdiagnosis_on_the_range_of_the_last_layer(last, task, targets, alarm, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), last)
    record(tmp_path, model, task, targets, epochs=1)
    found = Deepdiagnosis().diagnose(Trace(tmp_path)).suspects
    assert any("out of range at epoch 0" in s.evidence for s in found) == alarm


def record(folder, model, task, targets, epochs):
    run = Recorder(folder, task=task, classes=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run.watch(model, optimizer)
    for _ in range(epochs):
        for _ in range(4):
            inputs = torch.randn(len(targets), 3)
            outputs = model(inputs)
            loss = outputs.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
        run.log_metrics("val", loss=loss.item())
    run.finish()
