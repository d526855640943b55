"""Faults injected into single cases: damaged traces and training data; programs, data sets and writes that fail."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bugbench.catalogue import Catalogue
from bugbench.job import CaseResult, Plan, run_job
from bugbench.judge import judge_again, judges_of
from bugbench.records import Records
from bugbench.report import leaderboard
from bugbench.runner import prepare
from bugbench.store import Store
from bugbench.worker import Worker, WorkerPool
from injected_faults import DETECTORS, FAST, LONG, assert_nothing_half_written, cut, flip, slow

# -- damaged files ------------------------------------------------------------------------------------------------


def plan(catalogue: Catalogue, results: Path, bug: str = "nan_inputs", workload: str = FAST, **changes) -> Plan:
    judges = judges_of(catalogue, DETECTORS)
    return Plan(catalogue.card(bug), [catalogue.workloads[workload]], [0], judges, results, **changes)


def rows(results: Path) -> pd.DataFrame:
    cases = Records(results).read()
    assert cases.damaged == []
    return cases.verdicts.drop(columns="seconds")


@pytest.fixture(scope="module")
def trained_case(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("trained") / "results"
    run_job(plan(catalogue, results), catalogue)
    return results


TRACE_FILES = [
    *("meta.json", "metrics.parquet", "layers.parquet", "samples.parquet", "config.yaml"),
    *("predictions.safetensors", "batches/train-0000000.safetensors"),
]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *(("steps.parquet", cut), ("program.py", flip), ("../outcome.json", cut)),
        *(slow(file, damage) for file in TRACE_FILES for damage in (cut, flip)),
    ],
)
def test_damaged_trace_is_told_and_made_again(
    catalogue: Catalogue, trained_case: Path, capsys: pytest.CaptureFixture[str], file: str, damage
) -> None:
    before = rows(trained_case)
    (record,) = Records(trained_case).read().records
    trace = trained_case / "runs" / "traces" / record.trace_key / "trace"
    intact = (trace / file).read_bytes()
    damage(trace / file)
    twin = trained_case / "runs" / "traces" / record.twin_key / "outcome.json"
    stamp = twin.stat()
    capsys.readouterr()
    problems = judge_again(trained_case, catalogue, judges_of(catalogue, DETECTORS), workers=2, again=False)
    assert [p for p in problems if Path(file).name in p and "to make it again: python -m bugbench bug=nan_inputs" in p]
    assert rows(trained_case).equals(before), "what is damaged is not judged"
    run_job(plan(catalogue, trained_case), catalogue)
    told = capsys.readouterr().err
    assert told.count("damaged trace, to be trained again") == 1
    assert Path(file).name in told
    assert rows(trained_case).equals(before)
    assert (trace / file).read_bytes() == intact or file == "../outcome.json"
    assert (twin.stat().st_ino, twin.stat().st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)
    assert_nothing_half_written(trained_case)


@pytest.mark.parametrize("damage", [cut, slow(flip)])
def test_damaged_training_data_are_told_and_made_again(
    catalogue: Catalogue, trained_case: Path, capsys: pytest.CaptureFixture[str], damage
) -> None:
    before = rows(trained_case)
    (file,) = (p for p in (trained_case / "runs" / "data").rglob("*") if p.is_file())
    intact = file.read_bytes()
    damage(file)
    problems = judge_again(trained_case, catalogue, judges_of(catalogue, DETECTORS), workers=2, again=False)
    assert [p for p in problems if f"{file.parent}: the training data do not match their checksum" in p]
    run_job(plan(catalogue, trained_case), catalogue)
    assert f"damaged training data {file.parent}: written again" in capsys.readouterr().err
    assert file.read_bytes() == intact
    assert rows(trained_case).equals(before)


# -- what fails within a case -------------------------------------------------------------------------------------


def test_program_that_never_ends_is_a_row_with_the_reason(catalogue: Catalogue, tmp_path: Path) -> None:
    run_job(plan(catalogue, tmp_path, "none", train_seconds=LONG), catalogue)  # the twin has all the time it needs
    fields = {k: v for k, v in catalogue.cards["lr_too_low"].items() if k != "factor"}
    card = catalogue.card("lr_too_low", {**fields, "config": {"epochs": "* 1000000"}})
    (result,) = run_job(replace(plan(catalogue, tmp_path, train_seconds=3), card=card), catalogue)
    assert (result.problem, result.record.crashed_bug) == (None, True)
    assert result.record.error == "TimedOut: no answer within 3 s"
    (found,) = (r for r in Records(tmp_path).read().records if r.bug == "lr_too_low")
    assert found == result.record
    assert set(result.verdicts["detector"]) == set(DETECTORS)
    store = Store(tmp_path, WorkerPool([Worker("train")]))
    assert store.outcome(found.trace_key) is None, "it is tried again"
    assert store.outcome(found.twin_key) is not None


BROKEN = {
    "write_training_data": ("raise RuntimeError('no such host')", "write_training_data: RuntimeError: no such host"),
    "training_sample": ("return None", "training_sample: TypeError: cannot unpack"),
    "hidden_test": ("raise SystemExit('stop')", "hidden_test: SystemExit: stop"),
    "oracle_metric": ("return float('nan')", "oracle_metric returned nan"),
}


def with_broken_data_set(catalogue: Catalogue, folder: Path, function: str) -> Catalogue:
    """Return the catalogue with one function of the fast workload's data set broken."""
    folder.mkdir()
    (folder / "broken.py").write_text(
        f"from bugbench.datasets.diabetes import *\n\n\ndef {function}(*_):\n    {BROKEN[function][0]}\n"
    )
    workload = replace(catalogue.workloads[FAST], dataset=folder / "broken.py")
    return replace(catalogue, workloads={**catalogue.workloads, FAST: workload})


