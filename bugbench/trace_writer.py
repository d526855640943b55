"""Write a trace: collect rows during the run, on whatever device they are, and save them in one go at the end."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from bugbench.trace import CURVE_COLUMNS, STATISTICS
from safetensors.numpy import save_file

EVALUATION_BYTES = 2 * 2**20  # of an evaluation, the batches that fit are kept: a trace stays a few MiB


class TraceWriter:
    """The rows of one run, and the folder they go to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._steps: list[dict[str, Any]] = []
        self._layers: list[tuple[int, str, str, Any]] = []
        self._metrics: list[tuple[str, int, int, str, float]] = []
        self._samples: list[tuple[str, int, int, Any, Any]] = []
        self._batches: dict[tuple[str, int], list[dict[str, Any]]] = {}
        self._sizes: dict[tuple[str, int], int] = {}
        self._latest: dict[str, tuple[int, list[dict[str, Any]]]] = {}

    def add_step(self, row: dict[str, Any]) -> None:
        self._steps.append(row)

    def add_layer(self, step: int, layer: str, kind: str, summary: Any) -> None:
        self._layers.append((step, layer, kind, summary))

    def add_metric(self, split: str, epoch: int, step: int, name: str, value: float) -> None:
        self._metrics.append((split, epoch, step, name, value))

    def add_samples(self, split: str, epoch: int, step: int, fingerprints: Any, targets: Any) -> None:
        one_each = targets.dim() == 1 and len(targets) == len(fingerprints)
        self._samples.append((split, epoch, step, fingerprints, targets.detach() if one_each else None))

    def add_batch(self, split: str, step: int, epoch: int, mode: str, tensors: Mapping[str, Any], keep: bool) -> None:
        """Keep a batch for good, or only until the next evaluation of the same split begins."""
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        before = self._sizes.get((split, step), 0)
        self._sizes[split, step] = before + size
        if split != "train" and before and before + size > EVALUATION_BYTES:
            return
        batch = {"mode": mode, "epoch": epoch, **{k: t.detach().clone() for k, t in tensors.items()}}
        if keep:
            self._latest.pop(split, None)
            self._batches.setdefault((split, step), []).append(batch)
            return
        if split not in self._latest or self._latest[split][0] != step:
            self._latest[split] = (step, [])
        self._latest[split][1].append(batch)

    def last_metrics(self) -> dict[str, float]:
        """Return the last value of each reported metric, by "split/name"."""
        return {f"{split}/{name}": value for split, _, _, name, value in self._metrics}

    def write(self, meta: Mapping[str, Any], predictions: Mapping[str, Any] | None, error: str | None) -> None:
        """Write all files; meta.json comes last, so that a folder that has it is complete."""
        (self.folder / "batches").mkdir(parents=True, exist_ok=True)
        stale = [self.folder / name for name in ("meta.json", "error.txt", "predictions.safetensors")]
        for path in [*stale, *(self.folder / "batches").glob("*.safetensors")]:
            path.unlink(missing_ok=True)  # of an earlier run into the same folder
        _write_table(self._step_columns(), self.folder / "steps.parquet")
        _write_table(self._layer_columns(), self.folder / "layers.parquet")
        names = ("split", "epoch", "step", "name", "value")
        _write_table(pd.DataFrame(self._metrics, columns=list(names)), self.folder / "metrics.parquet")
        _write_table(self._sample_columns(), self.folder / "samples.parquet")
        for split, (step, batches) in self._latest.items():
            self._batches.setdefault((split, step), batches)
        for (split, step), batches in self._batches.items():
            _write_batches(self.folder / "batches" / f"{split}-{step:07d}.safetensors", batches)
        if predictions is not None:
            save_file({k: _array(t) for k, t in predictions.items()}, self.folder / "predictions.safetensors")
        if error is not None:
            (self.folder / "error.txt").write_text(error)
        (self.folder / "meta.json").write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")

    def _step_columns(self) -> pd.DataFrame:
        columns: dict[str, list[Any]] = {}
        names = dict.fromkeys(name for row in self._steps for name in row)
        for name in names:
            values = [row.get(name) for row in self._steps]
            if name == "input":
                arrays = [np.full(6, np.nan) if v is None else _array(v) for v in values]
                for i, statistic in enumerate(STATISTICS):
                    columns[f"input_{statistic}"] = [float(a[i]) for a in arrays]
            elif name == "labels":
                columns[name] = [None if v is None else _array(v).tolist() for v in values]
            elif any(hasattr(v, "detach") for v in values):
                columns[name] = [np.nan if v is None else float(v) for v in values]
            else:
                columns[name] = values
        frame = pd.DataFrame(columns if columns else {c: [] for c in CURVE_COLUMNS})
        for name in [c for c in columns if c.endswith("update_norm")]:
            prefix = name.removesuffix("update_norm")
            frame[f"{prefix}update_ratio"] = frame[name] / frame[f"{prefix}weight_norm"]
        return frame

    def _layer_columns(self) -> pd.DataFrame:
        frame = pd.DataFrame([row[:3] for row in self._layers], columns=["step", "layer", "kind"])
        values = np.array([_array(row[3]) for row in self._layers]).reshape(-1, len(STATISTICS))
        return frame.assign(**{name: values[:, i] for i, name in enumerate(STATISTICS)})

    def _sample_columns(self) -> pd.DataFrame:
        parts = []
        for split, epoch, step, fingerprints, labels in self._samples:
            part = pd.DataFrame({"fingerprint": _array(fingerprints)})
            part["label"] = np.nan if labels is None else _array(labels).astype(np.float64)
            parts.append(part.assign(split=split, epoch=epoch, step=step))
        columns = ["split", "epoch", "step", "fingerprint", "label"]
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.contiguous().numpy()


def _write_table(frame: pd.DataFrame, path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None), path)


def _write_batches(path: Path, batches: Iterable[Mapping[str, Any]]) -> None:
    arrays: dict[str, np.ndarray] = {}
    for i, batch in enumerate(batches):
        for name, value in batch.items():
            if name not in ("mode", "epoch"):
                arrays[f"{i:04d}/{name}"] = _array(value)
        # one entry: safetensors writes several in an order that changes from run to run
        metadata = {"batch": json.dumps({"mode": batch["mode"], "epoch": batch["epoch"]})}
    save_file(arrays, path, metadata=metadata)
