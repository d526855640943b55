"""What the recorder writes down, held against numbers worked out by hand; and that the program never notices it."""

import copy
import json
import math
import os
import pickle
import random
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bugbench.recorder import Recorder, Schedule, program_traceback
from bugbench.rerun import Probe, load_program, seed_everything
from bugbench.trace import CURVE_COLUMNS, MissingAccess, Trace, export
from bugbench.trace_writer import EVALUATION_BYTES
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
USUAL = "zero_grad forward backward step"


def line(weight=2.0, bias=1.0):
    """The model outputs = weight * inputs + bias, its one layer called "out"."""
    model = nn.Sequential(OrderedDict(out=nn.Linear(1, 1)))
    with torch.no_grad():
        model.out.weight.fill_(weight)
        model.out.bias.fill_(bias)
    return model


INPUTS, TARGETS = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)


class Loop:
    """A recorder on a line and its optimizer, and the parts of a loop around them."""

    def __init__(self, folder, model=None, lr=0.5, name="", **settings):
        self.folder = folder
        self.run = Recorder(folder, **settings)
        self.model = line() if model is None else model
        self.optimizer = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], lr=lr)
        self.run.watch(self.model, self.optimizer, name)

    def forward(self, inputs=INPUTS, targets=TARGETS):
        outputs = self.model(inputs)
        self.batch = dict(inputs=inputs, targets=targets, outputs=outputs, loss=F.mse_loss(outputs, targets))

    def backward(self):
        self.batch["loss"].backward()

    def log(self, split="train", **changes):
        self.run.log_batch(split, **{**self.batch, **changes})

    def step(self, **changes):
        self.optimizer.zero_grad()
        self.forward()
        self.backward()
        self.optimizer.step()
        self.log(**changes)

    def evaluate(self, split="val", batches=1, **metrics):
        self.model.eval()
        with torch.no_grad():
            for _ in range(batches):
                self.forward()
                self.log(split)
        self.run.log_metrics(split, **(metrics or {"loss": 0.5}))
        self.model.train()

    def trace(self, **results):
        self.run.finish(**results)
        return Trace(self.folder)


@pytest.fixture
def loop(tmp_path):
    return Loop(tmp_path / "trace")


# -- the order of calls -------------------------------------------------------------------------------------------


def orders(trace, split="train"):
    return list(trace.steps.loc[trace.steps["split"] == split, "order"])


def test_usual_loop(loop):
    for _ in range(3):
        loop.step()
    loop.evaluate(batches=2)
    loop.step()
    trace = loop.trace()
    assert orders(trace) == [USUAL] * 4
    assert orders(trace, "val") == ["forward", "forward"]


def test_zero_grad_after_the_step(loop):
    for _ in range(2):
        loop.forward()
        loop.backward()
        loop.optimizer.step()
        loop.optimizer.zero_grad()
        loop.log()
    assert orders(loop.trace()) == ["forward backward step zero_grad"] * 2


def test_zero_grad_after_the_batch_is_logged(loop):
    for _ in range(3):
        loop.forward()
        loop.backward()
        loop.optimizer.step()
        loop.log()
        loop.optimizer.zero_grad()
    assert orders(loop.trace()) == ["forward backward step", USUAL, USUAL]


def test_gradient_accumulation(loop):
    for _ in range(2):
        loop.optimizer.zero_grad()
        for micro in range(3):
            loop.forward()
            loop.backward()
            if micro == 2:
                loop.optimizer.step()
            loop.log()
    trace = loop.trace()
    assert orders(trace) == ["zero_grad forward backward", "forward backward", "forward backward step"] * 2
    # The line stands still until the step: gradients (24, 10) add up, norms are 26, 52, 78
    assert list(trace.steps["grad_norm"][:3]) == [26, 52, 78]
    assert list(trace.steps["update_norm"].isna()) == [True, True, False] * 2


def test_missing_zero_grad(loop):
    for _ in range(2):
        loop.forward()
        loop.backward()
        loop.optimizer.step()
        loop.log()
    assert orders(loop.trace()) == ["forward backward step"] * 2


