"""Ask the detectors about a trace of your own: ``python -m bugbench.judge --trace FOLDER``.

What the recorder left of any training script is enough. Nobody knows the truth here, so nothing is scored or stored.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from bugbench import panel
from bugbench.judging import Bench, Exhibit, Judge
from bugbench.judging_worker import JudgingWorker
from bugbench.report.terminal import note, says
from bugbench.scoring import accesses
from bugbench.worker import WorkerPool
from rich.console import Console
from rich.markup import escape
from rich.table import Table

NEEDED = {  # files or folders without which an access cannot be granted
    "curves": ("meta.json", "steps.parquet", "metrics.parquet"),
    "tensors": ("layers.parquet",),
    "data": ("samples.parquet", "batches"),
    "source": ("program.py", "config.yaml"),
    "rerun": ("program.py", "config.yaml", "data"),
}


def accesses_in(trace: Path) -> set[str]:
    """Return what a trace folder can grant.

    Raises:
        ValueError: it is no trace at all.
    """
    if missing := [name for name in NEEDED["curves"] if not (trace / name).exists()]:
        raise ValueError(
            f"{trace} is no trace: {missing[0]} is missing; give the folder of a Recorder after run.finish()"
        )
    return {access for access, names in NEEDED.items() if all((trace / name).exists() for name in names)}


def judge_trace(
    trace: Path, judges: Sequence[Judge], pool: WorkerPool[JudgingWorker], seconds: float = 60
) -> pd.DataFrame:
    """Return what each detector says: detector, access, status, reason, suspects (JSON), alarm_step.

    One that asks for more than the trace holds, or that learns, has the status "not_applicable".

    Raises:
        ValueError: the folder is no trace.
        NotConfined: the pool's level of isolation is not offered here.
    """
    granted = accesses_in(trace)
    exhibit = Exhibit("own", trace.resolve(), trace.resolve() / "data", {})
    able = [judge for judge in judges if judge.access <= granted]
    with tempfile.TemporaryDirectory() as folder:
        answers = panel.judge_all(Bench(Path(folder), pool, seconds), exhibit, able, len(pool.workers))
    said = {judge.name: answer for judge, answer in zip(able, answers, strict=True)}
    rows = []
    for judge in judges:
        if judge.name in said:
            answer = said[judge.name]
        else:
            lacking = max(judge.access - granted, key=list(NEEDED).index)
            reason = f"needs access {lacking!r}, for which the trace must hold {', '.join(NEEDED[lacking])}"
            answer = {"status": "not_applicable", "reason": reason, "suspects": [], "alarm_step": None}
        row = {"detector": judge.name, "access": "+".join(accesses(judge.access))}
        row |= {name: answer[name] for name in ("status", "reason", "alarm_step")}
        rows.append(row | {"suspects": json.dumps(answer["suspects"])})
    return pd.DataFrame(rows)


def show(said: pd.DataFrame, console: Console) -> None:
    """Print suspects and evidence of those that spoke; below, who is silent, who could not judge, and why."""
    spoke = said[(said["suspects"] != "[]") | ~said["status"].isin(["ok", "not_applicable", "not_installed"])]
    if len(spoke):
        table = Table(title="What the detectors say", title_justify="left")
        for column in ("detector", "suspects", "evidence"):
            table.add_column(column, no_wrap=column == "detector", overflow="fold")
        for _, row in spoke.iterrows():
            suspects = json.loads(row["suspects"])
            since = "" if pd.isna(row["alarm_step"]) else f" · step {row['alarm_step']:.0f}"
            evidence = suspects[0]["evidence"] if suspects else row["reason"]
            table.add_row(row["detector"], says(row) + since, escape(evidence[:300]))
        console.print(table)
    rest = said.drop(spoke.index)
    if healthy := list(rest.loc[rest["status"] == "ok", "detector"]):
        note(f"said healthy: {', '.join(healthy)}", console)
    unable = rest[rest["status"] != "ok"]
    for reason, rows in unable.groupby("reason", sort=False):
        note(f"did not judge, {escape(str(reason))}: {', '.join(rows['detector'])}", console)
