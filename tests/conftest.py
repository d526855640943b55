"""Shared fixtures: the catalogue, read once; a seed; recorded programs; a tiny workload and its store; courts, schools.

What loads PyTorch is imported within its fixture: tests that need none of it start seconds earlier.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bugbench.catalogue import Catalogue, Workload, catalogue_of
from bugbench.worker import Worker, WorkerPool
from tiny_workload import DATASET, LONG, PROGRAM, SETTINGS


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return catalogue_of()


@pytest.fixture
def fixed_seed() -> None:
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)  # the programs are tiny


@pytest.fixture
def loop(tmp_path):
    from recorded_loop import Loop

    return Loop(tmp_path / "trace")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory):
    """A small program on digits, recorded once for each change of its text."""
    import torch
    from recorded_program import Programs

    torch.set_num_threads(1)
    return Programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    folder = tmp_path_factory.mktemp("own")
    (folder / "tiny.py").write_text(PROGRAM)
    (folder / "numbers.py").write_text(DATASET)
    return Workload("tiny", folder / "tiny.py", folder / "numbers.py", SETTINGS)


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool([Worker("train")])
    yield pool
    pool.close()


@pytest.fixture
def store(tmp_path: Path, pool: WorkerPool):
    from bugbench.store import Store

    return Store(tmp_path / "results", pool, LONG)


@pytest.fixture(scope="module")
def judging_pool():
    from bugbench.judging_worker import JudgingWorker

    pool = WorkerPool([JudgingWorker()])
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def exhibit(tmp_path_factory: pytest.TempPathFactory):
    """A trace of 25 steps in a place that names the case."""
    from court import record_exhibit

    return record_exhibit(tmp_path_factory.mktemp("secret_bug") / "secret_workload" / "seed-7")


@pytest.fixture
def court(tmp_path, judging_pool):
    from court import Court

    return Court(tmp_path, judging_pool)


@pytest.fixture
def counting(court, monkeypatch):
    from court import Counted

    return lambda body="return HEALTHY": Counted(court, monkeypatch, body)


@pytest.fixture
def school(tmp_path, judging_pool):
    from school import School

    return School(tmp_path, judging_pool)


@pytest.fixture
def ask(programs, tmp_path, monkeypatch):
    """Return a function that returns the suspects which a detector has of a variant of the recorded program."""
    from bugbench.detector import Trace
    from recorded_program import detector, shown

    monkeypatch.chdir(tmp_path)

    def suspects(name, *changes):
        folder = shown(name, programs.trace(*changes, epochs=1), tmp_path / f"trace-{len(os.listdir())}")
        return detector(name).diagnose(Trace(folder)).suspects

    return suspects
