"""What the harness costs around a training: cases trained by it, and the same programs in plain processes."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml
from bugbench.catalogue import Catalogue
from bugbench.overhead import RESAMPLES, Overhead
from bugbench.runner import Run, prepare
from bugbench.store import Store
from bugbench.worker import Worker, WorkerPool

PLAIN = """
from pathlib import Path
from bugbench.rerun import Probe, rerun
rerun(Path("."), Probe(), {})
"""


def sampled_runs(catalogue: Catalogue, number: int, seed: int = 0) -> list[Run]:
    """Return the programs of ``number`` cases, drawn from all cards on all workloads they apply to.

    Raises:
        ValueError: there are not so many.
    """
    cards = map(catalogue.card, catalogue.cards)
    pairs = [(card, workload) for card in cards for workload in catalogue.applicable(card)]
    if not 1 <= number <= len(pairs):
        raise ValueError(f"--sweep must be between 1 and {len(pairs)}, the number of cases there are, not {number}")
    return [prepare(card, workload, 0).run for card, workload in random.Random(seed).sample(pairs, number)]


def measure_sweep(runs: Sequence[Run], folder: Path, on_pair: Callable[[], None] = lambda: None) -> list[Overhead]:
    """Train each program by the harness with one worker, and in a process of its own with nothing that watches.

    One after the other for each program, so that other load on the machine meets both. Judging is left out. The
    harness's time has in it all that it does for a training: to start and feed the worker process (once), to make the
    data (once), to record, to measure the hidden-test result, and to write, seal and publish the trace.

    Returns two rows, whose ratios are of wall times summed over the cases with a bootstrap interval over the cases:
    "harness" compares with the plain processes, from their start to their end; "harness_around" with what the programs
    took by themselves in the harness's worker, where torch is loaded, so it tells what is not training.
    """
    pool = WorkerPool([Worker("train")])
    store = Store(folder / "results", pool)
    times = []
    try:
        for i, run in enumerate(runs):
            turns = [_harness, _plain] if i % 2 else [_plain, _harness]
            if not i:
                turns.reverse()  # makes the data, which the plain process needs
            spent = {turn: turn(run, store, folder) for turn in turns}
            times.append((spent[_harness], spent[_plain], store.train(run).seconds))
            on_pair()
    finally:
        pool.close()
    harness, plain, program = np.array(times).T
    name = f"sweep of {len(runs)} cases"
    return [_row(name, "harness", harness, plain), _row(name, "harness_around", harness, program)]


def _harness(run: Run, store: Store, folder: Path) -> float:
    started = time.perf_counter()
    store.train(run)
    return time.perf_counter() - started


def _plain(run: Run, store: Store, folder: Path) -> float:
    home = folder / "plain"
    home.mkdir(exist_ok=True)
    (home / "program.py").write_text(run.source)
    (home / "config.yaml").write_text(yaml.safe_dump(run.config))
    (home / "data").unlink(missing_ok=True)
    (home / "data").symlink_to(store.data_folder(run.workload))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # as the harness's workers have it
    started = time.perf_counter()
    command = [sys.executable, "-c", PLAIN]  # some of the programs crash: that is their result
    subprocess.run(command, cwd=home, env=environment, check=False, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def _row(name: str, what: str, costs: np.ndarray, bare: np.ndarray) -> Overhead:
    drawn = np.random.default_rng(0).integers(len(costs), size=(RESAMPLES, len(costs)))
    ratios = costs[drawn].sum(axis=1) / bare[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Overhead(
        name,
        what,
        "measured",
        ratio=round(float(costs.sum() / bare.sum()), 4),
        low=round(float(low), 4),
        high=round(float(high), 4),
        bare_seconds=round(float(bare.sum()), 4),
        repeats=len(costs),
    )
