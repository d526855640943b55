"""The leaderboard and the impact table as files, and the leaderboard in the terminal."""

from pathlib import Path

import pandas as pd
from bugbench import __version__, atomic
from bugbench.isolation import LEVELS
from bugbench.job import measured_impact, reference_impact
from bugbench.records import Cases, merge_impact
from bugbench.scoring import STATUSES, leaderboard, tier
from rich import box
from rich.console import Console
from rich.table import Table

SHOWN = {
    "detector": "detector",
    "access": "access",
    "diagnosis_j": "diagnosis J",
    "interval": "95 % interval",
    "detection_j": "detection J",
    "false_alarm_rate": "false alarms",
    "exact_rate": "exact",
    "family_rate": "family",
    "top3_rate": "top 3",
    "median_delay": "steps to alarm",
    "median_seconds": "seconds",
}
EXPLANATION = """\
*Diagnosis J* = share of harmful bug cases whose top suspect is the injected fault − share of control cases flagged;
*detection J* counts any alarm. Both lie in [−1, 1]; who always or never raises an alarm gets 0 or less. Rates are macro
averages over faults, then workloads; intervals are bootstraps clustered on workload × fault (controls: workload ×
control): detectors whose intervals overlap widely are not told apart by these cases. *Steps to alarm* is the median
number of training steps from the onset of the fault to the first prefix of the trace that raises an alarm. `oracle`
reads the truth and checks the harness; `always_healthy`, `always_faulty` and `prior` are the trivial baselines.
"""


def build(results: Path, cases: Cases) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write leaderboard.csv, leaderboard.md and impact.csv from stored cases; return leaderboard and their impact.

    Raises:
        LookupError: no case has verdicts that count.
    """
    if cases.verdicts.empty or not cases.scored:
        folder = results / "runs" / "cases"
        if skipped := [record.skipped for record in cases.records if record.skipped]:
            raise LookupError(f"none of the {len(skipped)} cases below {folder} could be scored: {skipped[0]}")
        raise LookupError(f"there are no verdicts below {folder}: run `python -m bugbench` first")
    impact = measured_impact(results, cases.scored)
    board = leaderboard(cases.verdicts, impact)
    known = reference_impact(results)
    atomic.write(results / "impact.csv", csv(impact if known is None else merge_impact(known, impact)))
    atomic.write(results / "leaderboard.csv", csv(board))
    atomic.write(results / "leaderboard.md", markdown(board, cases, impact))
    return board, impact


def wrote(results: Path) -> str:
    """Return the line that says what :func:`build` has written, as seen from here."""
    here, results = Path.cwd(), results.absolute()
    return f"Wrote {results.relative_to(here) if results.is_relative_to(here) else results}/" + (
        "leaderboard.csv, leaderboard.md and impact.csv."
    )


def csv(frame: pd.DataFrame) -> str:
    """Return a table as it stands in results/: six digits, the same bytes on every machine."""
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def markdown(board: pd.DataFrame, cases: Cases, impact: pd.DataFrame) -> str:
    """Return the leaderboard as a Markdown page: overall, by tier of access, and counts that did not go well."""
    records = cases.scored
    seeds = len({r.seed for r in records})
    workloads = sorted({r.workload for r in records})
    bugs = {r.bug for r in records if not r.control}
    controls = {r.bug for r in records if r.control}
    first = board.iloc[0]
    lines = [
        "# Leaderboard",
        "",
        f"{len(bugs)} bugs and {len(controls)} controls on {', '.join(workloads)}, {seeds} seed(s), bugbench "
        f"{__version__}: {first['cases']} harmful bug cases, {first['controls']} control cases; {first['latent']} "
        f"latent bug cases left out.{_lost(cases)}{_isolation(cases.verdicts)}",
        "",
        *_table(board),
        "",
        EXPLANATION,
    ]
    tiers = board["access"].map(lambda access: tier(str(access)))
    for name in dict.fromkeys(sorted(tiers, key=lambda t: list(TIER_TITLES).index(t))):
        lines += [f"## {TIER_TITLES[name]}", "", *_table(board[tiers == name]), ""]
    troubled = [s for s in STATUSES if s != "ok" and board[s].any()]
    if troubled:
        lines += [
            "## Cases without a diagnosis",
            "",
            *_rows(["detector", *troubled], board[board[troubled].any(axis=1)]),
            "",
        ]
    latent = impact[(impact["state"] == "latent") & ~impact["bug"].isin(controls)]
    if len(latent):
        pairs = ", ".join(f"{r.bug} on {r.workload}" for r in latent.itertuples())
        lines += ["## Latent", "", f"No harm shows, so these count for nothing above: {pairs}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _lost(cases: Cases) -> str:
    """Return what stands at the end of the leaderboard's first sentence, if cases were lost."""
    lost = {
        "skipped, because the harness failed": len(cases.records) - len(cases.scored),
        "damaged on disk and left out": len(cases.damaged),
    }
    return "".join(f" **{number} case(s) {why}.**" for why, number in lost.items() if number)


