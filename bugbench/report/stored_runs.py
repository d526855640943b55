"""What the store still knows of the runs of a case: their length, what was changed, and their curves.

Traces may have been deleted since, or damaged: whatever cannot be read is None, and the page does without.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from bugbench.injection import diff
from bugbench.integrity import read_sealed
from bugbench.records import Record
from bugbench.report.figure import smooth
from bugbench.trace import MissingAccess, Trace

POINTS = 90  # of a curve in the page: about one for each three pixels
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    MissingAccess,
    yaml.YAMLError,
)  # pyarrow's errors are among these


@dataclass(frozen=True)
class Curves:
    """The training loss and the reported metric of one run, thinned.

    Attributes:
        loss: step and smoothed loss; NaN where the loss is not finite.
        metric: epoch, from 1, and the metric that counts as the program's report.
    """

    loss: Sequence[tuple[float, float]]
    metric: Sequence[tuple[float, float]]


class StoredRuns:
    """The traces below ``results/runs/traces``, for reading."""

    def __init__(self, results: Path) -> None:
        self.root = results.resolve() / "runs" / "traces"

    def lengths(self, records: Sequence[Record]) -> pd.DataFrame:
        """Return ``bug, workload, seed, steps`` of every case: its training batches, NaN where that is not known."""
        known = [self._steps(r.trace_key) if r.steps is None else r.steps for r in records]
        rows = [(r.bug, r.workload, r.seed, steps) for r, steps in zip(records, known, strict=True)]
        table = pd.DataFrame(rows, columns=["bug", "workload", "seed", "steps"])
        return table.astype({"bug": "string", "workload": "string", "seed": "int64", "steps": "float64"})

    def _steps(self, key: str) -> float | None:
        try:
            return float(read_sealed(self.root / key / "outcome.json")["outcome"]["steps"])
        except UNREADABLE:
            return None

    def diff(self, record: Record) -> str | None:
        """Return the difference between the two programs; empty where they are the same."""
        programs = self._texts(record, "program.py")
        return None if programs is None else diff(*programs, f"{record.workload.partition('(')[0]}.py")

    def settings(self, record: Record) -> dict[str, tuple[Any, Any]]:
        """Return the settings that differ between twin and bug, as (healthy, buggy); the seed is one of the case."""
        try:
            healthy, buggy = (yaml.safe_load(text) for text in self._texts(record, "config.yaml") or ("{}", "{}"))
            names = [name for name in {**healthy, **buggy} if healthy.get(name) != buggy.get(name)]
            return {name: (healthy.get(name), buggy.get(name)) for name in names}
        except (*UNREADABLE, AttributeError):
            return {}

    def _texts(self, record: Record, file: str) -> tuple[str, str] | None:
        try:
            healthy, buggy = (self._trace(key) / file for key in (record.twin_key, record.trace_key))
            return healthy.read_text(), buggy.read_text()
        except UNREADABLE:
            return None

    def curves(self, key: str, report: tuple[str, str] | None = None) -> Curves | None:
        """Return the curves of one run; ``report`` is split and name of the metric, None to leave that one out."""
        try:
            trace = Trace(self._trace(key))
            steps = trace.train_steps()
            loss = smooth(pd.to_numeric(steps["loss"]).replace([np.inf, -np.inf], np.nan))
            chosen = np.unique(np.linspace(0, max(len(loss) - 1, 0), min(POINTS, len(loss))).astype(int))
            points = [(float(steps["step"].iloc[i]), float(loss.iloc[i])) for i in chosen]
            values = trace.metric(*report) if report else pd.Series(dtype=float)
            metric = [(float(epoch) + 1, float(value)) for epoch, value in values.items()]  # type: ignore[arg-type]
            stride = max(len(metric) // POINTS, 1)
            return Curves(points, metric[::stride])
        except UNREADABLE:
            return None

    def _trace(self, key: str) -> Path:
        return self.root / key / "trace"
