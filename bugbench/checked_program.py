"""A program rerun for TheDeepChecker: its state before training, an epoch of its data, and its state a while later."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from bugbench.detector import NotApplicable, Trace
from bugbench.rerun import Probe, StopRun, load_program
from torch import nn

# deep_checker/interfaces.py: the functions that are found without being named
ACTIVATIONS = (nn.ReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.SELU, nn.ReLU6, nn.LeakyReLU)
CLOSE = 0.01  # deep_checker/utils.py: what counts as almost equal
MOST_BATCHES = 2000  # a program that has evaluated nothing by then is stopped


class Refused(Exception):
    """The program's model, loss or optimizer does not take a batch that it has not made itself."""


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn what the program's own code raises into :class:`Refused`."""
    try:
        yield
    except Exception as error:
        raise Refused(f"{type(error).__name__}: {error}") from error


class CheckedProgram(Probe):
    """What a rerun leaves behind; it ends once an evaluation at or after ``batches`` training batches is over.

    That is with the training batch that follows, or with as many held-out samples as are wanted.

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
        several: whether there is more than one model.
    """

    def __init__(self, batches: int, samples: int, held_out: int) -> None:
        self.batches, self.most, self.most_held_out = batches, samples, held_out
        self.several, self.name, self.watched_at = False, "", 0
        self.start: tuple[nn.Module, Any] | None = None
        self.model: nn.Module | None = None
        self.inputs: list[torch.Tensor] = []
        self.features: list[torch.Tensor] = []
        self.targets: list[torch.Tensor] = []
        self.evaluated: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.first_loss = float("nan")
        self.count = self.evaluated_at = 0
        self.loss: Callable[..., torch.Tensor] | None = None
        self._epoch_over = self._evaluation_over = False

    def watch(self, model: nn.Module, optimizer: Any = None, name: str = "") -> None:
        if self.start is None:
            self.start = copy.deepcopy((model, optimizer))
        elif model is not self.model:
            # the recorder follows a model of the same name instead, as one that a checkpoint was loaded into: trained
            # before, and of the same shape; another is a second one
            resumed = self.model is not None and _shapes(model) == _shapes(self.model) and self.count > self.watched_at
            self.several |= name != self.name or not resumed
        self.model, self.name, self.watched_at = model, name, self.count

    def log_batch(self, split: str, **tensors: Any) -> None:
        inputs, targets = tensors["inputs"].detach(), tensors["targets"].detach()
        if split == "train":
            if (self.evaluated and self.evaluated_at >= self.batches) or self.count >= MOST_BATCHES:
                raise StopRun
            self._evaluation_over = True
            self.first_loss = float(torch.as_tensor(tensors["loss"]).detach()) if self.count == 0 else self.first_loss
            self.count += 1
            if not self._epoch_over and sum(map(len, self.inputs)) < self.most:
                self.inputs.append(inputs.clone())
                samples = tensors.get("samples")
                self.features.append((inputs if samples is None else samples.detach()).clone())
                self.targets.append(targets.clone())
        else:
            if self._evaluation_over:
                self.evaluated, self._evaluation_over = [], False
            self._epoch_over, self.evaluated_at = self.count > 0, self.count
            if sum(len(x) for x, _ in self.evaluated) < self.most_held_out:
                self.evaluated.append((inputs.clone(), targets.clone()))
            elif self.count >= self.batches:
                raise StopRun

    def sample(self, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return as many samples of each class, drawn with replacement as in the original, or the first ones."""
        shape = self.inputs[0].shape[1:]
        pairs = [(x, y) for x, y in zip(self.inputs, self.targets, strict=True) if x.shape[1:] == shape]
        inputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        labels = class_labels(targets)
        if labels is None:
            return inputs[:size], targets[:size]
        generator = torch.Generator().manual_seed(seed)
        classes = labels.unique().tolist()
        rows = []
        for label in classes:
            of_class = (labels == label).nonzero().flatten()
            rows.append(of_class[torch.randint(len(of_class), (max(size // len(classes), 1),), generator=generator)])
        chosen = torch.cat(rows)
        return inputs[chosen], targets[chosen]

    def gradients(
        self, model: nn.Module, optimizer: Any, inputs: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """Do all of a training step but the step itself; return outputs and loss. Raises :class:`Refused`."""
        assert self.loss is not None
        with refusals():
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = self.loss(outputs, targets)
            loss.backward()
            return outputs.detach(), float(loss.detach())


def _shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in model.parameters()]


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
    if program.several or program.start[1] is None or program.loss is None:
        raise NotApplicable(f"there is not one model with an optimizer and a loss_function(outputs, targets){problem}")
    try:
        outputs = copy.deepcopy(program.start[0])(program.inputs[0])
        program.loss(outputs, program.targets[0]).backward()
    except Exception as error:
        raise NotApplicable(f"the model cannot be trained on logged batches: {error}") from error
    if not isinstance(outputs, torch.Tensor):
        raise NotApplicable("the model does not return a tensor")
    return program


def distributions(targets: torch.Tensor) -> bool:
    """Tell whether each target is a distribution over classes: one-hot labels or soft ones."""
    if not targets.is_floating_point() or targets.ndim != 2 or targets.shape[1] < 2:
        return False
    return bool((targets >= 0).all() and ((targets.sum(dim=1) - 1).abs() <= CLOSE).all())


def class_labels(targets: torch.Tensor) -> torch.Tensor | None:
    """Return the class of each sample, of a distribution the likeliest; None where it has not one of its own."""
    if distributions(targets):
        return targets.argmax(dim=1)
    numbers = targets.is_floating_point() and bool(((targets != 0) & (targets != 1)).any())
    return None if numbers or targets.numel() != len(targets) else targets.reshape(-1)


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
    if distributions(targets):
        return "classification", float((outputs.argmax(dim=1) != targets.argmax(dim=1)).float().mean())
    if bool(((targets == 0) | (targets == 1)).all()):
        return "classification", float(((outputs > 0) != targets.bool()).float().mean())
    span = float(targets.max() - targets.min())
    return "regression", float((outputs - targets).abs().mean()) / max(span, 1e-12)
