"""Write a trace: collect rows during the run, on whatever device they are, and save them in one go at the end."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bugbench.sample_log import SampleLog
from bugbench.statistics_log import StatisticsLog
from bugbench.trace import CURVE_COLUMNS, STATISTICS
from safetensors.numpy import save_file

EVALUATION_BYTES = 2 * 2**20  # of an evaluation, the batches that fit are kept: a trace stays a few MiB
NORMS = {"gradient": "grad_norm", "weight": "weight_norm", "update": "update_norm"}


class TraceWriter:
    """The rows of one run, and the folder they go to.

    Attributes:
        inputs: statistics of inputs, each committed as of a number of :meth:`add_step`.
        layers: statistics of a model's layers by its prefix, committed as of a training step.
        samples: the samples seen.
    """

    def __init__(self, folder: Path, access: Iterable[str] = ("curves", "tensors", "data")) -> None:
        self.folder, self.access = folder, frozenset(access)
        self.inputs = StatisticsLog()
        self.layers: dict[str, StatisticsLog] = {}
        self.samples = SampleLog()
        self._steps: list[tuple[str, int, int, Any, float]] = []
        self._calls: list[tuple[str, str, int, Any]] = []
        self._metrics: list[tuple[str, int, int, str, float]] = []
        self._batches: dict[tuple[str, int], list[dict[str, Any]]] = {}
        self._sizes: dict[tuple[str, int], int] = {}
        self._latest: dict[str, tuple[int, list[dict[str, Any]]]] = {}

    def add_step(self, split: str, step: int, epoch: int, loss: Any, lr: float) -> int:
        """Add a batch's row, for which ``loss`` may be a tensor; return the row's number."""
        self._steps.append((split, step, epoch, loss, lr))
        return len(self._steps) - 1

    def add_calls(self, mode: str, order: str, batch_size: int, labels: Any) -> None:
        """Add to the latest row what only access "tensors" shows."""
        self._calls.append((mode, order, batch_size, labels))

    def add_metric(self, split: str, epoch: int, step: int, name: str, value: float) -> None:
        self._metrics.append((split, epoch, step, name, value))

    def add_batch(
        self, split: str, step: int, epoch: int, mode: str, tensors: Mapping[str, Any], keep: bool
    ) -> dict[str, Any]:
        """Keep a batch for good, or only until the next evaluation of the same split begins; return the copies made."""
        size = 0
        for tensor in tensors.values():
            size += tensor.numel() * tensor.element_size()
        before = self._sizes.get((split, step), 0)
        self._sizes[split, step] = before + size
        if split != "train" and before and before + size > EVALUATION_BYTES:
            return {}
        batch = {k: t.detach().clone() for k, t in tensors.items()}
        batch["mode"], batch["epoch"] = mode, epoch
        if keep:
            self._latest.pop(split, None)
            self._batches.setdefault((split, step), []).append(batch)
            return batch
        if split not in self._latest or self._latest[split][0] != step:
            self._latest[split] = (step, [])
        self._latest[split][1].append(batch)
        return batch

    def last_metrics(self) -> dict[str, float]:
        """Return the last value of each reported metric, by "split/name"."""
        return {f"{split}/{name}": value for split, _, _, name, value in self._metrics}

    def write(self, meta: Mapping[str, Any], predictions: Mapping[str, Any] | None, error: str | None) -> None:
        """Write all files of the access recorded; meta.json comes last: a folder that has it is complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("meta.json", "error.txt", "predictions.safetensors", "layers.parquet", "samples.parquet"):
            (self.folder / name).unlink(missing_ok=True)  # of an earlier run into the same folder
        shutil.rmtree(self.folder / "batches", ignore_errors=True)
        tables = {prefix: log.table() for prefix, log in self.layers.items()}
        _write_table(self._step_columns(tables), self.folder / "steps.parquet")
        columns = zip(*self._metrics, strict=True) if self._metrics else [()] * 5
        types = (pa.string(), pa.int64(), pa.int64(), pa.string(), pa.float64())
        arrays = [pa.array(column, type=t) for column, t in zip(columns, types, strict=True)]
        names = ("split", "epoch", "step", "name", "value")
        _write_table(dict(zip(names, arrays, strict=True)), self.folder / "metrics.parquet")
        if "tensors" in self.access:
            _write_table(_layer_columns(tables), self.folder / "layers.parquet")
        if "data" in self.access:
            self._write_data(predictions)
        if error is not None:
            (self.folder / "error.txt").write_text(error)
        (self.folder / "meta.json").write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")

    def _write_data(self, predictions: Mapping[str, Any] | None) -> None:
        _write_table(self._sample_columns(), self.folder / "samples.parquet")
        (self.folder / "batches").mkdir()
        for split, (step, batches) in self._latest.items():
            self._batches.setdefault((split, step), batches)
        for (split, step), batches in self._batches.items():
            _write_batches(self.folder / "batches" / f"{split}-{step:07d}.safetensors", batches)
        if predictions is not None:
            save_file({k: _array(t) for k, t in predictions.items()}, self.folder / "predictions.safetensors")

    def _step_columns(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        split, step, epoch, loss, lr = zip(*self._steps, strict=True) if self._steps else [()] * 5
        types = (pa.string(), pa.int64(), pa.int64(), pa.float64(), pa.float64())
        rows: tuple[Any, ...] = (split, step, epoch, _numbers(loss), lr)
        columns: dict[str, Any] = {n: pa.array(v, type=t) for n, v, t in zip(CURVE_COLUMNS, rows, types, strict=True)}
        if not self._calls:
            return columns
        mode, order, size, labels = zip(*self._calls, strict=True)
        columns |= {"mode": pa.array(mode), "order": pa.array(order), "batch_size": pa.array(size, type=pa.int64())}
        inputs = self.inputs.table()
        for i, statistic in enumerate(STATISTICS):
            columns[f"input_{statistic}"] = _spread(inputs.moments, inputs.values[:, i], len(split))
        columns["labels"] = pa.array([None if v is None else _histogram(v) for v in labels])
        row_of_step = np.array([row for row, name in enumerate(split) if name == "train"], dtype=np.int64)
        for prefix, table in tables.items():
            norms = {}
            for kind, name in NORMS.items():
                moments, values = table.norms(kind)
                if kind == "gradient":  # where nothing has a gradient, its norm is 0
                    missing = np.setdiff1d(self.layers[prefix].moments, moments)
                    moments = np.concatenate([moments, missing])
                    values = np.concatenate([values, np.zeros(len(missing))])
                if len(moments):
                    norms[name] = _spread(row_of_step[moments], values, len(split))
            columns |= {prefix + name: column for name, column in norms.items()}
            if "update_norm" in norms:
                with np.errstate(divide="ignore", invalid="ignore"):
                    columns[f"{prefix}update_ratio"] = norms["update_norm"] / norms["weight_norm"]
        return columns

    def _sample_columns(self) -> dict[str, Any]:
        table = self.samples.table()
        return {
            "split": _repeated(table.splits, table.counts),
            "epoch": np.repeat(np.array(table.epochs, dtype=np.int64), table.counts),
            "step": np.repeat(np.array(table.steps, dtype=np.int64), table.counts),
            "fingerprint": table.fingerprints,
            "label": table.labels,
        }


def _layer_columns(tables: Mapping[str, Any]) -> dict[str, Any]:
    moments = np.concatenate([np.zeros(0, dtype=np.int64), *(t.moments for t in tables.values())])
    values = np.concatenate([np.zeros((0, len(STATISTICS)), np.float32), *(t.values for t in tables.values())])
    names = [prefix + name for prefix, t in tables.items() for name in t.names]
    kinds = [kind for t in tables.values() for kind in t.kinds]
    order = np.argsort(moments, kind="stable")
    texts = {"layer": pa.array(names, pa.string()).take(order), "kind": pa.array(kinds, pa.string()).take(order)}
    return {"step": moments[order], **texts, **{n: values[order, i] for i, n in enumerate(STATISTICS)}}


def _spread(rows: np.ndarray, values: np.ndarray, length: int) -> np.ndarray:
    """Return ``length`` float64 numbers: ``values`` in their rows, NaN in all others."""
    column = np.full(length, np.nan)
    column[rows] = values
    return column


def _repeated(texts: list[str], counts: list[int]) -> pa.Array:
    """Return a column in which each text stands as often as its count says."""
    distinct = list(dict.fromkeys(texts))
    codes = np.array([distinct.index(text) for text in texts], dtype=np.int32)
    column = pa.DictionaryArray.from_arrays(np.repeat(codes, counts), pa.array(distinct, pa.string()))
    return column.cast(pa.string())


def _histogram(bins: torch.Tensor) -> list[int]:
    """Return counts of the classes and of what is none: below the first class and above the last are one bin."""
    below, *counts = bins.tolist()
    counts[-1] += below
    return counts


def _numbers(values: Iterable[Any]) -> list[float]:
    """Return losses as numbers; those that are still tensors are moved in one go."""
    values = list(values)
    places: dict[Any, list[int]] = {}
    for i, value in enumerate(values):
        if isinstance(value, torch.Tensor):
            places.setdefault((value.device, value.dtype, value.shape), []).append(i)
    for where in places.values():
        moved = torch.stack([values[i] for i in where]).double().cpu().reshape(len(where)).tolist()
        for i, number in zip(where, moved, strict=True):
            values[i] = number
    return values


def _array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.contiguous().numpy()


def _write_table(columns: Mapping[str, Any], path: Path) -> None:
    pq.write_table(pa.table(dict(columns)), path)


def _write_batches(path: Path, batches: Iterable[Mapping[str, Any]]) -> None:
    arrays: dict[str, np.ndarray] = {}
    for i, batch in enumerate(batches):
        for name, value in batch.items():
            if name not in ("mode", "epoch"):
                arrays[f"{i:04d}/{name}"] = _array(value)
        # one entry: safetensors writes several in an order that changes from run to run
        metadata = {"batch": json.dumps({"mode": batch["mode"], "epoch": batch["epoch"]})}
    save_file(arrays, path, metadata=metadata)
