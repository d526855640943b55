"""The end of a sweep: let detectors that learn judge its cases, build the tables, say how well the machine was used."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bugbench import atomic
from bugbench.catalogue import catalogue_of
from bugbench.judge import judge_again
from bugbench.judging import Judge
from bugbench.pools import isolation_notices
from bugbench.records import Cases, Records
from bugbench.report import leaderboard
from bugbench.report.throughput import Throughput
from bugbench.report.wording import counted
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

JOB_FILE = "cases.json"  # each job leaves one in its own folder
FIGURES_FILE = "throughput.json"  # and the sweep this one


@dataclass(frozen=True)
class Job:
    """What one job of a sweep leaves.

    Attributes:
        cases: folders of the cases it finished.
        problems: why it, or one of its cases, could not run.
        started, ended: seconds since the epoch.
        workers: training processes it kept, one core each.
        notices: why its detectors were confined less than they could be elsewhere.
        learners: knobs of the detectors that learn, by name: they judge when all jobs have ended.
    """

    cases: list[str]
    problems: list[str]
    started: float
    ended: float
    workers: int
    notices: list[str] = field(default_factory=list)
    learners: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        atomic.write(folder / JOB_FILE, json.dumps(asdict(self)) + "\n")


def read_jobs(sweep: Path) -> tuple[list[Job], list[str]]:
    """Return the jobs of a sweep that have ended, and a line for each that left nothing to read."""
    jobs, problems = [], []
    for home in sorted((p for p in sweep.glob("*/") if p.name.isdigit()), key=lambda p: int(p.name)):
        try:
            jobs.append(Job(**json.loads((home / JOB_FILE).read_text())))
        except (OSError, ValueError) as error:  # its disk was full, or its process was killed
            problems.append(f"job {home.name}: {home / JOB_FILE}: {type(error).__name__}: {error}")
    return jobs, problems


class Leaderboard(Callback):
    """Hydra callback: builds the leaderboard from the cases of all jobs of a multirun."""

    running: ClassVar["Leaderboard | None"] = None  # the sweep this process has started and not ended

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Take the time, by the results folder's clock too: another machine may keep it."""
        type(self).running = self
        self.config = config
        self.results, self.folder = Path(config.results), Path(config.hydra.sweep.dir)
        self.search_path = tuple(config.search_path)
        self.started = time.time()
        mark = self.folder / "started"
        atomic.write(mark, "")
        self.started_there = mark.stat().st_mtime

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Collect the jobs' cases; what could not run is listed with its reason."""
        type(self).running = None
        self.collect()

    @classmethod
    def interrupted(cls, error: BaseException) -> None:
        """Collect what was finished when the launcher gave up, e.g. because one of its processes was killed."""
        sweep, cls.running = cls.running, None
        assert sweep is not None
        sweep.collect(cut_short=True)
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0].rstrip(": ")
        if isinstance(error, KeyboardInterrupt):
            reason = "interrupted"
        ended = len(read_jobs(sweep.folder)[0])
        text = (
            f"the sweep was cut short ({reason}) when {ended or 'none'} of its jobs had ended. These are kept, and so "
            "is every run that was trained: the same command again does the rest."
        )
        Console(stderr=True).print(f"[red]bugbench:[/] {escape(text)}", highlight=False, soft_wrap=True)

    def collect(self, cut_short: bool = False) -> None:
        """Build and show the tables from the jobs that have ended."""
        console = Console()
        jobs, problems = read_jobs(self.folder)
        if cut_short:
            problems = []  # of course there are jobs that left nothing
        problems += [problem for job in jobs for problem in job.problems]
        if listed := sorted({case for job in jobs for case in job.cases}):
            if not cut_short:
                problems += self.judge_learned(jobs, listed)
            problems += self._show(jobs, listed, console)
        for notice in sorted({*isolation_notices(), *(notice for job in jobs for notice in job.notices)}):
            console.print(f"[yellow]bugbench:[/] {escape(notice)}", highlight=False, soft_wrap=True)
        for problem in dict.fromkeys(problems):
            console.print(f"[yellow]did not run:[/] {escape(problem)}", highlight=False, soft_wrap=True)

    def judge_learned(self, jobs: list[Job], listed: list[str]) -> list[str]:
        """Let the detectors that learn judge the sweep's cases; return what went wrong."""
        knobs = {name: values for job in jobs for name, values in job.learners.items()}
        if not knobs:
            return []
        config, limits = self.config, self.config.limits
        try:
            catalogue = catalogue_of(self.search_path)
            declared = [catalogue.detectors[name] for name in knobs]
            judges = [Judge(d.name, d.file, d.access, knobs[d.name], d.learns) for d in declared]
            workers, memory = config.workers or os.cpu_count() or 1, int(limits.judge_memory * 2**30)
            return judge_again(
                self.results, catalogue, judges, workers, False, limits.judge_seconds, config.isolation, memory, listed
            )
        except (LookupError, ValueError, OSError) as error:
            return [f"the detectors that learn: {error}"]

    def _show(self, jobs: list[Job], listed: list[str], console: Console) -> list[str]:
        """Build and print the tables and figures; return what went wrong."""
        records = Records(self.results)
        cases = records.read(listed)
        problems = records.damage(cases, [Path(folder).resolve() for folder in self.search_path])
        if cases.scored and cases.verdicts.empty:  # detector=[]
            said = f"{counted(len(cases.scored), 'case')}; no detector was asked, `python -m bugbench.judge` asks them."
            console.print(said, highlight=False, soft_wrap=True)
        else:
            try:
                self._show_tables(cases, records.read(), console)
            except (LookupError, ValueError, OSError) as error:
                return [*problems, f"the leaderboard: {error}"]
        figures = self.measure(jobs, cases)
        atomic.write(self.folder / FIGURES_FILE, json.dumps(asdict(figures), indent=1) + "\n")
        console.print(figures.line, highlight=False, soft_wrap=True)
        return problems

    def _show_tables(self, cases: Cases, known: Cases, console: Console) -> None:
        board, impact = leaderboard.build(self.results, cases, catalogue_of(self.search_path), known)
        console.print()
        leaderboard.show(board, console)
        leaderboard.show_failures(cases.verdicts, console)
        if impact["provisional"].any():
            pairs = int(impact["provisional"].sum())
            console.print(
                f"{pairs} of {len(impact)} impacts rest on fewer than five seeds: what is harmful there was "
                "decided by the size of the effect alone."
            )
        wrote = f"{counted(len(cases.scored), 'case')}. {leaderboard.wrote(self.results)}"
        console.print(wrote, highlight=False, soft_wrap=True)

    def measure(self, jobs: list[Job], cases: Cases) -> Throughput:
        """Return how the sweep spent its time; a run trained in it has an outcome younger than its start."""
        records = cases.scored
        seconds = {r.trace_key: r.seconds_bug for r in records} | {r.twin_key: r.seconds_twin for r in records}
        trained = []
        for key, value in seconds.items():
            path = self.results / "runs" / "traces" / key / "outcome.json"
            if path.exists() and path.stat().st_mtime >= self.started_there:
                trained.append(value)
        spans = [(job.started, job.ended, job.workers) for job in jobs]
        return Throughput.of(time.time() - self.started, spans, trained, len(records), cases.verdicts)
