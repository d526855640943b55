"""What a training worker does: run a program under the recorder, then ask its ``predict`` for the hidden test.

Requests and answers are JSON mappings: ``{"do": "data", …}`` writes a data set's training files,
``{"do": "train", …}`` trains one case into a folder. What the program raises is its result; where the data set, the
recorder or the disk fails, the answer is ``failure`` (a line that names what failed) and ``traceback``.
"""

import contextlib
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from bugbench import atomic
from bugbench.attribution import CheckedRecorder, HarnessError, is_harness_failure
from bugbench.integrity import content_digest
from bugbench.plugins import load_module
from bugbench.recorder import program_traceback
from bugbench.rerun import load_program, seed_everything

Progress = Callable[[dict[str, Any]], None]
PROGRESS_SECONDS = 0.1  # between two reports of progress


def handle(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Do one job; see the module."""
    try:
        if request["do"] == "data":
            return write_data(Path(request["dataset"]), Path(request["root"]))
        return train(request, progress)
    except HarnessError as error:
        return {"failure": str(error), "traceback": traceback.format_exc()}


def write_data(dataset: Path, root: Path) -> dict[str, Any]:
    """Write a data set's training files below ``root`` into a folder named by their content.

    Returns:
        ``folder``: its name; ``mended``: whether there was one of that name whose content was another.

    Raises:
        HarnessError: the data set or the disk failed.
    """
    draft = atomic.draft_of(root / dataset.stem)
    try:
        with _blamed(f"the training data cannot be written to {root}", OSError):
            draft.mkdir(parents=True)
        with _blamed(f"data set {dataset}: write_training_data"):
            load_module(dataset).write_training_data(draft)
        with _blamed(f"the training data cannot be read in {root}", OSError):
            digest = content_digest(draft)
            final = root / f"{dataset.stem}-{digest}"
            mended = _is_damaged(final, digest)
            (atomic.replace if mended else atomic.publish)(draft, final)
        return {"folder": final.name, "mended": mended}
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_damaged(folder: Path, digest: str) -> bool:
    try:
        return folder.exists() and content_digest(folder) != digest
    except FileNotFoundError:  # another harness is mending it
        return True


@contextlib.contextmanager
def _blamed(what: str, errors: type[BaseException] = BaseException) -> Iterator[None]:
    """Turn an error of the harness's own side, even an exit, into a :class:`HarnessError` that says what failed."""
    try:
        yield
    except HarnessError:
        raise
    except errors as error:
        raise HarnessError(f"{what}: {type(error).__name__}: {error}") from error


def train(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Train one case.

    The request holds ``folder`` (gets program.py, config.yaml and all files of the trace), ``source``, ``config``,
    ``data_dir``, ``dataset`` (path of the data set's module), ``task`` and ``classes``.

    Returns:
        ``crashed``, ``error`` (last line of the traceback), ``oracle`` (the hidden-test metric as the data set
        computes it, None if there is none), ``seconds`` of the program itself.

    Raises:
        HarnessError: the data set, the recorder or the disk failed.
    """
    folder, dataset_path = Path(request["folder"]), Path(request["dataset"])
    program = folder / "program.py"
    with _blamed("the trace cannot be written"):
        folder.mkdir(parents=True)
        program.write_text(request["source"])
        (folder / "config.yaml").write_text(yaml.safe_dump(request["config"], sort_keys=True))
    with _blamed(f"data set {dataset_path}: import"):
        dataset = load_module(dataset_path)
    with _blamed(f"data set {dataset_path}: hidden_test"):
        hidden_inputs, hidden_targets = dataset.hidden_test()
    with _blamed(f"data set {dataset_path}: training_sample"):
        sample_inputs, sample_targets = dataset.training_sample()
        sample_targets = torch.as_tensor(np.asarray(sample_targets))
    config = SimpleNamespace(**{**request["config"], "data_dir": Path(request["data_dir"])})
    report = _throttled(config, progress)
    recorder = CheckedRecorder(folder, task=request["task"], classes=request["classes"], on_progress=report)
    seed_everything(request["config"]["seed"])  # last, as in a rerun
    error = predictions = outputs = None
    started = time.perf_counter()
    try:
        predict = load_program(program).main(config, recorder)
        seconds = time.perf_counter() - started
        predictions = {"outputs": torch.as_tensor(predict(sample_inputs)), "targets": sample_targets}
        outputs = _array(predict(hidden_inputs))
    except Exception as exception:  # whatever a broken program raises is its result
        seconds = time.perf_counter() - started
        if is_harness_failure(exception, program):
            raise HarnessError(f"recorder or disk: {type(exception).__name__}: {exception}") from exception
        error = program_traceback(exception, program)
    with _blamed("the trace cannot be written"):
        recorder.finish(predictions, error)
    answer = {"crashed": error is not None, "error": None, "oracle": None, "seconds": seconds}
    if error is not None:
        return answer | {"error": error.strip().splitlines()[-1]}
    try:
        return answer | {"oracle": float(dataset.oracle_metric(outputs, hidden_targets))}
    except Exception as exception:  # outputs of a shape that no metric takes are as bad as can be, not a crash
        return answer | {"error": f"the hidden test cannot be scored: {type(exception).__name__}: {exception}"}


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
