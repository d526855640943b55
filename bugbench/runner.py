"""Cases and their runs: prepare them, name them by all they depend on, and measure what the injected bug did."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bugbench import __version__
from bugbench.card import Card
from bugbench.catalogue import Workload, apply
from bugbench.injection import diff
from bugbench.plugins import PACKAGE, RECORDER_FILES, sources_of

TRACE_FILES = (*RECORDER_FILES, "training.py", "attribution.py", "rerun.py")  # what a trace depends on


@dataclass(frozen=True)
class Run:
    """One program to train, and all that its trace depends on."""

    workload: Workload
    source: str
    config: dict[str, Any]

    @cached_property
    def program_digest(self) -> str:
        """Twelve digits for source and config, the seed left out."""
        return digest(self.source, {k: v for k, v in self.config.items() if k != "seed"})

    def key(self, data_folder: str) -> str:
        """Return the name of its trace: source, config, seed, data, data set, recorder, and versions."""
        recorder, versions = _recorder()
        dataset = _dataset(self.workload.dataset, self.workload.dataset.read_text())
        report = {k: self.workload.settings[k] for k in ("task", "classes", "report", "oracle")}
        return digest(self.source, self.config, data_folder, dataset, report, recorder, versions)


@dataclass(frozen=True)
class Case:
    """A bug on a workload with a seed, beside its healthy twin."""

    card: Card
    workload: Workload
    seed: int
    run: Run
    twin: Run
    lines: tuple[int, ...]

    @property
    def folder(self) -> str:
        """Where its verdicts lie below results/runs/cases."""
        return f"{self.workload.label}/{self.card.label}/seed-{self.seed}"

    @property
    def program_key(self) -> str:
        """Stands for the programs and configs of bug and twin, the seed left out."""
        return digest(self.run.program_digest, self.twin.program_digest)[:12]

    @property
    def diff(self) -> str:
        return diff(self.twin.source, self.run.source, f"{self.workload.name}.py")

    @property
    def config_changes(self) -> dict[str, tuple[Any, Any]]:
        """Settings that differ between twin and bug, as (healthy, buggy)."""
        return {k: (v, self.run.config[k]) for k, v in self.twin.config.items() if self.run.config[k] != v}


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        key: the name of its trace.
        crashed: the program raised, ran out of time, or its process died.
        error: the last line of the traceback.
        oracle: the hidden-test metric; None after a crash.
        reported: what the program claimed; None if it never did.
        seconds: wall time of the program alone.
        steps: training batches recorded.
        transient: the failure may lie in the machine (time, memory); the next attempt trains again.
    """

    key: str
    crashed: bool
    error: str | None
    oracle: float | None
    reported: float | None
    seconds: float
    steps: int
    transient: bool = False


@cache
def _recorder() -> tuple[list[str], list[str]]:
    """Return what every trace depends on, read once a process: a job asks for a hundred keys."""
    return [(PACKAGE / name).read_text() for name in TRACE_FILES], [__version__, version("torch"), version("numpy")]


@cache
def _dataset(path: Path, text: str) -> str:
    """Return the text of a data set with that of the modules of bugbench that it imports."""
    return "".join(sources_of(path))


def prepare(card: Card, workload: Workload, seed: int) -> Case:
    """Apply the card; raises what :func:`bugbench.catalogue.apply` raises."""
    return prepare_seeds(card, workload, [seed])[0]


def prepare_seeds(card: Card, workload: Workload, seeds: Iterable[int]) -> list[Case]:
    """Apply the card once, for several cases; raises what :func:`bugbench.catalogue.apply` raises."""
    edited, config, twin_config = apply(card, workload)
    offset = config.pop("seed") - twin_config.pop("seed")  # the control `other_seed` shifts it
    return [
        Case(
            card,
            workload,
            seed,
            run=Run(workload, edited.source, {**config, "seed": seed + offset}),
            twin=Run(workload, workload.source, {**twin_config, "seed": seed}),
            lines=edited.lines,
        )
        for seed in seeds
    ]


def reported_value(metrics: pd.DataFrame, report: dict[str, Any], oracle: dict[str, Any]) -> float | None:
    """Return the program's own claim: the reported metric at its last or best moment; None if it never reported."""
    rows = metrics[(metrics["split"] == report["split"]) & (metrics["name"] == report["metric"])]
    if rows.empty:
        return None
    if report["moment"] == "last":
        return float(rows["value"].iloc[-1])
    best = rows["value"].max() if oracle["direction"] == "maximize" else rows["value"].min()
    return float(best)


def onset(trace: Path, twin: Path) -> int | None:
    """Return the first training step at which two traces differ; None if they never do.

    Compared are the rows of steps.parquet and metrics.parquet, and where these agree the predictions, a difference
    in which counts at the last step. An evaluation belongs to the training step before it.
    """
    differences = []
    for table in ("steps", "metrics"):
        ours, theirs = (pd.read_parquet(folder / f"{table}.parquet") for folder in (trace, twin))
        columns = [c for c in theirs.columns if c in ours.columns]
        length = min(len(ours), len(theirs))
        different = np.zeros(length, dtype=bool)
        for column in columns:
            different |= _texts(ours[column].iloc[:length]) != _texts(theirs[column].iloc[:length])
        rows = np.flatnonzero(different)
        first = rows[0] if len(rows) else length if len(ours) != len(theirs) else None
        if first is None:
            continue
        row = (ours if first < len(ours) else theirs).iloc[first]
        differences.append(int(row["step"]) if row["split"] == "train" and table == "steps" else int(row["step"]) - 1)
    if differences:
        return max(min(differences), 0)
    files = [folder / "predictions.safetensors" for folder in (trace, twin)]
    predictions = [file.read_bytes() if file.exists() else b"" for file in files]
    if predictions[0] != predictions[1]:
        steps = pd.read_parquet(trace / "steps.parquet", columns=["split"])
        return max(int((steps["split"] == "train").sum()) - 1, 0)
    return None


def _texts(column: pd.Series) -> np.ndarray:
    """Return each value as text: so NaN equals NaN, and a list is one value."""
    return np.array([str(v.tolist() if isinstance(v, np.ndarray) else v) for v in column], dtype=object)


def digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]
