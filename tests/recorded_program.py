"""A small program that trains on digits, recorded with its text changed, and what a detector is shown of it."""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from bugbench.catalogue import catalogue_of
from bugbench.detector import Detector, Suspect
from bugbench.plugins import load_detector
from bugbench.recorder import Recorder
from bugbench.rerun import rerun
from bugbench.trace import Trace, export

CATALOGUE = catalogue_of()
MODULES = {  # detector: the module that its tool is imported as
    **{"torchtest2": "torchtest2", "cleanlab_datalab": "cleanlab", "leakcheck_ml": "leakcheck", "leaklens": "leaklens"},
    **{"torch_audit": "torch_audit", "torchdiag": "torchdiag", "torchmortem": "torchmortem", "mldoct": "mldoctor"},
    **{"trainproof": "trainproof", "lightning_overfit_batches": "lightning", "lightning_early_stopping": "lightning"},
    **{"weightwatcher": "weightwatcher", "ruff": "ruff", "torchfix": "torchfix"},
}

PROGRAM = """\
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.features(x))


def loss_function(outputs, targets):
    return F.cross_entropy(outputs, targets)


def main(config, run):
    torch.manual_seed(config.seed)
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images))
    x, y = torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]
    x, y, u, v = x[:1200], y[:1200], x[1200:], y[1200:]
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    run.watch(model, optimizer)
    for _ in range(config.epochs):
        model.train()
        for index in torch.randperm(len(x)).split(64):
            inputs, targets = x[index], y[index]
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = loss_function(outputs, targets)
            loss.backward()
            optimizer.step()
            run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
        model.eval()
        with torch.no_grad():
            outputs = model(u)
            loss = loss_function(outputs, v)
        run.log_batch("val", inputs=u, targets=v, outputs=outputs, loss=loss)
        run.log_metrics("val", loss=loss.item())
"""
RAW = ("[order] / 16", "[order] * 256")
OVERLAP = ("x[1200:], y[1200:]", "x[600:], y[600:]")


class Programs:
    """Records the program above with some of its text replaced, once for each set of replacements."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.made: dict[tuple, Path] = {}

    def trace(self, *changes: tuple[str, str], lr: float = 0.001, epochs: int = 2) -> Path:
        key = (changes, lr, epochs)
        if key not in self.made:
            folder = self.made[key] = self.home / str(len(self.made))
            source = PROGRAM
            for old, new in changes:
                assert old in source
                source = source.replace(old, new)
            (folder / "data").mkdir(parents=True)
            (folder / "program.py").write_text(source)
            (folder / "config.yaml").write_text(f"{{seed: 3, lr: {lr}, epochs: {epochs}}}\n")
            recorder, error = Recorder(folder, task="classification", classes=10), None
            try:
                rerun(folder, recorder, {})
            except Exception as raised:  # as the harness does
                error = f"{type(raised).__name__}: {raised}"
            recorder.finish(error=error)
        return self.made[key]


def detector(name: str, **knobs) -> Detector:
    return load_detector(CATALOGUE.detectors[name].file)(**knobs)


def shown(name: str, folder: Path, place: Path) -> Path:
    """Return a copy of a trace with nothing but what the detector's access grants."""
    access = CATALOGUE.detectors[name].access
    export(folder, place, access)
    if "rerun" in access:
        shutil.copytree(folder / "data", place / "data")
    return place


def faults_of(name: str, folder: Path, place: Path) -> list[str]:
    """Return the faults that a detector names of a trace, in order."""
    return faults(detector(name).diagnose(Trace(shown(name, folder, place))).suspects)


def faults(found: Iterable[Suspect]) -> list[str]:
    return [suspect.fault for suspect in found]


def module_of(name: str) -> ModuleType:
    """Return the module of a detector's file."""
    return sys.modules[type(detector(name)).__module__]
