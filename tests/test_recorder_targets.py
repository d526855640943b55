"""What is logged of a batch: labels of every kind, the loss, and fingerprints of its samples."""

import pytest
import torch
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from recorded_loop import INPUTS, TARGETS


def logged(folder, inputs, targets, classes=None, loss=1.0):
    run = Recorder(folder, task="any", classes=classes)
    run.log_batch("train", inputs=inputs, targets=targets, outputs=torch.zeros(len(inputs), 3), loss=loss)
    run.finish()
    return Trace(folder)


def labels(trace):
    return trace.steps["labels"][0].tolist()


def test_hard_labels_are_counted_and_the_last_bin_is_for_no_class(tmp_path):
    targets = torch.tensor([0, 2, 2, 7, -100])
    trace = logged(tmp_path / "trace", torch.zeros(5, 2), targets, classes=3)
    assert labels(trace) == [1, 0, 2, 2]
    assert list(trace.samples["label"]) == [0, 2, 2, 7, -100]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32])
def test_labels_of_other_integer_types(tmp_path, dtype):
    trace = logged(tmp_path / "trace", torch.zeros(3, 2), torch.tensor([0, 1, 1]).to(dtype), classes=2)
    assert labels(trace) == [1, 2, 0]


def test_soft_labels(tmp_path):
    targets = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    trace = logged(tmp_path / "trace", torch.zeros(2, 2), targets, classes=2)
    assert trace.steps["labels"][0] is None
    assert trace.samples["label"].isna().all()
    assert trace.batches()[0].targets.tolist() == targets.tolist()


def test_continuous_targets(tmp_path):
    trace = logged(tmp_path / "trace", torch.zeros(2, 2), torch.tensor([1.5, -2.0]))
    assert list(trace.samples["label"]) == [1.5, -2.0]


def test_sequences_of_targets(tmp_path):
    trace = logged(tmp_path / "trace", torch.zeros(2, 3), torch.tensor([[0, 1, 1], [1, 1, 0]]), classes=2)
    assert labels(trace) == [2, 4, 0]
    assert len(trace.samples) == 2
    assert trace.samples["label"].isna().all()


def test_loss_may_be_a_float_or_a_tensor(tmp_path):
    run = Recorder(tmp_path / "trace")
    batch = dict(inputs=INPUTS, targets=TARGETS, outputs=TARGETS)
    for loss in (0.25, torch.tensor(0.5), torch.tensor(0.75, dtype=torch.bfloat16), 1):
        run.log_batch("train", **batch, loss=loss)
    run.finish()
    trace = Trace(tmp_path / "trace")
    assert list(trace.steps["loss"]) == [0.25, 0.5, 0.75, 1]
    assert [batch.loss for batch in trace.batches()] == [0.25, 0.5, 0.75, 1]


def test_empty_batch_is_a_row_like_any_other(tmp_path):
    trace = logged(tmp_path / "trace", torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), classes=2)
    assert trace.steps["batch_size"][0] == 0
    assert len(trace.samples) == 0


def test_fingerprints_are_of_the_samples_before_augmentation(tmp_path):
    run = Recorder(tmp_path / "trace")
    samples = torch.arange(4.0).reshape(2, 2)
    for noise in (0.1, 0.2):
        run.log_batch("train", inputs=samples + noise, targets=TARGETS, outputs=TARGETS, loss=1.0, samples=samples)
    run.log_batch("train", inputs=samples, targets=TARGETS, outputs=TARGETS, loss=1.0)
    run.finish()
    trace = Trace(tmp_path / "trace")
    first, second, third = (list(rows["fingerprint"]) for _, rows in trace.samples.groupby("step"))
    assert first == second == third
    kept = trace.batches()
    assert kept[0].samples.tolist() == samples.tolist()
    assert kept[0].inputs.tolist() == (samples + 0.1).tolist()
    assert kept[2].samples is None
