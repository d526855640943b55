"""Detectors that share a process: they say what each says alone, and whoever fails there is asked alone."""

from textwrap import dedent, indent

import pytest
import torch
from bugbench import panel
from bugbench.catalogue import load
from bugbench.integrity import read_sealed
from bugbench.judge import judges_of
from bugbench.judging import Bench, Exhibit, Judge
from bugbench.judging_worker import JudgingWorker
from bugbench.pools import train_pool
from bugbench.recorder import Recorder
from bugbench.runner import prepare_seeds
from bugbench.store import Store
from bugbench.worker import WorkerPool

STEPS = 25
DETECTOR = """\
import os, random, time
from dataclasses import dataclass
from bugbench.detector import *

@dataclass
class Own(Detector):
    access = {access}

    def diagnose(self, trace):
{body}
"""
COMPARED = ("status", "reason", "suspects", "alarm_step", "isolation", "version")

pytestmark = pytest.mark.skipif("sys.platform != 'linux'", reason="elsewhere all detectors share one process as it is")


@pytest.fixture(scope="module")
def pool():
    pool = WorkerPool([JudgingWorker()])
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def exhibit(tmp_path_factory):
    """A trace of a classifier of two classes that gives every example the same score, 25 steps long."""
    home = tmp_path_factory.mktemp("case")
    run = Recorder(home / "trace", task="classification", classes=2)
    batch = dict(inputs=torch.ones(2, 1), targets=torch.tensor([0, 1]), outputs=torch.ones(2, 2), loss=0.7)
    for step in range(STEPS):
        run.log_batch("train", **batch)
        if step % 10 == 9:
            run.log_batch("val", **batch)
            run.log_metrics("val", loss=0.7, accuracy=0.5)
    run.finish(predictions={"outputs": torch.ones(2, 2), "targets": torch.tensor([0, 1])})
    (home / "trace" / "program.py").write_text("lr = 0.1\n")
    (home / "trace" / "config.yaml").write_text("{lr: 0.1, seed: 7}\n")
    (home / "data").mkdir()
    return Exhibit("0123abcd", home / "trace", home / "data", {})


@pytest.fixture
def seated(tmp_path, monkeypatch):
    """Make a detector of a few lines that may sit on a panel, although it is none of the project's own."""
    monkeypatch.setattr(panel, "_sits", lambda detector: True)

    def detector(name, body, access=("curves",)):
        path = tmp_path / f"{name}.py"
        path.write_text(DETECTOR.format(access=set(access), body=indent(dedent(body), " " * 8)))
        return Judge(name, path, frozenset(access), {})

    return detector


def alone(monkeypatch):
    """Return a list that grows by the name of each detector that the bench is asked for alone."""
    asked = []
    judge_one = Bench.judge

    def judge(self, exhibit, judge, again=False):
        asked.append(judge.name)
        return judge_one(self, exhibit, judge, again)

    monkeypatch.setattr(Bench, "judge", judge)
    return asked


@pytest.mark.parametrize(("bug", "workload"), [("softmax_dim", "cancer_mlp"), ("nan_inputs", "diabetes_mlp")])
def test_the_projects_own_detectors_say_in_company_what_they_say_alone(bug, workload, tmp_path, pool, monkeypatch):
    catalogue = load(())
    store = Store(tmp_path / "results", train_pool(1))
    (case,) = prepare_seeds(catalogue.card(bug), catalogue.workload(workload), [0])
    (key,) = store.train_all([case.run], 1)
    exhibit = Exhibit(key, store.trace(key), store.data_folder(case.workload), {})
    judges = [j for j in judges_of(catalogue, ["no_rerun"]) if panel._sits(j.file) and not j.learns]
    assert len(judges) > 30
    one_by_one = Bench(tmp_path / "alone", pool).judge_all([(exhibit, judge) for judge in judges], 1)
    asked = alone(monkeypatch)
    together = panel.judge_all(Bench(tmp_path / "together", pool), exhibit, judges, 1)
    by_access = [judge.access for judge in judges]
    assert asked == [judge.name for judge in judges if by_access.count(judge.access) == 1]
    for judge, single, joint in zip(judges, one_by_one, together, strict=True):
        assert {k: joint[k] for k in COMPARED} == {k: single[k] for k in COMPARED}, judge.name
        assert joint["seconds"] > 0
    assert sum(bool(answer["suspects"]) for answer in together) > 5


def test_who_shares_a_process():
    sits = {judge.name for judge in judges_of(load(())) if panel._sits(judge.file)}
    assert {"update_ratio", "umlaut", "always_faulty"} <= sits
    assert not sits & {"oracle", "anomaly_mode", "gradient_check", "ruff", "torchfix", "mldoct"}


