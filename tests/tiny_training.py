"""Tiny training loops for the detectors that recompute: any loss, calls in any order, and what a detector finds."""

from pathlib import Path

import torch
from bugbench.detector import Detector
from bugbench.detectors.epoch_pattern import EpochPattern
from bugbench.detectors.evaluation_curves import EvaluationCurves
from bugbench.detectors.learning_curves import LearningCurves
from bugbench.detectors.learning_progress import LearningProgress
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from torch import nn

OF_CURVES = (LearningCurves, LearningProgress, EvaluationCurves, EpochPattern)


def faults(detector: type[Detector] | Detector, folder: Path) -> list[str]:
    detector = detector() if isinstance(detector, type) else detector
    return [s.fault for s in detector.diagnose(Trace(folder)).suspects]


def top(detector: type[Detector] | Detector, folder: Path) -> str | None:
    return next(iter(faults(detector, folder)), None)


def train(
    folder, model, batches, loss_function, *, task, classes=None, lr=0.1, order="zfbs", outputs_of=None, log=None
):
    """Record a run; ``order`` is that of zero_grad, forward, backward, step and (l) log within a step."""
    run = Recorder(folder, task=task, classes=classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    run.watch(model, optimizer)
    outputs_of = outputs_of or (lambda outputs: outputs)
    seen = {}
    acts = {
        "z": optimizer.zero_grad,
        "s": optimizer.step,
        "b": lambda: seen["loss"].backward(),
        "l": lambda: run.log_batch("train", **seen["batch"], loss=seen.get("logged", seen["loss"])),
    }
    for number, (inputs, targets) in enumerate(batches):
        for act in order if "l" in order else order + "l":
            if act == "f":
                outputs = model(inputs)
                loss = loss_function(outputs_of(outputs), targets)
                loss, logged = loss if isinstance(loss, tuple) else (loss, loss)
                seen |= {"loss": loss, "logged": logged}
                seen["batch"] = {"inputs": inputs, "targets": targets, "outputs": outputs_of(outputs)}
            elif act.isupper():  # every fourth batch only
                if number % 4 == 3:
                    acts[act.lower()]()
            else:
                acts[act]()
        if number % 10 == 9:
            run.log_metrics("train", loss=float(seen["logged"].detach()))
    run.finish()
    return folder


def class_batches(count=40, size=16, classes=5, last=16):
    centers = torch.randn(classes, 8)
    for i in range(count):
        targets = torch.randint(classes, (size if i % 10 < 9 else last,))
        yield centers[targets] + torch.randn(len(targets), 8), targets


def classifier(classes=5):
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, classes))


class Tagger(nn.Module):
    """Tokens (B, T) in, logits (B, T, C) out; sees one token and the one before."""

    def __init__(self, classes=11, last=None):
        super().__init__()
        self.embed, self.head, self.last = nn.Embedding(11, 12), nn.Linear(24, classes), last or nn.Identity()

    def forward(self, tokens):
        x = self.embed(tokens)
        return self.last(self.head(torch.cat([x, x.roll(1, dims=1)], dim=-1)))
