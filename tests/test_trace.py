"""What is granted of a trace: for every access exactly its files and columns, and prefixes without a look ahead."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from bugbench.recorder import Recorder, is_power_step
from bugbench.rerun import Probe
from bugbench.trace import CURVE_COLUMNS, STATISTICS, Batch, MissingAccess, Trace, export
from torch import nn

ALWAYS = {"meta.json", "error.txt", "metrics.parquet", "steps.parquet"}
TENSORS = {"layers.parquet"}
BATCHES = {
    *(f"batches/train-{step:07d}.safetensors" for step in (0, 1, 2, 3, 5, 10)),
    *(f"batches/val-{step:07d}.safetensors" for step in (4, 8, 12)),
}
DATA = {"samples.parquet", "predictions.safetensors", *BATCHES}
SOURCE = {"program.py", "config.yaml"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training steps in three epochs, two batches an evaluation, and every file a trace can have."""
    folder = tmp_path_factory.mktemp("recorded") / "trace"
    torch.manual_seed(0)
    run = Recorder(folder, task="classification", classes=2)
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.watch(model, optimizer)
    targets = torch.tensor([0, 1, 1])
    for _ in range(3):
        for _ in range(4):
            inputs = torch.randn(3, 2)
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = F.cross_entropy(outputs, targets)
            loss.backward()
            optimizer.step()
            run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
        run.log_metrics("train", loss=loss.item())
        with torch.no_grad():
            for _ in range(2):
                inputs = torch.randn(3, 2)
                run.log_batch("val", inputs=inputs, targets=targets, outputs=model(inputs), loss=1.0)
        run.log_metrics("val", loss=1.0, accuracy=0.5)
    run.finish(predictions={"outputs": outputs, "targets": targets}, error="ValueError: late")
    (folder / "program.py").write_text("print('hello')\n")
    (folder / "config.yaml").write_text("{lr: 0.1, seed: 0}\n")
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def cut(recorded: Path, tmp_path: Path, *access: str, until: int | None = None) -> Trace:
    export(recorded, tmp_path / "cut", access, until)
    return Trace(tmp_path / "cut")


def test_recorded_trace_is_complete(recorded):
    assert files(recorded) == ALWAYS | TENSORS | DATA | SOURCE


@pytest.mark.parametrize(
    ("access", "expected"),
    [
        ((), ALWAYS),
        (("curves",), ALWAYS),
        (("tensors",), ALWAYS | TENSORS),
        (("data",), ALWAYS | DATA),
        (("source",), ALWAYS | SOURCE),
        (("rerun",), ALWAYS | SOURCE),  # its data/ is added by the judging
        (("truth",), ALWAYS),
        (("curves", "tensors", "data", "source", "rerun"), ALWAYS | TENSORS | DATA | SOURCE),
    ],
)
def test_access_grants_exactly_these_files(recorded, tmp_path, access, expected):
    trace = cut(recorded, tmp_path, *access)
    assert files(trace.folder) == expected
    columns = list(trace.steps.columns)
    whole = list(pd.read_parquet(recorded / "steps.parquet").columns)
    assert columns == (whole if "tensors" in access else CURVE_COLUMNS)
    assert len(trace.steps) == 12 + 6


def test_columns_of_the_tables(recorded, tmp_path):
    trace = cut(recorded, tmp_path, "tensors", "data")
    assert set(trace.steps.columns) == {
        *("split", "step", "epoch", "loss", "lr", "mode", "order", "batch_size", "labels"),
        *(f"input_{name}" for name in STATISTICS),
        *("grad_norm", "weight_norm", "update_norm", "update_ratio"),
    }
    assert list(trace.layers.columns) == ["step", "layer", "kind", *STATISTICS]
    assert list(trace.samples.columns) == ["split", "epoch", "step", "fingerprint", "label"]
    assert list(trace.metrics.columns) == ["split", "epoch", "step", "name", "value"]


def test_copies_are_files_of_their_own(recorded, tmp_path):
    before = {name: (recorded / name).read_bytes() for name in files(recorded)}
    trace = cut(recorded, tmp_path, "tensors", "data", "source")
    for name in files(trace.folder):
        path = trace.folder / name
        assert not path.is_symlink()
        assert path.stat().st_nlink == 1
        assert not os.path.samefile(path, recorded / name)
        path.write_bytes(b"overwritten")
    assert {name: (recorded / name).read_bytes() for name in files(recorded)} == before


def test_destination_must_be_new(recorded, tmp_path):
    cut(recorded, tmp_path)
    with pytest.raises(FileExistsError):
        cut(recorded, tmp_path, "data")


# -- prefixes -----------------------------------------------------------------------------------------------------


def test_whole_trace_in_numbers(recorded, tmp_path):
    trace = cut(recorded, tmp_path, "tensors", "data", until=None)
    assert list(trace.train_steps()["step"]) == list(range(12))
    assert [batch.step for batch in trace.batches("val")] == [4, 4, 8, 8, 12, 12]
    assert trace.error == "ValueError: late"
    assert trace.predictions is not None