def test_the_models_own_zero_grad_counts(loop):
    loop.model.zero_grad()
    loop.forward()
    loop.backward()
    loop.optimizer.step()
    loop.log()
    assert loop.model.out.weight.grad is not None
    loop.model.zero_grad(set_to_none=True)
    assert loop.model.out.weight.grad is None, "arguments are passed on"
    assert orders(loop.trace()) == [USUAL]


def test_step_before_backward_and_forward_twice(loop):
    loop.optimizer.zero_grad()
    loop.forward()
    loop.optimizer.step()
    loop.backward()
    loop.log()
    loop.forward()
    loop.forward()
    loop.backward()
    loop.log()
    assert orders(loop.trace()) == ["zero_grad forward step backward", "forward backward"]


def test_calls_of_one_batch_do_not_leak_into_the_next_split(loop):
    loop.step()
    loop.optimizer.zero_grad()
    loop.run.log_metrics("train", loss=1.0)
    loop.evaluate()
    assert orders(loop.trace(), "val") == ["forward"]


# -- modes --------------------------------------------------------------------------------------------------------


def modes(trace):
    return list(trace.steps["mode"])


def test_mode_of_each_split(loop):
    loop.step()
    loop.evaluate()
    loop.step()
    loop.model.eval()
    loop.step()
    assert modes(loop.trace()) == ["train", "eval", "train", "eval"]


def test_partly_frozen_model_is_mixed(tmp_path):
    loop = Loop(tmp_path / "trace", nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)))
    loop.model[1].eval()
    loop.step()
    assert modes(loop.trace()) == ["mixed"]


def test_a_batch_forwarded_in_both_modes_is_mixed_and_one_without_a_forward_unknown(loop):
    loop.forward()
    loop.model.eval()
    loop.forward()
    loop.log()
    loop.log()
    assert modes(loop.trace()) == ["mixed", "unknown"]


# -- numbers ------------------------------------------------------------------------------------------------------


def test_norms_of_a_step(loop):
    """At inputs 1 and 3 the line 2x + 1 gives 3 and 7; the loss is (9 + 49) / 2 and d loss / d outputs is 3 and 7.

    So the gradients are 1 * 3 + 3 * 7 = 24 and 3 + 7 = 10, of norm 26; at a rate of 0.5 the weights become 2 - 12
    and 1 - 5.
    """
    loop.step()
    row = loop.trace().steps.iloc[0]
    assert row["loss"] == 29
    assert row["lr"] == 0.5
    assert row["batch_size"] == 2
    assert row["grad_norm"] == 26
    assert row["update_norm"] == 13
    assert row["weight_norm"] == pytest.approx(math.hypot(10, 4))
    assert row["update_ratio"] == pytest.approx(13 / math.hypot(10, 4))
    assert [row[f"input_{name}"] for name in ("mean", "std", "min", "max", "zero_share", "nonfinite")] == [
        *(2, 1, 1, 3, 0, 0)
    ]


def statistics(trace, layer, kind, step=0):
    rows = trace.layers[
        (trace.layers["layer"] == layer) & (trace.layers["kind"] == kind) & (trace.layers["step"] == step)
    ]
    assert len(rows) == 1
    return rows.iloc[0][["mean", "std", "min", "max", "zero_share", "nonfinite"]].astype(float).to_list()


def test_statistics_of_layers(loop):
    loop.step()
    trace = loop.trace()
    assert statistics(trace, "out", "activation") == [5, 2, 3, 7, 0, 0]
    assert statistics(trace, "out.weight", "gradient") == [24, 0, 24, 24, 0, 0]
    assert statistics(trace, "out.bias", "gradient") == [10, 0, 10, 10, 0, 0]
    assert statistics(trace, "out.weight", "update") == [-12, 0, -12, -12, 0, 0]
    assert statistics(trace, "out.weight", "weight") == [-10, 0, -10, -10, 0, 0]
    assert statistics(trace, "out.bias", "weight") == [-4, 0, -4, -4, 0, 0]
    assert len(trace.layers) == 1 + 2 + 2 + 2


