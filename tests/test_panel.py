"""Detectors that share a process: they say what each says alone, and whoever fails there is asked alone."""

import pytest
from bugbench import panel
from bugbench.catalogue import load
from bugbench.integrity import read_sealed
from bugbench.isolation import LEVELS
from bugbench.judge import judges_of
from bugbench.judging import Bench, Exhibit
from bugbench.judging_worker import JudgingWorker
from bugbench.pools import train_pool
from bugbench.runner import prepare_seeds
from bugbench.store import Store
from bugbench.worker import WorkerPool
from court import STEPS, TEMPLATE, Court

COMPARED = ("status", "reason", "suspects", "alarm_step", "isolation", "version")

pytestmark = pytest.mark.skipif("sys.platform != 'linux'", reason="elsewhere all detectors share one process as it is")


@pytest.fixture
def anybody(monkeypatch):
    """Let detectors sit on a panel that are none of the project's own."""
    monkeypatch.setattr(panel, "_sits", lambda detector: True)


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
def test_the_projects_own_detectors_say_in_company_what_they_say_alone(
    bug, workload, tmp_path, judging_pool, monkeypatch
):
    catalogue = load(())
    store = Store(tmp_path / "results", train_pool(1))
    (case,) = prepare_seeds(catalogue.card(bug), catalogue.workload(workload), [0])
    (key,) = store.train_all([case.run], 1)
    exhibit = Exhibit(key, store.trace(key), store.data_folder(case.workload), {})
    judges = [j for j in judges_of(catalogue, ["no_rerun"]) if panel._sits(j.file) and not j.learns]
    assert len(judges) > 30
    one_by_one = Bench(tmp_path / "alone", judging_pool).judge_all([(exhibit, judge) for judge in judges], 1)
    asked = alone(monkeypatch)
    together = panel.judge_all(Bench(tmp_path / "together", judging_pool), exhibit, judges, 1)
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
    (tmp_path / "umlaut.py").write_text(
        TEMPLATE.format(access={"curves"}, knobs="pass", body=" " * 8 + "return HEALTHY")
    )
    assert not panel._sits(tmp_path / "umlaut.py")


@pytest.mark.parametrize("level", LEVELS)
def test_an_alarm_is_dated_by_the_shortest_part_of_the_trace_that_raises_it(level, tmp_path, exhibit, anybody):
    pool = WorkerPool([JudgingWorker(level)])
    court = Court(tmp_path, pool)
    enough = "return suspect('softmax_dim') if {} else HEALTHY"
    bodies = {  # what there is after 1, 2, 3, 4, 6, 11 and 21 training batches, and at the end
        "at_once": ("return suspect('softmax_dim')", ("curves",), 0),
        "late": (enough.format("len(trace.train_steps()) >= 5"), ("curves",), 5),
        "at_the_end": (enough.format(f"len(trace.train_steps()) == {STEPS}"), ("curves",), STEPS - 1),
        "never": ("return HEALTHY", ("curves",), None),
        "in_batches": (enough.format("len(trace.batches()) >= 2"), ("data",), 1),
        "in_none": ("return HEALTHY", ("data",), None),
    }
    judges = [court.detector(body, access, name) for name, (body, access, _) in bodies.items()]
    answers = panel.judge_all(court.bench, exhibit, judges, 1)
    pool.close()
    assert [answer["alarm_step"] for answer in answers] == [step for _, _, step in bodies.values()]
    assert {answer["isolation"] for answer in answers} == {level}


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
def test_a_failure_costs_its_own_row_only(body, status, tmp_path, judging_pool, court, exhibit, anybody):
    bodies = {"before": "return suspect('crash')", "bad": body, "after": "return HEALTHY"}
    judges = [court.detector(own, name=name) for name, own in bodies.items()]
    bench = Bench(tmp_path / "short", judging_pool, judge_seconds=3)
    before, bad, after = panel.judge_all(bench, exhibit, judges, 1)
    assert (before["status"], before["alarm_step"], after["status"]) == ("ok", 0, "ok")
    assert bad["status"] == status


def test_each_member_starts_from_one_state_of_the_generators(court, exhibit, anybody):
    body = "import random\nreturn suspect('crash', str(random.random()))"
    answers = panel.judge_all(
        court.bench, exhibit, [court.detector(body, name="one"), court.detector(body, name="two")], 1
    )
    first, second = (answer["suspects"][0]["evidence"] for answer in answers)
    assert first == second


def test_what_was_said_is_stored_and_taken_from_there(court, exhibit, anybody, monkeypatch):
    bodies = {"one": "return suspect('crash', str(time.time()))", "two": "return HEALTHY"}
    judges = [court.detector(body, name=name) for name, body in bodies.items()]
    bench = court.bench
    first = panel.judge_all(bench, exhibit, judges, 1)
    version = judges[0].version({})
    assert read_sealed(bench.diagnosis_path(exhibit.key, "one", version)) | {"version": version} == first[0]
    assert panel.judge_all(bench, exhibit, judges, 1) == first
    asked = alone(monkeypatch)
    again = panel.judge_all(bench, exhibit, judges, 1, again=True)
    assert again[0]["suspects"][0]["evidence"] != first[0]["suspects"][0]["evidence"]
    assert asked == []


def test_a_panel_sees_what_its_members_declare_and_no_more(court, exhibit, anybody):
    look = "return suspect('crash', ' '.join(sorted(p.name for p in trace.folder.iterdir())))"
    pairs = {"curves": ("curves",), "source": ("source",), "data": ("data",)}
    judges = [court.detector(look, access, f"{name}_{n}") for name, access in pairs.items() for n in (1, 2)]
    answers = panel.judge_all(court.bench, exhibit, judges, 1)
    seen = {j.name: set(a["suspects"][0]["evidence"].split()) for j, a in zip(judges, answers, strict=True)}
    assert seen["curves_1"] == seen["curves_2"] == {"meta.json", "error.txt", "metrics.parquet", "steps.parquet"}
    assert seen["source_1"] == seen["curves_1"] | {"program.py", "config.yaml"}
    assert seen["data_2"] == seen["curves_1"] | {"batches", "samples.parquet", "predictions.safetensors"}
