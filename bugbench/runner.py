"""Cases and their runs: prepare, train, store, and measure what the injected bug did.

A trace is kept under a key made of everything it depends on, so that a twin is trained once for all its bugs and a
rerun trains only what is missing::

    results/runs/data/<data set>-<digest>/       training data
    results/runs/traces/<key>/trace/             the trace, with program.py and config.yaml
    results/runs/traces/<key>/outcome.json       what the hidden test says; never shown to a detector
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from bugbench import __version__
from bugbench.atomic import publish
from bugbench.card import Card
from bugbench.catalogue import Workload, apply
from bugbench.injection import diff
from bugbench.plugins import PACKAGE
from bugbench.trace_writer import TraceWriter
from bugbench.worker import TimedOut, WorkerDied, WorkerPool

RECORDER_FILES = (
    *("recorder.py", "watching.py", "tensor_summary.py", "statistics_log.py", "sample_log.py", "trace_writer.py"),
    *("training.py", "rerun.py"),
)


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
        recorder = [(PACKAGE / name).read_text() for name in RECORDER_FILES]
        versions = [__version__, version("torch"), version("numpy")]
        dataset = self.workload.dataset.read_text()
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


def prepare(card: Card, workload: Workload, seed: int) -> Case:
    """Apply the card; raises what :func:`bugbench.catalogue.apply` raises."""
    edited, config, twin_config = apply(card, workload)
    offset = config.pop("seed") - twin_config.pop("seed")  # the control `other_seed` shifts it
    run = Run(workload, edited.source, {**config, "seed": seed + offset})
    twin = Run(workload, workload.source, {**twin_config, "seed": seed})
    return Case(card, workload, seed, run, twin, edited.lines)


class Store:
    """Traces and outcomes below ``results/runs``; writing is atomic, so that several harnesses may share one."""

    def __init__(self, results: Path, pool: WorkerPool, train_seconds: float = 300) -> None:
        self.root = results.resolve() / "runs"
        self.pool = pool
        self.train_seconds = train_seconds
        self._data: dict[Path, str] = {}

    def data_folder(self, workload: Workload) -> Path:
        """Return the folder of the workload's training data; it is written at the first call."""
        if workload.dataset not in self._data:
            request = {"do": "data", "dataset": str(workload.dataset), "root": str(self.root / "data")}
            answer = self.pool.call(request, self.train_seconds)
            if "failure" in answer:
                raise RuntimeError(f"data set {workload.dataset}: {answer['failure']}\n{answer['traceback']}")
            self._data[workload.dataset] = answer["folder"]
        return self.root / "data" / self._data[workload.dataset]

    def key(self, run: Run) -> str:
        return run.key(self.data_folder(run.workload).name)

    def trace(self, key: str) -> Path:
        return self.root / "traces" / key / "trace"

    def outcome(self, key: str) -> Outcome | None:
        """Return the stored outcome of a complete run, or None if it must be trained."""
        try:
            outcome = Outcome(**json.loads((self.root / "traces" / key / "outcome.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return None if outcome.transient or not (self.trace(key) / "meta.json").exists() else outcome

    def train(self, run: Run, on_progress: Callable[[dict[str, Any]], None] | None = None) -> Outcome:
        """Return the outcome of ``run``, training it if there is no stored one."""
        key = self.key(run)
        if (stored := self.outcome(key)) is not None:
            return stored
        draft = self.root / "traces" / f".{key}-{uuid.uuid4().hex}"
        request = {
            "do": "train",
            "folder": str(draft / "trace"),
            "source": run.source,
            "config": run.config,
            "data_dir": str(self.data_folder(run.workload)),
            "dataset": str(run.workload.dataset),
            "task": run.workload.settings["task"],
            "classes": run.workload.settings["classes"],
        }
        try:
            answer = self.pool.call(request, self.train_seconds, on_progress)
            if "failure" in answer:
                outcome = self._post_mortem(key, run, draft, f"the harness failed: {answer['failure']}")
            else:
                outcome = self._outcome(key, run, draft / "trace", answer)
        except (TimedOut, WorkerDied) as death:
            outcome = self._post_mortem(key, run, draft, f"{type(death).__name__}: {death}")
        (draft / "outcome.json").write_text(json.dumps(asdict(outcome), indent=1) + "\n")
        final = self.root / "traces" / key
        if final.exists() and self.outcome(key) is None:
            shutil.rmtree(final)
            shutil.rmtree(self.root / "diagnoses" / key, ignore_errors=True)  # they were of another trace
        publish(draft, final)
        return outcome

    def train_all(
        self, runs: Iterable[Run], workers: int, on_progress: Callable[[str, dict[str, Any]], None] | None = None
    ) -> dict[str, Outcome]:
        """Train what is missing, ``workers`` at a time; returns outcomes by key."""
        by_key = {self.key(run): run for run in runs}

        def one(item: tuple[str, Run]) -> tuple[str, Outcome]:
            key, run = item
            return key, self.train(run, (lambda state: on_progress(key, state)) if on_progress else None)

        with ThreadPoolExecutor(workers) as executor:
            return dict(executor.map(one, by_key.items()))

    def _outcome(self, key: str, run: Run, trace: Path, answer: dict[str, Any]) -> Outcome:
        metrics = pd.read_parquet(trace / "metrics.parquet")
        steps = pd.read_parquet(trace / "steps.parquet", columns=["split"])
        return Outcome(
            key=key,
            crashed=answer["crashed"],
            error=answer["error"],
            oracle=answer["oracle"],
            reported=reported_value(metrics, run.workload.settings["report"], run.workload.settings["oracle"]),
            seconds=round(answer["seconds"], 3),
            steps=int((steps["split"] == "train").sum()),
        )

    def _post_mortem(self, key: str, run: Run, draft: Path, error: str) -> Outcome:
        shutil.rmtree(draft, ignore_errors=True)
        trace = draft / "trace"
        trace.mkdir(parents=True)
        (trace / "program.py").write_text(run.source)
        (trace / "config.yaml").write_text(yaml.safe_dump(run.config))
        meta = {k: run.workload.settings[k] for k in ("task", "classes")}
        TraceWriter(trace).write({**meta, "sizes": {}, "layers": {}, "schedule": {}, "versions": {}}, None, error)
        return Outcome(key, True, error, None, None, self.train_seconds, 0, transient=True)


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
