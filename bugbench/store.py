"""The store of traces: a trace is kept under a key made of everything it depends on.

So a twin is trained once for all its bugs, and a rerun trains only what is missing::

    results/runs/data/<data set>-<digest>/       training data
    results/runs/traces/<key>/trace/             the trace, with program.py and config.yaml
    results/runs/traces/<key>/outcome.json       what the hidden test says; never shown to a detector

outcome.json is sealed and lists every file of the trace with its checksum: what was damaged since is trained again.
"""

import shutil
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from bugbench import atomic, image_files, integrity
from bugbench.catalogue import Workload
from bugbench.integrity import Damaged
from bugbench.runner import Outcome, Run, reported_value
from bugbench.trace_writer import TraceWriter
from bugbench.worker import TimedOut, WorkerDied, WorkerPool

STALE_SECONDS = 24 * 3600.0  # a draft in which nothing was written for so long was left by a process that is no more
DATA_SECONDS = 300.0  # that a data set may take to write its files, however short the trainings are to be
_verified: dict[Path, tuple[Any, Outcome]] = {}  # of this process: traces as they were when their checksums matched
_verified_data: dict[Path, Any] = {}  # likewise, folders of training data
_written: dict[
    tuple[Path, Path, str, Path], tuple[str, Any]
] = {}  # names of such folders, shared by all jobs of a process
_tidied: set[Path] = set()  # stores of which this process has removed stale drafts


class HarnessFailure(Exception):
    """A run has no outcome because the harness failed, not the program: data set, recorder, disk or machine.

    Attributes:
        traceback: all that is known of it.
    """

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


