"""The recorder a training program talks to: ``run.watch``, ``run.log_batch``, ``run.log_metrics``.

It has the manners of ``wandb.watch`` and ``wandb.log`` and works in anybody's training script::

    run = Recorder("my_trace", task="classification", classes=10)
    run.watch(model, optimizer)
    ...
    run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
    run.log_metrics("val", loss=val_loss, accuracy=val_accuracy)
    run.finish()

Nothing is random and nothing is timed: two runs with the same seed leave bit-identical traces.
"""

import json
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from bugbench.names import unknown
from bugbench.trace import ACCESS, RECORDED
from bugbench.trace_writer import TraceWriter
from bugbench.vision_operators import declare_vision_operators
from bugbench.watching import Watched
from torch import nn

declare_vision_operators()  # a program that imports the recorder may import torchvision after it

MAX_HISTOGRAM = 1024  # classes beyond which the label histogram of a step would outweigh its batch


@dataclass(frozen=True)
class Schedule:
    """When to look closely: each of the first ``dense`` steps, then every ``every``-th.

    Batches are kept whole at steps 0 to 3 and then at 5, 10, 20, 50, 100, 200, 500, …; evaluations 0, 1, 2, 4, 8, …
    and the last one keep theirs.
    """

    dense: int = 10
    every: int = 10

    def statistics(self, step: int) -> bool:
        return step < self.dense or step % self.every == 0

    def batch(self, step: int) -> bool:
        return step < 4 or is_power_step(step)

    def evaluation(self, index: int) -> bool:
        return index & (index - 1) == 0


def is_power_step(step: int) -> bool:
    """Tell whether ``step`` is one of 5, 10, 20, 50, 100, 200, 500, …"""
    while step >= 10 and step % 10 == 0:
        step //= 10
    return step in (1, 2, 5)


