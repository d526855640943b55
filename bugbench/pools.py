"""The worker processes of this process: one pool that trains and one that judges, kept from job to job of a sweep."""

import atexit
from functools import lru_cache
from pathlib import Path
from typing import Any

from bugbench import image_files
from bugbench.catalogue import Catalogue
from bugbench.isolation import raw_data
from bugbench.judging_worker import JUDGE_MEMORY, JudgingWorker
from bugbench.worker import DEFAULT_MEMORY, Worker, WorkerPool

_judging: list[JudgingWorker] = []


@lru_cache
def train_pool(size: int, memory: int = DEFAULT_MEMORY) -> WorkerPool[Worker]:
    """Return the process-wide pool of training workers: later jobs of a sweep find torch loaded."""
    return _closed_at_exit(WorkerPool(Worker("train", memory) for _ in range(size)))


@lru_cache
def judge_pool(
    size: int, isolation: str = "auto", hidden: tuple[Path, ...] = (), memory: int = JUDGE_MEMORY
) -> WorkerPool[JudgingWorker]:
    """Return the process-wide pool of judging workers; see :class:`~bugbench.judging_worker.JudgingWorker`."""
    pool = WorkerPool(JudgingWorker(isolation, hidden, memory) for _ in range(size))
    _judging.extend(pool.workers)
    return _closed_at_exit(pool)


def isolation_notices() -> list[str]:
    """Return why this process's judging workers are confined less than they could be elsewhere, each reason once."""
    return sorted({worker.notice for worker in _judging} - {""})


def _closed_at_exit(workers: WorkerPool[Any]) -> WorkerPool[Any]:
    atexit.register(workers.close)
    return workers


def secrets(catalogue: Catalogue, results: Path) -> tuple[Path, ...]:
    """Return what no detector may see, wherever it lies: folders of the catalogue, raw data, results."""
    raw = raw_data(workload.dataset for workload in catalogue.workloads.values())
    return (*catalogue.folders, *raw, *image_files.folders(), results.resolve())