def test_a_twin_that_trains_no_step_has_no_result_to_compare_with(catalogue: Catalogue, tmp_path: Path) -> None:
    card = catalogue.card("lr_too_low", {**catalogue.cards["lr_too_low"], "setting": {"epochs": 0}})
    (result,) = run_job(replace(plan(catalogue, tmp_path), card=card), catalogue)
    assert_skipped(result, tmp_path, "healthy twin: there is no result to compare with: after 0 steps")


def assert_skipped(result: CaseResult, results: Path, reason: str) -> None:
    assert reason in result.record.skipped
    assert set(result.verdicts["detector"]) == set(DETECTORS)
    assert set(result.verdicts["status"]) == {"skipped"}
    assert all(reason in said for said in result.verdicts["reason"])
    assert not result.record.crashed_bug
    log = results / "runs" / "failures" / f"{result.record.folder}.txt"
    assert reason in log.read_text()
    assert reason in result.problem
    assert str(log) in result.problem


@pytest.mark.parametrize(
    "function", [slow("write_training_data"), slow("training_sample"), "hidden_test", slow("oracle_metric")]
)
def test_broken_data_set_skips_its_cases_and_the_job_goes_on(
    catalogue: Catalogue, tmp_path: Path, function: str
) -> None:
    broken = with_broken_data_set(catalogue, tmp_path / "mine", function)
    results = tmp_path / "results"
    both = replace(
        plan(broken, results), workloads=[broken.workloads[FAST], broken.workloads["cancer_mlp"]], seeds=[0, 1]
    )
    found = run_job(both, broken)
    assert [(r.record.workload, r.record.seed) for r in found] == [
        *((FAST, 0), (FAST, 1), ("cancer_mlp", 0), ("cancer_mlp", 1))
    ]
    for result in found[:2]:
        assert_skipped(result, results, BROKEN[function][1])
    for result in found[2:]:
        assert (result.problem, result.record.skipped) == (None, None)
        assert not result.verdicts["status"].eq("skipped").any()
    cases = Records(results).read()
    board, impact = leaderboard.build(results, cases)
    assert set(impact["workload"]) == {"cancer_mlp"}
    assert set(board["cases"]) == {2}
    assert set(board["skipped"]) == {2}
    assert "**2 cases skipped, because the harness failed.**" in (results / "leaderboard.md").read_text()
    assert judge_again(results, broken, judges_of(broken, DETECTORS), workers=2, again=False) == []

    (result,) = run_job(plan(catalogue, results), catalogue)
    assert (result.problem, result.record.skipped) == (None, None)
    assert [p.name for p in (results / "runs" / "failures").rglob("*.txt")] == ["seed-1.txt"]


def test_failing_trace_or_detector_bench_costs_its_case_only(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_once(self, key):
        folder = trace(self, key)
        if key == prepare(catalogue.card("nan_inputs"), catalogue.workloads[FAST], 0).run.key(data.name):
            return folder / "nowhere"
        return folder

    trace = Store.trace
    data = Store(tmp_path, WorkerPool([Worker("train")])).data_folder(catalogue.workloads[FAST])
    monkeypatch.setattr(Store, "trace", fails_once)
    found = run_job(replace(plan(catalogue, tmp_path), seeds=[0, 1]), catalogue)
    assert_skipped(found[0], tmp_path, "FileNotFoundError")
    assert found[1].problem is None
    monkeypatch.undo()
    assert run_job(plan(catalogue, tmp_path), catalogue)[0].problem is None


def test_row_that_cannot_be_written_is_told_and_the_others_are(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self, record, verdicts):
        if record.seed == 0:
            raise OSError(28, "No space left on device")
        write(self, record, verdicts)

    write = Records.write
    monkeypatch.setattr(Records, "write", full)
    found = run_job(replace(plan(catalogue, tmp_path), seeds=[0, 1]), catalogue)
    why = "its verdicts cannot be written: OSError: [Errno 28] No space left on device"
    expected = f"nan_inputs on {FAST}, seed 0: {why}"
    assert [(r.stored, r.problem) for r in found] == [(False, expected), (True, None)]
    assert [r.seed for r in Records(tmp_path).read().records] == [1]
