"""On what each detector was judged, in words: some detectors of a table saw all its cases, and some did not."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from bugbench.breakdown import CASE
from bugbench.declaration import Declaration
from bugbench.judging import Judge
from bugbench.report.wording import counted
from bugbench.scoring import tier, widest
from bugbench.statistics import intraclass_correlation

NAMED = 3  # detectors that are named if they have nothing in common; more are counted


def extent(cases: pd.DataFrame) -> str:
    """Return how many bugs that do harm, and how many controls, on how many workloads and with how many seeds.

    Args:
        cases: each once, see :func:`bugbench.scoring.with_harm`.
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
        places += f" ({len(seeds)} pairs of {noun.split()[-1]} and workload)"
    return f"{counted(bugs, noun)} {places}, {each} each"


def judged_on(cases: pd.DataFrame) -> str:
    """Return how many bug cases that do harm and how many control cases there are.

    Args:
        cases: each once.
    """
    bugs, controls = (~cases["control"] & cases["harmful"]).sum(), cases["control"].sum()
    return f"{counted(int(bugs), 'harmful bug case')}, {counted(int(controls), 'control case')}"


def fewer_words(cases: pd.DataFrame) -> list[str]:
    """Return a sentence for each group of detectors that were not judged on all that others were, and on what.

    Detectors are in a group if they were judged on the same cases, not only on as many. The largest group, whose cases
    the others are held against, has a sentence only where some case is not among its own.

    Args:
        cases: of all detectors.
    """
    counting = cases.assign(case=cases.groupby(CASE).ngroup())[cases["control"] | cases["harmful"]]
    own = {name: frozenset(numbers) for name, numbers in counting.groupby("detector")["case"]}
    groups: dict[frozenset[int], list[str]] = {}
    for name in sorted(cases["detector"].unique()):
        groups.setdefault(own.get(name, frozenset()), []).append(str(name))
    ordered = sorted(groups, key=lambda found: (-len(found), -len(groups[found]), groups[found]))
    accesses = {str(name): tier(widest(found)) for name, found in cases.groupby("detector")["access"]}
    everything = frozenset(counting["case"])
    return [
        f"{_group(groups[found], accesses)} judged on {_beside(found, ordered[0])}: "
        f"{extent(cases[cases['detector'] == groups[found][0]])}."
        for found in ordered
        if found != everything
    ]


def _beside(own: frozenset[int], largest: frozenset[int]) -> str:
    """Return in words what a group's cases are beside those of the largest group."""
    if own == largest:
        return "a part"
    if len(own) == len(largest):
        return "others"
    return "fewer" if own < largest else "fewer, and on others"


def other_accesses(verdicts: pd.DataFrame) -> str:
    """Return a sentence that names the detectors with verdicts under more than one access; empty if there are none."""
    found = verdicts.groupby("detector")["access"].nunique()
    names = ", ".join(str(name) for name in found.index[found > 1])
    return f" **Verdicts with more than one access, of which the widest is shown, of {names}.**" if names else ""


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
    kinds = set(asked["control"])
    what = "bug or control" if len(kinds) == 2 else "control" if kinds == {True} else "bug"
    words = (
        f" Where a {what} ran on a workload with several seeds, a detector got the same mark with each in "
        f"{same:.0%} of {counted(pairs.nunique(), 'time')} (intraclass correlation {alike:.2f})"
    )
    if len(kinds) == 1:  # which says nothing of the other half of J
        return f"{words}."
    return (
        f"{words}: further seeds, however many, would narrow an interval from one seed by an estimated "
        f"{1 - least:.0%} at most."
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
