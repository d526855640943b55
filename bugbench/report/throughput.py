"""How well a sweep used its machines: numbers in, figures out."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from bugbench.report.wording import counted

Span = tuple[float, float, int]  # start and end of a job in seconds since the epoch, and its workers


@dataclass(frozen=True)
class Throughput:
    """Where the time of a sweep went.

    Attributes:
        wall_seconds: from the start of the sweep to its tables.
        cores: most workers that were at work at the same time.
        cases: labelled runs, i.e. cases with verdicts.
        trained_runs: programs that were trained in this sweep; the others were found on disk.
        training_seconds: time that these programs took by themselves, under the recorder.
        job_seconds: time of all jobs, each times its workers: core-seconds that were held.
        overhead: wall time by the time that training alone would have taken on as many cores, so 1 is ideal; None if
            nothing was trained.
        cases_per_core_hour: labelled runs per hour of one core.
        verdict_seconds: median time of a verdict, detectors that train again left out; None if there is none.
    """

    wall_seconds: float
    cores: int
    cases: int
    trained_runs: int
    training_seconds: float
    job_seconds: float
    overhead: float | None
    cases_per_core_hour: float | None
    verdict_seconds: float | None

    @classmethod
    def of(
        cls, wall_seconds: float, spans: Sequence[Span], trained: Sequence[float], cases: int, verdicts: pd.DataFrame
    ) -> "Throughput":
        """Compute the figures.

        Args:
            wall_seconds: of the whole sweep.
            spans: see :data:`Span`, one for each job.
            trained: seconds of each program trained in the sweep.
            cases: number of labelled runs.
            verdicts: verdict rows with ``status``, ``access`` and ``seconds``.
        """
        cores = busiest(spans)
        held = sum((end - start) * workers for start, end, workers in spans)
        training = math.fsum(trained)
        return cls(
            wall_seconds=round(wall_seconds, 3),
            cores=cores,
            cases=cases,
            trained_runs=len(trained),
            training_seconds=round(training, 3),
            job_seconds=round(held, 3),
            overhead=round(wall_seconds / (training / cores), 3) if training and cores else None,
            cases_per_core_hour=round(cases / (wall_seconds * cores / 3600), 1) if wall_seconds and cores else None,
            verdict_seconds=_verdict_seconds(verdicts),
        )

    @property
    def line(self) -> str:
        """The figures as one line for the terminal."""
        parts = [f"{_clock(self.wall_seconds)} on {counted(self.cores, 'core')}"]
        if self.overhead is None:
            parts.append("nothing had to be trained")
        else:
            parts.append(
                f"{counted(self.trained_runs, 'program')} trained in {_clock(self.training_seconds)} of core time: "
                f"{self.overhead:.2f} times as long as training alone would take"
            )
        if self.cases_per_core_hour is not None:
            parts.append(f"{self.cases_per_core_hour:.0f} labelled runs a core-hour")
        if self.verdict_seconds is not None:
            parts.append(f"a verdict in {1000 * self.verdict_seconds:.1f} ms")
        return "; ".join(parts) + "."


def busiest(spans: Iterable[Span]) -> int:
    """Return the most workers that were at work at the same moment."""
    changes = [change for start, end, workers in spans for change in ((start, workers), (end, -workers))]
    most = now = 0
    for _, change in sorted(changes):  # at the same moment one ends before the next begins
        now += change
        most = max(most, now)
    return most


def _verdict_seconds(verdicts: pd.DataFrame) -> float | None:
    if verdicts.empty:
        return None
    judged = verdicts[(verdicts["status"] == "ok") & ~verdicts["access"].str.contains("rerun")]
    return round(float(judged["seconds"].median()), 6) if len(judged) else None


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"
