"""Detectors that learn: from other workloads only, and kept under keys of all they depend on."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from bugbench.declaration import read_declaration
from bugbench.judging import Judge, Model
from bugbench.judging_worker import JudgingWorker
from bugbench.learning import examples_without
from bugbench.plugins import CatalogueError
from school import FAULTY, HEALTHY, measured

# -- which cases are learned from -----------------------------------------------------------------------------------


def test_examples_are_of_other_workloads_and_harmful_or_healthy(school):
    school.case("digits", "softmax", 1.0, twin=2.0)
    school.case("digits", "softmax", 1.5, twin=2.5, seed=1)
    school.case("digits", "mild", 3.0, twin=2.0, harm=False)  # latent: its own run is left out, its twin is not
    school.case("digits", "control_none", 2.0, twin=2.0)  # repeats the healthy program
    school.case("digits", "control_wide", 4.0, twin=5.0)
    school.case("ecg", "softmax", 6.0, twin=7.0)
    school.case("ecg(lr=0.1)", "softmax", 6.5, twin=7.5)
    judge = school.judge()
    healthy = [2.0, 2.5, 4.0, 5.0]
    expected = [(1.0, FAULTY), (1.5, FAULTY), *((loss, HEALTHY) for loss in healthy)]
    for name in ("ecg", "ecg(lr=0.1)", "ecg(data=mnist)"):
        assert sorted(school.learned(judge, name)) == sorted(expected)
    ecg = {"workload": "ecg"}
    others = [(loss, FAULTY._replace(**ecg)) for loss in (6.0, 6.5)]
    others += [(loss, HEALTHY._replace(**ecg)) for loss in (7.0, 7.5)]
    assert sorted(school.learned(judge, "digits")) == others
    assert len(school.learned(judge, "char_lm")) == len(expected) + len(others)


def test_order_of_examples_follows_from_names_of_traces_alone(school):
    records = [school.case("digits", f"bug_{i}", float(i), twin=100.0, seed=i) for i in range(1, 9)]
    impact = measured(school.results, records)
    found = examples_without("ecg", "ecg", records, impact)
    assert found == examples_without("ecg", "ecg", records[::-1], impact)
    assert [example.key for example in found] == sorted(example.key for example in found)
    assert len(found) == 9


def test_a_run_of_the_workload_itself_is_never_an_example(school):
    """Not even where another workload had the same trace."""
    records = [school.case("ecg", "softmax", 1.0, twin=2.0), school.case("digits", "softmax", 1.0, twin=2.0)]
    assert examples_without("ecg", "ecg", records, measured(school.results, records)) == []


def test_workloads_on_the_same_data_are_left_out_together(school):
    school.case("ecg", "softmax", 1.0, twin=2.0)
    school.case("ecg_on_two_processes", "softmax", 3.0, twin=4.0, dataset="ecg")
    school.case("digits", "softmax", 5.0, twin=6.0)
    for workload in ("ecg", "another_on_it"):  # a first case of a workload is not stored yet
        (taught,) = school.learning().taught([school.judge()], workload, school.table("ecg"))
        assert sorted(value for value, _ in json.loads(taught.model.text)) == [5.0, 6.0]


def test_skipped_cases_are_not_learned_from(school):
    record = replace(school.case("digits", "softmax", 1.0, twin=2.0), skipped="no data")
    assert examples_without("ecg", "ecg", [record], pd.DataFrame(columns=["bug", "workload", "state"])) == []


# -- what is kept ---------------------------------------------------------------------------------------------------


class Counted:
    def __init__(self, monkeypatch):
        self.tasks = []
        perform = JudgingWorker.diagnose

        def counting(worker, detector, knobs, folder, time_limit, task="diagnose"):
            self.tasks.append(task)
            return perform(worker, detector, knobs, folder, time_limit, task)

        monkeypatch.setattr(JudgingWorker, "diagnose", counting)

    def since(self):
        said, self.tasks = self.tasks, []
        return sorted(said)


def test_extracts_models_and_diagnoses_are_kept_until_something_changes(school, monkeypatch):
    counted = Counted(monkeypatch)
    silent = "return HEALTHY"
    school.case("digits", "softmax", 1.0, twin=2.0)

    def judged(again=False, workload="ecg", **bodies):
        judge = school.judge(**{"diagnose": silent, **bodies})
        (taught,) = school.learning(again=again).taught([judge], workload, school.table(workload))
        school.bench.judge(school.trace(3.0), taught, again)
        return counted.since()

    assert judged() == ["diagnose", "extract", "extract", "fit"]
    assert judged() == []
    assert judged(workload="cells") == ["fit"], "the same examples, the same model: the diagnosis stands"
    school.case("digits", "softmax", 5.0, twin=2.0, seed=1)
    assert judged() == ["diagnose", "extract", "fit"], "one case more"
    school.case("ecg", "softmax", 6.0, twin=7.0)
    assert judged() == [], "it is none of its own"
    assert judged(fit="return 1") == ["diagnose", "extract", "extract", "extract", "fit"], "another detector"
    assert judged(fit="return 1", again=True) == ["diagnose", "extract", "extract", "extract", "fit"]
    models = [path.relative_to(school.results / "runs").parts for path in school.results.glob("runs/models/*/*")]
    assert {parts[1] for parts in models} == {"ecg", "cells"}


def test_a_diagnosis_is_of_one_model(school):
    judge, exhibit = school.judge(), school.trace(3.0)
    said = [school.bench.judge(exhibit, replace(judge, model=Model(text))) for text in ("[1]", "[2]", "[1]")]
    assert [s["suspects"][0]["evidence"] for s in said] == ["[1]", "[2]", "[1]"]
    assert len(list((school.results / "runs" / "diagnoses" / exhibit.key).iterdir())) == 2


def test_another_version_of_a_package_fits_another_model(school, monkeypatch):
    judge, examples = school.judge(), [(1.0, FAULTY)]
    school.bench.fit(judge, examples, "ecg")
    monkeypatch.setattr("bugbench.judging.version", lambda name: "99")
    school.bench.fit(judge, examples, "ecg")
    assert len(list((school.results / "runs" / "models" / "ecg").iterdir())) == 2


# -- what a file declares -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["extract", "fit"])
def test_one_method_alone_is_no_learning(school, missing):
    path = school.judge().file
    path.write_text(path.read_text().replace(f"def {missing}(", f"def {missing}_(").replace("pass", ""))
    with pytest.raises(CatalogueError, match=r"own\.py: Own learns by two methods: extract\(self, trace\) and fit"):
        read_declaration(path)


def test_who_does_not_learn_is_left_as_it_is(school, tmp_path):
    path = tmp_path / "plain.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom bugbench.detector import *\n\n@dataclass\nclass Plain(Detector):\n"
        "    def diagnose(self, trace):\n        return HEALTHY if self.model is None else 7\n"
    )
    declared = read_declaration(path)
    judge = Judge("plain", path, declared.access, {}, declared.learns)
    assert not judge.learns
    assert school.learning(impact=None).taught([judge], "ecg", school.table("ecg")) == [judge]
    assert school.bench.judge(school.trace(1.0), judge)["status"] == "ok"
