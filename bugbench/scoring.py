"""What diagnoses are worth: a verdict per case and detector, a leaderboard over all verdicts. Rows in, rows out."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from bugbench.clusters import cell_means
from bugbench.impact import is_harmful
from bugbench.statistics import Floats, cluster_bootstrap
from bugbench.suspects import check_suspects
from bugbench.trace import ACCESS

TIERS = (*ACCESS, "truth")  # the last is granted to nobody but the oracle
STATUSES = ("ok", "crashed", "timed_out", "out_of_memory", "not_installed", "not_applicable", "invalid", "skipped")
UNJUDGED = ("skipped", "not_installed")  # what says nothing of a detector: the harness failed, or its tool is not there
VERDICT_TYPES = {
    **dict.fromkeys(["bug", "fault", "family"], "string"),
    **{"control": "bool", "workload": "string", "seed": "int64", "onset": "float64"},
    **dict.fromkeys(["lines", "accepts"], "object"),
    **dict.fromkeys(["detector", "access", "status", "reason", "suspects"], "string"),
    **dict.fromkeys(["alarm", "exact", "family_right", "top3"], "bool"),
    **{"line_right": "boolean", "alarm_step": "Int64", "delay": "float64", "seconds": "float64"},
    **dict.fromkeys(["isolation", "version"], "string"),
}
AT_ONCE = {"source", "rerun", "truth"}  # accesses in which a fault is evident whether the run has come to it or not
MARKS = ("exact", "alarm", "family_right", "top3", "line_right")
DIGITS = 9  # of the leaderboard: equal detectors shall tie, whatever the order in which their sums were rounded


@dataclass(frozen=True)
class Truth:
    """What is known of a case.

    Attributes:
        bug, workload, seed: the case.
        fault, family: the card's fault and its family; both "none" for a control.
        control: whether nothing is wrong.
        onset: first step at which the trace differs from the healthy twin's; None (or NaN) if it never does.
        lines: 1-based lines of the program to blame.
        accepts: other faults, or families, that a fair judge would also take.
    """

    bug: str
    fault: str
    family: str
    control: bool
    workload: str
    seed: int
    onset: float | None = None
    lines: Sequence[int] = ()
    accepts: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.control != (self.fault == "none"):
            raise ValueError(f"{self.bug}: control is {self.control}, but the fault is {self.fault!r}")


def accesses(access: str | Iterable[str]) -> list[str]:
    """Return the accesses named ("data+curves" or a collection) in ascending order, or say which is unknown."""
    names = set(access.split("+") if isinstance(access, str) else access) - {""}
    if unknown := sorted(names - set(TIERS)):
        raise ValueError(f"unknown access {unknown[0]!r}: {', '.join(TIERS)}")
    return sorted(names, key=TIERS.index)


def widest(stored: Iterable[str]) -> str:
    """Return all that is in any of the accesses with which a detector was judged ("data", "data+source")."""
    return "+".join(accesses("+".join(sorted(set(stored)))))


def tier(access: str | Iterable[str]) -> str:
    """Return the highest of the accesses ("data+curves" or a collection); without any, "curves", which all get."""
    return (accesses(access) or ["curves"])[-1]


def verdict(
    truth: Truth,
    detector: str,
    access: str | Iterable[str],
    families: Mapping[str, str],
    suspects: Sequence[Mapping[str, Any]] = (),
    *,
    status: str = "ok",
    reason: str = "",
    alarm_step: int | None = None,
    seconds: float = math.nan,
) -> dict[str, Any]:
    """Hold a diagnosis against the truth; return the row of one case and detector.

    The order of the suspects ranks them; the confidence decides nothing. On a control, silence is right in every
    respect. ``line_right`` is None unless one of the first three suspects names a line and there is one to blame.
    For ``delay`` see :func:`delay_of`.

    Args:
        truth: of the case.
        detector: its id.
        access: what it was given.
        families: fault id to family id, for the whole vocabulary.
        suspects: see :func:`check_suspects`; none = healthy. Must be empty unless the status is "ok".
        status: one of :data:`STATUSES`; all but "ok" are silence.
        reason: why the status is not "ok".
        alarm_step: first recorded step (0-based training batch, as in ``onset``) with which a growing prefix of the
            trace raises an alarm; None if that was not measured. Ignored where the whole trace raises none.
        seconds: wall-clock time of the diagnosis; NaN where none was made.

    Raises:
        InvalidDiagnosis: the suspects break the rules.
        ValueError: unknown status or access, suspects without the status "ok", or a truth not in the vocabulary.
    """
    if not truth.control and families.get(truth.fault) != truth.family:
        raise ValueError(f"{truth.bug}: the vocabulary has no fault {truth.fault!r} in the family {truth.family!r}")
    if status not in STATUSES:
        raise ValueError(f"unknown status {status!r}: {', '.join(STATUSES)}")
    if suspects and status != "ok":
        raise ValueError(f"a detector that {status} has no suspects")
    checked = check_suspects(suspects, families)
    faults = [suspect["fault"] for suspect in checked]
    alarm = bool(faults)
    right = [fault == truth.fault or fault in truth.accepts for fault in faults]
    exact, top3 = (any(right[:1]), any(right[:3])) if not truth.control else (not alarm, not alarm)
    family_right = exact or (alarm and not truth.control and families.get(faults[0], faults[0]) == truth.family)

    named = {suspect["line"] for suspect in checked[:3]} - {None}
    onset = math.nan if truth.onset is None else float(truth.onset)
    step = int(alarm_step) if alarm and alarm_step is not None else None
    return {
        "bug": truth.bug,
        "fault": truth.fault,
        "family": truth.family,
        "control": truth.control,
        "workload": truth.workload,
        "seed": truth.seed,
        "onset": onset,
        "lines": list(truth.lines),
        "accepts": list(truth.accepts),
        "detector": detector,
        "access": "+".join(accesses(access)),
        "status": status,
        "reason": reason,
        "suspects": json.dumps(checked, ensure_ascii=False),
        "alarm": alarm,
        "exact": exact,
        "family_right": family_right,
        "top3": top3,
        "line_right": not named.isdisjoint(truth.lines) if named and truth.lines else None,
        "alarm_step": step,
        "delay": math.nan if truth.control else delay_of(step, onset, access),
        "seconds": float(seconds),
    }


def delay_of(alarm_step: int | None, onset: float, access: str | Iterable[str]) -> float:
    """Return the steps from onset to alarm of a bug; NaN without an onset or an alarm.

    An alarm before the onset is none, and NaN: until then the run was its healthy twin's, so whatever was seen in it is
    no evidence of the fault. To who has the program (:data:`AT_ONCE`) the fault shows before the first step: 0.
    """
    delay = math.nan if alarm_step is None else alarm_step - onset
    early = 0.0 if AT_ONCE.intersection(accesses(access)) else math.nan
    return early if delay < 0 else delay


def verdict_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return verdicts as a table whose column types do not depend on what happens to be in the rows."""
    return pd.DataFrame(list(rows), columns=list(VERDICT_TYPES)).astype(VERDICT_TYPES)


