"""A program's model, optimizer and loss function as they are before training, to try them on a few samples alone."""

import copy
import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from bugbench.detector import NotApplicable, Trace
from bugbench.first_batch import FirstBatch, run_to_first_batch
from bugbench.rerun import Probe, StopRun
from torch import nn

Losses = list[float]  # one a step, up to the first that is not finite or low enough


class OneBatch(FirstBatch):
    """What :class:`FirstBatch` sees, copies of model and optimizer as ``watch`` got them, and the program's functions.

    The copies stay untouched: :meth:`fresh` hands out copies of them.

    Attributes:
        names: the globals of the program, which hold its functions.
        problem: why its own loop ended with an error on a few samples, if it did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.untrained: tuple[nn.Module, Any] | None = None
        self.names: dict[str, Any] = {}
        self.problem = ""

    def watch(self, model: nn.Module, optimizer: Any = None, name: str = "") -> None:
        self.untrained = copy.deepcopy((model, optimizer))  # in one go, so that the one holds the other's parameters
        self.names = sys._getframe(1).f_globals
        super().watch(model, optimizer, name)

    def fresh(self) -> tuple[nn.Module, Any]:
        """Return model and optimizer as they were before training, without dropout, weight decay and warm-up."""
        model, optimizer = copy.deepcopy(self.untrained)  # type: ignore[misc]
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
            elif isinstance(getattr(module, "dropout", None), float):  # recurrent layers and attention
                module.dropout = 0.0
        for group in optimizer.param_groups if optimizer is not None else ():
            group["lr"] = group.get("initial_lr", group["lr"])  # a scheduler that warms up has lowered it
            if "weight_decay" in group:
                group["weight_decay"] = 0.0
        return model.train(), optimizer

    @property
    def loss_function(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        return self.names["loss_function"]

    def few(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs and targets of a few samples, with as many different targets as there are."""
        targets = self.targets
        chosen = [0]
        for row in range(1, len(targets)):
            if all(not torch.equal(targets[row], targets[i]) for i in chosen):
                chosen.append(row)
        chosen += [row for row in range(len(targets)) if row not in chosen]
        return self.inputs[chosen[:rows]].detach().clone(), targets[chosen[:rows]].detach().clone()

    def fit(self, model: nn.Module, optimizer: Any, few: tuple[torch.Tensor, torch.Tensor], until: "Until") -> Losses:
        """Train ``model`` on a few samples in a plain loop, and return the losses."""
        torch.manual_seed(0)
        watch = _Watch(until)
        try:
            while True:
                optimizer.zero_grad()
                loss = self.loss_function(model(few[0]), few[1])
                watch.log_batch("train", loss=loss)
                if loss.requires_grad:
                    loss.backward()
                optimizer.step()
        except StopRun:
            return watch.losses

    def own_loop(self, few: tuple[torch.Tensor, torch.Tensor], until: "Until") -> Losses:
        """Train on a few samples by the program's own ``train_epoch``; return no losses if it cannot be called.

        It can if it asks for nothing but model, loader, optimizer and run. A function ``augment`` is passed by.
        """
        torch.manual_seed(0)
        loop, (model, optimizer), watch = self.names.get("train_epoch"), self.fresh(), _Watch(until)
        if not inspect.isfunction(loop) or optimizer is None:
            return []
        parts = {"model": model, "loader": [few] * (until.steps + 1), "optimizer": optimizer, "run": watch}
        if set(inspect.signature(loop).parameters) != set(parts):
            return []
        known = self.names.get("augment")
        if known is not None:
            self.names["augment"] = lambda *parts: parts if len(parts) > 1 else parts[0]
        try:
            loop(**parts)
        except StopRun:
            return watch.losses
        except Exception as error:  # the loop may need more than a few samples, or other processes
            self.problem = f"{type(error).__name__}: {error}"
            return []
        finally:
            if known is not None:
                self.names["augment"] = known
        return []

    def lowest_loss(self, few: tuple[torch.Tensor, torch.Tensor], steps: int) -> float:
        """Return what the loss function gives at best, for outputs that may be anything; at least 0.

        Where the targets have the outputs' shape, they themselves are tried first.
        """
        with torch.no_grad():
            outputs = self.fresh()[0](few[0])
        same = few[1].is_floating_point() and few[1].shape == outputs.shape
        outputs = (few[1] if same else outputs).clone().requires_grad_()
        losses, optimizer = [], torch.optim.Adam([outputs], lr=0.1)
        for _ in range(steps):
            loss = self.loss_function(outputs, few[1])
            if not loss.requires_grad or not torch.isfinite(loss):
                break
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return max(min(losses, default=0.0), 0.0)


@dataclass(frozen=True)
class Until:
    """When a training on a few samples ends: at a loss of ``goal``, or after so many steps."""

    goal: float
    steps: int

    def reached(self, losses: Losses) -> bool:
        return bool(losses) and losses[-1] <= self.goal


class _Watch(Probe):
    """Keeps the losses, and ends the training."""

    def __init__(self, until: Until) -> None:
        self.until = until
        self.losses: Losses = []

    def log_batch(self, split: str, **tensors: Any) -> None:
        self.losses.append(float(torch.as_tensor(tensors["loss"]).detach()))
        done = len(self.losses) > self.until.steps or self.until.reached(self.losses)
        if done or not math.isfinite(self.losses[-1]):
            raise StopRun


def one_batch(trace: Trace) -> OneBatch:
    """Rerun the program of ``trace`` up to its first training batch, for its parts.

    Raises:
        NotApplicable: as :func:`run_to_first_batch` does; or the program has no function
            ``loss_function(outputs, targets)``, or model and loss do not take some rows of the batch by themselves.
    """
    run = OneBatch()
    run_to_first_batch(trace, run)
    loss_function = run.names.get("loss_function")
    if not inspect.isfunction(loss_function) or len(inspect.signature(loss_function).parameters) != 2:
        raise NotApplicable("the program has no function loss_function(outputs, targets)")
    if not isinstance(run.targets, torch.Tensor) or run.targets.shape[:1] != run.outputs.shape[:1]:
        raise NotApplicable("the program does not log one target, or row of targets, for each output")
    model = run.fresh()[0]
    inputs, targets = run.few(2)
    try:
        loss = loss_function(model(inputs), targets)
    except Exception as error:
        raise NotApplicable(f"model and loss do not take two samples alone: {type(error).__name__}: {error}") from error
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        raise NotApplicable("the loss function does not return one number")
    return run