def test_activations_are_those_of_the_training_pass(loop):
    """Not of a look at other data before the batch is logged."""
    loop.forward()
    loop.backward()
    with torch.no_grad():
        loop.model(100 * INPUTS)
    loop.log()
    assert statistics(loop.trace(), "out", "activation") == [5, 2, 3, 7, 0, 0]


def test_gradients_are_those_the_step_saw(loop):
    """Clipped from (24, 10) to a norm of 13, and gone by the time the batch is logged."""
    loop.forward()
    loop.backward()
    nn.utils.clip_grad_norm_(loop.model.parameters(), 13.0)
    loop.optimizer.step()
    loop.optimizer.zero_grad(set_to_none=True)
    loop.log()
    trace = loop.trace()
    assert trace.steps["grad_norm"][0] == pytest.approx(13)
    assert statistics(trace, "out.weight", "gradient")[0] == pytest.approx(12)


def test_nan_is_counted_and_not_hidden(loop):
    loop.optimizer.zero_grad()
    loop.forward(torch.tensor([[1.0], [math.nan]]))
    loop.backward()
    loop.optimizer.step()
    loop.log()
    trace = loop.trace()
    assert trace.steps["input_nonfinite"][0] == 1
    assert math.isnan(trace.steps["input_mean"][0])
    assert statistics(trace, "out", "activation")[-1] == 1
    assert statistics(trace, "out.weight", "weight")[-1] == 1
    assert math.isnan(trace.steps["grad_norm"][0])
    assert math.isnan(trace.steps["loss"][0])


def test_recurrent_layer_that_returns_its_state_too(tmp_path):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(1, 1, batch_first=True)

        def forward(self, inputs):
            return self.rnn(inputs[:, None])[0][:, -1]

    loop = Loop(tmp_path / "trace", Last())
    loop.step()
    low, high = statistics(loop.trace(), "rnn", "activation")[2:4]
    assert (low, high) == (loop.batch["outputs"].min().item(), loop.batch["outputs"].max().item())


def test_frozen_parameters_have_no_gradient_and_do_not_move(tmp_path):
    model = nn.Sequential(OrderedDict(body=nn.Linear(1, 1), out=nn.Linear(1, 1)))
    model.body.requires_grad_(False)
    loop = Loop(tmp_path / "trace", model)
    loop.step()
    trace = loop.trace()
    gradients = trace.layers[trace.layers["kind"] == "gradient"]
    assert list(gradients["layer"]) == ["out.weight", "out.bias"]
    assert statistics(trace, "body.weight", "update") == [0, 0, 0, 0, 1, 0]
    assert statistics(trace, "body.weight", "weight")[0] == pytest.approx(model.body.weight.item())
    assert trace.meta["sizes"] == {"parameters": 4}


def test_model_without_optimizer(tmp_path):
    run, model = Recorder(tmp_path / "trace"), line()
    run.watch(model)
    outputs = model(INPUTS)
    loss = F.mse_loss(outputs, TARGETS)
    loss.backward()
    run.log_batch("train", inputs=INPUTS, targets=TARGETS, outputs=outputs, loss=loss)
    run.finish()
    row = Trace(tmp_path / "trace").steps.iloc[0]
    assert row["order"] == "forward backward"
    assert math.isnan(row["lr"])
    assert row["grad_norm"] == 26
    assert "weight_norm" not in row


def test_learning_rate_follows_its_schedule(loop):
    schedule = torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=1, gamma=0.5)
    for _ in range(3):
        loop.step()
        schedule.step()
    trace = loop.trace()
    assert list(trace.steps["lr"]) == [0.5, 0.25, 0.125]
    assert orders(trace) == [USUAL] * 3


def test_model_watched_again_takes_the_place_of_the_earlier_one(tmp_path):
    """After a checkpoint is loaded into new objects, the rate and the calls are those of the new optimizer."""
    loop = Loop(tmp_path / "trace", lr=0.5)
    loop.step()
    earlier = loop.optimizer
    loop.model = line()
    loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.125)
    loop.run.watch(loop.model, loop.optimizer)
    loop.step()
    earlier.zero_grad()
    loop.step()
    trace = loop.trace()
    assert list(trace.steps["lr"]) == [0.5, 0.125, 0.125]
    assert orders(trace) == [USUAL] * 3
    assert trace.meta["sizes"] == {"parameters": 2}


