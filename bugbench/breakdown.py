"""Verdicts seen from other sides than the leaderboard: by fault, by answer, by time, and detector against detector.

Rows in, rows out. Every table has a row per detector and something else, and takes the cases that
:func:`bugbench.scoring.with_harm` returns; bugs that do no harm are in none of them.
"""

import itertools
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.clusters import cell_means
from bugbench.comparison import Ranks, friedman, holm, paired_p_values
from bugbench.scoring import DIGITS
from bugbench.statistics import Floats, cluster_bootstrap
from bugbench.survival import Survival, kaplan_meier

LEVEL = 0.05  # of the tests, after correction
HEALTHY = "healthy"  # what a detector without a suspect says
CASE = ["bug", "workload", "seed"]
ANSWERS = ("cause", "symptom", "family", "wrong", "silent")
MARKS = {"exact": "right", "alarm": "detected", "family_right": "family_right"}


def harmful_bugs(cases: pd.DataFrame) -> pd.DataFrame:
    return cases[~cases["control"] & cases["harmful"]]


def by_fault(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the share ``right``, ``detected`` and ``family_right`` per detector and fault: bugs, then workloads."""
    return _averaged(harmful_bugs(cases), ["fault", "family"], ["workload", "bug"])


def by_family(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the same per detector and family: bugs within fault, faults within workload, workloads."""
    return _averaged(harmful_bugs(cases), ["family"], ["workload", "fault", "bug"])


def by_control(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the share of alarms per detector and control: the mean over workloads."""
    table = _averaged(cases[cases["control"]], ["bug"], ["workload"])
    return table.rename(columns={"bug": "control", "detected": "flagged"}).drop(columns=["right", "family_right"])


def _averaged(cases: pd.DataFrame, subject: list[str], levels: list[str]) -> pd.DataFrame:
    """Return means of the marks per detector and ``subject``, over the last level first and the first level last."""
    columns = ["detector", *subject]
    keys = [*columns, *(level for level in levels if level not in columns)]
    means = cases.groupby(keys)[list(MARKS)].mean()
    for last in range(len(keys) - 1, len(columns) - 1, -1):
        means = means.groupby(level=keys[:last]).mean()
    counted = cases.groupby(columns).agg(
        workloads=("workload", "nunique"), bugs=("bug", "nunique"), cases=("bug", "size")
    )
    return pd.concat([counted, means.rename(columns=MARKS).round(DIGITS)], axis=1).reset_index()


def top_answers(cases: pd.DataFrame) -> pd.Series:
    """Return each case's first suspect, "healthy" where there is none."""
    suspects = [json.loads(text) for text in cases["suspects"]]
    return pd.Series([found[0]["fault"] if found else HEALTHY for found in suspects], index=cases.index, dtype="object")


def confusion(cases: pd.DataFrame) -> pd.DataFrame:
    """Return how often each detector gave which ``answer`` to which ``truth``, which is "healthy" on a control.

    ``right`` says whether the answer was taken, which it may be though it is another fault: a card says which it
    ``accepts``.
    """
    judged = cases[cases["control"] | cases["harmful"]]
    truth, family = (judged[c].where(~judged["control"], HEALTHY) for c in ("fault", "family"))
    table = pd.DataFrame(
        {"detector": judged["detector"], "truth": truth, "truth_family": family, "answer": top_answers(judged)}
    ).assign(right=judged["exact"] == 1)
    return table.value_counts(sort=False).rename("cases").reset_index()


def answers(cases: pd.DataFrame, families: Collection[str]) -> pd.DataFrame:
    """Return which share of the harmful bug cases each detector answered how; causes and symptoms are kept apart.

    Columns ``cause`` (an accepted fault), ``symptom`` (no fault, but the right family by name), ``family`` (another
    fault of the right family), ``wrong`` and ``silent``; each row sums to 1. Averaged as the leaderboard's rates.
    """
    bugs = harmful_bugs(cases)
    named_family = top_answers(bugs).isin(list(families))
    right, related, alarm = (bugs[mark] == 1 for mark in ("exact", "family_right", "alarm"))
    kinds = np.select(
        [~alarm, right & ~named_family, named_family & (related | right), related], ["silent", *ANSWERS[:3]], "wrong"
    )
    shares = bugs.assign(**{name: (kinds == name).astype(float) for name in ANSWERS})
    detectors = sorted(bugs["detector"].unique())
    cells = cell_means(shares, "fault", ANSWERS, detectors, sorted(bugs["workload"].unique()))
    means = cells.mean()[0].reshape(len(ANSWERS), len(detectors))
    table = pd.DataFrame(dict(zip(ANSWERS, means.round(DIGITS), strict=True)))
    return table.assign(detector=pd.Series(detectors, dtype="object"))[["detector", *ANSWERS]]  # even if there is none


@dataclass(frozen=True)
class AlarmTimes:
    """How long each detector takes to raise an alarm, right or wrong.

    Attributes:
        curves: by detector, the share of harmful bug cases still without an alarm; where a run ended without one, for
            good.
        horizon: the steps up to which the restricted means go: half of the runs go on for longer after the onset. Where
            no run's length is known it is the time of the latest alarm, and NaN if that is 0 or there is none: then
            there are no means.
        measured: whether the length of any run is known.
        table: ``detector, cases, alarms, restricted_mean, median`` and the seconds that a diagnosis takes. A median
            beyond the horizon is NaN: it would rest on the few longest runs.
        unknown: cases left out because no step of theirs is known to differ from the twin's.
    """

    curves: Mapping[str, Survival]
    horizon: float
    measured: bool
    table: pd.DataFrame
    unknown: int


def alarm_times(cases: pd.DataFrame, lengths: pd.DataFrame) -> AlarmTimes:
    """Return the time from onset to alarm of every detector (:func:`bugbench.scoring.delay_of`).

    A run that ended without an alarm was missed: it stays without one, as where something else forestalls the event
    (the cumulative incidence of Kalbfleisch and Prentice 1980, 8.2). Censored at its end it would count as if a longer
    run had brought the alarms of the longest runs, which are of other programs. So only the horizon rests on lengths: a
    case is in where its length is unknown, whether there was an alarm or not.

    Args:
        cases: see above.
        lengths: ``bug, workload, seed, steps``: training batches of each run; NaN where that is not known.
    """
    bugs = harmful_bugs(cases).merge(lengths, on=CASE, how="left")
    watched = bugs["steps"] - 1 - bugs["onset"]
    known = bugs["onset"].notna()
    seconds = cases.groupby("detector")["seconds"]
    table = pd.DataFrame({"median_seconds": seconds.median(), "p95_seconds": seconds.quantile(0.95)})
    after = watched[~bugs.duplicated(CASE)].dropna().clip(lower=0)
    latest = float(bugs["delay"].max())
    longest = max([*after, *bugs["delay"].dropna()], default=0.0)
    horizon = float(after.median()) if len(after) else latest if latest > 0 else math.nan
    curves = {}
    for detector, own in bugs[known].groupby("detector"):
        alarmed = own["delay"].notna()
        curves[str(detector)] = kaplan_meier(own["delay"].fillna(longest), alarmed)
        table.loc[detector, ["cases", "alarms"]] = len(own), alarmed.sum()
    table["restricted_mean"] = {name: curve.mean_until(horizon) for name, curve in curves.items()}
    medians = {name: curve.median for name, curve in curves.items()}
    table["median"] = {name: median if median <= horizon else np.nan for name, median in medians.items()}
    counts = {name: table.get(name, pd.Series(0.0, table.index)).fillna(0).astype(int) for name in ("cases", "alarms")}
    columns = ["cases", "alarms", "restricted_mean", "median", "median_seconds", "p95_seconds"]
    table = table.assign(**counts)[columns].round(DIGITS).rename_axis("detector").reset_index()
    lost = bugs.loc[~known, CASE].drop_duplicates()
    return AlarmTimes(curves, horizon, len(after) > 0, table, len(lost))


def comparisons(cases: pd.DataFrame, detectors: Sequence[str]) -> pd.DataFrame:
    """Return a row per pair of detectors: is the difference of their diagnosis J's more than chance?

    Over the cases on which both were judged. ``p``: what a fault, or a control, adds to the difference of the two J's
    on all workloads together may as well have had the other sign, if the detectors were equally good
    (:func:`bugbench.comparison.paired_p_values`); ``p_holm`` is corrected for the number of pairs (Holm 1979). That is
    about other faults and other controls on these very workloads, though a detector may take all runs of one workload
    for faulty ones. So the interval from ``low`` to ``high`` draws workloads again as well
    (:func:`bugbench.statistics.cluster_bootstrap`), and ``told_apart`` are those whose ``p_holm`` is 0.05 or less and
    whose interval leaves out 0. ``clusters`` counts faults and controls; where there are none of one or the other,
    nothing else is known.

    Args:
        cases: see above.
        detectors: those to compare, all others left out.
    """
    names = list(detectors)
    bugs, controls = (rows[rows["detector"].isin(names)] for rows in (harmful_bugs(cases), cases[cases["control"]]))
    judged = pd.concat([bugs, controls]).assign(here=True)
    known = judged.pivot(index=CASE, columns="detector", values="here").notna()
    known = known.reindex(columns=names, fill_value=False)
    by_coverage: dict[bytes, list[tuple[int, int]]] = {}
    for a, b in itertools.combinations(range(len(names)), 2):
        by_coverage.setdefault((known[names[a]] & known[names[b]]).to_numpy().tobytes(), []).append((a, b))
    tables = [pd.DataFrame(columns=["detector", "other", "clusters", "difference", "low", "high", "p"])]
    for coverage, pairs in by_coverage.items():
        shared = known.index[np.frombuffer(coverage, dtype=bool)]
        compared = [names[place] for place in sorted({place for pair in pairs for place in pair})]
        places = [(compared.index(names[a]), compared.index(names[b])) for a, b in pairs]
        both = [rows[pd.MultiIndex.from_frame(rows[CASE]).isin(shared)] for rows in (bugs, controls)]
        found = _compared([rows[rows["detector"].isin(compared)] for rows in both], compared, places)
        first, second = ([compared[pair[end]] for pair in places] for end in (0, 1))
        tables.append(found.assign(detector=first, other=second))
    table = pd.concat([part for part in tables if len(part)] or tables)[tables[0].columns]
    adjusted = holm(table["p"].to_numpy(dtype=float))
    apart = (adjusted <= LEVEL) & ~((table["low"] <= 0) & (table["high"] >= 0))
    return table.assign(p_holm=adjusted, told_apart=apart).sort_values(["detector", "other"], ignore_index=True)


def _compared(
    shared: Sequence[pd.DataFrame], detectors: Sequence[str], pairs: Sequence[tuple[int, int]]
) -> pd.DataFrame:
    """Return ``clusters, difference, low, high, p`` of each pair, given the bugs and the controls both judged."""
    if any(rows.empty for rows in shared):
        unknown = dict.fromkeys(("difference", "low", "high", "p"), math.nan)
        return pd.DataFrame({"clusters": 0, **unknown}, index=range(len(pairs)))
    workloads = sorted(set().union(*(rows["workload"] for rows in shared)))
    bugs = cell_means(shared[0], "fault", ["exact"], detectors, workloads)
    controls = cell_means(shared[1], "bug", ["alarm"], detectors, workloads)
    added = np.vstack([bugs.parts(), -controls.parts()])  # to the J of each detector, by each fault and control
    first, second = ([pair[end] for pair in pairs] for end in (0, 1))

    def differences(faults: Floats, healthy: Floats, places: Floats) -> Floats:
        scores = bugs.mean(faults, places) - controls.mean(healthy, places)
        return scores[:, first] - scores[:, second]

    low, high = cluster_bootstrap(differences, [bugs.unit_count, controls.unit_count, len(workloads)])
    scores = added.sum(axis=0)
    columns = {"difference": scores[first] - scores[second], "low": low, "high": high}
    return pd.DataFrame({"clusters": len(added), **columns, "p": paired_p_values(added, pairs)})


@dataclass(frozen=True)
class Ranking:
    """Detectors by their mean rank over the faults.

    Attributes:
        ranks: Friedman's test, or None where there are not two detectors with a block in common.
        detectors: those ranked, in the order of ``ranks.mean``.
        left_out: those judged on fewer than half of the cells, workload x fault, which would leave the others few.
    """

    ranks: Ranks | None
    detectors: Sequence[str]
    left_out: Sequence[str]


def ranking(cases: pd.DataFrame, detectors: Sequence[str]) -> Ranking:
    """Rank detectors by the share of each fault's harmful cases in which they are right; controls have no part.

    A block is a fault: its share is the mean over the workloads on which all that are ranked were judged.
    """
    names = list(detectors)
    bugs = harmful_bugs(cases)
    cells = cell_means(bugs, "fault", ["exact"], names, sorted(bugs["workload"].unique()))
    known = ~np.isnan(cells.values)
    covered = known.mean(axis=0) >= 0.5 if len(known) else np.zeros(len(names), dtype=bool)
    ranked = [name for name, enough in zip(names, covered, strict=True) if enough]
    complete = cells.of(np.asarray(known[:, covered].all(axis=1)), covered)
    ranks = friedman(complete.by_unit()) if len(ranked) >= 2 and complete.unit_count else None
    return Ranking(ranks, ranked, [name for name in names if name not in ranked])
