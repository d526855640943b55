"""Lightning's overfit_batches: can the model learn one batch by heart?"""

import contextlib
import copy
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.rerun import StopRun
from bugbench.third_party import Following, Message, detached, follow, loss_of, only_model, tool, translate

FAULTS = {"overfit_batches": ["model", "loss", "optimizer"]}


@dataclass
class LightningOverfitBatches(Detector):
    """Lightning 2.6.6, ``Trainer(overfit_batches=1)``: training on the first batch alone, in a ``LightningModule``.

    The program runs up to its first training batch; its model, in training mode, loss and optimizer, taken back to
    where they began, are then trained by Lightning. Lightning's documentation ("Debug your model": a model that cannot
    over-fit a few samples has a bug) leaves the verdict to the reader. It is that of torchtest2 0.1.0 for the same
    check: within 200 ``steps`` the loss falls to a tenth of what it was (``ratio``); one that begins at zero or below
    always passes. The symptom names no fault, so the suspects are families.

    An adapter is not shown the program's scheduler. In its place, a step has the learning rate that the trace has of
    the batch of its number (of the last batch, if there are fewer), and the groups of parameters keep their ratio. What
    else a scheduler changes, such as momentum, stays as it began.
    """

    access = {"rerun"}
    origin = "tool"
    steps: int = 200
    ratio: float = 0.1

    def diagnose(self, trace: Trace) -> Diagnosis:
        lightning = tool("lightning.pytorch")
        run = _Beginning(trace)
        follow(trace, run)
        model, optimizer = only_model(run)
        if run.arguments is None or not isinstance(run.outputs, torch.Tensor):
            raise NotApplicable("the model is not called before the first batch is logged, or returns no tensor")
        loss = loss_of(trace, run.outputs, run.targets, run.logged)
        if loss is None:
            raise NotApplicable("the program has no loss_function(outputs, targets), or logs another loss than its")
        model.load_state_dict(run.state)
        optimizer.load_state_dict(run.optimizer_state)
        model.train()
        losses: list[float] = []
        rates = _rates(trace, optimizer, self.steps)

        class Module(lightning.LightningModule):  # type: ignore[name-defined,misc]
            def training_step(self, batch: Any, number: int) -> Any:
                (arguments, keywords), targets = batch
                value = loss(self.model(*arguments, **keywords), targets)
                losses.append(float(value))
                return value

            def on_train_batch_start(self, batch: Any, number: int) -> None:
                for group, rate in zip(optimizer.param_groups, rates[self.current_epoch], strict=True):
                    group["lr"] = rate

            def configure_optimizers(self) -> Any:
                return optimizer

        module = Module()
        module.model = model
        batch = [((run.arguments, run.keywords), run.targets)]
        loader: Any = torch.utils.data.DataLoader(batch, batch_size=None)  # type: ignore[arg-type]
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        settings: Any = {**dict.fromkeys(off, False), "max_epochs": self.steps, "accelerator": "cpu", "devices": 1}
        silence = contextlib.redirect_stdout(io.StringIO())
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), silence:
            warnings.simplefilter("ignore")
            lightning.Trainer(overfit_batches=1, default_root_dir=folder, **settings).fit(module, loader)
        reached = min((v for v in losses if v == v), default=float("nan"))
        if reached <= self.ratio * losses[0]:
            return Diagnosis()
        said = f"the loss of one batch went from {losses[0]:.4g} to {reached:.4g} at best in {len(losses)} steps"
        return translate([Message("overfit_batches", said)], FAULTS)


def _rates(trace: Trace, optimizer: Any, steps: int) -> list[list[float]]:
    """Return the learning rate of each group of parameters for each step; if none is recorded, that of the start."""
    recorded = trace.train_steps()["lr"].tolist()[:steps]
    first = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    if not (recorded and first[0] > 0 and all(map(math.isfinite, recorded))):
        return [[group["lr"] for group in optimizer.param_groups]] * steps
    recorded += recorded[-1:] * (steps - len(recorded))
    return [[rate / first[0] * own for own in first] for rate in recorded]


class _Beginning(Following):
    """The model and the optimizer as they began, and the first call in training with what came of it."""

    arguments: Any = None
    outputs: Any = None

    def on_watch(self, model: Any, optimizer: Any) -> None:
        self.state = {name: value.clone() for name, value in model.state_dict().items()}
        self.optimizer_state = copy.deepcopy(optimizer.state_dict()) if optimizer is not None else {}
        self.hook = model.register_forward_hook(self._after_forward, with_kwargs=True)

    def _after_forward(self, model: Any, arguments: Any, keywords: Any, outputs: Any) -> None:
        if torch.is_grad_enabled() and self.arguments is None:
            self.arguments, self.keywords, self.outputs = detached((arguments, keywords, outputs))

    def on_batch(self, split: str, tensors: Mapping[str, Any]) -> None:
        if split == "train":
            self.targets, self.logged = detached((tensors["targets"], tensors.get("loss")))
            if self.watched:
                self.hook.remove()
            raise StopRun
