"""Judge traces: give each detector the files of its access, and keep what it says.

A diagnosis is kept under a key of all it depends on (trace, detector's source, knobs), beside the traces and without
a word of the case::

    results/runs/diagnoses/<trace key>/<detector>-<digest>.json
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from bugbench.answers import failure
from bugbench.integrity import Damaged, read_sealed, warn, write_sealed
from bugbench.isolation import LEVELS
from bugbench.judging_worker import JudgingWorker
from bugbench.plugins import PACKAGE, is_own_oracle, sources_of
from bugbench.runner import digest
from bugbench.trace import export
from bugbench.worker import TimedOut, WorkerDied, WorkerPool

JUDGING_FILES = ("diagnosing.py", "rerun.py")  # with what they import: what a diagnosis depends on


@dataclass(frozen=True)
class Judge:
    """A detector as it takes part: its name, file, access and knobs."""

    name: str
    file: Path
    access: frozenset[str]
    knobs: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Changes with the detector's source, its knobs and the way of judging."""
        mechanism = [Path(__file__).read_text(), *(sources_of(PACKAGE / name) for name in JUDGING_FILES)]
        return digest(sources_of(self.file), dict(self.knobs), mechanism)[:12]


@dataclass(frozen=True)
class Exhibit:
    """A trace to be judged.

    Attributes:
        key: the trace's name.
        trace: its folder.
        data: the training data's folder, for "rerun" access.
        truth: for the oracle alone, which has the access "truth".
    """

    key: str
    trace: Path
    data: Path
    truth: Mapping[str, Any]


class Bench:
    """Puts exhibits before detectors in worker processes."""

    def __init__(self, results: Path, pool: WorkerPool[JudgingWorker], judge_seconds: float = 60) -> None:
        self.root = results.resolve() / "runs" / "diagnoses"
        self.pool = pool
        self.judge_seconds = judge_seconds

    def judge(self, exhibit: Exhibit, judge: Judge, again: bool = False) -> dict[str, Any]:
        """Return ``status``, ``reason``, ``suspects``, ``seconds`` and ``alarm_step`` of one diagnosis.

        A stored one is taken unless ``again``, or unless it was reached at another level than is asked for, or with
        "auto" at a weaker one than this machine offers. What may go better at the next attempt is not stored:
        time-outs, deaths of the process, and a missing tool.

        Raises:
            NotConfined: no judging process can be started at the level asked for.
        """
        name = f"{judge.name}-{judge.digest}"
        if "truth" in judge.access:
            name += "-" + digest(dict(exhibit.truth))[:8]
        path = self.root / exhibit.key / f"{name}.json"
        if not again:
            try:
                stored = read_sealed(path)
                if self._stands(stored["isolation"]):
                    return stored
            except FileNotFoundError:
                pass
            except Damaged as damage:
                warn(f"{damage}: judged again")
        answer = self._ask(exhibit, judge, until=None)
        answer["alarm_step"] = self._alarm_step(exhibit, judge) if answer["suspects"] else None
        if not answer.pop("transient", False) and answer["status"] not in ("out_of_memory", "not_installed"):
            write_sealed(path, answer)
        return answer

    def judge_all(
        self, pairs: Iterable[tuple[Exhibit, Judge]], workers: int, again: bool = False
    ) -> list[dict[str, Any]]:
        """Judge many pairs, ``workers`` at a time, in the order given."""
        with ThreadPoolExecutor(workers) as executor:
            return list(executor.map(lambda pair: self.judge(pair[0], pair[1], again), pairs))

    def _stands(self, level: str) -> bool:
        """Tell whether an answer reached at ``level`` is as good as one that would be reached now."""
        asked = self.pool.workers[0].asked
        if asked != "auto":
            return level == asked
        if level == LEVELS[0]:
            return True
        with self.pool.borrow() as worker:
            worker.start()
            return level in LEVELS[: LEVELS.index(worker.level) + 1]

    def _alarm_step(self, exhibit: Exhibit, judge: Judge) -> int | None:
        """Return the last step of the shortest prefix of the trace that raises an alarm."""
        steps = pd.read_parquet(exhibit.trace / "steps.parquet", columns=["split", "step"])
        total = int((steps["split"] == "train").sum())
        for until in prefixes(exhibit.trace, total):
            if self._ask(exhibit, judge, until)["suspects"]:
                return until - 1
        return max(total - 1, 0)

    def _ask(self, exhibit: Exhibit, judge: Judge, until: int | None) -> dict[str, Any]:
        if "truth" in judge.access and not is_own_oracle(judge.file):
            return failure("crashed", f"the truth is for the project's own oracle, not for {judge.name}")
        truth = exhibit.truth if "truth" in judge.access else {}

        def export_part(folder: Path) -> None:
            export(exhibit.trace, folder, judge.access, until)
            if "rerun" in judge.access:
                shutil.copytree(exhibit.data, folder / "data", copy_function=shutil.copyfile)
            if "truth" in judge.access:
                (folder / "truth.json").write_text(json.dumps(truth))

        with self.pool.borrow() as worker:
            try:
                folder = worker.place(exhibit.key, (judge.access, digest(dict(truth)), until), export_part)
                answer = worker.diagnose(judge.file, judge.knobs, folder, self.judge_seconds)
            except TimedOut as error:
                answer = failure("timed_out", str(error))
            except WorkerDied as error:
                answer = failure("crashed", str(error))
        if "failure" in answer:
            answer = failure("crashed", answer["failure"])
        return {"isolation": worker.level} | answer


def prefixes(trace: Path, total: int) -> list[int]:
    """Return the numbers of training batches at which time to alarm is measured: one after each kept batch."""
    kept = sorted(int(m.group(1)) for p in (trace / "batches").glob("train-*") if (m := re.search(r"-(\d+)\.", p.name)))
    return [step + 1 for step in kept if step + 1 < total]
