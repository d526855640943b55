"""A program rerun for TheDeepChecker: its state before training, an epoch of its data, and its state a while later."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from bugbench.detector import NotApplicable, Trace
from bugbench.rerun import Probe, StopRun, load_program
from torch import nn

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)
CLOSE = 0.01  # deep_checker/utils.py: what counts as almost equal
MOST_BATCHES = 2000  # a program that has evaluated nothing by then is stopped


class CheckedProgram(Probe):
    """What a rerun leaves behind; it ends with the first evaluation at or after ``batches`` training batches.

    Args:
        batches: after so many the two modes are compared, or when the program ends before.
        samples: how many inputs and targets of training are kept, of the first epoch.
        held_out: how many of an evaluation.

    Attributes:
        start: model and optimizer as they were when first watched, copied together.
        model: the model as training has left it.
        inputs, features, targets: of the first epoch: what the model got, the same before augmentation, the targets.
        first_loss: that of the first training batch, which no step has come before.
        evaluated: inputs and targets of the last evaluation.
        loss: the program's ``loss_function``.
    """

    def __init__(self, batches: int, samples: int, held_out: int) -> None:
        self.batches, self.most, self.most_held_out = batches, samples, held_out
        self.names: set[str] = set()
        self.start: tuple[nn.Module, Any] | None = None
        self.model: nn.Module | None = None
        self.inputs: list[torch.Tensor] = []
        self.features: list[torch.Tensor] = []
        self.targets: list[torch.Tensor] = []
        self.evaluated: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.first_loss = float("nan")
        self.count = 0
        self.loss: Callable[..., torch.Tensor] | None = None
        self._epoch_over = self._evaluation_over = False

    def watch(self, model: nn.Module, optimizer: Any = None, name: str = "") -> None:
        self.names.add(name)
        self.model = model
        if self.start is None:
            self.start = copy.deepcopy((model, optimizer))

    def log_batch(self, split: str, **tensors: Any) -> None:
        inputs, targets = tensors["inputs"].detach(), tensors["targets"].detach()
        if split == "train":
            self._evaluation_over = True
            self.first_loss = float(torch.as_tensor(tensors["loss"]).detach()) if self.count == 0 else self.first_loss
            self.count += 1
            if not self._epoch_over and sum(map(len, self.inputs)) < self.most:
                self.inputs.append(inputs.clone())
                self.features.append(tensors.get("samples", inputs).detach().clone())
                self.targets.append(targets.clone())
        else:
            if self._evaluation_over:
                self.evaluated, self._evaluation_over = [], False
            self._epoch_over = self.count > 0
            if sum(len(x) for x, _ in self.evaluated) < self.most_held_out:
                self.evaluated.append((inputs.clone(), targets.clone()))
        if self.count >= (self.batches if self.evaluated else MOST_BATCHES):
            raise StopRun


def rerun_checked(trace: Trace, batches: int, samples: int, held_out: int) -> CheckedProgram:
    """Rerun the program of ``trace`` and return what it left.

    Raises:
        NotApplicable: it raised before it logged a training batch, or has not one model with an optimizer, a function
            ``loss_function(outputs, targets)`` and inputs that the model takes by themselves.
    """
    program, problem = CheckedProgram(batches, samples, held_out), ""
    try:
        program.loss = getattr(load_program(trace.folder / "program.py"), "loss_function", None)
        trace.rerun(program)
    except Exception as error:  # what it logged before is there to be judged
        problem = f" (it raised {type(error).__name__}: {error})"
    if not program.inputs or program.start is None:
        raise NotApplicable(f"the program logs no training batch{problem}")
    if len(program.names) != 1 or program.start[1] is None or program.loss is None:
        raise NotApplicable(f"there is not one model with an optimizer and a loss_function(outputs, targets){problem}")
    try:
        outputs = copy.deepcopy(program.start[0])(program.inputs[0])
        program.loss(outputs, program.targets[0]).backward()
    except Exception as error:
        raise NotApplicable(f"the model cannot be trained on logged batches: {error}") from error
    if not isinstance(outputs, torch.Tensor):
        raise NotApplicable("the model does not return a tensor")
    return program


def error_rate(outputs: torch.Tensor, targets: torch.Tensor) -> tuple[str, float]:
    """Return the kind of task and the share of wrong answers, or a regression's mean error in ranges of targets."""
    outputs = outputs.detach()
    if not targets.is_floating_point() and outputs.numel() == targets.numel():  # one score for two classes
        targets = targets.float()
    if not targets.is_floating_point():
        last = outputs.shape[:-1] == targets.shape
        return "classification", float((outputs.argmax(dim=-1 if last else 1) != targets).float().mean())
    if outputs.numel() != targets.numel():
        return "regression", float("nan")
    outputs = outputs.reshape(targets.shape)
    if bool(((targets == 0) | (targets == 1)).all()):
        if targets.ndim == 2 and targets.shape[1] > 1 and bool((targets.sum(dim=1) == 1).all()):
            return "classification", float((outputs.argmax(dim=1) != targets.argmax(dim=1)).float().mean())
        return "classification", float(((outputs > 0) != targets.bool()).float().mean())
    span = float(targets.max() - targets.min())
    return "regression", float((outputs - targets).abs().mean()) / max(span, 1e-12)
