"""What a single case looks like in the terminal."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from bugbench.card import Card
from bugbench.job import CaseResult
from bugbench.report.figure import smooth
from bugbench.report.wording import counted
from bugbench.runner import Case
from bugbench.store import Store
from bugbench.trace import Trace
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"
STATE_WORDS = {
    "crashed": "the program crashes",
    "degraded": "the model is worse than it should be",
    "inflated": "the program claims more than is true",
    "understated": "the program claims less than is true",
    "latent": "no significant harm",
}


def show_injection(card: Card, case: Case, console: Console) -> None:
    """Print what the card is about, the diff and the changed settings."""
    kind = "control: nothing is wrong" if card.control else f"fault: {card.fault}"
    about = "\n".join(" ".join(part.split()) for part in card.about.split("\n\n"))
    text = f"[bold]{escape(card.title)}[/]\n{escape(about)}"
    console.print(Panel(text, title=f"[bold]{card.label}[/] · {kind}", title_align="left"))
    if case.diff:
        console.print(
            Syntax(case.diff.rstrip("\n"), "diff", theme="ansi_dark", background_color="default", word_wrap=True)
        )
    for name, (healthy, buggy) in case.config_changes.items():
        console.print(f"  config {name}: [red]{healthy}[/] → [green]{buggy}[/]", highlight=False)
    if not case.diff and not case.config_changes:
        console.print("  (the program runs as it is)")


def show_comparison(results: Sequence[CaseResult], impact: pd.DataFrame, store: Store, console: Console) -> None:
    """Print the runs beside their healthy twins: metrics, loss curves as bars, onset, and what the impact test says."""
    for result in results:
        if result.outcome is None or result.twin is None:
            continue
        record, metric = result.record, result.case.workload.settings["oracle"]["metric"]
        report = result.case.workload.settings["report"]
        table = Table(title=f"{record.bug} on {record.workload}, seed {record.seed}", title_justify="left")
        bars = min(max(console.width - 72, 8), 32)  # beside the other columns at 80 characters
        claim = f"reported {report['split']} {report['metric']}"
        for column in ("", f"hidden test {metric}", claim, "training loss", "seconds"):
            left = column in ("", "training loss")
            table.add_column(column, justify="left" if left else "right", no_wrap=left)
        for name, key, oracle, reported, outcome in (
            ("healthy twin", record.twin_key, record.oracle_twin, record.reported_twin, result.twin),
            (record.bug, record.trace_key, record.oracle_bug, record.reported_bug, result.outcome),
        ):
            loss = Trace(store.trace(key)).train_steps()["loss"]
            table.add_row(name, number(oracle), number(reported), curve(loss, bars), f"{outcome.seconds:.1f}")
        console.print(table)
        if record.error:
            note(f"[red]raised[/] {escape(record.error)}", console)
        if record.onset is not None:
            note(f"onset: the run leaves its twin's track at step {record.onset} of {result.outcome.steps}", console)
    for row in impact.itertuples():
        words = " and ".join(STATE_WORDS[part] for part in str(row.state).split("+"))
        how = (
            f"by the size of the effect alone, {counted(int(str(row.seeds)), 'seed')}"
            if row.provisional
            else f"{row.seeds} matched seeds"
        )
        if int(str(row.seeds)) > sum(result.record.workload == row.workload for result in results):
            how += " measured before"
        p = "" if row.provisional else f", p = {row.p:.3f}"
        change = "" if row.state == "crashed" else f": hidden test {row.oracle_twin:.3f} → {row.oracle_bug:.3f}{p}"
        note(f"impact on {row.workload}: [bold]{row.state}[/], {words} ({how}{change})", console)


def show_verdicts(results: Sequence[CaseResult], console: Console) -> None:
    """Print what the detectors said and whether they were right, counted over the seeds if there are several.

    Those that raised no alarm are listed below the table.
    """
    for workload in dict.fromkeys(result.record.workload for result in results):
        own = [result for result in results if result.record.workload == workload]
        record = own[0].record
        truth = "nothing is wrong" if record.control else record.fault
        table = Table(title=f"What the detectors say on {workload} (truth: {truth})", title_justify="left")
        rows = pd.concat([result.verdicts for result in own])
        silent = rows["status"].isin(["ok", "not_applicable", "not_installed"])
        spoke = rows.groupby("detector")["alarm"].transform("any") | ~silent
        if spoke.any():
            (_one_verdict_each if len(own) == 1 else _counted_verdicts)(rows[spoke], table)
            console.print(table)
        quiet = rows[~spoke].drop_duplicates("detector", keep="last").sort_values("detector")
        result = "right" if record.control else "missed"
        for status, words in (("ok", f"said healthy ({result})"), ("not_applicable", "had nothing to say here")):
            if names := list(quiet.loc[quiet["status"] == status, "detector"]):
                note(f"{words}: {', '.join(names)}", console)
        absent = quiet[quiet["status"] == "not_installed"]
        for how, lacking in absent.groupby([reason.partition(" (")[0] for reason in absent["reason"]], sort=False):
            note(f"not installed: {', '.join(lacking['detector'])}; {escape(str(how))}", console)


def _one_verdict_each(rows: pd.DataFrame, table: Table) -> None:
    table.add_column("verdict", no_wrap=True)
    table.add_column("detector (access) says, since when, and why", overflow="fold")
    order = ["exact", "top3", "family_right", "alarm", "detector"]
    for _, row in rows.sort_values(order, ascending=[False, False, False, False, True]).iterrows():
        suspects = json.loads(row["suspects"])
        evidence = suspects[0]["evidence"] if suspects else row["reason"]
        if suspects and suspects[0]["line"]:
            evidence = f"line {suspects[0]['line']}: {evidence}"
        since = "" if pd.isna(row["alarm_step"]) else f" · step {row['alarm_step']}"
        access = row["access"].replace("+", " ")
        said = f"[bold]{row['detector']}[/] [dim]({access})[/]: {says(row)}{since}"
        table.add_row(mark(row), said + (f"\n[dim]{escape(evidence[:160])}[/]" if evidence else ""))


def _counted_verdicts(rows: pd.DataFrame, table: Table) -> None:
    for column in ("detector", "access", "right", "alarms", "says most often"):
        table.add_column(column, overflow="fold")
    counts = rows.groupby("detector")[["exact", "alarm"]].sum()
    for detector in counts.sort_values("exact", ascending=False, kind="stable").index:
        own = rows[rows["detector"] == detector]
        common = own.apply(says, axis=1).value_counts()
        colour = "green" if own["exact"].all() else "yellow" if own["exact"].any() else "red"
        right = f"[{colour}]{own['exact'].sum()} of {len(own)}[/]"
        access = own["access"].iloc[0].replace("+", " ")
        alarms = f"{own['alarm'].sum()} of {len(own)}"
        table.add_row(str(detector), access, right, alarms, f"{common.index[0]} ({common.iloc[0]}x)")


def says(row: pd.Series) -> str:
    """Return a verdict's first three suspects, "healthy", or its status where it is not ok."""
    if row["status"] != "ok":
        return f"[yellow]{row['status'].replace('_', ' ')}[/]"
    return escape(", ".join(s["fault"] for s in json.loads(row["suspects"])[:3])) or "healthy"


