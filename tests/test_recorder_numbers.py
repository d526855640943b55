"""Norms and statistics that the recorder writes down, held against numbers worked out by hand."""

import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from recorded_loop import INPUTS, TARGETS, USUAL, Loop, line, orders
from torch import nn


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