def test_several_models_with_names(tmp_path):
    run = Recorder(tmp_path / "trace")
    models = {"generator": line(), "critic": line()}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.1) for name, model in models.items()}
    for name, model in models.items():
        run.watch(model, optimizers[name], name)
    for name in ("generator", "critic"):
        optimizers[name].zero_grad()
    outputs = models["critic"](models["generator"](INPUTS))
    loss = F.mse_loss(outputs, TARGETS)
    loss.backward()
    optimizers["critic"].step()
    run.log_batch("train", inputs=INPUTS, targets=TARGETS, outputs=outputs, loss=loss)
    run.finish()
    trace = Trace(tmp_path / "trace")
    row = trace.steps.iloc[0]
    assert row["order"] == (
        "generator.zero_grad critic.zero_grad generator.forward critic.forward critic.backward generator.backward "
        "critic.step"
    )
    # The generator gives 3 and 7, the critic 7 and 15: its gradients are 3 * 7 + 7 * 15 = 126 and 22
    assert row["critic.grad_norm"] == pytest.approx(math.hypot(126, 22))
    assert row["critic.update_norm"] == pytest.approx(math.hypot(12.6, 2.2))
    assert row["critic.weight_norm"] == pytest.approx(math.hypot(2 - 12.6, 1 - 2.2))
    assert row["critic.update_ratio"] == pytest.approx(math.hypot(12.6, 2.2) / math.hypot(10.6, 1.2))
    # d loss / d generator outputs is 2 * (7, 15): its gradients are 14 + 3 * 30 and 44
    assert row["generator.grad_norm"] == pytest.approx(math.hypot(104, 44))
    assert set(trace.layers["layer"]) >= {"generator.out", "critic.out", "critic.out.weight"}
    assert trace.meta["sizes"] == {"generator.parameters": 2, "critic.parameters": 2}
    assert trace.meta["layers"] == {"generator.out": "Linear", "critic.out": "Linear"}


# -- targets ------------------------------------------------------------------------------------------------------


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


# -- the schedule -------------------------------------------------------------------------------------------------


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


# -- metrics, progress, the end -----------------------------------------------------------------------------------


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


def test_hooks_are_gone_at_the_end(loop):
    loop.step()
    loop.run.finish()
    for module in loop.model.modules():
        assert not module._forward_hooks
        assert "zero_grad" not in vars(module)
    assert "zero_grad" not in vars(loop.optimizer)
    assert not loop.optimizer._optimizer_step_pre_hooks
    assert not loop.optimizer._optimizer_step_post_hooks


# -- only some access ---------------------------------------------------------------------------------------------


def test_curves_only_leave_just_the_curves(tmp_path):
    """The same rows as of a whole trace; nothing hangs on the model, and a rest of an earlier run is gone."""
    parts = {}
    for name, settings in (("whole", {}), ("curves", {}), ("curves", {"access": ("curves",)})):
        loop = Loop(tmp_path / name, task="regression", **settings)
        for _ in range(12):
            loop.step()
        hooks = [*loop.model._forward_hooks, *loop.optimizer._optimizer_step_pre_hooks]
        assert bool(hooks or "zero_grad" in vars(loop.optimizer)) == (not settings)
        loop.evaluate()
        parts[name] = loop.trace(predictions={"outputs": torch.zeros(1)})
    whole, curves = parts["whole"], parts["curves"]
    assert sorted(path.name for path in curves.folder.iterdir()) == ["meta.json", "metrics.parquet", "steps.parquet"]
    assert list(curves.steps.columns) == CURVE_COLUMNS
    assert curves.steps.equals(whole.steps[CURVE_COLUMNS])
    assert curves.metrics.equals(whole.metrics)
    assert curves.meta == whole.meta
    with pytest.raises(MissingAccess, match=r"declare access .'tensors'."):
        _ = curves.layers
    with pytest.raises(MissingAccess, match="recorded without access 'data'"):
        export(curves.folder, tmp_path / "exported", {"data"})
    export(curves.folder, tmp_path / "granted", {"curves"})
    assert Trace(tmp_path / "granted").steps.equals(curves.steps)


