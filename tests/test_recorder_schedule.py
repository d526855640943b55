"""Which steps the recorder looks at closely, which batches it keeps, and what they hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bugbench.recorder import Recorder, Schedule
from bugbench.trace import Trace
from bugbench.trace_writer import EVALUATION_BYTES
from recorded_loop import INPUTS, TARGETS, Loop
from torch import nn


def closely_recorded(trace):
    return sorted(set(trace.layers["step"])), list(trace.steps.index[trace.steps["grad_norm"].notna()])


def test_default_schedule(loop):
    for _ in range(35):
        loop.step()
    trace = loop.trace()
    steps = [*range(10), 10, 20, 30]
    assert closely_recorded(trace) == (steps, steps)
    assert list(trace.steps.index[trace.steps["input_mean"].notna()]) == steps
    assert [batch.step for batch in trace.batches()] == [0, 1, 2, 3, 5, 10, 20]
    assert trace.meta["schedule"] == {"dense": 10, "every": 10}


def test_own_schedule(tmp_path):
    loop = Loop(tmp_path / "trace", schedule=Schedule(dense=2, every=5))
    for _ in range(12):
        loop.step()
    assert closely_recorded(loop.trace()) == ([0, 1, 5, 10], [0, 1, 5, 10])


def test_schedule_goes_on_in_decades():
    steps = [step for step in range(3000) if Schedule().batch(step)]
    assert steps == [0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    assert [index for index in range(40) if Schedule().evaluation(index)] == [0, 1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    ("evaluations", "kept"),
    [
        (1, [0]),
        (4, [0, 1, 2, 3]),
        (8, [0, 1, 2, 4, 7]),
        (9, [0, 1, 2, 4, 8]),  # the last one is kept anyway: no other takes its place
        (12, [0, 1, 2, 4, 8, 11]),
    ],
)
def test_evaluations_kept_are_the_scheduled_and_the_last(loop, evaluations, kept):
    for _ in range(evaluations):
        loop.step()
        loop.evaluate(batches=2)
    batches = loop.trace().batches("val")
    assert [batch.epoch for batch in batches] == [epoch for epoch in kept for _ in range(2)]
    assert [batch.step for batch in batches] == [epoch + 1 for epoch in kept for _ in range(2)]
    assert {batch.mode for batch in batches} == {"eval"}
    assert len(list((loop.folder / "batches").glob("val-*"))) == len(kept)


def test_batches_hold_what_was_logged(loop):
    loop.step()
    (batch,) = loop.trace().batches()
    assert batch.inputs.tolist() == INPUTS.tolist()
    assert batch.targets.tolist() == TARGETS.tolist()
    assert batch.outputs.tolist() == [[3], [7]]
    assert batch.loss == 29
    assert batch.output_gradients.tolist() == [[3], [7]]
    assert (batch.split, batch.step, batch.epoch, batch.mode) == ("train", 0, 0, "train")


def test_output_gradients_of_cross_entropy(tmp_path):
    """Of a mean over B samples: (softmax - onehot) / B."""
    torch.manual_seed(0)
    run, model = Recorder(tmp_path / "trace"), nn.Linear(4, 3)
    run.watch(model)
    inputs, targets = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    outputs = model(inputs)
    loss = F.cross_entropy(outputs, targets)
    loss.backward()
    run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
    run.finish()
    expected = (outputs.detach().softmax(dim=1) - F.one_hot(targets, 3)) / 5
    (batch,) = Trace(tmp_path / "trace").batches()
    np.testing.assert_allclose(batch.output_gradients, expected.numpy(), atol=1e-7)


def test_batch_without_a_backward_pass_has_no_output_gradients(loop):
    loop.step()
    loop.forward()
    loop.log()
    assert [batch.output_gradients is None for batch in loop.trace().batches()] == [False, True]


def test_evaluation_batches_have_no_output_gradients(loop):
    loop.step()
    loop.evaluate()
    assert loop.trace().batches("val")[0].output_gradients is None


def test_layers_have_hooks_only_while_they_are_looked_at(tmp_path):
    loop = Loop(tmp_path / "trace", schedule=Schedule(dense=2, every=4))
    hooked = []
    for _ in range(9):
        hooked.append(bool(loop.model.out._forward_hooks))
        loop.step()
    assert hooked == [step in (0, 1, 4, 8) for step in range(9)]
    trace = loop.trace()
    assert sorted(set(trace.layers["step"])) == [0, 1, 4, 8]
    assert list(trace.steps["grad_norm"].notna()) == hooked
    assert not loop.model.out._forward_hooks


def test_large_evaluations_are_cut_but_never_to_nothing(tmp_path: Path) -> None:
    """Of each evaluation the first batch is kept whatever its size, and further ones up to EVALUATION_BYTES."""
    run = Recorder(tmp_path / "trace", classes=2)
    rows = EVALUATION_BYTES // 4 // 2  # with as many outputs again, one batch fills the budget
    for _ in range(2):
        big = torch.zeros(rows, 1)
        run.log_batch("val", inputs=big, targets=torch.zeros(rows, dtype=torch.uint8), outputs=big, loss=0.0)
    run.log_metrics("val", loss=0.0)
    run.finish()
    trace = Trace(tmp_path / "trace")
    assert len(trace.batches("val")) == 1
    assert len(trace.steps) == 2
