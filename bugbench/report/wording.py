"""How the numbers of the leaderboard are put, the same in Markdown, in the terminal and on the page."""

import math
from collections.abc import Sequence

import pandas as pd
from bugbench.breakdown import LEVEL, AlarmTimes, Ranking

SHOWN = {
    "detector": "detector",
    "access": "access",
    "origin": "origin",
    "diagnosis_j": "diagnosis J",
    "interval": "95 % interval",
    "detection_j": "detection J",
    "false_alarm_rate": "false alarms",
    "exact_rate": "exact",
    "precision": "precision",
    "family_rate": "family",
    "top3_rate": "top 3",
    "median_delay": "steps to alarm",
    "median_seconds": "seconds",
    "judged": "judged",
}
FAILURES = ("crashed", "timed_out", "out_of_memory", "invalid")  # statuses of a detector that is at fault, or too slow
LONGEST_REASON = 300  # characters
WORDS = 3  # the first columns shown: they hold words, the others numbers
TIER_TITLES = {
    "curves": "Detectors that see curves only",
    "tensors": "Detectors that see tensor statistics",
    "data": "Detectors that see sampled batches",
    "source": "Detectors that see the source",
    "rerun": "Detectors that run the program again",
    "truth": "The oracle",
}
EXPLANATION = """\
*Origin*: rules from debugging *practice*; *published* rules, ported; a third-party *tool*, as it is; a *baseline*.
*Fitted*: learned from the cases of workloads on other data than the one judged. A bug case is *harmful* where the bug
was measured to do harm, else *latent* and in no rate; in a *control* nothing is wrong. *Exact*: share of harmful bug
cases whose top suspect is the injected fault, or one that the card accepts; *family*: a fault of its family at least;
*top 3*: it is among the first three suspects. *False alarms*: share of control cases flagged. *Diagnosis J* = exact −
false alarms; *detection J* counts any alarm on a bug. Both lie in [−1, 1]; who always or never raises an alarm gets 0
or less. *Precision* = share of alarms that name the cause, where bugs and controls are as many. Rates are macro
averages over faults, then workloads; for the intervals faults, controls and workloads are drawn again, since what a
detector does to one of these it does to all its cases. An interval knows nothing of what was not seen once: 0 false
alarms on ten workloads are compatible with up to 31 % of workloads (Clopper and Pearson 1934). *Compared* says of how
many others a detector's diagnosis J is significantly better or worse, on the cases that both were judged on: a
sign-flip test, paired by fault and by control and corrected for all pairs (Holm), gives 5 % or less, and the 95 %
interval of the difference leaves out 0. *Steps to alarm*, over the bugs with an alarm, is the median number of training
steps from the onset of the fault to the first prefix of the trace that raises one; an alarm before the onset is none,
or at 0 steps where the detector has the program (source or rerun). *Seconds* is the median time of a diagnosis.
*Judged* counts the harmful bug cases and the control cases that a detector was judged on; where it does not apply,
crashes or takes too long, it counts as silent: a miss on a bug, right on a control. `oracle` reads the truth and checks
the harness; `always_healthy`, `always_faulty` and `prior` are the trivial baselines.
"""
ANSWERS = """\
Shares of the harmful bug cases by what the top suspect was: the *cause*; the right family by name, which is a
*symptom* only; another fault of the *same family*; something *wrong*; or nothing, *silent*."""
STEPS = """\
*Mean steps* is the restricted mean from onset to alarm, right or wrong: a run that ended without one counts for the
{horizon:.0f} steps, as does any later alarm; half of the runs go on for longer after the onset. Each case counts alike.
An alarm before the onset is none, as nothing was wrong yet, or counts for 0 steps where the detector had the program.
"""
STEPS_OF_ALARMS = """\
*Mean steps* is the restricted mean from onset to alarm, right or wrong: a run that ended without one counts for the
{horizon:.0f} steps to the latest alarm of all, since the length of no run is known. Each case counts alike.
An alarm before the onset is none, as nothing was wrong yet, or counts for 0 steps where the detector had the program.
"""
NO_STEPS = """\
There are no *mean steps* from onset to alarm: the length of no run is known, and no alarm came later than its onset.
"""
SECONDS = """\
*Seconds* is the time a diagnosis takes: the median, and the time that 95 % of them do not exceed."""


