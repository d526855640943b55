"""One job, the main road: a card edits programs, they train under the recorder, detectors judge, verdicts are kept.

Where the harness itself fails, one case is lost and says so: its rows have the status "skipped" with the reason, the
traceback lies in ``results/runs/failures/<workload>/<bug>/seed-<n>.txt``, and the next run tries it again.
"""

import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from bugbench import atomic, panel
from bugbench.card import Card
from bugbench.catalogue import Catalogue, Workload
from bugbench.judging import Bench, Exhibit, Judge
from bugbench.judging_worker import JUDGE_MEMORY
from bugbench.known_impact import measured_impact
from bugbench.learning import Learning
from bugbench.pools import judge_pool, secrets, train_pool
from bugbench.records import Record, Records
from bugbench.runner import Case, Outcome, Run, digest, onset, prepare_seeds
from bugbench.scoring import verdict, verdict_table
from bugbench.store import HarnessFailure, Store
from bugbench.suspects import InvalidDiagnosis
from bugbench.worker import DEFAULT_MEMORY


@dataclass(frozen=True)
class Plan:
    """What one job is to do; in a sweep, detectors that learn judge ``later``, when its cases are all there."""

    card: Card
    workloads: Sequence[Workload]
    seeds: Sequence[int]
    judges: Sequence[Judge]
    results: Path
    workers: int = 2
    train_seconds: float = 300
    judge_seconds: float = 60
    train_memory: int = DEFAULT_MEMORY
    judge_memory: int = JUDGE_MEMORY
    isolation: str = "auto"
    later: bool = False


@dataclass(frozen=True)
class CaseResult:
    """A case with all that was found.

    Attributes:
        outcome, twin: what came of the two runs; None in a case that was skipped, or known before.
        problem: a line that says what went wrong in the harness, if anything did.
        stored: whether its file could be written.
    """

    case: Case
    record: Record
    outcome: Outcome | None
    twin: Outcome | None
    verdicts: pd.DataFrame
    problem: str | None = None
    stored: bool = True


def run_job(
    plan: Plan, catalogue: Catalogue, on_progress: Callable[[str, dict[str, Any]], None] | None = None
) -> list[CaseResult]:
    """Train and judge all cases of a plan and store what was found.

    Args:
        plan: see :class:`Plan`.
        catalogue: for the faults' families.
        on_progress: called with "bug" or "twin" (and seed and workload in the state) while programs train.
    """
    store = Store(plan.results, train_pool(plan.workers, plan.train_memory), plan.train_seconds)
    judging = judge_pool(plan.workers, plan.isolation, secrets(catalogue, plan.results), plan.judge_memory)
    bench = Bench(plan.results, judging, plan.judge_seconds)
    cases = [case for workload in plan.workloads for case in prepare_seeds(plan.card, workload, plan.seeds)]
    known = _known(cases, plan, store, bench, catalogue)
    names: dict[str, str] = {}
    runs, twins = [], []
    for case in cases:
        if case.folder in known:
            continue
        try:
            keys = store.key(case.run), store.key(case.twin)
        except HarnessFailure:  # no training data: each of the cases says so below
            continue
        names[keys[0]] = f"{case.card.label}, seed {case.seed}"
        names[keys[1]] = f"healthy twin, seed {case.seed}"
        runs.append(case.run)
        twins.append(case.twin)
    report = (lambda key, state: on_progress(names[key], state)) if on_progress else None
    # jobs side by side share their twins: each begins with what is its own, and takes the twins in an order of its own,
    # so that a twin is seldom trained by two jobs at the same time
    twins.sort(key=lambda run: digest(plan.card.label, store.key(run)))
    outcomes = store.train_all([*runs, *twins], plan.workers, report)
    for worker in judging.workers:
        worker.forget()  # a trace that was damaged, or of a failed attempt, has another in its place now
    learning = Learning(plan.results, store, bench, plan.workers, measured_impact)
    return [known.get(case.folder) or _finish(case, outcomes, plan, store, learning, catalogue) for case in cases]


def _known(
    cases: Sequence[Case], plan: Plan, store: Store, bench: Bench, catalogue: Catalogue
) -> dict[str, CaseResult]:
    """Return, by folder, the cases of a sweep of which all that it asks for is stored, though traces may be gone.

    Traces take most of the room, and cases may have been taken over from elsewhere without. Detectors that learn need
    the traces of all cases, and who runs a single job wants to see its curves.
    """
    if not plan.later or any(judge.learns for judge in plan.judges):
        return {}
    folders = {case.folder: case for case in cases}
    known = {}
    for record in Records(plan.results).read(folders).records:
        case = folders[record.folder]
        try:
            same = (store.key(case.run), store.key(case.twin)) == (record.trace_key, record.twin_key)
        except HarnessFailure:
            continue
        declared = record.same_programs(_unmeasured(case, catalogue))
        if not same or not declared or record.transient or record.skipped:
            continue
        seen = exhibit(record, store)
        diagnoses = [said for judge in plan.judges if (said := bench.stored(seen, judge)) is not None]
        if len(diagnoses) == len(plan.judges):
            verdicts = verdict_rows(record, plan.judges, diagnoses, catalogue.faults)
            known[record.folder] = _kept(CaseResult(case, record, None, None, verdicts), plan)
    return known


