"""What a training worker does: run a program under the recorder, then ask its ``predict`` for the hidden test.

Requests and answers are JSON mappings: ``{"do": "data", …}`` writes a data set's training files,
``{"do": "train", …}`` trains one case into a folder.
"""

import hashlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from bugbench.atomic import publish
from bugbench.plugins import load_module
from bugbench.recorder import Recorder, program_traceback
from bugbench.rerun import load_program, seed_everything

Progress = Callable[[dict[str, Any]], None]
PROGRESS_SECONDS = 0.1  # between two reports of progress


def handle(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Do one job; see the module."""
    if request["do"] == "data":
        return write_data(Path(request["dataset"]), Path(request["root"]))
    return train(request, progress)


def write_data(dataset: Path, root: Path) -> dict[str, Any]:
    """Write a data set's training files below ``root`` into a folder named by their content; return its name."""
    draft = root / f".{dataset.stem}-{uuid.uuid4().hex}"
    draft.mkdir(parents=True)
    load_module(dataset).write_training_data(draft)
    digest = hashlib.sha256()
    for path in sorted(p for p in draft.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(draft)).encode() + b"\0" + path.read_bytes())
    return {"folder": publish(draft, root / f"{dataset.stem}-{digest.hexdigest()[:12]}").name}


def train(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Train one case.

    The request holds ``folder`` (gets program.py, config.yaml and all files of the trace), ``source``, ``config``,
    ``data_dir``, ``dataset`` (path of the data set's module), ``task`` and ``classes``.

    Returns:
        ``crashed``, ``error`` (last line of the traceback), ``oracle`` (the hidden-test metric as the data set
        computes it, None if there is none), ``seconds`` of the program itself.
    """
    folder = Path(request["folder"])
    folder.mkdir(parents=True)
    program = folder / "program.py"
    program.write_text(request["source"])
    (folder / "config.yaml").write_text(yaml.safe_dump(request["config"], sort_keys=True))
    dataset = load_module(Path(request["dataset"]))
    config = SimpleNamespace(**{**request["config"], "data_dir": Path(request["data_dir"])})
    recorder = Recorder(
        folder, task=request["task"], classes=request["classes"], on_progress=_throttled(config, progress)
    )
    hidden_inputs, hidden_targets = dataset.hidden_test()
    seed_everything(request["config"]["seed"])  # last, as in a rerun
    error = predictions = outputs = None
    started = time.perf_counter()
    try:
        predict = load_program(program).main(config, recorder)
        seconds = time.perf_counter() - started
        predictions = _predict_sample(predict, dataset)
        outputs = _array(predict(hidden_inputs))
    except Exception as exception:  # whatever a broken program raises is its result
        seconds = time.perf_counter() - started
        error = program_traceback(exception, program)
    recorder.finish(predictions, error)
    answer = {"crashed": error is not None, "error": None, "oracle": None, "seconds": seconds}
    if error is not None:
        return answer | {"error": error.strip().splitlines()[-1]}
    try:
        return answer | {"oracle": float(dataset.oracle_metric(outputs, hidden_targets))}
    except Exception as exception:  # outputs of a shape that no metric takes are as bad as can be, not a crash
        return answer | {"error": f"the hidden test cannot be scored: {type(exception).__name__}: {exception}"}


def _predict_sample(predict: Callable[[Any], Any], dataset: ModuleType) -> dict[str, torch.Tensor]:
    inputs, targets = dataset.training_sample()
    return {"outputs": torch.as_tensor(predict(inputs)), "targets": torch.as_tensor(np.asarray(targets))}


def _array(outputs: Any) -> np.ndarray:
    tensor = torch.as_tensor(outputs).detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _throttled(config: SimpleNamespace, progress: Progress) -> Callable[[int, int], None]:
    epochs = getattr(config, "epochs", None)
    last = 0.0

    def report(step: int, epoch: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PROGRESS_SECONDS:
            last = now
            progress({"step": step, "epoch": epoch, "epochs": epochs})

    return report
