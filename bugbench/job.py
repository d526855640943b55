"""One job, the main road: a card edits programs, they train under the recorder, detectors judge, verdicts are kept."""

import atexit
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from bugbench.card import Card
from bugbench.catalogue import Catalogue, Workload
from bugbench.judging import Bench, Exhibit, Judge
from bugbench.names import UnknownName
from bugbench.plugins import project_folder
from bugbench.records import Record, Records, impact_of, merge_impact, read_impact
from bugbench.runner import Case, Outcome, Store, digest, onset, prepare
from bugbench.scoring import InvalidDiagnosis, verdict, verdict_table
from bugbench.worker import WorkerPool


@dataclass(frozen=True)
class Plan:
    """What one job is to do."""

    card: Card
    workloads: Sequence[Workload]
    seeds: Sequence[int]
    judges: Sequence[Judge]
    results: Path
    workers: int = 2
    train_seconds: float = 300
    judge_seconds: float = 60


@dataclass(frozen=True)
class CaseResult:
    """A case with all that was found."""

    case: Case
    record: Record
    outcome: Outcome
    twin: Outcome
    verdicts: pd.DataFrame


@lru_cache
def pool(kind: str, size: int) -> WorkerPool:
    """Return the process-wide pool of a kind: later jobs of a sweep find torch loaded."""
    workers = WorkerPool(kind, size)  # type: ignore[arg-type]
    atexit.register(workers.close)
    return workers


def run_job(
    plan: Plan, catalogue: Catalogue, on_progress: Callable[[str, dict[str, Any]], None] | None = None
) -> list[CaseResult]:
    """Train and judge all cases of a plan and store what was found.

    Args:
        plan: see :class:`Plan`.
        catalogue: for the faults' families.
        on_progress: called with "bug" or "twin" (and seed and workload in the state) while programs train.
    """
    store = Store(plan.results, pool("train", plan.workers), plan.train_seconds)
    bench = Bench(plan.results, pool("judge", plan.workers), plan.judge_seconds)
    cases = [prepare(plan.card, workload, seed) for workload in plan.workloads for seed in plan.seeds]
    names = {store.key(c.twin): f"healthy twin, seed {c.seed}" for c in cases}
    names |= {store.key(c.run): f"{c.card.label}, seed {c.seed}" for c in cases if c.run != c.twin}
    report = (lambda key, state: on_progress(names[key], state)) if on_progress else None
    # jobs side by side share their twins: each begins with what is its own, and takes the twins in an order of its own,
    # so that a twin is seldom trained by two jobs at the same time
    twins = sorted((c.twin for c in cases), key=lambda run: digest(plan.card.label, store.key(run)))
    outcomes = store.train_all([*(c.run for c in cases), *twins], plan.workers, report)
    records = [_record(case, outcomes, store, catalogue) for case in cases]
    diagnoses = bench.judge_all(
        [(exhibit(record, store), judge) for record in records for judge in plan.judges], plan.workers
    )
    results = []
    for i, (case, record) in enumerate(zip(cases, records, strict=True)):
        own = diagnoses[i * len(plan.judges) : (i + 1) * len(plan.judges)]
        verdicts = verdict_rows(record, plan.judges, own, catalogue.faults)
        Records(plan.results).write(record, verdicts)
        results.append(CaseResult(case, record, outcomes[record.trace_key], outcomes[record.twin_key], verdicts))
    return results


def _record(case: Case, outcomes: Mapping[str, Outcome], store: Store, catalogue: Catalogue) -> Record:
    card, key, twin_key = case.card, store.key(case.run), store.key(case.twin)
    bug, twin = outcomes[key], outcomes[twin_key]
    return Record(
        bug=card.label,
        fault=card.fault,
        family="none" if card.control else catalogue.faults[card.fault]["family"],
        control=card.control,
        workload=case.workload.label,
        seed=case.seed,
        onset=None if key == twin_key else onset(store.trace(key), store.trace(twin_key)),
        lines=list(case.lines),
        accepts=list(card.accepts),
        trace_key=key,
        twin_key=twin_key,
        program_key=case.program_key,
        data=store.data_folder(case.workload).name,
        oracle_bug=bug.oracle,
        oracle_twin=twin.oracle,
        reported_bug=bug.reported,
        reported_twin=twin.reported,
        crashed_bug=bug.crashed,
        error=bug.error,
        seconds_bug=bug.seconds,
        seconds_twin=twin.seconds,
        oracle=dict(case.workload.settings["oracle"]),
    )


def exhibit(record: Record, store: Store) -> Exhibit:
    """Return what is put before the detectors; only the oracle gets to see the truth in it."""
    truth = {"fault": record.fault, "lines": record.lines}
    return Exhibit(record.trace_key, store.trace(record.trace_key), store.root / "data" / record.data, truth)


def verdict_rows(
    record: Record,
    judges: Sequence[Judge],
    diagnoses: Iterable[Mapping[str, Any]],
    faults: Mapping[str, Mapping[str, str]],
) -> pd.DataFrame:
    """Return one verdict row per detector for a case."""
    families = {fault: entry["family"] for fault, entry in faults.items()}
    rows = []
    for judge, diagnosis in zip(judges, diagnoses, strict=True):
        say = {name: diagnosis[name] for name in ("status", "reason", "suspects", "alarm_step", "seconds")}
        try:
            row = verdict(record.truth, judge.name, judge.access, families, **say)
        except InvalidDiagnosis as error:
            say |= {"status": "invalid", "reason": str(error), "suspects": [], "alarm_step": None}
            row = verdict(record.truth, judge.name, judge.access, families, **say)
        rows.append(row)
    return verdict_table(rows)


def reference_impact(results: Path) -> pd.DataFrame | None:
    """Return the impact table that ships with the project, with this results folder's own measurements in it."""
    shipped = read_impact(project_folder("results") / "impact.csv")
    own = read_impact(results / "impact.csv")
    return shipped if own is None else merge_impact(shipped, own)


def choose_workloads(card: Card, choice: str, catalogue: Catalogue, impact: pd.DataFrame | None) -> list[Workload]:
    """Return the workloads a job runs on: "auto" is where the bug bites hardest, "all" every one it applies to.

    Raises:
        UnknownName: the card applies to no workload, with the reason for each.
    """
    applicable = catalogue.applicable(card)
    if not applicable:
        reasons = [f"  {w.name}: {catalogue.why_not(card, w)}" for w in catalogue.workloads.values()]
        raise UnknownName("\n".join([f"{card.id} applies to no workload:", *reasons]))
    if choice == "all":
        return applicable
    if impact is None:
        return applicable[:1]
    rows = impact[impact["bug"] == card.id].set_index("workload")

    def bite(workload: Workload) -> float:
        if workload.name not in rows.index:
            return -1.0
        row = rows.loc[workload.name]
        if row["state"] == "latent":
            return 0.0
        width = workload.settings["oracle"]["bounds"][1] - workload.settings["oracle"]["bounds"][0]
        misreport = abs(row["report_shift"]) / width
        return 1.0 + max(row["effect_share"], misreport) + (2.0 if row["state"] == "crashed" else 0.0)

    return [max(applicable, key=bite)]


def measured_impact(results: Path, records: Sequence[Record]) -> pd.DataFrame:
    """Return the impact of these cases, from longer measurements of the same programs where there are any."""
    measured = impact_of(records)
    reference = reference_impact(results)
    if reference is None:
        return measured
    merged = merge_impact(reference, measured).set_index(["bug", "workload"])
    pairs = measured.set_index(["bug", "workload"]).index
    return merged.loc[pairs].reset_index()
