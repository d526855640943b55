"""A workload of four numbers, with a program that raises, hangs, dies or misbehaves when it is asked to."""

from bugbench.card import make_card
from bugbench.runner import Run

SETTINGS = {
    "name": "tiny",
    "dataset": "numbers",
    "task": "classification",
    "classes": 2,
    "traits": ["classification"],
    "roles": {"main": "main"},
    "oracle": {"metric": "accuracy", "direction": "maximize", "bounds": [0.0, 1.0], "floor": 0.02},
    "report": {"split": "val", "metric": "accuracy", "moment": "last"},
    "config": {"lr": 0.5, "epochs": 3, "mode": "train", "marker": ""},
}
DATASET = """\
import numpy as np

INPUTS = np.array([[-2.0], [-1.0], [1.0], [2.0]], dtype=np.float32)
TARGETS = np.array([0, 0, 1, 1])


def write_training_data(folder):
    (folder / "more").mkdir()
    np.save(folder / "inputs.npy", INPUTS)
    (folder / "more" / "targets.txt").write_text(" ".join(map(str, TARGETS)))


def training_sample():
    return INPUTS[:2], TARGETS[:2]


def hidden_test():
    return 10 * INPUTS, TARGETS


def oracle_metric(outputs, targets):
    return (outputs.argmax(axis=1) == targets).mean()
"""
PROGRAM = """\
import os
import time

import numpy as np
import torch
import torch.nn.functional as F


def main(config, run):
    torch.manual_seed(config.seed)
    inputs = torch.as_tensor(np.load(config.data_dir / "inputs.npy"))
    targets = torch.tensor([int(x) for x in (config.data_dir / "more" / "targets.txt").read_text().split()])
    model = torch.nn.Sequential(torch.nn.Linear(1, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    run.watch(model, optimizer)
    if os.path.exists(config.marker):
        if config.mode == "hang":
            time.sleep(3600)
        if config.mode == "die":
            os._exit(7)
    for epoch in range(config.epochs):
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
        accuracy = (outputs.argmax(dim=1) == targets).float().mean().item()
        run.log_metrics("val", accuracy=accuracy)
        if config.mode == "raise" and epoch == 1:
            raise ValueError("two is enough")
    if config.mode == "switch":
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)

    def predict(raw):
        if config.mode == "odd_shape":
            return torch.zeros(3)
        if config.mode == "raise_in_predict":
            raise ValueError("no predictions")
        with torch.no_grad():
            return model(torch.as_tensor(raw))

    return None if config.mode == "no_predict" else predict
"""
LONG = 300


def card(id="slow", **fields):
    fields = {"title": "t", "fault": "lr_too_low", "sources": ["own"], "about": "a", **fields}
    if not {"edits", "config"} & set(fields):
        fields["edits"] = [{"find": "optimizer.step()", "delete": True}]
    return make_card(id, fields, {"lr_too_low": {}})


def run_of(workload, **config):
    return Run(workload, workload.source, {"seed": 0, **SETTINGS["config"], **config})
