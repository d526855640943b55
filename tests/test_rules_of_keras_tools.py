"""The published rule sets that were made for Keras: each rule on numbers worked out by hand, beside its limit."""

import json
from pathlib import Path

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
from bugbench.program_text import activated, dropout_rates, reached, takes_raw_scores_for_probabilities
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from torch import nn

DETECTORS = (Autotrainer, Deeplocalize, Deepdiagnosis, Umlaut)
LAYERS = {"first": "Linear", "act": "ReLU", "last": "Linear"}
STEPS = 4  # in an epoch


def made_trace(
    folder: Path, *, acc, loss=None, val_loss=None, val_acc=None, task="classification", layers=LAYERS, **own
):
    """Write a trace of tables alone, a row of statistics for each step; ``own`` overrides single tensors.

    ``first={…}`` is of the output of ``first``, ``first_weight`` of its kernel, ``first_gradient`` of the kernel's
    gradient. Values may be functions of the step.
    """
    epochs = len(acc)
    loss = loss or [1 / (epoch + 1) for epoch in range(epochs)]
    (folder / "batches").mkdir(parents=True)
    meta = {"task": task, "classes": 3, "layers": layers, "sizes": {"parameters": 30}}
    (folder / "meta.json").write_text(json.dumps(meta))
    rows, steps, metrics = [], [], []
    for step in range(epochs * STEPS):
        usual = {"mean": 0.1 + 0.001 * step, "std": 0.5, "min": -1.0, "max": 2.0, "zero_share": 0.0, "nonfinite": 0.0}
        names = [(name, "activation", name) for name in layers]
        for kind in ("gradient", "weight"):
            names += [(f"{name}.weight", kind, f"{name}_{kind}") for name in layers if layers[name] == "Linear"]
        for layer, kind, key in names:
            changed = {k: v(step) if callable(v) else v for k, v in own.get(key, {}).items()}
            rows.append({"step": step, "layer": layer, "kind": kind, **usual, **changed})
        number = own.get("losses", lambda step: loss[step // STEPS])(step)
        steps.append(
            {"split": "train", "step": step, "epoch": step // STEPS, "loss": number, "lr": own.get("lr", 0.001)}
        )
        low, high = own.get("inputs", (-1.0, 1.0))
        steps[-1] |= {"input_min": low, "input_max": high, "input_nonfinite": float(np.isnan(low))}
    for epoch in range(epochs):
        reported = {"accuracy": acc[epoch], "loss": loss[epoch]}
        held_out = {"accuracy": (val_acc or acc)[epoch], "loss": (val_loss or loss)[epoch]}
        for split, values in (("train", reported), ("val", held_out)):
            metrics += [
                {"split": split, "epoch": epoch, "step": (epoch + 1) * STEPS, "name": name, "value": value}
                for name, value in values.items()
                if value is not None
            ]
    pd.DataFrame(rows).to_parquet(folder / "layers.parquet")
    pd.DataFrame(steps).to_parquet(folder / "steps.parquet")
    pd.DataFrame(metrics, columns=["split", "epoch", "step", "name", "value"]).to_parquet(folder / "metrics.parquet")
    (folder / "program.py").write_text(own.get("program", "loss = F.cross_entropy(outputs, targets)"))
    (folder / "config.yaml").write_text("dropout: 0.6\n")
    return Trace(folder)


def answers(detector, trace):
    return [s.fault for s in detector.diagnose(trace).suspects]


LEARNS = [0.5, 0.7, 0.75, 0.8, 0.84, 0.87, 0.89, 0.9]
STUCK = [0.3, 0.302, 0.301, 0.303, 0.302, 0.304, 0.302, 0.303]


@pytest.mark.parametrize("detector", DETECTORS)
def test_nothing_is_said_of_a_run_that_breaks_no_rule(detector, tmp_path):
    assert answers(detector(), made_trace(tmp_path / "t", acc=LEARNS)) == []


# -- AutoTrainer ---------------------------------------------------------------------------------------------------

SMALL = {"mean": 0.0, "std": 9e-5}  # its sizes are not to be solved for here, so norms are root mean squares
TINY = {"mean": 0.0, "std": 9e-8}


@pytest.mark.parametrize(
    ("own", "first"),
    [
        ({}, "lr_too_low"),  # stuck, and no gradient is to blame
        ({"first_gradient": SMALL, "last_gradient": {"mean": 0.0, "std": 0.1}}, "saturating_activation"),  # 9e-4
        ({"first_gradient": SMALL, "last_gradient": {"mean": 0.0, "std": 0.08}}, "lr_too_low"),  # a ratio of 1.1e-3
        ({"first_gradient": {"mean": 0.0, "std": 2e-4}, "last_gradient": {"mean": 0.0, "std": 1.0}}, "lr_too_low"),
        (
            {"first_gradient": {"mean": 0.0, "std": 7.1}, "last_gradient": {"mean": 0.0, "std": 0.1}},
            "lr_too_high",
        ),  # 71
        ({"first_gradient": {"mean": 0.0, "std": 6.9}, "last_gradient": {"mean": 0.0, "std": 0.1}}, "lr_too_low"),  # 69
        ({"first_gradient": {"zero_share": 0.9}, "last_gradient": {"zero_share": 0.5}}, "dead_relu"),  # 0.7 of all
        ({"first_gradient": {"zero_share": 0.9}, "last_gradient": {"zero_share": 0.4}}, "lr_too_low"),
        ({"act": {"mean": 10.0, "min": 0.0, "max": 30.0}}, "missing_normalization"),
        ({"act": {"mean": 9.9, "min": 0.0, "max": 30.0, "std": 9.0}}, "lr_too_low"),
        ({"first": {"mean": 6.0, "std": 8.0}}, "missing_normalization"),  # both signs: the root of 36 + 64
        ({"last": {"mean": 99.0, "min": 0.0}}, "lr_too_low"),  # the last layer is left alone
    ],
)
def test_autotrainer_on_a_run_that_does_not_converge(own, first, tmp_path):
    assert answers(Autotrainer(), made_trace(tmp_path / "t", acc=STUCK, **own))[0] == first


def test_autotrainer_leaves_the_gradients_of_a_run_that_converges_alone(tmp_path):
    own = {"first_gradient": {"zero_share": 1.0}, "last_gradient": {"zero_share": 1.0}}
    assert answers(Autotrainer(), made_trace(tmp_path / "t", acc=LEARNS, **own)) == []


@pytest.mark.parametrize(("fall", "unstable"), [(0.031, True), (0.029, False)])
def test_autotrainer_counts_falls_of_training_accuracy(fall, unstable, tmp_path):
    """Of epochs 0, 3, 6 and 9, the one half through ten is 6: two peaks and three dips inside of seven values."""
    acc = [0.8 - fall * (epoch % 2) for epoch in range(10)]
    assert answers(Autotrainer(), made_trace(tmp_path / "t", acc=acc))[:1] == ["lr_too_high"] * unstable


def test_autotrainer_counts_no_falls_of_another_accuracy(tmp_path):
    falls = [0.8 - 0.1 * (epoch % 2) for epoch in range(10)]
    assert answers(Autotrainer(), made_trace(tmp_path / "val", acc=[None] * 10, val_acc=falls)) == []
    assert answers(Autotrainer(), made_trace(tmp_path / "train", acc=falls, val_acc=LEARNS + [0.9] * 2)) != []


def test_autotrainer_on_losses(tmp_path):
    nan = made_trace(tmp_path / "nan", acc=LEARNS, loss=[1.0, *[np.nan] * 7], first_weight={"nonfinite": 1.0})
    assert answers(Autotrainer(), nan)[0] == "lr_too_high"
    finite_weights = made_trace(tmp_path / "finite", acc=LEARNS, loss=[1.0, *[np.nan] * 7])
    assert answers(Autotrainer(), finite_weights) == []
    negative = made_trace(tmp_path / "negative", acc=LEARNS, loss=[-1.0 - epoch for epoch in range(8)])
    assert answers(Autotrainer(), negative)[0] == "nll_on_logits"


def test_autotrainer_says_nothing_of_curves_before_30_percent_or_without_accuracy(tmp_path):
    assert answers(Autotrainer(), made_trace(tmp_path / "slow", acc=[0.3] * 3 + [0.9] * 9)) == []
    assert answers(Autotrainer(), made_trace(tmp_path / "none", acc=[None] * 8)) == []


# -- DeepLocalize --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "family", "where", "text"),
    [
        ({"act": {"mean": lambda s: np.nan if s == 6 else 0.1 + s}}, "numerics", "act", "step 6, forward"),
        (
            {"act": {"mean": lambda s: 0.0 if s in (3, 4, 5, 6) else 0.1 + s}},
            "model",
            "act",
            "step 5, forward",
        ),  # 3 of 6
        ({"act": {"mean": lambda s: 0.0 if s in (3, 4) else 0.1 + s}}, None, None, ""),  # two of five are below half
        ({"act": {"mean": lambda s: 0.3 if 5 <= s < 10 else 0.1 + s}}, "model", "act", "step 9, forward"),
        ({"act": {"mean": lambda s: 0.3 if 4 <= s < 9 else 0.1 + s}}, None, None, ""),  # two windows, neither whole
        ({"last_weight": {"mean": 0.2}}, "training_loop", "last", "step 4, weights"),
        ({"first_gradient": {"mean": 0.2}}, "model", "first", "step 4, delta weights"),
        ({"losses": lambda s: 0.7 if 5 <= s < 10 else 1.0 + s}, "optimizer", None, "step 9, does not learn"),
        ({"losses": lambda s: np.nan if s == 2 else 1.0 + s}, "numerics", None, "step 2, does not learn"),
        # the earlier batch comes first, and in a batch the outputs
        (
            {"act": {"mean": lambda s: np.nan if s > 2 else 0.1 + s}, "last_weight": {"mean": np.inf}},
            "numerics",
            "last",
            "step 0",
        ),
        ({"act": {"mean": np.nan}, "last_weight": {"mean": np.inf}}, "numerics", "act", "step 0"),
    ],
)
def test_deeplocalize(own, family, where, text, tmp_path):
    own.setdefault("losses", lambda step: 1.0 + step)
    suspects = Deeplocalize().diagnose(made_trace(tmp_path / "t", acc=LEARNS, **own)).suspects
    assert [s.fault for s in suspects][:1] == ([family] if family else [])
    for suspect in suspects:
        assert suspect.layer == where
        assert text in suspect.evidence


STILL = {"mean": 0.2}
MOVING = {"mean": 0.2, "std": lambda step: 0.5 + 1e-6 * step}
NORMED = {"first": "Linear", "act": "BatchNorm1d", "last": "Linear"}
FLAT = {"first": "Linear", "act": "Flatten", "last": "Linear"}


@pytest.mark.parametrize("tensor", ["last_weight", "last_gradient"])
def test_a_tensor_whose_mean_alone_stands_still_is_not_unchanged(tensor, tmp_path):
    """As in double precision: the mean of a gradient is a rounding error in size, a weight's moves by less."""
    for name, own, alarm in (("still", STILL, True), ("moving", MOVING, False)):
        trace = made_trace(tmp_path / name, acc=TWELVE, losses=lambda step: 1.0 + step, **{tensor: own})
        assert bool(answers(Deeplocalize(), trace)) == alarm
        assert bool(answers(Deepdiagnosis(), trace)) == alarm


def test_a_norm_may_put_out_a_mean_of_zero(tmp_path):
    for name, layers, alarm in (("norm", NORMED, False), ("relu", LAYERS, True)):
        own = {"act": {"mean": 0.0, "std": lambda step: 1 + step}, "layers": layers, "acc": TWELVE[:4]}
        trace = made_trace(tmp_path / name, losses=lambda step: 1.0 + step, **own)
        trace.layers.loc[(trace.layers["layer"] == "act") & (trace.layers["step"] % 5 == 4), "mean"] = 1e-9
        assert bool(answers(Deeplocalize(), trace)) == alarm
        assert bool(answers(Deepdiagnosis(), trace)) == alarm


def test_a_layer_that_flattens_may_put_out_the_same(tmp_path):
    for name, layers, alarm in (("flat", FLAT, False), ("relu", LAYERS, True)):
        trace = made_trace(tmp_path / name, acc=TWELVE, act=STILL, layers=layers, losses=lambda step: 1.0 + step)
        assert bool(answers(Deeplocalize(), trace)) == alarm
        assert bool(answers(Deepdiagnosis(), trace)) == alarm


def test_deeplocalize_asks_gradients_of_dense_layers_alone_and_layer_by_layer(tmp_path):
    gone = {"first_gradient": {"mean": np.nan}, "losses": lambda step: 1.0 + step}
    dense = made_trace(tmp_path / "dense", acc=LEARNS, **gone)
    assert answers(Deeplocalize(), dense)[0] == "numerics"
    other = made_trace(tmp_path / "conv", acc=LEARNS, **gone)
    other.meta["layers"] = LAYERS | {"first": "Conv2d"}
    assert answers(Deeplocalize(), other) == []
    # 0 in the first layer comes before NaN in the second, of one batch
    trace = made_trace(tmp_path / "order", acc=LEARNS, first={"mean": 0.0}, act={"mean": np.nan})
    (suspect, *_) = Deeplocalize().diagnose(trace).suspects
    assert (suspect.layer, suspect.evidence) == ("first", "step 0, forward: the mean of first is 0")


def test_deeplocalize_flags_five_batches_that_are_equally_right(tmp_path):
    run = Recorder(tmp_path, task="classification", classes=2)
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    run.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for step in range(6):
        inputs, targets = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
        outputs = F.one_hot(targets, 2).float() + 0.01 * model(inputs)
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=1.0 + step)
    run.finish()
    (first, *_) = Deeplocalize().diagnose(Trace(tmp_path)).suspects
    assert first.fault == "optimizer"
    assert "step 5, does not learn: the mean of accuracy" in first.evidence  # of steps 0, 1, 2, 3 and 5


# -- DeepDiagnosis -------------------------------------------------------------------------------------------------

TWELVE = [0.5 + 0.03 * epoch for epoch in range(12)]
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


# -- UMLAUT --------------------------------------------------------------------------------------------------------

HIGH = [0.5, 0.6, 0.7, 0.96]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"inputs": (-1.01, 0.0)}, ["missing_normalization"]),
        ({"inputs": (0.0, 1.01)}, ["missing_normalization"]),
        ({"lr": 0.011}, ["lr_too_high"]),
        ({"lr": 0.01}, []),
        ({"lr": 9e-8}, ["lr_too_low"]),
        ({"val_loss": [1.0, 0.9, 1.1, *[0.8] * 5]}, ["overfit_capacity"]),
        ({"loss": [1.0, 0.9, 1.1, *[0.8] * 5]}, []),  # both rise
        ({"acc": [*HIGH, *[0.96] * 4]}, ["train_in_validation", "split"]),
        ({"acc": [0.96, 0.96, 0.96, *[0.8] * 5]}, []),  # before epoch 3
        ({"acc": LEARNS, "val_acc": [x + 0.051 for x in LEARNS]}, ["train_in_validation", "split"]),
        ({"acc": LEARNS, "val_acc": [x + 0.049 for x in LEARNS]}, []),
        ({"layers": {"first": "Linear", "last": "Linear"}}, ["missing_nonlinearity"]),
        ({"layers": {"first": "Linear", "drop": "Dropout", "act": "Tanh", "last": "Linear"}}, []),
        ({"layers": {"first": "Linear", "act": "ReLU", "last": "Linear", "end": "ReLU"}}, ["activation_on_logits"]),
        ({"layers": {"first": "Linear", "act": "ReLU", "last": "Linear", "end": "LogSoftmax"}}, []),
        ({"program": "loss = F.nll_loss(outputs, targets)"}, ["nll_on_logits"]),
        ({"program": "loss = F.nll_loss(F.log_softmax(outputs, 1), targets)"}, []),
        ({"program": "layer = nn.Dropout(config.dropout)"}, ["excess_dropout"]),  # 0.6
        ({"program": "layer = nn.Dropout(0.5)"}, []),
        ({"inputs": (np.nan, np.nan), "loss": [np.nan] * 8}, ["nan_inputs"]),
        # all of them, the gravest first
        ({"inputs": (0.0, 255.0), "lr": 1.0, "layers": {"first": "Linear", "last": "Linear"}},
         ["missing_nonlinearity", "missing_normalization", "lr_too_high"]),
    ],
)  # fmt: skip
def test_umlaut(own, expected, tmp_path):
    assert answers(Umlaut(), made_trace(tmp_path / "t", **{"acc": LEARNS, **own})) == expected