def test_tensors_or_data_alone(tmp_path):
    traces = {}
    for access in ("tensors", "data"):
        loop = Loop(tmp_path / access, access=access)
        for _ in range(3):
            loop.step()
        loop.evaluate()
        traces[access] = loop.trace()
    tensors, data = traces["tensors"], traces["data"]
    assert orders(tensors) == [USUAL] * 3
    assert tensors.steps["grad_norm"][0] == 26
    assert not (tensors.folder / "samples.parquet").exists()
    assert not (data.folder / "layers.parquet").exists()
    assert list(data.steps.columns) == CURVE_COLUMNS
    assert [batch.mode for batch in data.batches()] == ["train"] * 3
    assert data.batches()[0].output_gradients.tolist() == [[3], [7]]
    assert len(data.samples) == 2 * 4


@pytest.mark.parametrize(
    ("access", "message"),
    [
        (("curve",), "unknown access 'curve': did you mean curves"),
        (("curves", "source"), "access 'source' is not recorded but stored beside a trace"),
    ],
)
def test_access_that_cannot_be_recorded(tmp_path, access, message):
    with pytest.raises(ValueError, match=message):
        Recorder(tmp_path, access=access)


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


def test_evaluation_in_inference_mode(loop):
    for _ in range(2):
        loop.model.eval()
        with torch.inference_mode():
            loop.forward()
            loop.log("val")
        loop.run.log_metrics("val", loss=1.0)
        loop.model.train()
        loop.step()
    trace = loop.trace()
    assert trace.steps["input_mean"].tolist() == [2, 2, 2, 2]
    assert len(trace.samples) == 8


# -- the program never notices ------------------------------------------------------------------------------------


def train(run, steps=25):
    """A program with every kind of randomness; returns its weights and what the generators would give next."""
    seed_everything(3)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    run.watch(model, optimizer)
    data, classes = torch.randn(60, 4), torch.randint(0, 3, (60,))
    for step in range(steps):
        rows = torch.randperm(60)[:20]
        inputs, targets = data[rows] + 0.1 * torch.randn(20, 4), classes[rows]
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss, samples=data[rows])
        if step % 5 == 4:
            model.eval()
            with torch.no_grad():
                outputs = model(data)
            run.log_batch("val", inputs=data, targets=classes, outputs=outputs, loss=F.cross_entropy(outputs, classes))
            run.log_metrics("val", loss=1.0)
            model.train()
    return model, optimizer, [torch.rand(3).tolist(), random.random(), np.random.rand()]


def test_weights_and_random_stream_are_bit_identical_without_the_recorder(tmp_path):
    bare, bare_optimizer, bare_stream = train(Probe())
    recorded, optimizer, stream = train(Recorder(tmp_path / "trace", classes=3))
    assert stream == bare_stream
    for name, value in bare.state_dict().items():
        assert torch.equal(value, recorded.state_dict()[name]), name
    for name, state in bare_optimizer.state_dict()["state"].items():
        for key, value in state.items():
            assert torch.equal(value, optimizer.state_dict()["state"][name][key])


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_runs_with_one_seed_leave_byte_identical_folders(tmp_path):
    for name in ("one", "two"):
        run = Recorder(tmp_path / name, task="classification", classes=3)
        model, _, _ = train(run)
        run.finish(predictions={"outputs": model(torch.ones(2, 4)), "targets": torch.tensor([0, 1])})
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert len(one) > 15
    assert one == two


