"""Training and evaluation mode: what is wrong, what does not matter, and what is a choice."""

import pytest
import torch
import torch.nn.functional as F
from bugbench.detectors.mode_check import ModeCheck
from bugbench.recorder import Recorder
from tiny_training import class_batches, faults, top
from torch import nn

pytestmark = pytest.mark.usefixtures("fixed_seed")


def toggled(folder, model, *, train_modes, val_mode, val_split="val"):
    """Record as many epochs as there are modes (True: training), each with an evaluation."""
    run = Recorder(folder, task="classification", classes=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    run.watch(model, optimizer)
    batches = list(class_batches(8))
    for mode in train_modes:
        if callable(mode):
            mode(model)
        else:
            model.train(mode)
        for inputs, targets in batches:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = F.cross_entropy(outputs, targets)
            loss.backward()
            optimizer.step()
            run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
        run.log_metrics("train", loss=0.0)
        model.train(val_mode)
        with torch.no_grad():
            for inputs, targets in batches:
                run.log_batch(val_split, inputs=inputs, targets=targets, outputs=model(inputs), loss=0.0)
        run.log_metrics(val_split, loss=0.0)
    run.finish()
    return folder


def normalised(*more):
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), *more, nn.Linear(16, 5))


def freeze_batch_norm(model):
    """Leave batch norm on the statistics that it starts with, which are those of no data."""
    model.train()
    model[1].eval()
    with torch.no_grad():
        model[0].weight.mul_(10)


def freeze_fitting_batch_norm(model):
    model.train()
    model[1].momentum = None  # the mean over all batches
    with torch.no_grad():
        for inputs, _ in class_batches(20):
            model(inputs)
    model[1].eval()


@pytest.mark.parametrize(
    ("more", "train_modes", "val_mode", "fault"),
    [
        ([nn.Dropout()], [True] * 3, False, None),
        ([nn.Dropout()], [True, False, False], False, "eval_mode_in_training"),
        ([nn.Dropout()], [False] * 2, False, "eval_mode_in_training"),
        ([nn.Dropout()], [True] * 3, True, "train_mode_in_eval"),
        ([], [True] * 2, True, "train_mode_in_eval"),
        ([], [freeze_batch_norm], False, "batchnorm_in_eval"),
        ([], [freeze_fitting_batch_norm], False, None),
    ],
)
def test_modes(tmp_path, more, train_modes, val_mode, fault):
    folder = toggled(tmp_path, normalised(*more), train_modes=train_modes, val_mode=val_mode)
    assert top(ModeCheck, folder) == fault


@pytest.mark.parametrize("val_mode", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_one_batch_is_an_evaluation(tmp_path, val_mode, before):
    """Logged before the step, the last step of training shows in the evaluation's row."""
    run = Recorder(tmp_path, task="classification", classes=5)
    model = normalised(nn.Dropout())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    run.watch(model, optimizer)
    for _ in range(4):
        model.train()
        for inputs, targets in class_batches(8):
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = F.cross_entropy(outputs, targets)
            loss.backward()
            batch = {"inputs": inputs, "targets": targets, "outputs": outputs, "loss": loss}
            for act in [run.log_batch, optimizer.step][:: 1 if before else -1]:
                act("train", **batch) if act == run.log_batch else act()
        model.train(val_mode)
        with torch.no_grad():
            run.log_batch("val", inputs=inputs, targets=targets, outputs=model(inputs), loss=0.0)
        run.log_metrics("val", loss=0.0)
    run.finish()
    assert top(ModeCheck, tmp_path) == ("train_mode_in_eval" if val_mode else None)


def test_mode_does_not_matter_without_layers_that_heed_it(tmp_path):
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 5))
    assert faults(ModeCheck, toggled(tmp_path, model, train_modes=[False] * 3, val_mode=True)) == []


def test_frozen_backbone_in_evaluation_mode_is_a_choice(tmp_path):
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 16), nn.Dropout()), nn.Linear(16, 5))
    folder = toggled(tmp_path, model, train_modes=[lambda m: (m.train(), m[0].eval())] * 2, val_mode=False)
    assert faults(ModeCheck, folder) == []
