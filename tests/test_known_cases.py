"""What is known of a case is not lost to what comes after: failed attempts, other judges, sweeps of other cards."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bugbench import merge, panel, published
from bugbench.catalogue import Catalogue
from bugbench.job import Plan, run_job
from bugbench.judge import judge_again, judges_of
from bugbench.records import Cases, Records
from bugbench.report import leaderboard
from bugbench.store import HarnessFailure, Store
from injected_faults import FAST
from stored_cases import record, store


def plan(catalogue: Catalogue, results: Path, *detectors: str, **changes) -> Plan:
    judges = judges_of(catalogue, list(detectors)) if detectors else []
    return Plan(catalogue.card("nan_inputs"), [catalogue.workloads[FAST]], [0], judges, results, **changes)


def found(results: Path) -> pd.DataFrame:
    return Records(results).read().verdicts.set_index("detector")


@pytest.fixture(scope="module")
def judged(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Cases:
    results = tmp_path_factory.mktemp("judged")
    run_job(plan(catalogue, results, "oracle", "finite_checks"), catalogue)
    return Records(results).read()


def test_a_failing_harness_costs_no_case_that_is_known(catalogue, judged, tmp_path, monkeypatch):
    def full(self, runs, workers, report=None):
        return {self.key(run): HarnessFailure("no space left on device", "") for run in runs}

    merge.merge(judged, tmp_path)
    monkeypatch.setattr(Store, "train_all", full)
    (result,) = run_job(plan(catalogue, tmp_path, "always_healthy"), catalogue)
    assert result.record.skipped == "no space left on device"
    assert "no space left on device" in result.problem
    assert "what was stored of it before stays" in result.problem
    stored = Records(tmp_path).read()
    assert stored.records == judged.records
    assert set(stored.verdicts["detector"]) == {"oracle", "finite_checks"}
    other = replace(judged.records[0], program_key="of another program")
    Records(tmp_path).write(other, judged.verdicts)
    run_job(plan(catalogue, tmp_path, "always_healthy"), catalogue)
    assert Records(tmp_path).read().records[0].skipped, "what is known of another program is not known of this one"


def test_what_was_said_of_a_failed_attempt_is_not_said_of_the_run(catalogue, tmp_path):
    """In one process, where the judges' desks still hold the trace of the attempt."""
    reads = plan(catalogue, tmp_path, "finite_checks", workers=1)
    run_job(replace(reads, card=catalogue.card("none"), judges=[]), catalogue)  # the twin, with all the time it needs
    (attempt,) = run_job(replace(reads, train_seconds=0.05), catalogue)
    assert (attempt.record.transient, attempt.record.steps) == (True, 0)
    assert not found(tmp_path)["alarm"].any()
    (result,) = run_job(replace(reads, judges=judges_of(catalogue, ["always_faulty"])), catalogue)
    assert not result.record.transient
    assert set(found(tmp_path).index) == {"always_faulty"}
    run_job(reads, catalogue)
    assert found(tmp_path)["exact"].to_dict() == {"always_faulty": False, "finite_checks": True}


def test_detectors_that_learn_leave_no_row_until_they_have_judged(catalogue, judged, tmp_path):
    run_job(plan(catalogue, tmp_path, "finite_checks", "deepfd", later=True), catalogue)
    assert list(found(tmp_path).index) == ["finite_checks"]
    (known,) = Records(tmp_path).read().records
    row = judged.verdicts[judged.verdicts["detector"] == "oracle"].assign(detector="deepfd")
    Records(tmp_path).join(known, row)
    run_job(plan(catalogue, tmp_path, "finite_checks", "deepfd", later=True), catalogue)
    assert found(tmp_path).loc["deepfd", "exact"], "what it said before stands till then"


def test_what_others_store_while_a_case_is_judged_stays(catalogue, judged, tmp_path, monkeypatch):
    def meanwhile(*arguments):
        Records(tmp_path).join(case, judged.verdicts)
        return judge_all(*arguments)

    run_job(plan(catalogue, tmp_path, "always_healthy"), catalogue)
    (case,) = Records(tmp_path).read().records
    judge_all = panel.judge_all
    monkeypatch.setattr(panel, "judge_all", meanwhile)
    assert judge_again(tmp_path, catalogue, judges_of(catalogue, ["always_healthy"]), 1, False) == []
    assert set(found(tmp_path).index) == {"oracle", "finite_checks", "always_healthy"}


def test_another_run_that_was_stored_while_one_was_judged_stays(catalogue, judged, tmp_path, monkeypatch):
    def meanwhile(*arguments):
        Records(tmp_path).write(replace(case, trace_key="another"), judged.verdicts)
        return judge_all(*arguments)

    run_job(plan(catalogue, tmp_path, "always_healthy"), catalogue)
    (case,) = Records(tmp_path).read().records
    judge_all = panel.judge_all
    monkeypatch.setattr(panel, "judge_all", meanwhile)
    (problem,) = judge_again(tmp_path, catalogue, judges_of(catalogue, ["always_healthy"]), 1, False)
    assert problem == f"case {case.folder}: another run of it was stored meanwhile; judge again"
    assert "always_healthy" not in found(tmp_path).index


def test_merged_cases_are_judged_again_where_all_diagnoses_are_stored(catalogue, judged, tmp_path):
    merge.merge(judged, tmp_path)
    assert judge_again(tmp_path, catalogue, judges_of(catalogue, ["finite_checks"]), 1, False) == []
    (problem,) = judge_again(tmp_path, catalogue, judges_of(catalogue, ["always_faulty"]), 1, False)
    assert "the trace is gone" in problem


def test_programs_may_be_trained_now_and_judged_another_time(catalogue, tmp_path):
    run_job(plan(catalogue, tmp_path), catalogue)
    assert found(tmp_path).empty
    assert judge_again(tmp_path, catalogue, judges_of(catalogue, ["finite_checks"]), 1, False) == []
    assert found(tmp_path)["exact"].to_dict() == {"finite_checks": True}


def test_all_that_is_known_is_published_and_impact_is_of_ones_own(tmp_path):
    for case in (record(), record("none", "none", lines=[])):
        store(tmp_path, case, {"alpha": None})
    known = Records(tmp_path).read()
    one = replace(known, records=known.records[:1], verdicts=known.verdicts[known.verdicts["bug"] == "none"])
    leaderboard.build(tmp_path, one, known=known)
    assert {r.bug for r in published.read(tmp_path).records} == {"none", "softmax_dim"}
    assert list(pd.read_csv(tmp_path / "impact.csv")["bug"]) == ["none"], "and nothing that ships with the project"
    leaderboard.build(tmp_path, known)
    assert list(pd.read_csv(tmp_path / "impact.csv")["bug"]) == ["none", "softmax_dim"]