def test_copies_of_a_watched_model_are_free_of_the_recorder(loop):
    loop.step()
    twin = copy.deepcopy(loop.model)
    saved = pickle.loads(pickle.dumps(loop.model))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    loop.optimizer.zero_grad()
    loop.forward()
    loop.backward()
    for model in (twin, saved):
        assert torch.equal(model(INPUTS), loop.model(INPUTS))
        model.zero_grad()
    optimizer.step()
    assert loop.model.out.weight.grad is not None, "a copy clears its own gradients only"
    loop.optimizer.step()
    loop.log()
    assert orders(loop.trace())[1] == "zero_grad forward backward forward step"  # the forward is the comparison's
    assert "zero_grad" not in vars(loop.model)


# -- tracebacks ---------------------------------------------------------------------------------------------------


def failure(path, source, **config):
    path.write_text(dedent(source))
    try:
        load_program(path).main(SimpleNamespace(**config), Probe())
    except Exception as error:
        return program_traceback(error, path)
    raise AssertionError("the program did not fail")


def test_traceback_begins_in_the_program_and_has_no_absolute_path(tmp_path):
    text = failure(
        tmp_path / "secret_bug.py",
        """\
        import torch


        def train_epoch(model):
            model(torch.zeros(2, 5))


        def main(config, run):
            train_epoch(torch.nn.Linear(4, 3))
        """,
    )
    lines = text.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == '  File "program.py", line 9, in main'
    assert lines[3] == '  File "program.py", line 5, in train_epoch'
    assert lines[-1].startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x5 and 4x3)")
    assert 'File "torch/nn/' in text
    assert 'File "/' not in text
    assert "secret_bug" not in text
    assert str(tmp_path) not in text


def test_traceback_of_a_program_that_does_not_parse(tmp_path):
    text = failure(tmp_path / "secret_bug.py", "def main(config, run):\n    return (\n")
    assert 'File "program.py", line 2' in text
    assert text.splitlines()[-1] == "SyntaxError: '(' was never closed"
    assert "secret_bug" not in text
    assert 'File "/' not in text


# -- by itself ----------------------------------------------------------------------------------------------------

PROGRAM = """\
import torch
import torch.nn.functional as F
from bugbench import recorder


def main(config, run):
    torch.manual_seed(config.seed)
    inputs = torch.tensor([[float(x)] for x in (config.data_dir / "numbers.txt").read_text().split()])
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    run.watch(model, optimizer)
    for epoch in range(config.epochs):
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.mse_loss(outputs, 2 * inputs)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=2 * inputs, outputs=outputs, loss=loss)
        run.log_metrics("train", loss=loss.item())
        if epoch == config.fail_at:
            raise ValueError("the fifth wheel")


if __name__ == "__main__":
    recorder.run(main)
"""


def standalone(folder, *arguments, **config):
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "numbers.txt").write_text("0 1 2")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "config.yaml").write_text(json.dumps({"seed": 0, "lr": 0.1, "epochs": 4, "fail_at": None, **config}))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_program_runs_by_itself(tmp_path):
    done = standalone(tmp_path, "program.py")
    assert done.returncode == 0, done.stderr
    trace = Trace(tmp_path / "trace")
    losses = trace.train_steps()["loss"]
    assert len(losses) == 4
    assert json.loads(done.stdout) == {"train/loss": losses.iloc[-1]}
    assert orders(trace) == [USUAL] * 4
    assert trace.error is None


def test_program_that_fails_by_itself_keeps_its_trace(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    done = standalone(tmp_path / "real", str(tmp_path / "link" / "program.py"), fail_at=1)
    assert done.returncode == 1
    assert "the fifth wheel" in done.stderr
    trace = Trace(tmp_path / "real" / "trace")
    assert len(trace.train_steps()) == 2
    assert trace.error.splitlines() == [
        "Traceback (most recent call last):",
        '  File "program.py", line 21, in main',
        '    raise ValueError("the fifth wheel")',
        "ValueError: the fifth wheel",
    ]


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


def test_two_splits_at_the_same_step_are_one_evaluation(tmp_path: Path) -> None:
    run = Recorder(tmp_path / "trace")
    for split in ("val", "test"):
        run.log_metrics(split, loss=1.0)
    run.finish()
    assert Trace(tmp_path / "trace").metrics[["split", "epoch"]].values.tolist() == [["val", 0], ["test", 0]]
    assert run.epoch == 1