def _isolation(verdicts: pd.DataFrame) -> str:
    """Return what stands after that, if verdicts were reached where more could be seen than at the strongest level."""
    levels = verdicts.loc[verdicts["status"] != "skipped", "isolation"].fillna("").replace("", "unknown")
    weaker = levels[levels != LEVELS[0]].value_counts()
    if weaker.empty:
        return ""
    counted = ", ".join(f"{number} at the level {level}" for level, number in weaker.items())
    return f" **{weaker.sum()} of {len(levels)} verdicts without the isolation of {LEVELS[0]}: {counted}.**"


TIER_TITLES = {
    "curves": "Detectors that see curves only",
    "tensors": "Detectors that see tensor statistics",
    "data": "Detectors that see sampled batches",
    "source": "Detectors that see the source",
    "rerun": "Detectors that run the program again",
    "truth": "The oracle",
}


def cells(row: pd.Series) -> list[str]:
    """Return a detector's row of the shown columns."""
    texts = []
    for name in SHOWN:
        if name == "interval" and pd.isna(row["diagnosis_j"]):
            texts.append("–")
        elif name == "interval":
            texts.append(f"{row['diagnosis_j_low']:.2f} … {row['diagnosis_j_high']:.2f}")
        elif name in ("detector", "access"):
            texts.append(str(row[name]).replace("+", " + "))
        elif pd.isna(row[name]):
            texts.append("–")
        elif name == "median_seconds":
            texts.append(f"{row[name]:.3f}")
        else:
            texts.append(f"{row[name]:.0f}" if name == "median_delay" else f"{row[name]:.2f}")
    return texts


def _table(board: pd.DataFrame) -> list[str]:
    header = ["| " + " | ".join(SHOWN.values()) + " |", "|" + " --- |" * 2 + " ---: |" * (len(SHOWN) - 2)]
    return header + ["| " + " | ".join(cells(row)) + " |" for _, row in board.iterrows()]


def _rows(columns: list[str], board: pd.DataFrame) -> list[str]:
    header = ["| " + " | ".join(c.replace("_", " ") for c in columns) + " |", "|" + " --- |" * len(columns)]
    return header + ["| " + " | ".join(str(row[c]) for c in columns) + " |" for _, row in board.iterrows()]


# what stands in the terminal, and from which width on
NARROW, MEDIUM, WIDE = 0, 92, 104
COLUMNS = {
    "detector": ("detector", NARROW),
    "access": ("access", MEDIUM),
    "diagnosis_j": ("diagnosis\nJ", NARROW),
    "interval": ("95 %", NARROW),
    "detection_j": ("detection\nJ", NARROW),
    "false_alarm_rate": ("false\nalarms", NARROW),
    "exact_rate": ("exact", NARROW),
    "family_rate": ("family", WIDE),
    "top3_rate": ("top 3", NARROW),
    "median_delay": ("steps to\nalarm", MEDIUM),
    "median_seconds": ("seconds", WIDE),
}


def show(board: pd.DataFrame, console: Console) -> None:
    """Print the leaderboard, as many columns as the terminal is wide."""
    first = board.iloc[0]
    title = f"Leaderboard: {first['cases']} harmful bug cases, {first['controls']} control cases"
    if board["skipped"].any():
        title += f", {board['skipped'].max()} skipped"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    fitting = [name for name, (_, width) in COLUMNS.items() if console.width >= width]
    for name in fitting:
        words = name in ("detector", "access")
        table.add_column(
            COLUMNS[name][0], justify="left" if words else "right", no_wrap=name in ("detector", "interval")
        )
    for _, row in board.iterrows():
        texts = dict(zip(SHOWN, cells(row), strict=True))
        table.add_row(*(texts[name] for name in fitting))
    console.print(table)