def _finish(
    case: Case,
    outcomes: Mapping[str, Outcome | HarnessFailure],
    plan: Plan,
    store: Store,
    learning: Learning,
    catalogue: Catalogue,
) -> CaseResult:
    """Measure, judge and store a case; a failure on the way costs this case only.

    What detectors that take no part now said of the same run earlier stays stored. Those that judge later leave no row
    until they have.
    """
    judges = [judge for judge in plan.judges if not (plan.later and judge.learns)]
    log = store.root / "failures" / case.folder
    log = log.with_name(f"{log.name}.txt")
    try:
        outcome, twin = outcome_of(case.run, outcomes, store), outcome_of(case.twin, outcomes, store, "healthy twin: ")
        record = record_of(case, outcome, twin, store, catalogue)
        taught = learning.taught(judges, record.workload, record.data)
        diagnoses = panel.judge_all(learning.bench, exhibit(record, store), taught, plan.workers)
        verdicts = verdict_rows(record, judges, diagnoses, catalogue.faults)
        result = CaseResult(case, record, outcome, twin, verdicts)
        log.unlink(missing_ok=True)  # of an attempt that failed
    except Exception as error:
        failure = error if isinstance(error, HarnessFailure) else _failure(error)
        record = _unmeasured(case, catalogue, skipped=str(failure))
        verdicts = skipped_rows(record, judges, catalogue.faults)
        problem = f"{_title(case)}: skipped, {failure}"
        try:
            atomic.write(log, f"{failure}\n\n{failure.traceback}")
            problem += f" (traceback: {log})"
        except OSError as full:
            problem += f" (the traceback cannot be written: {full})"
        result = CaseResult(case, record, None, None, verdicts, problem)
    return _kept(result, plan)


def _kept(result: CaseResult, plan: Plan) -> CaseResult:
    """Store a case; the result tells if that was not possible. What is known of it is not lost to a failed attempt."""
    record, records = result.record, Records(plan.results)
    try:
        known = records.stored(record.folder) if record.skipped else None
        if known is not None and not known.skipped and known.same_programs(record):
            return replace(result, problem=f"{result.problem}; what was stored of it before stays")
        records.join(record, result.verdicts)
    except OSError as error:
        said = [] if result.problem is None else [result.problem]
        problem = f"{_title(result.case)}: its verdicts cannot be written: {type(error).__name__}: {error}"
        return replace(result, problem="; ".join([*said, problem]), stored=False)
    return result


def outcome_of(run: Run, outcomes: Mapping[str, Outcome | HarnessFailure], store: Store, whose: str = "") -> Outcome:
    """Return the outcome of a case's run; of its twin only one that a bug can be compared with.

    Raises:
        HarnessFailure: there is none.
    """
    outcome = outcomes[store.key(run)]
    if isinstance(outcome, HarnessFailure):
        raise HarnessFailure(f"{whose}{outcome}", outcome.traceback)
    if whose and not (outcome.steps and outcome.oracle is not None and math.isfinite(outcome.oracle)):
        # the same data set, metric and machine serve the bug: what fails without a bug says nothing of one
        error = outcome.error or f"after {outcome.steps} steps the data set's oracle_metric returned {outcome.oracle}"
        raise HarnessFailure(f"{whose}there is no result to compare with: {error}", f"trace: {outcome.key}\n")
    return outcome


def _failure(error: Exception) -> HarnessFailure:
    return HarnessFailure(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))


def _title(case: Case) -> str:
    return f"{case.card.label} on {case.workload.label}, seed {case.seed}"


def record_of(case: Case, bug: Outcome, twin: Outcome, store: Store, catalogue: Catalogue) -> Record:
    same = bug.key == twin.key
    return replace(
        _unmeasured(case, catalogue),
        onset=None if same else onset(store.trace(bug.key), store.trace(twin.key)),
        trace_key=bug.key,
        twin_key=twin.key,
        data=store.data_folder(case.workload).name,
        oracle_bug=bug.oracle,
        oracle_twin=twin.oracle,
        reported_bug=bug.reported,
        reported_twin=twin.reported,
        crashed_bug=bug.crashed,
        error=bug.error,
        seconds_bug=bug.seconds,
        seconds_twin=twin.seconds,
        steps=bug.steps,
        transient=bug.transient,
    )


def _unmeasured(case: Case, catalogue: Catalogue, skipped: str | None = None) -> Record:
    """Return what is known of a case before it ran."""
    card = case.card
    return Record(
        bug=card.label,
        fault=card.fault,
        family="none" if card.control else catalogue.faults[card.fault]["family"],
        control=card.control,
        workload=case.workload.label,
        seed=case.seed,
        onset=None,
        lines=list(case.lines),
        accepts=list(card.accepts),
        trace_key="",
        twin_key="",
        program_key=case.program_key,
        data="",
        oracle_bug=None,
        oracle_twin=None,
        reported_bug=None,
        reported_twin=None,
        crashed_bug=False,
        error=None,
        seconds_bug=0.0,
        seconds_twin=0.0,
        oracle=dict(case.workload.settings["oracle"]),
        skipped=skipped,
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
        rows.append(row | {name: diagnosis.get(name, "") for name in ("isolation", "version")})
    return verdict_table(rows)


def skipped_rows(record: Record, judges: Sequence[Judge], faults: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Return one verdict row per detector for a case of which nothing is known."""
    nothing: dict[str, Any] = {"status": "skipped", "reason": record.skipped or ""}
    nothing |= {"suspects": [], "alarm_step": None, "seconds": math.nan}
    return verdict_rows(record, judges, [nothing] * len(judges), faults)