@pytest.mark.parametrize(
    ("until", "evaluations", "train_batches"),
    [
        (1, [], [0]),
        (3, [], [0, 1, 2]),
        (4, [4], [0, 1, 2, 3]),  # the evaluation after the fourth batch has been
        (5, [4], [0, 1, 2, 3]),
        (8, [4, 8], [0, 1, 2, 3, 5]),
        (11, [4, 8], [0, 1, 2, 3, 5, 10]),
    ],
)
def test_prefix_holds_what_was_there_by_then(recorded, tmp_path, until, evaluations, train_batches):
    trace = cut(recorded, tmp_path, "tensors", "data", until=until)
    steps, samples, metrics = trace.steps, trace.samples, trace.metrics
    assert list(trace.train_steps()["step"]) == list(range(until))
    assert list(steps.loc[steps["split"] == "val", "step"]) == [step for step in evaluations for _ in range(2)]
    assert sorted(set(trace.layers["step"])) == [step for step in range(11) if step < until]
    assert list(samples.loc[samples["split"] == "train", "step"]) == [step for step in range(until) for _ in range(3)]
    assert sorted(set(samples.loc[samples["split"] == "val", "step"])) == evaluations
    assert list(metrics["step"]) == [step for step in evaluations for _ in range(3)]
    assert [batch.step for batch in trace.batches()] == train_batches
    assert [batch.step for batch in trace.batches("val")] == [step for step in evaluations for _ in range(2)]
    assert trace.error is None
    assert trace.predictions is None
    assert "predictions.safetensors" not in files(trace.folder)


def test_prefix_with_curves_alone(recorded, tmp_path):
    trace = cut(recorded, tmp_path, until=5)
    assert files(trace.folder) == ALWAYS - {"error.txt"}
    assert list(trace.steps.columns) == CURVE_COLUMNS
    assert len(trace.train_steps()) == 5


def test_trace_of_a_run_that_logged_nothing(tmp_path):
    Recorder(tmp_path / "trace").finish(error="SyntaxError")
    for number, until in enumerate((None, 0, 5)):
        export(tmp_path / "trace", tmp_path / str(number), {"tensors", "data"}, until)
        trace = Trace(tmp_path / str(number))
        assert len(trace.train_steps()) == len(trace.layers) == len(trace.samples) == 0
        assert trace.error == ("SyntaxError" if until is None else None)
        assert list(trace.metric("val", "loss")) == []


# -- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "access"),
    [
        (lambda trace: trace.layers, "tensors"),
        (lambda trace: trace.samples, "data"),
        (lambda trace: trace.batches(), "data"),
        (lambda trace: trace.predictions, "data"),
        (lambda trace: trace.source, "source"),
        (lambda trace: trace.config, "source"),
        (lambda trace: trace.rerun(Probe()), "rerun"),
    ],
)
def test_missing_access_says_what_to_declare(recorded, tmp_path, ask, access):
    everything_else = {"curves", "tensors", "data", "source"} - {access}
    trace = cut(recorded, tmp_path, *everything_else)
    with pytest.raises(MissingAccess, match=rf"is not in this trace: declare access \{{'{access}'\}}"):
        ask(trace)


def test_batch_reads_back_in_the_order_logged(recorded):
    batches = Trace(recorded).batches("val")
    assert [type(batch) for batch in batches] == [Batch] * 6
    assert [batch.epoch for batch in batches] == [0, 0, 1, 1, 2, 2]
    samples = Trace(recorded).samples
    assert len(samples[samples["split"] == "val"]) == 18
    assert not np.array_equal(batches[0].inputs, batches[1].inputs)
    assert batches[0].inputs.shape == (3, 2)
    assert batches[0].loss == 1.0
    assert Trace(recorded).batches("test") == []


def test_source_config_and_metric(recorded):
    trace = Trace(recorded)
    assert trace.source == "print('hello')\n"
    assert trace.config == {"lr": 0.1, "seed": 0}
    accuracy = trace.metric("val", "accuracy")
    assert list(accuracy.index) == [0, 1, 2]
    assert list(accuracy) == [0.5] * 3


def test_split_with_a_hyphen(tmp_path):
    run = Recorder(tmp_path / "trace")
    for split in ("val-clean", "val"):
        run.log_batch(split, inputs=torch.zeros(1, 1), targets=torch.zeros(1), outputs=torch.zeros(1), loss=0.0)
        run.log_metrics(split, loss=0.0)
    run.finish()
    trace = Trace(tmp_path / "trace")
    assert [batch.split for batch in trace.batches("val-clean")] == ["val-clean"]
    assert [batch.split for batch in trace.batches("val")] == ["val"]


def test_power_steps():
    assert [step for step in range(1200) if is_power_step(step)] == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
