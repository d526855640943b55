"""Judge traces: give each detector the files of its access, and keep what it says.

A diagnosis is kept under a key of all it depends on (trace, detector's source, knobs, model), beside the traces and
without a word of the case. So are what a detector that learns extracts from a trace, and its models, which
:mod:`bugbench.learning` asks for::

    results/runs/diagnoses/<trace key>/<detector>-<digest>.json
    results/runs/diagnoses/<trace key>/<detector>-<digest>-<model>.json
    results/runs/extracts/<trace key>/<detector>-<digest>.json
    results/runs/models/<workload left out>/<detector>-<digest>-<examples>.json
"""

import json
import math
import re
import shutil
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from bugbench.answers import failure
from bugbench.detector import Label
from bugbench.diagnosing import EXAMPLES, MODEL
from bugbench.integrity import Damaged, read_sealed, warn, write_sealed
from bugbench.isolation import LEVELS
from bugbench.judging_worker import JudgingWorker
from bugbench.plugins import PACKAGE, is_own_oracle, sources_of
from bugbench.runner import digest
from bugbench.trace import export
from bugbench.worker import TimedOut, WorkerDied, WorkerPool

JUDGING_FILES = ("diagnosing.py", "rerun.py")  # with what they import: what a diagnosis depends on
LEARNING_PACKAGES = ("numpy", "pandas", "scipy", "scikit-learn", "torch")  # of which another version fits another model


@dataclass(frozen=True)
class Model:
    """What a detector has learned; if there is nothing, ``status`` and ``reason`` stand for each of its diagnoses.

    Attributes:
        text: the model, as JSON.
    """

    text: str = ""
    status: str = "ok"
    reason: str = ""

    @cached_property
    def digest(self) -> str:
        return digest(self.text)[:8]


UNTAUGHT = Model(status="not_applicable", reason="it learns, and nobody has taught it")