def leaderboard(verdicts: pd.DataFrame, impact: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return one row per detector, the best first.

    Rates are macro averages. Over the bugs that do harm: seeds within bug, bugs within fault, faults within workload,
    workloads; over the controls: seeds within control, controls within workload, workloads. A rate over nothing is
    NaN. A case with a status of :data:`UNJUDGED` is in no rate; any other status but "ok" is a miss on a bug and
    silence on a control. Detectors of which all cases are such come last.

    Args:
        verdicts: rows of :func:`verdict`, of any number of detectors.
        impact: ``bug, workload, state`` (:func:`bugbench.impact.measure_impact`) for all pairs not skipped.
        resamples: draws of faults, controls and workloads (see :mod:`bugbench.clusters`), the same for all detectors.
        seed: of the draws.

    Returns:
        * ``diagnosis_j``, ``detection_j``, ``family_j``: ``exact_rate``, ``detection_rate``, ``family_rate`` less
          ``false_alarm_rate``, in [-1, 1]; ``_low`` and ``_high``: 95 % interval.
        * ``top3_rate``: right among the first three suspects. ``line_rate``: a right line among those named, over the
          ``lines_named`` cases in which a line is named and one is to blame.
        * ``precision``: the share of alarms that name the cause, where bugs and controls are as many:
          ``exact_rate / (detection_rate + false_alarm_rate)``; NaN without an alarm.
        * ``median_delay``: steps from onset to alarm, over harmful bug cases; ``median_seconds``: over all cases.
        * ``cases``: harmful bug cases, ``controls``: control cases, both of which the rates are about; ``latent``:
          bug cases left out because they do no harm; ``harmful_controls``: control cases whose card was measured to
          do harm. They stay among the controls until the card is mended, and show here: left out, they would move
          every detector's rate unseen.
        * one count per status, over all cases; those of :data:`UNJUDGED` are in no other column.
        * ``access``: the widest with which the detector was judged, if it declares another than it did.

    Raises:
        ValueError: a row comes twice, a verdict has an unknown status or no impact.
    """
    cases = with_harm(verdicts, impact)
    bugs, controls = cases[~cases["control"] & cases["harmful"]], cases[cases["control"]]
    detectors = sorted(verdicts["detector"].unique())
    workloads = sorted(cases["workload"].unique())
    bug_cells = cell_means(bugs, "fault", MARKS, detectors, workloads)
    control_cells = cell_means(controls, "bug", ["alarm"], detectors, workloads)

    def rates(faults: Floats, controls: Floats, workloads: Floats) -> Floats:
        hits, false_alarms = bug_cells.mean(faults, workloads), control_cells.mean(controls, workloads)
        return np.hstack([hits, false_alarms]).reshape(len(hits), len(MARKS) + 1, len(detectors))

    def scores(*weights: Floats) -> Floats:
        drawn = rates(*weights)
        return drawn[:, :2] - drawn[:, -1:]  # exact and alarm, each less the false alarms

    sizes = [bug_cells.unit_count, control_cells.unit_count, len(workloads)]
    low, high = cluster_bootstrap(scores, sizes, resamples, seed=seed)
    exact, alarm, family, top3, line, false_alarm = rates(*(np.ones((1, size)) for size in sizes))[0]

    spoke = alarm + false_alarm
    by_detector = cases.groupby("detector")
    columns = {
        "access": verdicts.groupby("detector")["access"].agg(widest),
        "diagnosis_j": exact - false_alarm,
        "detection_j": alarm - false_alarm,
        "false_alarm_rate": false_alarm,
        "exact_rate": exact,
        "family_rate": family,
        "top3_rate": top3,
        "precision": np.divide(exact, spoke, out=np.full_like(exact, np.nan), where=spoke > 0),
        "detection_rate": alarm,
        "family_j": family - false_alarm,
        **{"diagnosis_j_low": low[0], "diagnosis_j_high": high[0]},
        **{"detection_j_low": low[1], "detection_j_high": high[1]},
        "median_delay": bugs.groupby("detector")["delay"].median(),
        "line_rate": line,
        "median_seconds": by_detector["seconds"].median(),
    }
    table = pd.DataFrame(columns, index=pd.Index(detectors, name="detector"))
    counted = {
        "cases": bugs,
        "controls": controls,
        "latent": cases[~cases["control"] & ~cases["harmful"]],
        "harmful_controls": controls[controls["harmful"]],
        "lines_named": bugs[bugs["line_right"].notna()],
        **{status: verdicts[verdicts["status"] == status] for status in STATUSES},
    }
    for name, rows in counted.items():
        table[name] = rows["detector"].value_counts().reindex(table.index, fill_value=0).astype("int64")
    by_score = ["diagnosis_j", "exact_rate", "detection_j", "detection_rate"]  # without controls no J is known
    ascending = [*[False] * len(by_score), True]
    return (
        table.round(DIGITS).reset_index().sort_values([*by_score, "detector"], ascending=ascending, ignore_index=True)
    )


def with_harm(verdicts: pd.DataFrame, impact: pd.DataFrame) -> pd.DataFrame:
    """Return the verdicts with numbers for marks and a column ``harmful``, once everything is there and once only."""
    for table, key in ((verdicts, ["detector", "bug", "workload", "seed"]), (impact, ["bug", "workload"])):
        repeated = table.loc[table.duplicated(key), key]
        if len(repeated):
            raise ValueError(f"row given twice: {repeated.iloc[0].to_dict()}")
    if unknown := sorted(set(verdicts["status"]) - set(STATUSES)):
        raise ValueError(f"unknown status {unknown[0]!r}: {', '.join(STATUSES)}")
    harm = impact[["bug", "workload"]].assign(harmful=[is_harmful(state) for state in impact["state"]])
    cases = verdicts[~verdicts["status"].isin(UNJUDGED)].merge(harm, on=["bug", "workload"], how="left")
    unmeasured = cases.loc[cases["harmful"].isna(), ["bug", "workload"]].drop_duplicates()
    if len(unmeasured):
        pairs = ", ".join(f"{bug} on {workload}" for bug, workload in unmeasured.head(5).itertuples(index=False))
        raise ValueError(f"no impact was measured for {len(unmeasured)} pairs: {pairs}")
    marks = {mark: cases[mark].astype("boolean").to_numpy(dtype=float, na_value=np.nan) for mark in MARKS}
    return cases.assign(**marks, harmful=cases["harmful"].astype(bool), control=cases["control"].astype(bool))
