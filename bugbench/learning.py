"""Teach the detectors that learn: for each workload on the stored cases of all others that have other data.

The border is never the seed: two seeds of a program are all but copies, and so are two values of a card's knob, or the
same program with other settings. Workloads on one data set are relatives (one network for all processes of a program,
or for two), so they are left out together.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from bugbench.detector import Label
from bugbench.impact import is_harmful
from bugbench.integrity import Damaged, warn
from bugbench.judging import Bench, Exhibit, Judge, Model
from bugbench.records import Record, Records
from bugbench.store import Store

MANY = 50  # runs to be looked at first, of which the user should hear
Impact = Callable[[Path, Sequence[Record]], pd.DataFrame]


@dataclass(frozen=True)
class Example:
    """A stored run to learn from: the names of its trace and of its training data's folder, and what is known of it."""

    key: str
    data: str
    label: Label


def workload_of(label: str) -> str:
    """Return the workload of which ``label`` is a variant: with other data, model or settings it is no other one."""
    return label.partition("(")[0]


def dataset_of(data: str) -> str:
    """Return the data set of which ``data`` is the folder's name."""
    return data.rpartition("-")[0]


def examples_without(workload: str, dataset: str, records: Iterable[Record], impact: pd.DataFrame) -> list[Example]:
    """Return what may be learned from to judge ``workload``, in an order that follows from the traces' names alone.

    Bugs count where they do harm, and are left out where they are latent. Controls and twins are healthy; a program
    counts once, however many cases have it for a twin or repeat it as a control.

    Args:
        workload: the one to leave out.
        dataset: its data set; other workloads that have it are left out too.
        records: the stored cases.
        impact: ``bug, workload, state`` of all of them that were not skipped.
    """
    states = {(row.bug, row.workload): str(row.state) for row in impact.itertuples()}
    examples: dict[tuple[str, str], Example] = {}
    forbidden: set[str] = set()
    for record in records:
        if record.skipped is not None:
            continue
        name = workload_of(record.workload)
        if name == workload or dataset_of(record.data) == dataset:
            forbidden |= {record.trace_key, record.twin_key}
            continue
        healthy = Label("none", "none", name, control=True)
        found = [(record.twin_key, healthy)]
        if record.control:
            found.append((record.trace_key, healthy))
        elif is_harmful(states[record.bug, record.workload]):
            found.append((record.trace_key, Label(record.fault, record.family, name, control=False)))
        for key, label in found:
            examples[key, label.fault] = Example(key, record.data, label)
    return [examples[names] for names in sorted(examples) if names[0] not in forbidden]


class Learning:
    """Fits models to the cases of a results folder, which are read when the first detector that learns asks for one.

    Args:
        results: the folder.
        store: of its traces.
        bench: where detectors extract and fit.
        workers: how many detectors extract at a time.
        impact: measures what the bugs of cases do, see :func:`bugbench.known_impact.measured_impact`.
        again: take no stored extract or model.
    """

    def __init__(
        self, results: Path, store: Store, bench: Bench, workers: int, impact: Impact, again: bool = False
    ) -> None:
        self.results, self.store, self.bench, self.workers = results, store, bench, workers
        self.impact, self.again = impact, again
        self._models: dict[tuple[str, str, str, str], Model] = {}
        self._extracts: dict[tuple[str, str, str], dict[str, Any]] = {}

    def taught(self, judges: Iterable[Judge], workload: str, data: str) -> list[Judge]:
        """Return the judges, with what those that learn have learned without ``workload``, its variants and relatives.

        Args:
            judges: of all kinds.
            workload: that is to be judged.
            data: name of the folder of its training data.
        """
        left_out = workload_of(workload), dataset_of(data)
        return [replace(judge, model=self._model(judge, *left_out)) if judge.learns else judge for judge in judges]

    @cached_property
    def _cases(self) -> tuple[list[Record], pd.DataFrame]:
        records = Records(self.results).read().scored
        return records, self.impact(self.results, records)

    def _model(self, judge: Judge, workload: str, dataset: str) -> Model:
        key = (judge.name, judge.digest, workload, dataset)
        if key not in self._models:
            self._models[key] = self._fitted(judge, workload, dataset)
        return self._models[key]

    def _fitted(self, judge: Judge, workload: str, dataset: str) -> Model:
        examples = examples_without(workload, dataset, *self._cases)
        if not examples:
            reason = f"nothing to learn from: no case of another workload than {workload}, on other data, is stored"
            return Model(status="not_applicable", reason=reason)
        answers = self._answers(judge, examples)
        found = [(a["value"], e.label) for a, e in zip(answers, examples, strict=True) if a["status"] == "ok"]
        lost = Counter((a["status"], a["reason"]) for a in answers if a["status"] != "ok")
        (status, reason), _ = next(iter(lost.most_common(1)), (("", ""), 0))
        if not found:
            return Model(status=status, reason=f"extract: {reason}")
        if failed := sum(number for (said, _), number in lost.items() if said != "not_applicable"):
            warn(f"{judge.name}: {failed} of {len(examples)} runs could not be learned from, most: {status}: {reason}")
        return self.bench.fit(judge, found, workload, self.again)

    def _answers(self, judge: Judge, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Return what the detector extracts from each run."""
        names = [(judge.name, judge.digest, example.key) for example in examples]
        missing = {n: e for n, e in zip(names, examples, strict=True) if n not in self._extracts}
        new = sum(not self.bench.extract_path(e.key, judge).exists() for e in missing.values())
        if new > MANY:
            warn(f"{judge.name} learns: it looks at {new} stored runs first")
        said = self.bench.pool.run(lambda e: self._extract(judge, e), missing.values(), self.workers)
        self._extracts |= dict(zip(missing, said, strict=True))
        return [self._extracts[name] for name in names]

    def _extract(self, judge: Judge, example: Example) -> dict[str, Any]:
        trace, data = self.store.trace(example.key), self.store.root / "data" / example.data
        exhibit = Exhibit(example.key, trace, data, truth={})
        try:
            return self.bench.extract(
                exhibit, judge, lambda: self.store.verify(example.key, example.data), again=self.again
            )
        except (Damaged, OSError) as error:
            return {"status": "crashed", "reason": f"{type(error).__name__}: {error}"}
