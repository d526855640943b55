"""The leaderboard and all that goes with it as files, and the leaderboard in the terminal."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from bugbench import __version__, atomic, published
from bugbench.catalogue import Catalogue
from bugbench.isolation import LEVELS
from bugbench.known_impact import measured_impact
from bugbench.records import Cases, merge_impact, read_impact
from bugbench.report import page
from bugbench.report.extent import extent, fewer_words, judged_on, other_accesses, other_versions, seeds_words
from bugbench.report.families import regrouped
from bugbench.report.stored_runs import StoredRuns
from bugbench.report.tables import Tables, compared_words, csv
from bugbench.report.wording import (
    ANSWERS,
    EXPLANATION,
    SHOWN,
    TIER_TITLES,
    WORDS,
    cells,
    counted,
    failures,
    friedman_words,
    number,
    times_words,
    unnamed_words,
)
from bugbench.scoring import STATUSES, tier
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def build(
    results: Path, cases: Cases, catalogue: Catalogue | None = None, known: Cases | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write leaderboard.{csv,md,html}, the tables beside it, impact.csv and the verdicts as they are published.

    Everything is drawn from what is stored: no program is trained and no trace is judged.

    Args:
        results: the folder.
        cases: read from there; the tables are about these.
        catalogue: for the bugs' titles and the metric that a workload reports; None: the page goes without.
        known: all that the folder knows, which is what is published; None: that is ``cases``.

    Returns:
        The leaderboard, and the impact of the cases.

    Raises:
        LookupError: no case has verdicts that count.
    """
    if cases.verdicts.empty or not cases.scored:
        folder = results / "runs" / "cases"
        if skipped := [record.skipped for record in cases.records if record.skipped]:
            raise LookupError(f"none of the {len(skipped)} cases below {folder} could be scored: {skipped[0]}")
        raise LookupError(f"there are no verdicts below {folder}: run `python -m bugbench` first")
    stored, today = cases if known is None else known, regrouped(cases)
    cases = today.cases
    impact = measured_impact(results, cases.scored)
    runs = StoredRuns(results)
    declared = catalogue.detectors if catalogue else {}
    origins = {name: f"{d.origin}{', fitted' * d.learns}" for name, d in declared.items()}
    tables = Tables(cases.verdicts, impact, runs.lengths(cases.scored), origins)
    own = read_impact(results / "impact.csv")  # without what ships with the project, which may change under it
    atomic.write(results / "impact.csv", csv(impact if own is None else merge_impact(own, impact)))
    atomic.write(results / "leaderboard.csv", csv(tables.board))
    about = summary(tables, cases) + other_versions(cases.verdicts, declared) + today.words
    atomic.write(results / "leaderboard.md", markdown(tables, cases, about))
    tables.write(results)
    published.write(results, stored)
    atomic.write(results / "leaderboard.html", page.render(tables, cases, about, runs, catalogue))
    return tables.board, impact


def wrote(results: Path) -> str:
    """Return the line that says what :func:`build` has written, as seen from here."""
    here, results = Path.cwd(), results.absolute()
    return f"Wrote {results.relative_to(here) if results.is_relative_to(here) else results}/" + (
        "leaderboard.html, leaderboard.md, leaderboard.csv, impact.csv and the tables beside them."
    )


def summary(tables: Tables, cases: Cases) -> str:
    """Return the sentences that say what the tables are about, and what is missing."""
    records, distinct = cases.scored, tables.distinct
    workloads = sorted({r.workload for r in records})
    bugs = {r.bug for r in records if not r.control}
    controls = {r.bug for r in records if r.control}
    latent = int((~distinct["control"] & ~distinct["harmful"]).sum())
    text = (
        f"{counted(len(bugs), 'bug')} and {counted(len(controls), 'control')} on {', '.join(workloads)}, bugbench "
        f"{__version__}: "
    )
    if distinct.empty:
        text += "**nobody was judged.**"
    else:
        left_out = f"{counted(latent, 'latent bug case')} left out, where no significant harm shows"
        text += f"{judged_on(distinct)}; {left_out}. That is {extent(distinct)}."
    if not controls:
        text += " Without controls there is no J: the table is sorted by *exact*."
    if harmful := int((distinct["control"] & distinct["harmful"]).sum()):
        text += f" **{counted(harmful, 'control case')} of controls that were measured to do harm count all the same.**"
    if tables.absent:
        text += f" {counted(len(tables.absent), 'detector')} could not be judged: what they need is not installed."
    text += "".join(f" {sentence}" for sentence in fewer_words(tables.cases))
    text += seeds_words(tables.cases) + _lost(cases) + _isolation(cases.verdicts)
    return text + other_accesses(cases.verdicts)


def fewer_cases(board: pd.DataFrame) -> int:
    """Return how many detectors were judged on fewer cases than others."""
    return int(((board["cases"] < board["cases"].max()) | (board["controls"] < board["controls"].max())).sum())