class Store:
    """Traces and outcomes below ``results/runs``; writing is atomic, so that several harnesses may share one."""

    def __init__(self, results: Path, pool: WorkerPool, train_seconds: float = 300) -> None:
        self.root = results.resolve() / "runs"
        self.pool = pool
        self.train_seconds = train_seconds
        self._failed: dict[Path, HarnessFailure] = {}
        if self.root not in _tidied:
            _tidied.add(self.root)
            remove_stale_drafts(self.root, max(STALE_SECONDS, 2 * train_seconds))

    def data_folder(self, workload: Workload) -> Path:
        """Return the folder of the workload's training data; the first call writes it, or verifies what is there.

        Raises:
            HarnessFailure: the data set cannot be made; later calls raise the same.
        """
        if workload.dataset in self._failed:
            raise self._failed[workload.dataset]
        key = (self.root, workload.dataset, workload.dataset.read_text(), image_files.root())
        name, signature = _written.get(key, ("", ()))
        if not name or integrity.signature(self.root / "data" / name) != signature:
            try:
                name = self._write_data(workload.dataset)
            except HarnessFailure as failure:
                self._failed[workload.dataset] = failure
                raise
            _written[key] = (name, integrity.signature(self.root / "data" / name))
        return self.root / "data" / name

    def _write_data(self, dataset: Path) -> str:
        request = {"do": "data", "dataset": str(dataset), "root": str(self.root / "data")}
        request["data_root"] = str(image_files.root())
        try:
            answer = self.pool.call(request, max(DATA_SECONDS, self.train_seconds))
        except (TimedOut, WorkerDied, OSError) as error:
            message = f"data set {dataset}: write_training_data: {type(error).__name__}: {error}"
            raise HarnessFailure(message, traceback.format_exc()) from error
        if "failure" in answer:
            raise HarnessFailure(answer["failure"], answer["traceback"])
        if answer["mended"]:
            integrity.warn(f"damaged training data {self.root / 'data' / answer['folder']}: written again")
        return answer["folder"]

    def key(self, run: Run) -> str:
        return run.key(self.data_folder(run.workload).name)

    def trace(self, key: str) -> Path:
        return self.root / "traces" / key / "trace"

    def outcome(self, key: str) -> Outcome | None:
        """Return the stored outcome of a complete run, or None if it must be trained.

        The trace is held against its checksums once in a process, and again when one of its files was touched. Damage
        is told on standard error.
        """
        try:
            outcome = self._read(key)
        except FileNotFoundError:
            return None
        except (Damaged, OSError) as error:
            integrity.warn(f"damaged trace, to be trained again: {error}")
            return None
        return None if outcome.transient else outcome

    def _read(self, key: str) -> Outcome:
        """Return a stored outcome whose trace is whole; raises Damaged, or FileNotFoundError if there is none."""
        folder = self.root / "traces" / key
        signature = integrity.signature(folder)
        if folder in _verified and _verified[folder][0] == signature:
            return _verified[folder][1]
        try:
            content = integrity.read_sealed(folder / "outcome.json")
        except FileNotFoundError:
            if not folder.exists():
                raise
            raise Damaged(folder / "outcome.json", "the file is missing") from None
        try:
            outcome = Outcome(**content["outcome"])
            integrity.verify(folder / "trace", content["files"])
        except (KeyError, TypeError) as error:
            raise Damaged(folder / "outcome.json", f"not what this version writes: {error}") from error
        _verified[folder] = (signature, outcome)
        return outcome

    def verify(self, key: str, data: str) -> None:
        """Hold a trace and a folder of training data against their checksums.

        Raises:
            Damaged: one of them is not what was written, or gone.
        """
        try:
            self._read(key)
        except FileNotFoundError:
            raise Damaged(self.trace(key), "the trace is gone") from None
        folder = self.root / "data" / data
        signature = integrity.signature(folder)
        if _verified_data.get(folder) != signature:
            if not signature or integrity.content_digest(folder) != data.rpartition("-")[2]:
                raise Damaged(folder, "the training data do not match their checksum")
            _verified_data[folder] = signature

    def train(self, run: Run, on_progress: Callable[[dict[str, Any]], None] | None = None) -> Outcome:
        """Return the outcome of ``run``, training it if there is no stored one.

        Raises:
            HarnessFailure: the data set, the recorder or the disk failed; nothing is stored.
        """
        key = self.key(run)
        if (stored := self.outcome(key)) is not None:
            return stored
        final = self.root / "traces" / key
        draft = atomic.draft_of(final)
        try:
            outcome = self._train(key, run, draft, on_progress)
            files = integrity.manifest(draft / "trace")
            integrity.write_sealed(draft / "outcome.json", {"outcome": asdict(outcome), "files": files})
            self._publish(key, draft)
        except (OSError, ValueError) as error:  # a full disk, or a table of the trace that cannot be read back
            message = f"the trace cannot be stored: {type(error).__name__}: {error}"
            raise HarnessFailure(message, traceback.format_exc()) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return outcome

    def _train(self, key: str, run: Run, draft: Path, on_progress: Callable[[dict[str, Any]], None] | None) -> Outcome:
        """Train into a draft; a program that ran out of time, or took its process along, gets a trace without steps."""
        request = {
            "do": "train",
            "folder": str(draft / "trace"),
            "source": run.source,
            "config": run.config,
            "data_dir": str(self.data_folder(run.workload)),
            "dataset": str(run.workload.dataset),
            "data_root": str(image_files.root()),
            "task": run.workload.settings["task"],
            "classes": run.workload.settings["classes"],
        }
        try:
            answer = self.pool.call(request, self.train_seconds, on_progress)
        except (TimedOut, WorkerDied) as death:
            if self.pool.interrupted:
                raise HarnessFailure("interrupted", "") from death
            return self._post_mortem(key, run, draft, f"{type(death).__name__}: {death}")
        if "failure" in answer:
            raise HarnessFailure(answer["failure"], answer["traceback"])
        metrics = pd.read_parquet(draft / "trace" / "metrics.parquet")
        steps = pd.read_parquet(draft / "trace" / "steps.parquet", columns=["split"])
        return Outcome(
            key=key,
            crashed=answer["crashed"],
            error=answer["error"],
            oracle=answer["oracle"],
            reported=reported_value(metrics, run.workload.settings["report"], run.workload.settings["oracle"]),
            seconds=round(answer["seconds"], 3),
            steps=int((steps["split"] == "train").sum()),
        )

    def _publish(self, key: str, draft: Path) -> None:
        """Give a trained draft its place: an empty one, or that of a trace that is damaged or of a failed attempt."""
        final = self.root / "traces" / key
        try:
            keep = not self._read(key).transient  # another harness was faster
        except (Damaged, OSError):
            keep = False
        if keep:
            return
        if final.exists():  # what was said of it was said of another trace than this one
            shutil.rmtree(self.root / "diagnoses" / key, ignore_errors=True)
        atomic.replace(draft, final)

    def train_all(
        self,
        runs: Iterable[Run],
        workers: int,
        on_progress: Callable[[str, dict[str, Any]], None] | None = None,
        on_done: Callable[[], None] = lambda: None,
    ) -> dict[str, Outcome | HarnessFailure]:
        """Train what is missing, ``workers`` at a time; returns outcomes by key, a failure where there is none.

        ``on_progress`` is called with a run's key and state while it trains, ``on_done`` when a run has ended.
        """
        by_key = {self.key(run): run for run in runs}

        def one(item: tuple[str, Run]) -> tuple[str, Outcome | HarnessFailure]:
            key, run = item
            try:
                return key, self.train(run, (lambda state: on_progress(key, state)) if on_progress else None)
            except HarnessFailure as failure:
                return key, failure
            finally:
                on_done()

        return dict(self.pool.run(one, by_key.items(), workers))

    def _post_mortem(self, key: str, run: Run, draft: Path, error: str) -> Outcome:
        shutil.rmtree(draft, ignore_errors=True)
        trace = draft / "trace"
        trace.mkdir(parents=True)
        (trace / "program.py").write_text(run.source)
        (trace / "config.yaml").write_text(yaml.safe_dump(run.config))
        meta = {k: run.workload.settings[k] for k in ("task", "classes")}
        TraceWriter(trace).write({**meta, "sizes": {}, "layers": {}, "schedule": {}, "versions": {}}, None, error)
        return Outcome(key, True, error, None, None, self.train_seconds, 0, transient=True)


def remove_stale_drafts(runs: Path, seconds: float = STALE_SECONDS) -> list[Path]:
    """Delete what killed harnesses were in the midst of, below ``runs``; return what was deleted.

    Args:
        runs: the folder ``results/runs``.
        seconds: a draft that was touched since may be another harness's and stays.
    """
    nested = ("diagnoses/*/", "extracts/*/", "models/*/", "failures/*/*/", "cases/*/*/*/")
    folders = [runs / "traces", runs / "data", *(folder for pattern in nested for folder in runs.glob(pattern))]
    return atomic.remove_stale_drafts((f for f in folders if f.is_dir()), seconds)
