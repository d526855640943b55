"""The end of a sweep: collect its cases and build the tables."""

import json
from pathlib import Path
from typing import Any

from bugbench.records import Records
from bugbench.report import leaderboard
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

CASES_FILE = "cases.json"  # each job leaves one in its own folder: {"cases": […], "problem": "…"}


class Leaderboard(Callback):
    """Hydra callback: builds the leaderboard from the cases of all jobs of a multirun."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Collect the jobs' cases; what could not run is listed with its reason."""
        console = Console()
        folder, results = Path(config.hydra.sweep.dir), Path(config.results)
        jobs = [json.loads(path.read_text()) for path in sorted(folder.glob(f"*/{CASES_FILE}"))]
        cases = sorted({case for job in jobs for case in job["cases"]})
        problems = [job["problem"] for job in jobs if job["problem"]]
        if cases:
            board, impact = leaderboard.build(results, Records(results).read(cases))
            console.print()
            leaderboard.show(board, console)
            if impact["provisional"].any():
                pairs = int(impact["provisional"].sum())
                console.print(
                    f"{pairs} of {len(impact)} impacts rest on fewer than five seeds: what is harmful there was "
                    "decided by the size of the effect alone."
                )
            console.print(f"{len(cases)} cases. Wrote {results}/leaderboard.csv, leaderboard.md and impact.csv.")
        for problem in problems:
            console.print(f"[yellow]did not run:[/] {problem}", highlight=False)
