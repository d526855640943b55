"""The workload of two processes: whichever of them fails, the run ends with its error, and no process is left."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bugbench.catalogue import catalogue_of
from bugbench.runner import Outcome, prepare
from bugbench.store import Store
from bugbench.worker import Worker, WorkerPool

CATALOGUE = catalogue_of()
STEP = "        optimizer.step()\n"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker("train")
    yield worker
    worker.close()


def train(worker: Worker, results: Path, before_step: str = "pass", patience: int = 30) -> tuple[Outcome, str]:
    """Train for an epoch, with a statement before each step of the optimizer; return outcome and error."""
    run = prepare(CATALOGUE.card("none"), CATALOGUE.workloads["ecg_ddp"], seed=0).run
    source = run.source
    for old, new in ((STEP, f"        {before_step}\n{STEP}"), ("seconds=30", f"seconds={patience}")):
        assert source.count(old) == 1
        source = source.replace(old, new)
    store = Store(results, WorkerPool([worker]))
    outcome = store.train(replace(run, source=source, config={**run.config, "epochs": 1}))
    error = store.trace(outcome.key) / "error.txt"
    return outcome, error.read_text() if error.exists() else ""


def started_by(worker: Worker) -> list[str]:
    assert worker._process is not None
    return Path(f"/proc/{worker._process.pid}/task/{worker._process.pid}/children").read_text().split()


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("error", ["ValueError", "RuntimeError"])
def test_error_of_one_process_is_the_error_of_the_run(error: str, rank: int, worker: Worker, tmp_path: Path) -> None:
    raising = f"if dist.get_rank() == {rank}: raise {error}('enough is enough')"
    outcome, text = train(worker, tmp_path, before_step=raising)
    assert outcome.crashed
    assert text.strip().splitlines()[-1] == f"{error}: enough is enough"
    assert text.count('File "program.py"') >= 2
    assert "peer" not in text
    assert started_by(worker) == []


def test_error_of_all_processes_is_told_once(worker: Worker, tmp_path: Path) -> None:
    outcome, text = train(worker, tmp_path, before_step="raise IndexError('enough is enough')")
    assert outcome.crashed
    assert text.count("IndexError: enough is enough") == 1
    assert "Process" not in text
    assert started_by(worker) == []


def test_process_that_dies_without_a_word_ends_the_run(worker: Worker, tmp_path: Path) -> None:
    outcome, text = train(worker, tmp_path, before_step="if dist.get_rank() == 1: import os; os._exit(3)")
    assert outcome.crashed
    assert "exit code 3" in text
    assert started_by(worker) == []


def test_process_that_says_nothing_any_more_ends_the_run(worker: Worker, tmp_path: Path) -> None:
    stuck = "if dist.get_rank() == 1: import time; time.sleep(600)"
    outcome, _ = train(worker, tmp_path, before_step=stuck, patience=5)
    assert outcome.crashed
    assert started_by(worker) == []


def test_a_worker_trains_on_after_failures(worker: Worker, tmp_path: Path) -> None:
    first, text = train(worker, tmp_path / "first")
    assert not first.crashed, text
    second, _ = train(worker, tmp_path / "second")
    assert (first.oracle, first.reported) == (second.oracle, second.reported)
    assert started_by(worker) == []
