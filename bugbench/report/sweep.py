"""The end of a sweep: collect its cases and build the tables."""

import json
from pathlib import Path
from typing import Any

from bugbench.records import Records
from bugbench.report import leaderboard
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

CASES_FILE = "cases.json"  # each job leaves one in its own folder: {"cases": […], "problems": […]}


class Leaderboard(Callback):
    """Hydra callback: builds the leaderboard from the cases of all jobs of a multirun."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Collect the jobs' cases; what could not run is listed with its reason."""
        console = Console()
        folder, results = Path(config.hydra.sweep.dir), Path(config.results)
        jobs, problems = [], []
        for home in sorted((p for p in folder.glob("*/") if p.name.isdigit()), key=lambda p: int(p.name)):
            try:
                jobs.append(json.loads((home / CASES_FILE).read_text()))
            except (OSError, ValueError) as error:  # its disk was full, or its process was killed
                problems.append(f"job {home.name}: {home / CASES_FILE}: {type(error).__name__}: {error}")
        listed = sorted({case for job in jobs for case in job["cases"]})
        problems += [problem for job in jobs for problem in job["problems"]]
        if listed:
            problems += self._show_leaderboard(results, listed, console)
        for problem in problems:
            console.print(f"[yellow]did not run:[/] {escape(problem)}", highlight=False, soft_wrap=True)

    def _show_leaderboard(self, results: Path, listed: list[str], console: Console) -> list[str]:
        """Build and print the tables; return what went wrong."""
        records = Records(results)
        cases = records.read(listed)
        problems = records.damage(cases)
        try:
            board, impact = leaderboard.build(results, cases)
        except (LookupError, OSError) as error:
            return [*problems, f"the leaderboard: {error}"]
        console.print()
        leaderboard.show(board, console)
        if impact["provisional"].any():
            pairs = int(impact["provisional"].sum())
            console.print(
                f"{pairs} of {len(impact)} impacts rest on fewer than five seeds: what is harmful there was "
                "decided by the size of the effect alone."
            )
        console.print(f"{len(cases.scored)} cases. Wrote {results}/leaderboard.csv, leaderboard.md and impact.csv.")
        return problems
