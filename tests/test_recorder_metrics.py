"""Metrics, epochs and progress, and what else a trace holds at its end."""

from pathlib import Path

import numpy as np
import torch
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from recorded_loop import Loop


def test_metrics_epochs_and_progress(tmp_path):
    seen = []
    loop = Loop(tmp_path / "trace", on_progress=lambda step, epoch: seen.append((step, epoch)))
    for epoch in range(2):
        loop.step()
        loop.step()
        loop.run.log_metrics("train", loss=1.0 + epoch)
        loop.evaluate(loss=torch.tensor(0.5), accuracy=np.float32(0.25))
    trace = loop.trace()
    assert seen == [(1, 0), (2, 0), (2, 1), (3, 1), (4, 1), (4, 2)]
    assert trace.metrics.to_numpy().tolist() == [
        ["train", 0, 2, "loss", 1.0],
        ["val", 0, 2, "loss", 0.5],
        ["val", 0, 2, "accuracy", 0.25],
        ["train", 1, 4, "loss", 2.0],
        ["val", 1, 4, "loss", 0.5],
        ["val", 1, 4, "accuracy", 0.25],
    ]
    assert list(trace.metric("train", "loss")) == [1.0, 2.0]
    assert list(trace.metric("val", "nothing")) == []
    assert list(trace.steps["step"]) == [0, 1, 2, 2, 3, 4]
    assert list(trace.steps["epoch"]) == [0, 0, 0, 1, 1, 1]
    assert loop.run.writer.last_metrics() == {"train/loss": 2.0, "val/loss": 0.5, "val/accuracy": 0.25}


def test_meta_predictions_and_error(tmp_path):
    loop = Loop(tmp_path / "trace", task="classification", classes=10)
    predictions = {"outputs": torch.ones(2, 3, requires_grad=True), "targets": torch.tensor([1, 2])}
    trace = loop.trace(predictions=predictions, error="Traceback: …")
    assert trace.meta == {
        "task": "classification",
        "classes": 10,
        "sizes": {"parameters": 2},
        "layers": {"out": "Linear"},
        "schedule": {"dense": 10, "every": 10},
        "versions": {"torch": torch.__version__},
    }
    assert trace.predictions["outputs"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert trace.predictions["targets"].tolist() == [1, 2]
    assert trace.error == "Traceback: …"
    assert len(trace.steps) == len(trace.metrics) == len(trace.layers) == len(trace.samples) == 0
    assert trace.batches() == []


def test_second_trace_in_a_folder_holds_nothing_of_the_first(tmp_path):
    first = Loop(tmp_path / "trace")
    for _ in range(3):
        first.step()
    first.trace(error="it failed", predictions={"outputs": torch.zeros(1)})
    second = Loop(tmp_path / "trace")
    second.step()
    trace = second.trace()
    assert trace.error is None
    assert trace.predictions is None
    assert [batch.step for batch in trace.batches()] == [0]


def test_two_splits_at_the_same_step_are_one_evaluation(tmp_path: Path) -> None:
    run = Recorder(tmp_path / "trace")
    for split in ("val", "test"):
        run.log_metrics(split, loss=1.0)
    run.finish()
    assert Trace(tmp_path / "trace").metrics[["split", "epoch"]].values.tolist() == [["val", 0], ["test", 0]]
    assert run.epoch == 1
