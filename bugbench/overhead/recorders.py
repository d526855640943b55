"""What is compared: nothing, the recorder, and public tools that watch a training run, each used as its docs say.

A contender is made for a run and takes the recorder's place in the program: ``watch``, ``log_batch``, ``log_metrics``
and, at the end, ``finish``. A tool is imported when its contender is made, so that one that is missing harms no other.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from bugbench.recorder import Recorder
from bugbench.rerun import Probe


class Bare(Probe):
    """Does nothing: what the program costs by itself."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, settings

    def finish(self) -> None:
        """End the run: write what is to be written, take off what was hung on."""


def recorder(folder: Path, settings: Mapping[str, Any]) -> Recorder:
    """Everything on, at the default schedule."""
    return Recorder(folder, task=settings["task"], classes=settings["classes"])


def recorder_curves(folder: Path, settings: Mapping[str, Any]) -> Recorder:
    """Losses, learning rates and reported metrics only."""
    return Recorder(folder, task=settings["task"], classes=settings["classes"], access=("curves",))


class AnomalyMode(Bare):
    """``torch.autograd.set_detect_anomaly(True)`` for the whole run; looks for NaN in the backward pass."""

    def watch(self, model: torch.nn.Module, optimizer: Any = None, name: str = "") -> None:
        torch.autograd.set_detect_anomaly(True)

    def finish(self) -> None:
        torch.autograd.set_detect_anomaly(False)


class TensorBoard(Bare):
    """The loss of each step, and histograms of each weight and gradient every ``every`` steps."""

    every = 10

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder))
        self.step = 0
        self.parameters: dict[str, torch.nn.Parameter] = {}

    def watch(self, model: torch.nn.Module, optimizer: Any = None, name: str = "") -> None:
        self.parameters |= {name + key: value for key, value in model.named_parameters()}

    def log_batch(self, split: str, **tensors: Any) -> None:
        if split != "train":
            return
        self.writer.add_scalar("loss/train", tensors["loss"], self.step)
        if self.step % self.every == 0:
            for name, parameter in self.parameters.items():
                self.writer.add_histogram(name, parameter, self.step)
                if parameter.grad is not None:
                    self.writer.add_histogram(f"{name}.grad", parameter.grad, self.step)
        self.step += 1

    def log_metrics(self, split: str, **metrics: float) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(f"{name}/{split}", value, self.step)

    def finish(self) -> None:
        self.writer.close()


class TensorBoardEachStep(TensorBoard):
    """As above, with histograms at each step."""

    every = 1


class TorchAudit(Bare):
    """``torch_audit.autopatch`` with audits every 10 optimizer steps; reports go nowhere."""

    every = 10

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        from torch_audit import autopatch

        self.autopatch = autopatch
        self.auditors: list[Any] = []

    def watch(self, model: torch.nn.Module, optimizer: Any = None, name: str = "") -> None:
        settings = {"every_n_steps": self.every, "reporters": [], "run_static": True, "run_init": True}
        self.auditors.append(self.autopatch(model, optimizer=optimizer, **settings))

    def finish(self) -> None:
        for auditor in self.auditors:
            auditor.finish(report=False)
            auditor.unpatch()


class TorchAuditEachStep(TorchAudit):
    """As above, with audits at each step."""

    every = 1


class Torchmortem(Bare):
    """``torchmortem.Autopsy`` with its default sampling, and its report at the end."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        from torchmortem import Autopsy

        self.autopsy_of = Autopsy
        self.autopsies: list[Any] = []

    def watch(self, model: torch.nn.Module, optimizer: Any = None, name: str = "") -> None:
        self.autopsies.append(self.autopsy_of(model, optimizer=optimizer).__enter__())

    def log_batch(self, split: str, **tensors: Any) -> None:
        if split == "train":
            for autopsy in self.autopsies:
                autopsy.step(loss=tensors["loss"].item())

    def finish(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for i, autopsy in enumerate(self.autopsies):
            autopsy.__exit__(None, None, None)
            autopsy.report(str(self.folder / f"autopsy{i}.html"))


CONTENDERS: dict[str, Callable[[Path, Mapping[str, Any]], Any]] = {
    "recorder": recorder,
    "recorder_curves": recorder_curves,
    "anomaly_mode": AnomalyMode,
    "tensorboard_every_10": TensorBoard,
    "tensorboard_each_step": TensorBoardEachStep,
    "torch_audit_every_10": TorchAudit,
    "torch_audit_each_step": TorchAuditEachStep,
    "torchmortem": Torchmortem,
}
