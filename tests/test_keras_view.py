"""The view of a trace that the rule sets made for Keras share, and what breaks none of their rules."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from bugbench.detector import NotApplicable
from bugbench.detectors.autotrainer import Autotrainer
from bugbench.detectors.deepdiagnosis import Deepdiagnosis
from bugbench.detectors.deeplocalize import Deeplocalize
from bugbench.detectors.umlaut import Umlaut
from bugbench.keras_view import called, epoch_logs, kernels, latest, readings, share_beyond, sizes, unchanged
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from made_tables import LEARNS, answers, made_trace
from torch import nn

DETECTORS = (Autotrainer, Deeplocalize, Deepdiagnosis, Umlaut)


@pytest.mark.parametrize("detector", DETECTORS)
def test_nothing_is_said_of_a_run_that_breaks_no_rule(detector, tmp_path):
    assert answers(detector(), made_trace(tmp_path / "t", acc=LEARNS)) == []


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.hidden, self.norm = nn.Embedding(7, 5), nn.Linear(5, 3, bias=False), nn.LayerNorm(3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.hidden(self.embed(x).mean(dim=1)))))


def recorded_net(folder):
    torch.manual_seed(1)
    run, model = Recorder(folder, task="classification", classes=2), Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    run.watch(model, optimizer)
    for step in range(12):
        inputs, targets = torch.randint(7, (8, 4)), torch.randint(2, (8,))
        loss = F.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=torch.zeros(8, 2), loss=loss)
        if step % 6 == 5:
            run.log_metrics("train", acc_percent=50.0 + step)
            run.log_metrics("val", loss=2.0 - step / 10)
    run.finish()
    return Trace(folder), model


def test_view_of_a_recorded_run(tmp_path):
    trace, model = recorded_net(tmp_path)
    assert called(trace) == {"embed": "Embedding", "hidden": "Linear", "norm": "LayerNorm", "head": "Linear"}
    assert kernels(trace) == ["embed.weight", "hidden.weight", "head.weight"]
    assert kernels(trace, ("Embedding",)) == ["embed.weight"]
    assert sizes(trace) == {name: p.numel() for name, p in model.named_parameters()}  # 35, 15, 3, 3, 6, 2
    row = latest(trace, "weight", step=10_000).loc["head.weight"]
    weight = model.head.weight.detach()
    assert latest(trace, "weight", 9).loc["head.weight", "rms"] != row["rms"]  # of step 10, the last looked at
    assert row["size"] >= abs(row["mean"])
    assert weight.shape == (2, 3)
    logs = epoch_logs(trace)
    assert logs["until"].tolist() == [6, 12]
    assert logs["val_loss"].tolist() == [1.5, pytest.approx(0.9)]
    assert logs["acc"].tolist() == [0.55, 0.61]
    losses = trace.train_steps()["loss"]
    assert logs["loss"].tolist() == [pytest.approx(losses[:6].mean()), pytest.approx(losses[6:].mean())]


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (("accuracy", "top5_accuracy", "acc_on_faces"), 0.5),
        (("Acc", "balanced_accuracy"), 0.5),
        (("digit_acc", "top5_acc", "balanced_acc"), 0.5),  # none of that very name
        (("top5_accuracy", "accuracy_balanced", "recall"), None),
    ],
)
def test_an_accuracy_is_what_is_called_so(names, value, tmp_path):
    run = Recorder(tmp_path, task="classification", classes=3)
    run.log_batch("train", inputs=torch.ones(1, 1), targets=torch.ones(1), outputs=torch.ones(1, 1), loss=1.0)
    run.log_metrics("val", **dict(zip(names, (0.5, 0.9, 0.1), strict=False)))
    run.finish()
    assert epoch_logs(Trace(tmp_path)).get("val_acc", pd.Series([None])).tolist() == [value]


@pytest.mark.parametrize(
    ("spread", "size"),
    [
        ({"mean": 0.0, "std": 1.0, "min": -3.0, "max": 3.0}, np.sqrt(2 / np.pi)),  # the half normal's mean
        ({"mean": 2.0, "std": 1.0, "min": -1.0, "max": 5.0}, 2.0169814),  # scipy.stats.foldnorm.mean(2)
        ({"mean": -2.0, "std": 1.0, "min": -5.0, "max": -0.1}, 2.0),  # of one sign: exact
        ({"mean": 0.0, "std": 0.0, "min": -1e-30, "max": 1e-30}, 0.0),
    ],
)
def test_mean_absolute_value(spread, size, tmp_path):
    trace = made_trace(tmp_path / "t", acc=LEARNS, first=spread)
    assert latest(trace, "activation", 10_000).loc["first", "size"] == pytest.approx(size)


def test_sizes_are_alike_where_nothing_moves(tmp_path):
    trace = made_trace(tmp_path / "t", acc=LEARNS)
    assert set(sizes(trace).values()) == {1.0}


def test_a_nan_is_told_from_what_was_not_seen(tmp_path):
    trace = made_trace(tmp_path / "t", acc=[0.5], act={"mean": lambda s: np.nan if s == 1 else 0.5})
    trace.layers = trace.layers[(trace.layers["layer"] != "act") | (trace.layers["step"] != 2)]
    assert readings(trace, "activation")["act"].tolist() == [0.5, np.inf, pytest.approx(np.nan, nan_ok=True), 0.5]


def test_share_and_standstill():
    assert share_beyond(5.0, 0.0, 5.0) == pytest.approx(0.3173, abs=1e-4)  # beyond one deviation
    assert share_beyond(5.0, 5.0, 1e-9) == pytest.approx(0.5)
    assert share_beyond(5.0, -6.0, 0.0) == 1.0
    table = pd.DataFrame({"a": [1.0, 2, 2, 2], "b": [1.0, 2, 2, 3], "c": [np.nan] * 4})
    assert unchanged(table, 3) == []  # four rows are no multiple of three
    assert unchanged(table[1:], 3) == ["a"]


@pytest.mark.parametrize("detector", DETECTORS)
def test_empty_and_broken_runs_are_no_trouble(detector, tmp_path):
    run = Recorder(tmp_path / "empty", task="classification", classes=3)
    run.finish(error="RuntimeError")
    run = Recorder(tmp_path / "bare", task="regression")
    model = nn.Linear(2, 1)  # without a layer inside
    run.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    loss = model(torch.ones(3, 2)).sum()
    loss.backward()
    run.log_batch("train", inputs=torch.ones(3, 2), targets=torch.ones(3), outputs=torch.ones(3), loss=loss)
    run.log_metrics("val", loss=1.0)
    run.finish()
    for name in ("empty", "bare"):
        (tmp_path / name / "program.py").write_text("")
        (tmp_path / name / "config.yaml").write_text("{}")
        trace = Trace(tmp_path / name)
        if detector in (Autotrainer, Deepdiagnosis) and name == "empty":
            with pytest.raises(NotApplicable, match="no epoch was evaluated"):
                detector().diagnose(trace)
        else:
            assert not any("nan" in s.fault for s in detector().diagnose(trace).suspects)