def test_umlaut_knows_an_activation_that_is_a_function(tmp_path):
    layers = {"first": "Linear", "last": "Linear"}
    around = "class Net:\n    def forward(self, x):\n        return self.last(F.relu(self.first(x)))\n"
    assert answers(Umlaut(), made_trace(tmp_path / "around", acc=LEARNS, layers=layers, program=around)) == []
    layers, other = {"first": "Linear", "second": "Linear", "last": "Linear"}, around.replace("first", "second")
    assert answers(Umlaut(), made_trace(tmp_path / "other", acc=LEARNS, layers=layers, program=other)) != []


RESNET = """
class Block(nn.Module):
    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return {block}

class Net(nn.Module):
    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.max_pool2d(self.b(self.a(x)), 2)
        return self.head(torch.flatten(x, 1))
"""
PARTS = {"conv1": "Conv2d", "bn1": "BatchNorm2d", "relu": "ReLU", "conv2": "Conv2d", "bn2": "BatchNorm2d"}
BLOCKS = {f"{block}.{part}": kind for block in "ab" for part, kind in PARTS.items()}
RESIDUAL = {"stem": "Conv2d", "norm": "BatchNorm2d", **BLOCKS, "head": "Linear"}


def test_umlaut_knows_activations_around_norms_and_in_blocks_and_one_module_called_twice(tmp_path):
    """A ReLU that a block calls twice comes once in the order of the calls."""
    sound = made_trace(tmp_path / "sound", acc=LEARNS, layers=RESIDUAL, program=RESNET.format(block="self.relu(out)"))
    assert answers(Umlaut(), sound) == []
    bare = made_trace(tmp_path / "bare", acc=LEARNS, layers=RESIDUAL, program=RESNET.format(block="out"))
    (found,) = Umlaut().diagnose(bare).suspects
    assert (found.fault, found.layer) == ("missing_nonlinearity", "a.conv2")