def mark(row: pd.Series) -> str:
    """Return how a verdict turned out as a coloured sign."""
    colour, words = judged(row)
    return f"[{colour}]{words}[/]"


def judged(row: pd.Series) -> tuple[str, str]:
    """Return right, half right (family or second suspect), wrong or not scored: its colour and its words."""
    if row["status"] == "skipped":
        return "yellow", "– not scored"
    if row["exact"]:
        return "green", "✓ right"
    if row["control"]:
        return "red", "✗ false alarm"
    if not row["alarm"]:
        return "red", "✗ missed"
    if row["top3"]:
        return "yellow", "~ among three"
    if row["family_right"]:
        return "yellow", "~ right family"
    return "red", "✗ wrong cause"


def show_case_lines(results: Sequence[CaseResult], impact: pd.DataFrame, console: Console) -> None:
    """Print one line for each case of a job in a sweep."""
    latent = set(impact.loc[impact["state"] == "latent", "workload"])
    for result in results:
        _show_case_line(result, result.record.workload in latent, console)


def _show_case_line(result: CaseResult, latent: bool, console: Console) -> None:
    record, verdicts = result.record, result.verdicts
    case = f"{record.workload:14s} {record.bug:26s} seed {record.seed}"
    if record.skipped is not None:
        console.print(f"{case}  [yellow]skipped[/] {escape(record.skipped)}", highlight=False, soft_wrap=True)
        return
    value = "crashed" if record.crashed_bug else number(record.oracle_bug)
    alarms = verdicts[verdicts["alarm"] & (verdicts["detector"] != "oracle")]
    if record.control:
        names, some, none = alarms["detector"], "false alarm: ", "no false alarm"
    else:
        names, some, none = alarms.loc[alarms["exact"], "detector"], "named by ", "named by nobody"
    said = some + ", ".join(map(str, names)) if len(names) else none
    if latent and not record.control:
        said = f"[dim]latent, does not count:[/] {said}"
    test = f"hidden test {value:>7s} (twin {number(record.oracle_twin)})"
    console.print(f"{case}  {test}  {said}", highlight=False, soft_wrap=True)


def number(value: float | None) -> str:
    """Return a metric with three decimals, "none" if there is none."""
    return "none" if value is None else "NaN" if not np.isfinite(value) else f"{value:.3f}"


def curve(values: pd.Series, width: int = 32) -> str:
    """Return a series as a row of bars, with its first and last value; "!" stands for a value that is not finite."""
    if values.empty:
        return "(no step)"
    points = smooth(values, 0.02).iloc[np.linspace(0, len(values) - 1, min(width, len(values))).astype(int)].to_numpy()
    finite = points[np.isfinite(points)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    span = (high - low) or 1.0
    bars = "".join(BARS[int((p - low) / span * 7)] if np.isfinite(p) else "!" for p in points)
    return f"{values.iloc[0]:.3g} {bars} {values.iloc[-1]:.3g}"


def show_path(path: Path, console: Console) -> None:
    """Print where a file was saved, relative to here if possible."""
    here = Path.cwd()
    note(f"curves: {path.relative_to(here) if path.is_relative_to(here) else path}", console)


def note(markup: str, console: Console) -> None:
    """Print a line below a table, indented where it wraps, too."""
    console.print(Padding(Text.from_markup(markup), (0, 0, 0, 2)))


__all__ = ["show_case_lines", "show_comparison", "show_injection", "show_path", "show_verdicts"]
