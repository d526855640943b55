"""How a sweep's time is counted, against numbers computed by hand."""

import pandas as pd
import pytest
from bugbench.report.throughput import Throughput, busiest

VERDICTS = pd.DataFrame(
    {
        "status": ["ok", "ok", "ok", "crashed", "ok"],
        "access": ["curves", "data+tensors", "rerun", "curves", "curves"],
        "seconds": [0.002, 0.004, 9.0, 7.0, 0.012],
    }
)


def test_figures_of_a_sweep() -> None:
    # two jobs side by side for 30 s, then one alone for 10 s
    spans = [(100.0, 130.0, 1), (100.0, 130.0, 1), (130.0, 140.0, 1)]
    figures = Throughput.of(45.0, spans, [10.0, 20.0, 30.0], 12, VERDICTS)
    assert figures == Throughput(
        wall_seconds=45.0,
        cores=2,
        cases=12,
        trained_runs=3,
        training_seconds=60.0,
        job_seconds=70.0,
        overhead=1.5,  # 60 s of training on two cores take 30 s
        cases_per_core_hour=480.0,  # 12 in 90 core-seconds
        verdict_seconds=0.004,  # of 2, 4 and 12 ms: neither the rerun nor the crash counts
    )
    assert figures.line == (
        "45.0 s on 2 cores; 3 programs trained in 60.0 s of core time: 1.50 times as long as training "
        "alone would take; "
        "480 labelled runs a core-hour; a verdict in 4.0 ms."
    )


def test_sweep_that_found_everything_on_disk() -> None:
    figures = Throughput.of(120.0, [(0.0, 90.0, 1)], [], 10, VERDICTS.head(1))
    assert figures.overhead is None
    assert figures.line == (
        "2.0 min on 1 core; nothing had to be trained; 300 labelled runs a core-hour; a verdict in 2.0 ms."
    )


def test_sweep_without_a_job_or_a_verdict() -> None:
    figures = Throughput.of(3.0, [], [], 0, pd.DataFrame())
    assert (figures.cores, figures.overhead, figures.cases_per_core_hour, figures.verdict_seconds) == (0, *[None] * 3)
    assert figures.line == "3.0 s on 0 cores; nothing had to be trained."


@pytest.mark.parametrize(
    ("spans", "most"),
    [
        ([], 0),
        ([(0.0, 5.0, 2)], 2),
        ([(0.0, 5.0, 1), (5.0, 9.0, 1)], 1),  # one after the other
        ([(0.0, 5.0, 1), (4.0, 9.0, 1), (4.5, 4.6, 2)], 4),
    ],
)
def test_most_workers_at_the_same_time(spans: list[tuple[float, float, int]], most: int) -> None:
    assert busiest(spans) == most