TWO_MODELS = """
class Generator(nn.Module):
    def forward(self, x):
        return torch.tanh(self.head(self.body(x)))

class Discriminator(nn.Module):
    def forward(self, x):
        return {head}
"""
GAN = {
    **{"generator.body.0": "Linear", "generator.body.1": "ReLU", "generator.head": "Linear"},
    **{"discriminator.body.0": "Linear", "discriminator.body.1": "LeakyReLU", "discriminator.head": "Linear"},
}


def test_umlaut_asks_two_models_each_by_itself(tmp_path):
    sizes = {"generator.parameters": 3, "discriminator.parameters": 4}
    for name, program, layers, expected in (
        ("sound", TWO_MODELS.format(head="self.head(self.body(x))"), GAN, []),
        ("final", TWO_MODELS.format(head="F.relu(self.head(self.body(x)))"), GAN, ["activation_on_logits"]),
        ("bare", TWO_MODELS.format(head="self.head(self.body(x))"), GAN | {"discriminator.body.1": "Identity"},
         ["missing_nonlinearity"]),
    ):  # fmt: skip
        trace = made_trace(tmp_path / name, acc=LEARNS, layers=layers, program=program)
        trace.meta = trace.meta | {"sizes": sizes}
        assert answers(Umlaut(), trace) == expected