class Recorder:
    """Records one run into a trace folder.

    Args:
        folder: where the trace goes; made if missing.
        task: "classification", "regression", "language_model" or any other word, for detectors.
        classes: number of classes, if there are any.
        schedule: which steps are recorded closely.
        on_progress: called with the number of training batches and of evaluations so far.
        access: what of a trace to record, of "curves", "tensors" and "data" (see :mod:`bugbench.trace`). Curves come
            with each; ``("curves",)`` alone hangs no hook anywhere and costs next to nothing.

    Raises:
        ValueError: an access that is none, or that is not for the recorder to grant.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        task: str | None = None,
        classes: int | None = None,
        schedule: Schedule | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        access: Iterable[str] = RECORDED,
    ) -> None:
        self.schedule = schedule or Schedule()
        self.access = _checked(access)
        self.step = 0  # training batches logged so far
        self.epoch = 0  # evaluations reported so far; several splits after the same step are one evaluation
        self._evaluated_at: int | None = None
        self.writer = TraceWriter(Path(folder), self.access)
        self._meta: dict[str, Any] = {"task": task, "classes": classes}
        self._on_progress = on_progress
        self._events: list[str] = []
        self._modes: set[str] = set()
        self._watched: list[Watched] = []
        self.closely = "tensors" in self.access and self.schedule.statistics(0)  # whether this step is looked at

    # -- what a program calls ------------------------------------------------------------------------------------

    def watch(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, name: str = "") -> None:
        """Follow a model and its optimizer; call once for each pair, with a name if there are several.

        Called again with the same name, as after a checkpoint is loaded into new objects, it follows those instead.
        """
        prefix = f"{name}." if name else ""
        for earlier in [watched for watched in self._watched if watched.prefix == prefix]:
            earlier.remove()
            self._watched.remove(earlier)
        self._watched.append(Watched(self, model, optimizer, prefix))

    def log_batch(
        self,
        split: str,
        *,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        outputs: torch.Tensor,
        loss: torch.Tensor | float,
        samples: torch.Tensor | None = None,
    ) -> None:
        """Record one batch of ``split`` ("train" or any name of an evaluation split).

        Args:
            split: the part of the data the batch is from.
            inputs: what the model was given, batch first.
            targets: what the loss compared with (class indices, soft labels or continuous).
            outputs: what the model returned.
            loss: the batch's loss.
            samples: the examples before random augmentation, if there is any: their fingerprints tell which
                samples were seen. Left out, the inputs' own are taken.
        """
        training, epoch = split == "train", self._epoch_of(split)
        row = self.writer.add_step(split, self.step, epoch, _value(loss), self._learning_rate())
        if len(self.access) > 1:
            tensors = {"inputs": inputs, "targets": targets, "outputs": outputs, "loss": loss}
            if samples is not None:
                tensors["samples"] = samples
            self._log_closely(split, epoch, row, tensors)
        if training:
            self.step += 1
            if "tensors" in self.access and self.closely != self.schedule.statistics(self.step):
                self.closely = not self.closely
                for watched in self._watched:
                    watched.look(self.closely)
            if self._on_progress:
                self._on_progress(self.step, self.epoch)

    def _log_closely(self, split: str, epoch: int, row: int, tensors: dict[str, Any]) -> None:
        """Record of a batch what is more than curves."""
        training, mode = split == "train", self._mode()
        inputs, targets = tensors["inputs"], tensors["targets"]
        if "tensors" in self.access:
            closely = self.closely if training else self.schedule.evaluation(epoch)
            labels = self._label_histogram(targets) if closely else None
            self.writer.add_calls(mode, " ".join(self._events), len(inputs), labels)
            if closely:
                self.writer.inputs.put("input", ("",), (inputs,))
                self.writer.inputs.commit(row)
                if training:
                    for watched in self._watched:
                        watched.complete()
        if "data" in self.access:
            kept = self._keep_batch(split, epoch, mode, tensors) if self.keeps_batch or not training else {}
            batch = kept or tensors
            samples = batch.get("samples", batch["inputs"])
            self.writer.samples.add(split, epoch, self.step, samples, batch["targets"], copied=bool(kept))
        self._events.clear()
        self._modes.clear()
        for watched in self._watched:
            watched.reset()

    def _keep_batch(self, split: str, epoch: int, mode: str, tensors: dict[str, Any]) -> dict[str, Any]:
        """Keep a batch whole, if there is room for it; return the copies made."""
        kept = {**tensors, "loss": torch.as_tensor(tensors["loss"])}
        if split == "train":
            gradient = next((w.output_gradient for w in self._watched if w.output_gradient is not None), None)
            if gradient is not None:
                kept["output_gradients"] = gradient
        keep = split == "train" or self.schedule.evaluation(epoch)
        return self.writer.add_batch(split, self.step, epoch, mode, kept, keep)

    def log_metrics(self, split: str, **metrics: float) -> None:
        """Record what the program reports of itself. Reporting on any split but "train" ends an epoch."""
        for name, value in metrics.items():
            self.writer.add_metric(split, self._epoch_of(split), self.step, name, float(value))
        self._events.clear()
        if split != "train" and self._evaluated_at != self.step:
            self.epoch += 1
            self._evaluated_at = self.step
            if self._on_progress:
                self._on_progress(self.step, self.epoch)

    def finish(self, predictions: Mapping[str, torch.Tensor] | None = None, error: str | None = None) -> None:
        """Write the trace; ``predictions`` holds outputs and targets for a fixed sample of raw inputs."""
        for watched in self._watched:
            watched.remove()
        sizes = {w.prefix + "parameters": w.parameter_count for w in self._watched}
        layers = {w.prefix + name: kind for w in self._watched for name, kind in w.layer_kinds.items()}
        self._meta |= {
            "sizes": sizes,
            "layers": layers,
            "schedule": {"dense": self.schedule.dense, "every": self.schedule.every},
            "versions": {"torch": torch.__version__},
        }
        self.writer.write(self._meta, predictions, error)

    def _epoch_of(self, split: str) -> int:
        return self.epoch - 1 if split != "train" and self._evaluated_at == self.step else self.epoch

    # -- what the hooks report -----------------------------------------------------------------------------------

    def event(self, name: str) -> None:
        if not self._events or self._events[-1] != name:  # forty evaluation batches are one "forward"
            self._events.append(name)

    def seen_mode(self, mode: str) -> None:
        self._modes.add(mode)

    @property
    def keeps_batch(self) -> bool:
        return "data" in self.access and self.schedule.batch(self.step)

    def _mode(self) -> str:
        return self._modes.copy().pop() if len(self._modes) == 1 else ("mixed" if self._modes else "unknown")

    def _learning_rate(self) -> float:
        for watched in self._watched:
            if watched.optimizer is not None:
                return float(watched.optimizer.param_groups[0]["lr"])
        return math.nan

    def _label_histogram(self, targets: torch.Tensor) -> torch.Tensor | None:
        classes = self._meta["classes"]
        if not classes or classes > MAX_HISTOGRAM or targets.is_floating_point() or targets.numel() == 0:
            return None
        # the first and the last bin are for what is no class, such as -100, which cross entropy ignores
        labels = targets.detach().reshape(-1).long().clamp(-1, classes).add_(1)
        # bincount would wait for a GPU, to learn how many bins there are
        return labels.new_zeros(classes + 2).scatter_add_(0, labels, torch.ones_like(labels))


def _checked(access: Iterable[str]) -> frozenset[str]:
    access = (access,) if isinstance(access, str) else tuple(access)
    for name in access:
        if name in ACCESS and name not in RECORDED:
            raise ValueError(f"access {name!r} is not recorded but stored beside a trace; the recorder has {RECORDED}")
        if name not in RECORDED:
            raise ValueError(unknown("access", name, RECORDED))
    return frozenset({"curves", *access})


def _value(loss: torch.Tensor | float) -> torch.Tensor | float:
    """Return a loss to keep: a number where that waits for nothing, a copy of a tensor on another device."""
    if not isinstance(loss, torch.Tensor):
        return float(loss)
    return loss.item() if loss.is_cpu else loss.detach().clone()


def program_traceback(error: BaseException, path: str | Path) -> str:
    """Return the traceback of ``error`` from the program's first frame on, with its file called program.py."""
    frames = traceback.extract_tb(error.__traceback__)
    first = next((i for i, frame in enumerate(frames) if frame.filename == str(path)), 0)
    text = "".join(["Traceback (most recent call last):\n", *traceback.format_list(frames[first:])])
    text += "".join(traceback.format_exception_only(error))
    text = text.replace(str(path), "program.py")
    for folder in sorted({str(Path(p)) for p in sys.path if p}, key=len, reverse=True):
        text = text.replace(folder + "/", "")
    return text


def read_config(path: Path) -> SimpleNamespace:
    """Read a program's config: a flat YAML mapping; ``data_dir`` is relative to the file (default: data)."""
    values = yaml.safe_load(path.read_text()) or {}
    values["data_dir"] = path.parent / values.get("data_dir", "data")
    return SimpleNamespace(**values)


def run(main: Callable[..., Any]) -> None:
    """Run a program by itself: config.yaml and data/ beside it, the trace in trace/ beside it."""
    path = Path(sys.modules[main.__module__].__file__ or "").absolute()  # as in tracebacks: links are not followed
    recorder = Recorder(path.parent / "trace")
    try:
        main(read_config(path.with_name("config.yaml")), recorder)
    except Exception as error:
        recorder.finish(error=program_traceback(error, path))
        raise
    recorder.finish()
    print(json.dumps(recorder.writer.last_metrics(), indent=2))
