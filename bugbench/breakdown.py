"""Verdicts seen from other sides than the leaderboard: by fault, by answer, by time, and detector against detector.

Rows in, rows out. Every table has a row per detector and something else, and takes the cases that
:func:`bugbench.scoring.with_harm` returns; bugs that do no harm are in none of them.
"""

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.comparison import Ranks, friedman, holm, paired_p_values
from bugbench.scoring import DIGITS, cluster_means
from bugbench.statistics import Floats
from bugbench.survival import Survival, kaplan_meier

LEVEL = 0.05  # of the tests, after correction
HEALTHY = "healthy"  # what a detector without a suspect says
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
    """Return how often each detector gave which ``answer`` to which ``truth``, which is "healthy" on a control."""
    judged = cases[cases["control"] | cases["harmful"]]
    truth, family = (judged[c].where(~judged["control"], HEALTHY) for c in ("fault", "family"))
    table = pd.DataFrame(
        {"detector": judged["detector"], "truth": truth, "truth_family": family, "answer": top_answers(judged)}
    )
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
    values, groups = cluster_means(shares, "fault", ANSWERS, detectors)
    means = _mean_by_group(values, groups).reshape(len(ANSWERS), len(detectors))
    table = pd.DataFrame(dict(zip(ANSWERS, means.round(DIGITS), strict=True)))
    return table.assign(detector=detectors)[["detector", *ANSWERS]]


def _mean_by_group(values: Floats, groups: np.ndarray) -> Floats:
    if not len(values):
        return np.full(values.shape[1], np.nan)
    table = pd.DataFrame(values)
    return table.groupby(groups).mean().mean().to_numpy()


@dataclass(frozen=True)
class AlarmTimes:
    """How long each detector takes to raise an alarm.

    Attributes:
        curves: by detector, the share of harmful bug cases still without an alarm.
        horizon: the steps up to which every curve is known; the restricted means go up to there.
        table: ``detector, cases, alarms, restricted_mean, median`` and the seconds that a diagnosis takes. A median
            beyond the horizon is NaN: it would rest on the few longest runs.
        unknown: cases left out because no step of theirs differs from the twin's or their length is not known.
    """

    curves: Mapping[str, Survival]
    horizon: float
    table: pd.DataFrame
    unknown: int


def alarm_times(cases: pd.DataFrame, lengths: pd.DataFrame) -> AlarmTimes:
    """Return the time from onset to alarm of every detector, where a run without an alarm is censored at its end.

    An alarm before the onset is none: until then the run was its healthy twin's. Nor is one whose time is not known.

    Args:
        cases: see above.
        lengths: ``bug, workload, seed, steps``: training batches of each run.
    """
    bugs = harmful_bugs(cases).merge(lengths, on=["bug", "workload", "seed"], how="left")
    watched = bugs["steps"] - 1 - bugs["onset"]
    known = bugs["delay"].notna() | watched.notna()
    seconds = cases.groupby("detector")["seconds"]
    table = pd.DataFrame({"median_seconds": seconds.median(), "p95_seconds": seconds.quantile(0.95)})
    curves = {}
    for detector, own in bugs[known].groupby("detector"):
        alarmed = own["delay"].notna()
        times = own["delay"].where(alarmed, watched[own.index].clip(lower=0))
        curves[str(detector)] = kaplan_meier(times, alarmed)
        table.loc[detector, ["cases", "alarms"]] = len(own), alarmed.sum()
    unfinished = [curve.end for curve in curves.values() if not len(curve.shares) or curve.shares[-1] > 0]
    horizon = min(unfinished) if unfinished else max((curve.end for curve in curves.values()), default=0.0)
    table["restricted_mean"] = {name: curve.mean_until(horizon) for name, curve in curves.items()}
    medians = {name: curve.median for name, curve in curves.items()}
    table["median"] = {name: median if median <= horizon else np.nan for name, median in medians.items()}
    counts = {name: table.get(name, pd.Series(0.0, table.index)).fillna(0).astype(int) for name in ("cases", "alarms")}
    columns = ["cases", "alarms", "restricted_mean", "median", "median_seconds", "p95_seconds"]
    table = table.assign(**counts)[columns].round(DIGITS).rename_axis("detector").reset_index()
    lost = bugs.loc[~known, ["bug", "workload", "seed"]].drop_duplicates()
    return AlarmTimes(curves, horizon, table, len(lost))