def test_a_plugin_has_a_process_of_its_own_also_under_the_name_of_a_detector_of_ours(tmp_path):
    (tmp_path / "umlaut.py").write_text(DETECTOR.format(access={"curves"}, body=" " * 8 + "return HEALTHY"))
    assert not panel._sits(tmp_path / "umlaut.py")


def test_an_alarm_is_dated_by_the_shortest_part_of_the_trace_that_raises_it(tmp_path, pool, exhibit, seated):
    judges = [
        seated("late", "return suspect('crash') if len(trace.train_steps()) >= 4 else HEALTHY"),
        seated("at_once", "return suspect('crash')"),
        seated("at_the_end", f"return suspect('crash') if len(trace.train_steps()) == {STEPS} else HEALTHY"),
        seated("never", "return HEALTHY"),
        seated("in_batches", "return suspect('crash') if len(trace.batches()) >= 2 else HEALTHY", access=("data",)),
        seated("also", "return HEALTHY", access=("data",)),
    ]
    bench = Bench(tmp_path / "results", pool)
    answers = panel.judge_all(bench, exhibit, judges, 1)
    single = Bench(tmp_path / "alone", pool).judge_all([(exhibit, judge) for judge in judges], 1)
    steps = {judge.name: answer["alarm_step"] for judge, answer in zip(judges, answers, strict=True)}
    assert steps == {judge.name: answer["alarm_step"] for judge, answer in zip(judges, single, strict=True)}
    assert (steps["at_once"], steps["at_the_end"], steps["never"], steps["also"]) == (0, STEPS - 1, None, None)
    assert 3 <= steps["late"] < STEPS - 1
    assert steps["in_batches"] >= 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("os._exit(3)", "crashed"),
        ("raise ValueError('no')", "crashed"),
        ("return 'nothing'", "invalid"),
        ("time.sleep(60)", "timed_out"),
        ("if len(trace.train_steps()) < 20: os._exit(3)\nreturn suspect('crash')", "ok"),
    ],
    ids=["dies", "raises", "says_nothing", "hangs", "dies_on_a_part"],
)
def test_a_failure_costs_its_own_row_only(body, status, tmp_path, pool, exhibit, seated):
    judges = [seated("before", "return suspect('crash')"), seated("bad", body), seated("after", "return HEALTHY")]
    bench = Bench(tmp_path / "results", pool, judge_seconds=3)
    before, bad, after = panel.judge_all(bench, exhibit, judges, 1)
    assert (before["status"], before["alarm_step"], after["status"]) == ("ok", 0, "ok")
    assert bad["status"] == status


def test_each_member_starts_from_one_state_of_the_generators(tmp_path, pool, exhibit, seated):
    body = "return suspect('crash', str(random.random()))"
    answers = panel.judge_all(Bench(tmp_path / "results", pool), exhibit, [seated("one", body), seated("two", body)], 1)
    first, second = (answer["suspects"][0]["evidence"] for answer in answers)
    assert first == second


def test_what_was_said_is_stored_and_taken_from_there(tmp_path, pool, exhibit, seated, monkeypatch):
    judges = [seated("one", "return suspect('crash', str(time.time()))"), seated("two", "return HEALTHY")]
    bench = Bench(tmp_path / "results", pool)
    first = panel.judge_all(bench, exhibit, judges, 1)
    version = judges[0].version({})
    assert read_sealed(bench.diagnosis_path(exhibit.key, "one", version)) | {"version": version} == first[0]
    assert panel.judge_all(bench, exhibit, judges, 1) == first
    asked = alone(monkeypatch)
    again = panel.judge_all(bench, exhibit, judges, 1, again=True)
    assert again[0]["suspects"][0]["evidence"] != first[0]["suspects"][0]["evidence"]
    assert asked == []


def test_a_panel_sees_what_its_members_declare_and_no_more(tmp_path, pool, exhibit, seated):
    look = "from pathlib import Path\nreturn suspect('crash', ' '.join(sorted(p.name for p in trace.folder.iterdir())))"
    pairs = {"curves": ("curves",), "source": ("source",), "data": ("data",)}
    judges = [seated(f"{name}_{n}", look, access) for name, access in pairs.items() for n in (1, 2)]
    answers = panel.judge_all(Bench(tmp_path / "results", pool), exhibit, judges, 1)
    seen = {j.name: set(a["suspects"][0]["evidence"].split()) for j, a in zip(judges, answers, strict=True)}
    assert seen["curves_1"] == seen["curves_2"] == {"meta.json", "metrics.parquet", "steps.parquet"}
    assert seen["source_1"] == seen["curves_1"] | {"program.py", "config.yaml"}
    assert seen["data_2"] == seen["curves_1"] | {"batches", "samples.parquet", "predictions.safetensors"}