def cells(row: pd.Series) -> list[str]:
    """Return a detector's row of the shown columns."""
    texts = []
    for name in SHOWN:
        if name == "interval" and pd.isna(row["diagnosis_j"]):
            texts.append("–")
        elif name == "interval":
            texts.append(f"{row['diagnosis_j_low']:z.2f} … {row['diagnosis_j_high']:z.2f}")
        elif name == "judged":
            texts.append(f"{row['cases']} + {row['controls']}")
        elif name in list(SHOWN)[:WORDS]:
            texts.append(str(row.get(name, "")).replace("+", " + "))
        else:
            texts.append(number(row[name], 3 if name == "median_seconds" else 0 if name == "median_delay" else 2))
    return texts


def number(value: float, decimals: int) -> str:
    """Return a number with so many decimals, a dash where there is none."""
    return "–" if pd.isna(value) else f"{value:z.{decimals}f}"  # z: no minus before a 0


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 control", "2 controls"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def times_words(times: AlarmTimes) -> str:
    """Return what the steps to an alarm and the seconds are; nothing of steps where no bug has an onset."""
    if not times.curves:
        return SECONDS
    steps = NO_STEPS if math.isnan(times.horizon) else STEPS if times.measured else STEPS_OF_ALARMS
    return steps.format(horizon=times.horizon) + SECONDS


def unnamed_words(unnamed: Sequence[str], faults: int) -> str:
    """Return the sentence on faults that nobody finds, of so many that do harm; empty if none does."""
    if not faults:
        return ""
    found = "is found, in one case at least, by some detector"
    nobody = "on none of its cases is the first suspect of any detector right, baselines aside"
    if faults == 1:
        only = "The one fault that does harm"
        return f"{only}, `{unnamed[0]}`, is found by nobody: {nobody}." if unnamed else f"{only} {found}."
    if not unnamed:
        return f"Each of the {faults} faults that do harm {found}."
    return (
        f"{len(unnamed)} of the {faults} faults that do harm {'is' if len(unnamed) == 1 else 'are'} found by nobody "
        f"({nobody}): {', '.join(f'`{name}`' for name in unnamed)}."
    )


def failures(verdicts: pd.DataFrame) -> list[str]:
    """Return which detectors failed, on how many cases, and the most frequent reason of each."""
    failed = verdicts[verdicts["status"].isin(FAILURES)]
    asked = verdicts["detector"].value_counts().to_dict()
    return [
        f"{name}: {str(status).replace('_', ' ')} in {len(rows)} of {asked[str(name)]} cases: "
        f"{rows['reason'].mode()[0][:LONGEST_REASON]}"
        for (name, status), rows in failed.groupby(["detector", "status"])
    ]


def friedman_words(ranking: Ranking) -> str:
    """Return in a few sentences what Friedman's test says."""
    if ranking.ranks is None:
        return "There are too few detectors or blocks to rank detectors by Friedman's test."
    ranks = ranking.ranks
    same = ranks.p > LEVEL
    text = (
        f"Friedman's test ranks {len(ranking.detectors)} detectors by the share of cases in which they name each of "
        f"{ranks.blocks} faults: χ² = {ranks.statistic:.1f}, p = {ranks.p:.2g}, so the detectors "
        f"{'are not told apart as a whole' if same else 'are not all alike'}. False alarms have no part in the ranks."
    )
    if ranking.left_out:
        text += f" Left out, judged on fewer than half of the cases: {', '.join(ranking.left_out)}."
    return text