def comparisons(cases: pd.DataFrame, detectors: Sequence[str]) -> pd.DataFrame:
    """Return a row per pair of detectors: is the difference of their diagnosis J's more than chance?

    Paired on the clusters on which both were judged: workload x fault of the harmful bugs, workload x control. What a
    cluster adds to the difference of the two J's may as well have had the other sign, if the detectors were equally
    good (:func:`bugbench.comparison.paired_p_values`). ``p_holm`` is corrected for the number of pairs (Holm 1979);
    ``told_apart`` says whether it is 0.05 or less.

    Args:
        cases: see above.
        detectors: those to compare, all others left out.
    """
    names = list(detectors)
    parts = [
        (*cluster_means(harmful_bugs(cases), "fault", ["exact"], names), 1.0),
        (*cluster_means(cases[cases["control"]], "bug", ["alarm"], names), -1.0),
    ]
    known = np.vstack([~np.isnan(values) for values, _, _ in parts])
    by_coverage: dict[bytes, list[tuple[int, int]]] = {}
    for pair in itertools.combinations(range(len(names)), 2):
        by_coverage.setdefault((known[:, pair[0]] & known[:, pair[1]]).tobytes(), []).append(pair)
    rows = []
    for coverage, pairs in by_coverage.items():
        shared = np.frombuffer(coverage, dtype=bool)
        added = _added_to_score(parts, shared)
        for (a, b), p in zip(pairs, paired_p_values(added, pairs), strict=True):
            difference = float(added[:, a].sum() - added[:, b].sum())
            rows.append(
                {"detector": names[a], "other": names[b], "clusters": len(added), "difference": difference, "p": p}
            )
    table = pd.DataFrame(rows, columns=["detector", "other", "clusters", "difference", "p"])
    adjusted = holm(table["p"].to_numpy(dtype=float))
    return table.assign(p_holm=adjusted, told_apart=adjusted <= LEVEL).sort_values(
        ["detector", "other"], ignore_index=True
    )


def _added_to_score(parts: Sequence[tuple[Floats, np.ndarray, float]], shared: np.ndarray) -> Floats:
    """Return what each shared cluster adds to the J of each detector; no rows if there are no bugs or no controls."""
    added, start = [], 0
    for values, groups, sign in parts:
        chosen = shared[start : start + len(values)]
        start += len(values)
        values, groups = values[chosen], groups[chosen]
        if not len(values):
            return np.zeros((0, values.shape[1]))
        sizes = np.bincount(groups)
        weights = sign / (np.count_nonzero(sizes) * sizes[groups])
        added.append(np.nan_to_num(values) * weights[:, None])
    return np.vstack(added)


@dataclass(frozen=True)
class Ranking:
    """Detectors by their mean rank over workload x fault.

    Attributes:
        ranks: Friedman's test, or None where there are not two detectors with a block in common.
        detectors: those ranked, in the order of ``ranks.mean``.
        left_out: those judged on fewer than half of the blocks, which would leave the others few.
    """

    ranks: Ranks | None
    detectors: Sequence[str]
    left_out: Sequence[str]


def ranking(cases: pd.DataFrame, detectors: Sequence[str]) -> Ranking:
    """Rank detectors by the share right in each block, workload x fault of the harmful bugs; controls have no part."""
    names = list(detectors)
    values, _ = cluster_means(harmful_bugs(cases), "fault", ["exact"], names)
    covered = (~np.isnan(values)).mean(axis=0) >= 0.5 if len(values) else np.zeros(len(names), dtype=bool)
    ranked = [name for name, enough in zip(names, covered, strict=True) if enough]
    complete = values[:, covered][~np.isnan(values[:, covered]).any(axis=1)]
    ranks = friedman(complete) if len(ranked) >= 2 and len(complete) else None
    return Ranking(ranks, ranked, [name for name in names if name not in ranked])
