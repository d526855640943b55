"""Run a traced program again under a probe: what detectors with "rerun" access do."""

import contextlib
import importlib.util
import io
import random
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from bugbench.vision_operators import declare_vision_operators


class StopRun(BaseException):
    """Raised by a probe that has seen enough. A BaseException, so that no program's ``except`` swallows it."""


class Probe:
    """Stands in for the recorder in a rerun; override what is of interest, raise :class:`StopRun` to end the run."""

    def watch(self, model: torch.nn.Module, optimizer: Any = None, name: str = "") -> None:
        """Receive the model and the optimizer before training starts; register hooks here."""

    def log_batch(self, split: str, **tensors: Any) -> None:
        """Receive inputs, targets, outputs and loss of a batch, after its backward pass and step."""

    def log_metrics(self, split: str, **metrics: float) -> None:
        """Receive what the program reports."""


def load_program(path: Path) -> ModuleType:
    """Import the program at ``path`` as a fresh module that is not registered anywhere."""
    declare_vision_operators()
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seed_everything(seed: int) -> None:
    """Seed every generator a program might use, and ask for deterministic kernels on one thread.

    Global switches that an earlier program of this process may have left are put back.
    """
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.autograd.set_detect_anomaly(False)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(1)


def rerun(folder: Path, probe: Any, settings: dict[str, Any]) -> None:
    """Run ``folder/program.py`` with its config, changed by ``settings``, under ``probe``.

    Starts from the config's own seed, so an unchanged rerun repeats the recorded run bit by bit. Errors of the
    program reach the caller; a :class:`StopRun` ends the run quietly. What the program prints is swallowed.
    """
    config = yaml.safe_load((folder / "config.yaml").read_text())
    unknown = sorted(set(settings) - set(config))
    if unknown:
        raise KeyError(f"the program has no setting {unknown[0]!r}; it has {', '.join(sorted(config))}")
    config |= settings
    seed_everything(config.get("seed", 0))
    with contextlib.suppress(StopRun), contextlib.redirect_stdout(io.StringIO()):
        load_program(folder / "program.py").main(SimpleNamespace(**{**config, "data_dir": folder / "data"}), probe)