# -- the view of a trace -------------------------------------------------------------------------------------------


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


# -- the text of a program -----------------------------------------------------------------------------------------


def test_activations_in_the_text_of_forward():
    source = """
def accuracy(outputs):
    return torch.sigmoid(outputs)

class Net:
    def forward(self, x):
        x = F.relu(self.convs.one(x))
        x = self.two(x).tanh()
        x = torch.nn.functional.gelu(self.three(x))
        return self.sigmoid(x)
"""
    assert activated(source) == {"convs.one": True, "two": True, "three": True}
    assert activated("def forward(self, x):\n    return torch.relu(x)") == {"": True}
    assert activated("def forward(self, x):\n    return x.relu()") == {"": True}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("return F.relu(self.bn(self.conv(x)))", {"conv"}),
        ("return F.relu(F.max_pool2d(self.conv(x), 2))", {"conv"}),
        ("return F.dropout(self.conv(x)).relu()", {"conv"}),
        ("x = self.conv(x)\n        x = self.bn(\n            x)\n        return F.relu(x)", {"conv"}),
        ("return F.relu(self.fc(self.conv(x)))", {"fc"}),  # which leaves the convolution bare
        ("return F.relu(self.conv(x) + self.fc(x))", {"conv", "fc"}),
        ("return self.fc(self.act(self.bn(self.conv(x))))", {"conv"}),
        ("y = self.fc(x)\n        x = self.conv(x)\n        x += y\n        return F.relu(x)", {"conv", "fc"}),
        (
            "x = self.conv(x)\n" + 60 * "        x = x + self.bn(x)\n" + "        return F.relu(x)",
            {"conv"},
        ),  # not 2 ** 60 ways
        ("return self.fc(self.act(x))", set()),  # the order of the calls says what came before it
        ("return F.relu(self.part(x))", {"part"}),  # a container: of its layers, the last
        ("for f in self.part:\n            x = F.relu(f(x))\n        return x", {""}),
        ("return F.relu(self.encode(x))", {""}),  # a method, which may do anything
    ],
)
def test_calls_are_followed_to_the_layer_that_is_activated(body, found):
    kinds = {"conv": "Conv2d", "bn": "BatchNorm2d", "act": "ReLU", "fc": "Linear"}
    kinds |= {"part.0": "Linear", "part.1": "Linear", "part.2": "Dropout"}
    assert set(activated(f"class Net:\n    def forward(self, x):\n        {body}\n", kinds)) == found
    assert reached("part", kinds) == ["part.1"]


def test_two_classes_that_differ_in_a_layer_of_one_name():
    one, other = (f"class {c}:\n    def forward(self, x):\n        return {v}\n" for c, v in (
        ("One", "torch.tanh(self.head(x))"), ("Other", "self.head(x)")))  # fmt: skip
    assert activated(one) == {"head": True}
    assert activated(one + other) == {"head": False}
    assert reached("head", {"g.head": "Linear", "overhead": "Linear"}) == ["g.head"]


def test_dropout_rates_in_the_text():
    source = "nn.Dropout(0.1), nn.Dropout2d(p=0.2), F.dropout(x, 0.3), self.dropout(x)"
    source += ", nn.Dropout(config.drop), nn.Dropout(rate)"  # of which only the first is a setting
    assert dropout_rates(source, {"drop": 0.4}) == [0.1, 0.2, 0.3, 0.4]


def test_losses_in_the_text():
    assert takes_raw_scores_for_probabilities("criterion = nn.NLLLoss()")
    assert not takes_raw_scores_for_probabilities("criterion = nn.NLLLoss()\nout = x.log_softmax(1)")
    assert not takes_raw_scores_for_probabilities("F.binary_cross_entropy_with_logits(x, y)")
