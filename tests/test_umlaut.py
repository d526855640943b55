"""UMLAUT's rules on numbers worked out by hand, and on the models it has to read."""

import numpy as np
import pytest
from bugbench.detectors.umlaut import Umlaut
from made_tables import LEARNS, answers, made_trace

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
        ({"program": "loss = F.mse_loss(outputs, targets)"}, ["nll_on_logits"]),  # as the source says of a regression
        ({"program": "loss = F.nll_loss(outputs, targets)",
          "layers": {"first": "Linear", "act": "ReLU", "last": "Linear", "end": "LogSoftmax"}}, []),
        ({"program": "loss = F.nll_loss(outputs, targets)",
          "layers": {"first": "Linear", "attention": "Softmax", "last": "Linear"}}, ["nll_on_logits"]),
        ({"program": "layer = nn.Dropout(config.dropout)"}, ["excess_dropout"]),  # 0.6
        ({"program": "layer = nn.Dropout(1 - config.dropout)"}, []),  # 0.4
        ({"program": "layer = nn.Dropout(1 - config.dropout / 2)"}, ["excess_dropout"]),  # 0.7
        ({"program": "layer = nn.Dropout(0.5)"}, []),
        ({"inputs": (np.nan, np.nan), "loss": [np.nan] * 8}, ["nan_inputs"]),
        # all of them, the gravest first
        ({"inputs": (0.0, 255.0), "lr": 1.0, "layers": {"first": "Linear", "last": "Linear"}},
         ["missing_nonlinearity", "missing_normalization", "lr_too_high"]),
    ],
)  # fmt: skip
def test_umlaut(own, expected, tmp_path):
    assert answers(Umlaut(), made_trace(tmp_path / "t", **{"acc": LEARNS, **own})) == expected


def test_umlaut_asks_the_rules_of_an_epoch_at_its_end(tmp_path):
    broken = {"inputs": (0.0, 255.0), "lr": 1.0, "layers": {"first": "Linear", "last": "Linear"}}
    trace = made_trace(tmp_path / "t", acc=[0.5], **broken)
    assert answers(Umlaut(), trace) == ["missing_nonlinearity", "missing_normalization", "lr_too_high"]
    trace.metrics = trace.metrics.iloc[:0]  # it raised before the first epoch was evaluated
    assert answers(Umlaut(), trace) == ["missing_nonlinearity"]


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
