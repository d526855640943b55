"""Updates and activations of layers, on runs small enough to work the answer out by hand."""

from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from bugbench.detector import NotApplicable
from bugbench.detectors.activation_histograms import ActivationHistograms
from bugbench.detectors.update_ratio import UpdateRatio
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from tiny_training import faults, top
from torch import nn


@pytest.fixture(autouse=True)
def one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def trained(folder, model, lr, steps=12, parameters=None):
    run = Recorder(folder, task="regression")
    optimizer = torch.optim.SGD(parameters or model.parameters(), lr=lr)
    run.watch(model, optimizer)
    for _ in range(steps):
        inputs = torch.randn(16, 4)
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = outputs.square().mean()
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=torch.zeros(16, 1), outputs=outputs, loss=loss)
    run.finish()
    return folder


def test_update_ratio(tmp_path):
    def model():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    assert top(UpdateRatio(), trained(tmp_path / "fine", model(), 1e-2)) is None
    assert top(UpdateRatio(), trained(tmp_path / "low", model(), 1e-5)) == "lr_too_low"
    assert top(UpdateRatio(), trained(tmp_path / "high", model(), 2.0)) == "lr_too_high"
    assert top(UpdateRatio(), trained(tmp_path / "none", model(), 0.0)) == "missing_step"


def test_weights_that_stand_still(tmp_path):
    """Fine-tuning keeps weights that were trained; nobody needs to keep those that were drawn."""

    def model():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

    def pretrained():
        found = model()
        for layer in (found[0], found[2]):
            layer.weight.data += 0.5 * torch.randn_like(layer.weight) ** 3  # the long tails of trained weights
        return found

    def frozen(found):
        return found[:4].requires_grad_(False) and found

    drawn, meant = frozen(model()), frozen(pretrained())
    assert faults(UpdateRatio(), trained(tmp_path / "meant", meant, 1e-2)) == []
    assert faults(UpdateRatio(), trained(tmp_path / "drawn", drawn, 1e-2))[:2] == ["model", "frozen_layers"]
    assert top(UpdateRatio(), trained(tmp_path / "high", meant, 2.0)) == "lr_too_high"  # of the layer that moves
    part, head = model(), pretrained()
    folder = trained(tmp_path / "part", part, 1e-2, parameters=list(part[4].parameters()))
    assert top(UpdateRatio(), folder) == "optimizer_partial_params"
    assert faults(UpdateRatio(), trained(tmp_path / "b", head, 1e-2, parameters=list(head[4].parameters()))) == []


def scaled(kind, weight, bias):
    layer = nn.Linear(4, 8)
    nn.init.constant_(layer.bias, bias)
    layer.weight.data.mul_(weight)
    return nn.Sequential(layer, kind, nn.Linear(8, 1))


def test_activations(tmp_path):
    fine = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid()}
    for name, kind in fine.items():
        assert top(ActivationHistograms(), trained(tmp_path / name, scaled(kind, 1, 0), 1e-3)) is None
    found = ActivationHistograms().diagnose(Trace(trained(tmp_path / "flat", scaled(nn.Tanh(), 100, 0), 1e-3)))
    assert (found.suspects[0].fault, found.suspects[0].layer) == ("saturating_activation", "1")
    assert top(ActivationHistograms(), trained(tmp_path / "s", scaled(nn.Sigmoid(), 1, -20), 1e-3)) == (
        "saturating_activation"
    )
    assert top(ActivationHistograms(), trained(tmp_path / "dead", scaled(nn.ReLU(), 1, -50), 1e-3)) == "dead_relu"
    last = nn.Sequential(nn.Linear(4, 1), nn.Tanh())  # nothing behind it: it may be as sure as it likes
    with pytest.raises(NotApplicable):
        faults(ActivationHistograms(), trained(tmp_path / "last", last, 1e-3))


def flat(*widths, last):
    """A stack of saturated tanh layers, and what comes last."""
    layers = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [nn.Linear(a, b), nn.ReLU() if i < len(widths) - 2 else last]
    layers[-2].weight.data.mul_(1000)
    return layers


def test_the_order_of_layers_is_that_of_their_calls(tmp_path):
    """By name "11" comes before "2", and "fc" before "relu"."""
    twelve = nn.Sequential(*flat(4, 8, 8, 8, 8, 8, 1, last=nn.Sigmoid()))
    assert faults(ActivationHistograms(), trained(tmp_path / "last", twelve, 1e-3)) == []
    behind = nn.Sequential(*flat(4, 8, 8, 8, 8, 8, 8, last=nn.Tanh()), nn.Linear(8, 1))
    assert top(ActivationHistograms(), trained(tmp_path / "hidden", behind, 1e-3)) == "saturating_activation"
    dead = nn.Sequential(OrderedDict(conv1=nn.Linear(4, 8), relu=nn.ReLU(), fc=nn.Linear(8, 1)))
    nn.init.constant_(dead.conv1.bias, -50)
    found = ActivationHistograms().diagnose(Trace(trained(tmp_path / "dead", dead, 1e-3))).suspects
    assert (found[0].fault, found[0].layer) == ("dead_relu", "relu")


def test_each_model_has_a_last_activation_of_its_own(tmp_path):
    """What comes after it in the other model is not behind it."""
    run = Recorder(tmp_path, task="generation")
    generator = nn.Sequential(*flat(4, 8, 8, last=nn.Tanh()))
    critic = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(), nn.Linear(8, 1))
    optimizers = {m: torch.optim.SGD(m.parameters(), lr=1e-3) for m in (generator, critic)}
    run.watch(generator, optimizers[generator], "a_generator")
    run.watch(critic, optimizers[critic], "critic")
    for _ in range(12):
        fake = generator(torch.randn(16, 4))
        outputs = critic(fake)
        loss = outputs.square().mean()
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        run.log_batch("train", inputs=fake, targets=torch.zeros(16, 1), outputs=outputs, loss=loss)
    run.finish()
    assert faults(ActivationHistograms(), tmp_path) == []