@dataclass(frozen=True)
class Judge:
    """A detector as it takes part: its name, file, access and knobs; if it learns, what it has learned."""

    name: str
    file: Path
    access: frozenset[str]
    knobs: Mapping[str, Any]
    learns: bool = False
    model: Model = UNTAUGHT

    @cached_property
    def digest(self) -> str:
        """Changes with the detector's source, its knobs and the way of judging."""
        mechanism = [Path(__file__).read_text(), *(sources_of(PACKAGE / name) for name in JUDGING_FILES)]
        return digest(sources_of(self.file), dict(self.knobs), mechanism)[:12]

    def version(self, truth: Mapping[str, Any]) -> str:
        """Stands for all that a diagnosis depends on but the trace; ``truth`` counts for the oracle alone."""
        parts = [self.digest]
        if "truth" in self.access:
            parts.append(digest(dict(truth))[:8])
        if self.learns:
            parts.append(self.model.digest)
        return "-".join(parts)


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
        self.root = results.resolve() / "runs"
        self.pool = pool
        self.judge_seconds = judge_seconds

    def judge(self, exhibit: Exhibit, judge: Judge, again: bool = False) -> dict[str, Any]:
        """Return ``status``, ``reason``, ``suspects``, ``seconds``, ``alarm_step`` and ``version`` of one diagnosis.

        A stored one is taken unless ``again``, or unless it was reached at another level than is asked for, or with
        "auto" at a weaker one than this machine offers. What may go better at the next attempt is not stored:
        time-outs, deaths of the process, and a missing tool.

        Raises:
            NotConfined: no judging process can be started at the level asked for.
        """
        if judge.learns and judge.model.status != "ok":  # no line of it has run, which is as confined as can be
            lack = {"status": judge.model.status, "reason": judge.model.reason, "isolation": LEVELS[0]}
            return lack | {"suspects": [], "seconds": math.nan, "alarm_step": None, "version": ""}
        version = judge.version(exhibit.truth)

        def ask() -> dict[str, Any]:
            answer = self._ask("diagnose", exhibit, judge)
            answer["alarm_step"] = self._alarm_step(exhibit, judge) if answer["suspects"] else None
            return answer

        return self._kept(self.diagnosis_path(exhibit.key, judge.name, version), ask, again) | {"version": version}

    def stored(self, exhibit: Exhibit, judge: Judge) -> dict[str, Any] | None:
        """Return the diagnosis that :meth:`judge` would take from the store, whether its trace is there or not."""
        version = judge.version(exhibit.truth)
        answer = self._read(self.diagnosis_path(exhibit.key, judge.name, version))
        return None if answer is None else answer | {"version": version}

    def diagnosis_path(self, key: str, detector: str, version: str) -> Path:
        """Return where it is stored what a version of a detector said of a trace."""
        return self.root / "diagnoses" / key / f"{detector}-{version}.json"

    def extract(
        self, exhibit: Exhibit, judge: Judge, verify: Callable[[], None] | None = None, again: bool = False
    ) -> dict[str, Any]:
        """Return ``status``, ``reason`` and, if that went well, as ``value`` what a detector has to learn of a trace.

        Kept like a diagnosis; raises the same, and what ``verify`` raises, which is called if none is stored.
        """

        def ask() -> dict[str, Any]:
            if verify is not None:
                verify()
            return self._ask("extract", exhibit, judge)

        return self._kept(self.extract_path(exhibit.key, judge), ask, again)

    def extract_path(self, key: str, judge: Judge) -> Path:
        """Return where it is stored what a detector extracts from a trace."""
        return self.root / "extracts" / key / f"{judge.name}-{judge.digest}.json"

    def fit(self, judge: Judge, examples: Sequence[tuple[Any, Label]], workload: str, again: bool = False) -> Model:
        """Return what a detector learns from examples, to judge a workload of which none of them is.

        Kept like a diagnosis; raises the same.
        """
        content = [[value, label._asdict()] for value, label in examples]
        name = f"{judge.name}-{judge.digest}-{digest(content, [version(name) for name in LEARNING_PACKAGES])[:12]}"

        def export_examples(folder: Path) -> None:
            folder.mkdir(parents=True)
            (folder / EXAMPLES).write_text(json.dumps(content))

        def ask() -> dict[str, Any]:
            return self._perform("fit", judge, name, EXAMPLES, export_examples)

        answer = self._kept(self.root / "models" / workload / f"{name}.json", ask, again)
        if answer["status"] != "ok":
            return Model(status=answer["status"], reason=f"fit: {answer['reason']}")
        return Model(json.dumps(answer["value"]))

    def _kept(self, path: Path, ask: Callable[[], dict[str, Any]], again: bool) -> dict[str, Any]:
        """Return the answer stored at ``path``, or ask for one and store it; see :meth:`judge`."""
        if not again and (stored := self._read(path)) is not None:
            return stored
        answer = ask()
        if not answer.pop("transient", False) and answer["status"] not in ("out_of_memory", "not_installed"):
            write_sealed(path, answer)
        return answer

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Return the answer stored at ``path`` if it stands; see :meth:`judge`."""
        try:
            stored = read_sealed(path)
            return stored if self._stands(stored["isolation"]) else None
        except FileNotFoundError:
            return None
        except Damaged as damage:
            warn(f"{damage}: judged again")
            return None

    def judge_all(
        self, pairs: Iterable[tuple[Exhibit, Judge]], workers: int, again: bool = False
    ) -> list[dict[str, Any]]:
        """Judge many pairs, ``workers`` at a time, in the order given."""
        return self.pool.run(lambda pair: self.judge(pair[0], pair[1], again), pairs, workers)

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
        """Return the last step of the shortest prefix of the trace that raises an alarm.

        Who asks for the program alone, to run it again, finds what there is to find before the first step: 0. To ask it
        once more beside a shorter record would have the same training done twice.
        """
        if "rerun" in judge.access and judge.access <= {"rerun", "source"}:
            return 0
        steps = pd.read_parquet(exhibit.trace / "steps.parquet", columns=["split", "step"])
        total = int((steps["split"] == "train").sum())
        for until in prefixes(exhibit.trace, total):
            if self._ask("diagnose", exhibit, judge, until)["suspects"]:
                return until - 1
        return max(total - 1, 0)

    def _ask(self, task: str, exhibit: Exhibit, judge: Judge, until: int | None = None) -> dict[str, Any]:
        """Have a task done that is about a trace."""
        if "truth" in judge.access and not is_own_oracle(judge.file):
            return failure("crashed", f"the truth is for the project's own oracle, not for {judge.name}")
        truth = exhibit.truth if "truth" in judge.access else {}
        model = judge.model if judge.learns and task == "diagnose" else None

        def export_part(folder: Path) -> None:
            export(exhibit.trace, folder, judge.access, until)
            if "rerun" in judge.access:
                shutil.copytree(exhibit.data, folder / "data", copy_function=shutil.copyfile)
            if "truth" in judge.access:
                (folder / "truth.json").write_text(json.dumps(truth))
            if model is not None:
                (folder / MODEL).write_text(model.text)

        part = (judge.access, digest(dict(truth)), until, model and model.digest)
        return self._perform(task, judge, exhibit.key, part, export_part)

    def _perform(
        self, task: str, judge: Judge, exhibit: str, part: Hashable, export_part: Callable[[Path], None]
    ) -> dict[str, Any]:
        """Have a task done in a judging process, with the folder that ``export_part`` makes."""
        with self.pool.borrow() as worker:
            try:
                folder = worker.place(exhibit, part, export_part)
                answer = worker.diagnose(judge.file, judge.knobs, folder, self.judge_seconds, task)
            except TimedOut as error:
                answer = failure("timed_out", str(error))
            except WorkerDied as error:
                answer = failure("crashed", str(error))
        if "failure" in answer:
            answer = failure("crashed", answer["failure"])
        if answer["status"] == "ok" and (task == "diagnose") == ("value" in answer):
            answer = failure("invalid", f"what came back is no answer to {task}")
        return {"isolation": worker.level} | answer


def prefixes(trace: Path, total: int) -> list[int]:
    """Return the numbers of training batches at which time to alarm is measured: one after each kept batch."""
    kept = sorted(int(m.group(1)) for p in (trace / "batches").glob("train-*") if (m := re.search(r"-(\d+)\.", p.name)))
    return [step + 1 for step in kept if step + 1 < total]
