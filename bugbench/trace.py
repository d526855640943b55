"""The trace of a run on disk: written by the recorder, cut to an access, read by detectors.

=================== ================================================================ =========
file                content                                                          access
=================== ================================================================ =========
meta.json           task, classes, sizes, layers, schedule, versions                 all
error.txt           the traceback, if the program raised                             all
metrics.parquet     what the program reported: step, epoch, split, name, value       all
steps.parquet       a row per batch; only split, step, epoch, loss, lr for "curves"  curves, tensors
layers.parquet      a row per layer, kind and closely recorded step                  tensors
samples.parquet     fingerprint and label of every sample seen                       data
batches/            whole batches: inputs, targets, outputs, loss, output_gradients  data
predictions         outputs and targets for a fixed sample of raw training inputs    data
program.py          the program                                                      source, rerun
config.yaml         its configuration                                                source, rerun
data/               its training data                                                rerun
=================== ================================================================ =========

A trace may have been recorded for less than all of these (``Recorder(…, access=("curves",))``); then files are absent.

``step`` is the number of training batches logged before: the index of a training batch, and for an evaluation the
number of training batches that went before it.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors import safe_open

ACCESS = ("curves", "tensors", "data", "source", "rerun")
RECORDED = ACCESS[:3]  # by the recorder; whoever stores the program beside a trace grants the rest
CURVE_COLUMNS = ["split", "step", "epoch", "loss", "lr"]
STATISTICS = ("mean", "std", "min", "max", "zero_share", "nonfinite")


def export(trace: Path, destination: Path, access: Iterable[str], until: int | None = None) -> None:
    """Copy what ``access`` grants from ``trace`` into ``destination``, as files of their own (no links).

    Args:
        trace: a complete trace folder.
        destination: made by this call.
        access: any of :data:`ACCESS`; "curves" is always granted.
        until: keep only what was there after this many training batches; None for the whole run.

    Raises:
        MissingAccess: the trace was recorded without something that ``access`` grants.
    """
    granted = {"curves", *access}
    for name, file in (("tensors", "layers.parquet"), ("data", "samples.parquet")):
        if name in granted and not (trace / file).exists():
            raise MissingAccess(f"{trace} was recorded without access {name!r}")
    destination.mkdir(parents=True)
    shutil.copy(trace / "meta.json", destination / "meta.json")
    tables = {"steps": None if "tensors" in granted else CURVE_COLUMNS, "metrics": None}
    if "tensors" in granted:
        tables["layers"] = None
    if "data" in granted:
        tables["samples"] = None
        (destination / "batches").mkdir()
        for path in sorted((trace / "batches").iterdir()):
            if until is None or _was_seen(*_split_and_step(path), until):
                shutil.copyfile(path, destination / "batches" / path.name)
    for name, columns in tables.items():
        with pq.ParquetFile(trace / f"{name}.parquet") as file:
            table = file.read(columns, use_threads=False)
        if until is not None:
            step = table["step"].to_numpy()
            train = step < until
            keep = train if name == "layers" else np.where(table["split"].to_numpy() == "train", train, step <= until)
            if name == "metrics":
                keep = step <= until
            table = table.filter(pa.array(keep.astype(bool)))
        pq.write_table(table, destination / f"{name}.parquet")
    if until is None:
        whole = ["error.txt"] + (["predictions.safetensors"] if "data" in granted else [])
        for file in whole:
            if (trace / file).exists():
                shutil.copyfile(trace / file, destination / file)
    if granted & {"source", "rerun"}:
        shutil.copyfile(trace / "program.py", destination / "program.py")
        shutil.copyfile(trace / "config.yaml", destination / "config.yaml")


def _split_and_step(path: Path) -> tuple[str, int]:
    split, _, step = path.stem.rpartition("-")
    return split, int(step)


def _was_seen(split: str, step: int, until: int) -> bool:
    return step < until if split == "train" else step <= until


@dataclass(frozen=True)
class Batch:
    """One recorded batch; every array has the batch first.

    ``output_gradients`` is d loss / d model output where the recorder saw it. ``samples`` are the examples before
    random augmentation, where the program logged them.
    """

    split: str
    step: int
    epoch: int
    mode: str
    inputs: np.ndarray
    targets: np.ndarray
    outputs: np.ndarray
    loss: float
    output_gradients: np.ndarray | None = None
    samples: np.ndarray | None = None


class MissingAccess(Exception):
    """A detector asked for a file of an access that it did not declare."""


class Trace:
    """What a detector sees of a run; every part is read when first asked for.

    Raises:
        MissingAccess: on asking for a part whose access was not declared; the message says which one to declare.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads(self._path("meta.json", "curves").read_text())

    @cached_property
    def steps(self) -> pd.DataFrame:
        """A row per logged batch, in the order logged (see the module's table)."""
        return _read_table(self._path("steps.parquet", "curves"))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """What the program reported: columns split, epoch, step, name, value."""
        return _read_table(self._path("metrics.parquet", "curves"))

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Columns step, layer, kind (activation, gradient, weight, update) and the six statistics."""
        return _read_table(self._path("layers.parquet", "tensors"))

    @cached_property
    def samples(self) -> pd.DataFrame:
        """Columns split, epoch, step, fingerprint (int64), label (NaN where a sample has no single one)."""
        return _read_table(self._path("samples.parquet", "data"))

    @cached_property
    def source(self) -> str:
        return self._path("program.py", "source").read_text()

    @cached_property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load(self._path("config.yaml", "source").read_text())

    @cached_property
    def predictions(self) -> dict[str, np.ndarray] | None:
        """Outputs and targets for a fixed sample of raw training inputs; None if the run did not get that far."""
        self._path("batches", "data")
        path = self.folder / "predictions.safetensors"
        return _read_arrays(path)[0] if path.exists() else None

    @property
    def error(self) -> str | None:
        """The traceback, if the program raised."""
        path = self.folder / "error.txt"
        return path.read_text() if path.exists() else None

    def train_steps(self) -> pd.DataFrame:
        """Return the rows of ``steps`` of the training split."""
        return self.steps[self.steps["split"] == "train"].reset_index(drop=True)

    def metric(self, split: str, name: str) -> pd.Series:
        """Return a reported metric over epochs, indexed by epoch; empty if it was never reported."""
        rows = self.metrics[(self.metrics["split"] == split) & (self.metrics["name"] == name)]
        return rows.set_index("epoch")["value"]

    def batches(self, split: str = "train") -> list[Batch]:
        """Return the recorded batches of a split in the order of their steps."""
        folder = self._path("batches", "data")
        paths = sorted(p for p in folder.iterdir() if _split_and_step(p)[0] == split)
        return [batch for path in paths for batch in _read_batches(path)]

    def rerun(self, probe: Any, **settings: Any) -> None:
        """Run the program again in this process; needs "rerun" access. See :func:`bugbench.rerun.rerun`."""
        self._path("data", "rerun")
        from bugbench.rerun import rerun  # imports torch, which most detectors do not need

        rerun(self.folder, probe, settings)

    def _path(self, name: str, access: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise MissingAccess(f"{name} is not in this trace: declare access {{{access!r}}}")
        return path


def _read_table(path: Path) -> pd.DataFrame:
    """Return a table, read by one thread: in a process that was forked, starting others takes longer than reading."""
    with pq.ParquetFile(path) as file:
        return file.read(use_threads=False).to_pandas(use_threads=False)


def _read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _read_batches(path: Path) -> list[Batch]:
    arrays, metadata = _read_arrays(path)
    split, step = _split_and_step(path)
    about = json.loads(metadata["batch"])
    batches: dict[str, dict[str, Any]] = {}
    for key, value in arrays.items():
        number, name = key.split("/", 1)
        batches.setdefault(number, {})[name] = float(value) if name == "loss" else value
    common: dict[str, Any] = {"split": split, "step": step, "epoch": about["epoch"], "mode": about["mode"]}
    return [Batch(**common, **batches[number]) for number in sorted(batches)]