def markdown(tables: Tables, cases: Cases, about: str) -> str:
    """Return the leaderboard as a Markdown page: overall, by tier of access, and counts that did not go well."""
    board, impact = tables.board, tables.impact
    compared = {name: compared_words(found) for name, found in tables.compared.items()}
    lines = ["# Leaderboard", "", about, "", *_table(board, compared), "", EXPLANATION]
    lines += [friedman_words(tables.ranking), ""]
    tiers = board["access"].map(lambda access: tier(str(access)))
    for name in dict.fromkeys(sorted(tiers, key=lambda t: list(TIER_TITLES).index(t))):
        lines += [f"## {TIER_TITLES[name]}", "", *_table(board[tiers == name], compared), ""]
    lines += ["## Causes and symptoms, steps and seconds", "", *_answers(tables), ""]
    if unnamed := unnamed_words(tables.unnamed, len(tables.harmful_faults)):
        lines += ["## Faults that nobody finds", "", unnamed, ""]
    troubled = [s for s in STATUSES if s != "ok" and board[s].any()]
    if troubled:
        lines += [
            "## Cases without a diagnosis",
            "",
            *_rows(["detector", *troubled], board[board[troubled].any(axis=1)]),
            "",
        ]
    if tables.absent:
        lines += [
            "Not installed, and so not judged:",
            "",
            *(f"- `{name}`: {how}" for name, how in tables.absent.items()),
            "",
        ]
    controls = {r.bug for r in cases.scored if r.control}
    latent = impact[(impact["state"] == "latent") & ~impact["bug"].isin(controls)]
    if len(latent):
        pairs = ", ".join(f"{r.bug} on {r.workload}" for r in latent.itertuples())
        lines += ["## Latent", "", f"No significant harm shows, so these count for nothing above: {pairs}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _lost(cases: Cases) -> str:
    """Return what stands at the end of the leaderboard's first sentence, if cases were lost."""
    lost = {
        "skipped, because the harness failed": len(cases.records) - len(cases.scored),
        "damaged on disk and left out": len(cases.damaged),
    }
    return "".join(f" **{counted(number, 'case')} {why}.**" for why, number in lost.items() if number)


def _isolation(verdicts: pd.DataFrame) -> str:
    """Return what stands after that, if verdicts were reached where more could be seen than at the strongest level."""
    levels = verdicts.loc[verdicts["status"] != "skipped", "isolation"].fillna("").replace("", "unknown")
    weaker = levels[levels != LEVELS[0]].value_counts()
    if weaker.empty:
        return ""
    counted = ", ".join(f"{number} at the level {level}" for level, number in weaker.items())
    return f" **{weaker.sum()} of {len(levels)} verdicts without the isolation of {LEVELS[0]}: {counted}.**"


def _table(board: pd.DataFrame, compared: Mapping[str, str]) -> list[str]:
    names = [*SHOWN.values(), "compared"]
    header = ["| " + " | ".join(names) + " |", "|" + " --- |" * WORDS + " ---: |" * (len(SHOWN) - WORDS) + " --- |"]
    return header + [
        "| " + " | ".join([*cells(row), compared.get(row["detector"], "–")]) + " |" for _, row in board.iterrows()
    ]


def _answers(tables: Tables) -> list[str]:
    columns = {
        **{"cause": "cause", "symptom": "symptom", "family": "same family", "wrong": "wrong"},
        **{"silent": "silent", "restricted_mean": "mean steps", "median_seconds": "seconds"},
        "p95_seconds": "seconds, 95 %",
    }
    table = tables.files()["answers_and_times"].set_index("detector").reindex(list(tables.board["detector"]))
    header = ["| detector | " + " | ".join(columns.values()) + " |", "| --- |" + " ---: |" * len(columns)]
    decimals = {"restricted_mean": 0, "median_seconds": 3, "p95_seconds": 3}
    rows = []
    for name, row in table.iterrows():
        texts = [str(name), *(number(row[column], decimals.get(column, 2)) for column in columns)]
        rows.append("| " + " | ".join(texts) + " |")
    return [*header, *rows, "", ANSWERS, times_words(tables.alarm_times)]


def _rows(columns: list[str], board: pd.DataFrame) -> list[str]:
    header = ["| " + " | ".join(c.replace("_", " ") for c in columns) + " |", "|" + " --- |" * len(columns)]
    return header + ["| " + " | ".join(str(row[c]) for c in columns) + " |" for _, row in board.iterrows()]


# what stands in the terminal, and from which width on
NARROW, MEDIUM, WIDE, WIDEST = 0, 98, 114, 140
COLUMNS = {
    "detector": ("detector", NARROW),
    "access": ("access", WIDEST),
    "diagnosis_j": ("diagnosis\nJ", NARROW),
    "interval": ("95 %", NARROW),
    "detection_j": ("detection\nJ", NARROW),
    "false_alarm_rate": ("false\nalarms", NARROW),
    "exact_rate": ("exact", NARROW),
    "precision": ("precision", MEDIUM),
    "family_rate": ("family", WIDE),
    "top3_rate": ("top 3", MEDIUM),
    "median_delay": ("steps to\nalarm", MEDIUM),
    "median_seconds": ("seconds", WIDE),
}


def show_failures(verdicts: pd.DataFrame, console: Console) -> None:
    """Print which detectors failed, on how many cases, and the most frequent reason of each."""
    for text in failures(verdicts):
        console.print(f"[yellow]{escape(text)}[/]", highlight=False, soft_wrap=True)


def show(board: pd.DataFrame, console: Console) -> None:
    """Print the leaderboard, as many columns as the terminal is wide."""
    cases, controls = (int(board[kind].max()) for kind in ("cases", "controls"))
    title = f"Leaderboard: {counted(cases, 'harmful bug case')}, {counted(controls, 'control case')}"
    if fewer := fewer_cases(board):
        title += f"; {counted(fewer, 'detector')} judged on fewer"
    if board["skipped"].any():
        title += f", {board['skipped'].max()} skipped"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    fitting = [name for name, (_, width) in COLUMNS.items() if console.width >= width]
    for name in fitting:
        words = name in ("detector", "access")
        table.add_column(COLUMNS[name][0], justify="left" if words else "right", no_wrap=words or name == "interval")
    for _, row in board.iterrows():
        texts = dict(zip(SHOWN, cells(row), strict=True))
        table.add_row(*(texts[name] for name in fitting))
    console.print(table)
