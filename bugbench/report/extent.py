"""On what each detector was judged, in words: some detectors of a table saw all its cases, and some did not."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from bugbench.declaration import Declaration
from bugbench.judging import Judge
from bugbench.report.wording import counted
from bugbench.scoring import tier
from bugbench.statistics import intraclass_correlation

NAMED = 3  # detectors that are named if they have nothing in common; more are counted


def extent(cases: pd.DataFrame) -> str:
    """Return how many bugs that do harm, and how many controls, on how many workloads and with how many seeds.

    Args:
        cases: of one detector, see :func:`bugbench.scoring.with_harm`.
    """
    bugs, controls = cases[~cases["control"] & cases["harmful"]], cases[cases["control"]]
    texts = [_pairs(rows, noun) for rows, noun in ((bugs, "harmful bug"), (controls, "control")) if len(rows)]
    return " and ".join(texts) or "nothing"


def _pairs(cases: pd.DataFrame, noun: str) -> str:
    seeds = cases.groupby(["bug", "workload"])["seed"].nunique()
    low, high = seeds.min(), seeds.max()
    each = counted(high, "seed") if low == high else f"{low} to {high} seeds"
    bugs, workloads = (cases[column].nunique() for column in ("bug", "workload"))
    places = f"on {counted(workloads, 'workload')}"
    if len(seeds) != bugs * workloads:
        places += f" ({len(seeds)} pairs)"
    return f"{counted(bugs, noun)} {places}, {each} each"


def fewer_words(cases: pd.DataFrame) -> list[str]:
    """Return a sentence for each group of detectors that were judged on less than others, and on what.

    Args:
        cases: of all detectors.
    """
    by_extent: dict[tuple[int, str], list[str]] = {}
    accesses = {}
    for name, rows in cases.groupby("detector"):
        counts = ~rows["control"] & rows["harmful"] | rows["control"]
        by_extent.setdefault((int(counts.sum()), extent(rows)), []).append(str(name))
        accesses[str(name)] = tier(rows["access"].iloc[0])
    if not by_extent:
        return []
    most = max(by_extent)
    fewer = sorted(by_extent.keys() - {most}, reverse=True)
    return [f"{_group(by_extent[key], accesses)} judged on fewer: {key[1]}." for key in fewer]


def seeds_words(cases: pd.DataFrame) -> str:
    """Return a sentence on what several seeds of one bug on one workload tell beyond the first; empty without any.

    A detector's mark is whether its top suspect is right, of a control whether it raised an alarm. The mean of k seeds
    varies (1 + (k - 1) r) / k as much as one seed, with r the intraclass correlation (the design effect of Kish 1965):
    with seeds without end r as much, and an interval is the square root of that as wide. Where pairs of bug and
    workload hang together, which the tables' intervals allow for, seeds matter less still.

    Args:
        cases: of all detectors, see :func:`bugbench.scoring.with_harm`.
    """
    asked = cases[cases["control"] | cases["harmful"]]
    pair = ["detector", "bug", "workload"]
    asked = asked[asked.groupby(pair)["seed"].transform("nunique") > 1]
    marks = asked["alarm"].where(asked["control"], asked["exact"]).astype(float)
    pairs, strata = asked.groupby(pair).ngroup(), asked.groupby(["detector", "control"]).ngroup()
    alike = intraclass_correlation(marks, pairs, strata) if len(asked) else math.nan
    if math.isnan(alike):
        return ""
    same, least = (marks.groupby(pairs).nunique() == 1).mean(), math.sqrt(max(alike, 0))
    return (
        f" Where a bug or control ran on a workload with several seeds, a detector got the same mark with each in "
        f"{same:.0%} of {counted(pairs.nunique(), 'time')} (intraclass correlation {alike:.2f}): further seeds, "
        f"however many, would narrow an interval from one seed by an estimated {1 - least:.0%} at most."
    )


def other_versions(verdicts: pd.DataFrame, declared: Mapping[str, Declaration]) -> str:
    """Return a sentence for each way in which verdicts are not by the detectors as they lie here; empty if all are.

    Args:
        verdicts: with their versions, see :meth:`bugbench.judging.Judge.version`; older ones did not tell theirs.
        declared: the detectors as they are now, with their default knobs.
    """
    told = verdicts[verdicts["version"].fillna("") != ""]
    digests = told["version"].str.split("-").str[0]  # what follows is of the model or the case
    by_detector = {str(name): set(found) for name, found in digests.groupby(told["detector"])}
    mixed = [name for name, found in by_detector.items() if len(found) > 1]
    other = [
        name
        for name, found in by_detector.items()
        if len(found) == 1 and (d := declared.get(name)) and found != {Judge(name, d.file, d.access, d.knobs).digest}
    ]
    return "".join(
        f" **Verdicts by {versions}, or with {knobs} knobs, of {', '.join(names)}.**"
        for names, versions, knobs in (
            (mixed, "more than one version", "different"),
            (other, "another version than lies here", "other"),
        )
        if names
    )


def _group(names: Sequence[str], accesses: dict[str, str]) -> str:
    were = "was" if len(names) == 1 else "were"
    if {accesses[name] for name in names} == {"rerun"}:
        return f"{counted(len(names), 'detector')} that {'runs' if len(names) == 1 else 'run'} the program again {were}"
    if len(names) <= NAMED:
        return f"{', '.join(names)} {were}"
    return f"{counted(len(names), 'detector')} ({', '.join(names[:NAMED])} …) {were}"
