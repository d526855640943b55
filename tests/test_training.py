"""Tests that train: determinism of every workload, the named bugs found blind, controls as good as their twins."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from bugbench.catalogue import Catalogue, catalogue_of
from bugbench.impact import is_harmful
from bugbench.job import CaseResult, Plan, run_job
from bugbench.judge import judges_of
from bugbench.known_impact import choose_workloads, reference_impact
from bugbench.records import impact_of
from bugbench.runner import prepare
from bugbench.store import Store
from bugbench.worker import Worker, WorkerPool

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = catalogue_of()
FAST = ("cancer_mlp", "diabetes_mlp")  # train in about half a second, so that five seeds of every control are cheap
CONTROLS = [name for name in CATALOGUE.cards if CATALOGUE.card(name).control]
NAMED_BY_THE_USER = [
    *("softmax_dim", "unshuffled_loader", "unshifted_lm_labels", "missing_normalization", "nan_inputs"),
    *("bad_augmentation", "label_leakage"),
]


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    workers = WorkerPool([Worker("train")])
    yield workers
    workers.close()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("workload", CATALOGUE.workloads)
def test_same_seed_same_trace_and_result(workload: str, pool: WorkerPool, tmp_path: Path) -> None:
    """Two trainings in the same process, one after another, leave byte-identical files; another seed does not."""
    run = prepare(CATALOGUE.card("none"), CATALOGUE.workloads[workload], seed=7).run
    traces, outcomes = [], []
    for name in ("first", "second"):
        store = Store(tmp_path / name, pool)
        outcome = store.train(run)
        outcomes.append((outcome.oracle, outcome.reported, outcome.steps))
        traces.append(files_of(store.trace(outcome.key)))
    assert outcomes[0] == outcomes[1]
    assert [name for name in traces[0] if traces[0][name] != traces[1].get(name)] == []
    assert {"meta.json", "steps.parquet", "layers.parquet", "samples.parquet", "metrics.parquet"} <= set(traces[0])
    assert "error.txt" not in traces[0]


@pytest.mark.parametrize("workload", CATALOGUE.workloads)
def test_program_runs_by_itself(workload: str, pool: WorkerPool, tmp_path: Path) -> None:
    """`python program.py`, with config.yaml and data/ beside it, trains and leaves a trace of its own."""
    settings = CATALOGUE.workloads[workload]
    short = {**settings.config, "seed": 0, "epochs": 1}
    (tmp_path / "program.py").write_text(settings.source)
    (tmp_path / "config.yaml").write_text("\n".join(f"{k}: {v}" for k, v in short.items()) + "\n")
    data = Store(tmp_path / "store", pool).data_folder(settings)
    (tmp_path / "data").symlink_to(data)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "val/" in done.stdout
    assert len(pd.read_parquet(tmp_path / "trace" / "metrics.parquet")) >= 2


def run(bug: str, workloads: list[str], seeds: int, results: Path, catalogue: Catalogue) -> list[CaseResult]:
    chosen = [catalogue.workloads[name] for name in workloads]
    judges = judges_of(catalogue) if seeds == 1 else []
    return run_job(Plan(catalogue.card(bug), chosen, range(seeds), judges, results), catalogue)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.mark.slow
@pytest.mark.parametrize("bug", NAMED_BY_THE_USER)
def test_named_bug_is_named_exactly_while_its_healthy_twin_raises_no_alarm(
    bug: str, results: Path, catalogue: Catalogue
) -> None:
    impact = reference_impact(ROOT / "results")
    (workload,) = choose_workloads(catalogue.card(bug), "auto", catalogue, impact)
    (found,) = run(bug, [workload.name], 1, results, catalogue)
    (healthy,) = run("none", [workload.name], 1, results, catalogue)
    right = set(found.verdicts.loc[found.verdicts["exact"], "detector"])
    quiet = set(healthy.verdicts.loc[~healthy.verdicts["alarm"], "detector"])
    assert right & quiet - {"oracle", "prior"}


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS)
def test_control_is_as_good_as_its_twin(control: str, results: Path, catalogue: Catalogue) -> None:
    card = catalogue.card(control)
    workloads = [w.name for w in catalogue.applicable(card) if w.name in FAST]
    if not workloads:
        workloads = [catalogue.applicable(card)[0].name]
    cases = run(control, workloads, 5, results, catalogue)
    table = impact_of(case.record for case in cases)
    assert not [state for state in table["state"] if is_harmful(state)], table.to_string()
