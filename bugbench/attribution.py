"""Whose failure is it: the program's, whose failure is a result, or the harness's, whose failure says nothing of it?

The recorder works inside the program: its hooks run in the model's forward pass, its methods are called by the training
loop. So the line is drawn at what the program hands over. :class:`CheckedRecorder` looks at that first, and an argument
that makes no sense is the program's error, in the program's own line. What fails behind this line, in the recorder, in
the data set or on a disk that is full, is the harness's.
"""

import errno
import traceback
from pathlib import Path
from typing import Any

import torch
from bugbench.plugins import PACKAGE, RECORDER_FILES
from bugbench.recorder import Recorder

RECORDER = frozenset(str(PACKAGE / name) for name in RECORDER_FILES)
PASSES_ON = frozenset({"zero_grad", "__call__"})  # functions of the recorder that call the program's own on the way
MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
MACHINE_WORDS = ("No space left on device", "Disk quota exceeded", "StorageFull", "Input/output error")


class HarnessError(Exception):
    """The harness failed, not the program: nothing is known of the case; the text says what failed, and where."""


class CheckedRecorder(Recorder):
    """The recorder as a program of the benchmark gets it: senseless arguments are the program's own error."""

    def watch(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None, name: str = "") -> None:
        """See :meth:`bugbench.recorder.Recorder.watch`; raises TypeError for what cannot be watched."""
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"watch: the model is a {type(model).__name__}, not a torch.nn.Module")
        if not isinstance(optimizer, torch.optim.Optimizer | None):
            raise TypeError(f"watch: the optimizer is a {type(optimizer).__name__}, not a torch.optim.Optimizer")
        super().watch(model, optimizer, name)

    def log_batch(self, split: str, **batch: Any) -> None:  # type: ignore[override]
        """See :meth:`bugbench.recorder.Recorder.log_batch`; raises TypeError or ValueError for what is no batch."""
        for name in ("inputs", "targets", "outputs", "samples"):
            if name not in batch or (name == "samples" and batch[name] is None):
                continue  # left out: the recorder's own signature says what is required
            if not isinstance(batch[name], torch.Tensor):
                raise TypeError(f"log_batch: {name} is a {type(batch[name]).__name__}, not a tensor")
            if name in ("inputs", "samples") and batch[name].dim() == 0:
                raise ValueError(f"log_batch: {name} has no batch dimension")
        loss = batch.get("loss", 0.0)
        if isinstance(loss, torch.Tensor) and (loss.numel() != 1 or loss.is_complex()):
            raise ValueError(f"log_batch: the loss is a {loss.dtype} of shape {tuple(loss.shape)}, not one real number")
        if not isinstance(loss, torch.Tensor):
            float(loss)  # raises
        super().log_batch(split, **batch)

    def log_metrics(self, split: str, **metrics: float) -> None:
        """See :meth:`bugbench.recorder.Recorder.log_metrics`; raises what ``float`` does for what is no number."""
        super().log_metrics(split, **{name: float(value) for name, value in metrics.items()})


def is_harness_failure(error: BaseException, program: Path) -> bool:
    """Tell whether an error that came out of ``program`` is the machine's or was raised within the recorder."""
    if is_machine_failure(error):
        return True
    ours = [
        frame.filename
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(program) or (frame.filename in RECORDER and frame.name not in PASSES_ON)
    ]
    return bool(ours) and ours[-1] in RECORDER


def is_machine_failure(error: BaseException) -> bool:
    """Tell whether a full or broken disk is behind an error; safetensors and others wrap it in errors of their own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in MACHINE:
            return True
        if any(word in str(seen) for word in MACHINE_WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
