"""What watching a training run costs: ``python -m bugbench.overhead`` measures it and writes results/overhead.csv.

A measurement is a pair of runs of a workload's program, one after the other in this process: once bare, with a run
object that does nothing, and once with the recorder or another tool in its place. The number is the ratio of the two
costs, and what is reported is the median over the pairs with the 95 % percentile bootstrap interval of that median.

The cost of a run is the CPU time of this process (``time.process_time``, all threads) in ``main(config, run)`` and in
``run.finish()``, which writes the trace; a second ratio leaves ``finish`` out. CPU time and not wall time, because
other load on the machine makes a run wait but adds little to what it computes; in return, time spent waiting for a
disk is not counted. Programs compute on one thread. Which run of a pair goes first alternates, the order of the tools
rotates from round to round, and the first round only warms up and is thrown away. Each run starts from the same seed.
"""

import contextlib
import gc
import io
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from bugbench.atomic import write
from bugbench.catalogue import Workload
from bugbench.overhead.recorders import CONTENDERS, Bare
from bugbench.plugins import load_module
from bugbench.rerun import load_program, seed_everything

RESAMPLES = 2000


@dataclass(frozen=True)
class Overhead:
    """A row of results/overhead.csv.

    Attributes:
        workload: what was trained.
        recorder: what watched, a name of :data:`bugbench.overhead.recorders.CONTENDERS`.
        status: "measured", "not_installed" or "failed"; numbers are None unless measured.
        ratio: cost over the bare program's, median over the pairs, all included.
        low: lower end of its 95 % interval.
        high: upper end.
        training_ratio: the same without ``finish``, the writing at the end.
        bare_seconds: CPU seconds of the bare program, median.
        repeats: the number of pairs.
        reason: why there are no numbers.
    """

    workload: str
    recorder: str
    status: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    training_ratio: float | None = None
    bare_seconds: float | None = None
    repeats: int = 0
    reason: str = ""


def paired_ratio(costs: Sequence[float], bare: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Return the median of the ratios of pairs, and the 95 % percentile bootstrap interval of that median.

    Args:
        costs: of each watched run, in any unit.
        bare: of its bare partner, in the same unit.
        seed: of the resampling.
    """
    ratios = np.asarray(costs, dtype=np.float64) / np.asarray(bare, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def measure(
    workload: Workload, recorders: Sequence[str], repeats: int, folder: Path, on_pair: Callable[[], None] = lambda: None
) -> Iterator[Overhead]:
    """Measure what each of ``recorders`` costs on a workload; yields a row for each, whatever happens.

    Args:
        workload: its program, data set and settings.
        recorders: names of :data:`bugbench.overhead.recorders.CONTENDERS`.
        repeats: pairs of runs for each, after one that does not count.
        folder: for the data and for what the recorders write; an empty one.
        on_pair: called after each pair of runs.
    """
    (folder / "data").mkdir(parents=True)
    load_module(workload.dataset).write_training_data(folder / "data")
    pairs: dict[str, list[tuple[tuple[float, float], tuple[float, float]]]] = {name: [] for name in recorders}
    missing: dict[str, Overhead] = {}
    for round_ in range(repeats + 1):
        shift = round_ % len(recorders)
        for name in [*recorders[shift:], *recorders[:shift]]:
            if name in missing:
                continue
            try:
                turns = [Bare, CONTENDERS[name]] if round_ % 2 else [CONTENDERS[name], Bare]
                costs = [_cost(workload, make, folder) for make in turns]
            except ImportError as error:
                missing[name] = Overhead(workload.name, name, "not_installed", reason=str(error))
            except Exception as error:  # a tool that fails is a row, and no reason to lose the others
                missing[name] = Overhead(workload.name, name, "failed", reason=f"{type(error).__name__}: {error}")
            else:
                if round_:
                    pairs[name].append((costs[1], costs[0]) if round_ % 2 else (costs[0], costs[1]))
                on_pair()
    for name in recorders:
        yield missing.get(name) or _row(workload.name, name, pairs[name])


def _row(workload: str, recorder: str, pairs: list[tuple[tuple[float, float], tuple[float, float]]]) -> Overhead:
    bare = [total for _, (_, total) in pairs]
    ratio, low, high = paired_ratio([total for (_, total), _ in pairs], bare)
    training, *_ = paired_ratio([training for (training, _), _ in pairs], bare)
    return Overhead(
        workload,
        recorder,
        "measured",
        ratio=round(ratio, 4),
        low=round(low, 4),
        high=round(high, 4),
        training_ratio=round(training, 4),
        bare_seconds=round(float(np.median(bare)), 4),
        repeats=len(pairs),
    )


def _cost(workload: Workload, make: Callable[..., Any], folder: Path) -> tuple[float, float]:
    """Return the CPU seconds of one run without and with its ``finish``."""
    program = load_program(workload.program)
    config = SimpleNamespace(seed=0, **workload.config, data_dir=folder / "data")
    shutil.rmtree(folder / "run", ignore_errors=True)
    seed_everything(config.seed)
    with contextlib.redirect_stdout(io.StringIO()):
        run = make(folder / "run", workload.settings)
        gc.collect()
        started = time.process_time()
        try:
            program.main(config, run)
        finally:
            trained = time.process_time()
            run.finish()
            finished = time.process_time()
    return trained - started, finished - started


def read_rows(path: Path) -> pd.DataFrame:
    """Return the rows of an earlier measurement; none if there is no such file."""
    columns = [field.name for field in fields(Overhead)]
    return pd.read_csv(path, keep_default_na=False, dtype=str) if path.exists() else pd.DataFrame(columns=columns)


def write_rows(rows: Sequence[Overhead], path: Path) -> None:
    """Write the rows in one step; those of other workloads and recorders that the file has are kept."""
    new = pd.DataFrame([asdict(row) for row in rows]).astype(object)
    old = read_rows(path)
    again = set(zip(new["workload"], new["recorder"], strict=True))
    kept = old[[pair not in again for pair in zip(old["workload"], old["recorder"], strict=True)]]
    table = pd.concat([kept.astype(object), new])
    order = {name: i for i, name in enumerate(CONTENDERS)}
    table = table.sort_values(
        ["workload", "recorder"], key=lambda c: c.map(order) if c.name == "recorder" else c, kind="stable"
    )
    write(path, table.to_csv(index=False))
