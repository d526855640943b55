"""Detectors of every misbehaviour before the bench: each costs its own row only, and sees no word of the case."""

import json
import sys
from pathlib import Path

import pytest
from bugbench.declaration import read_declaration
from bugbench.fork_server import JOIN_FIRST
from bugbench.integrity import read_sealed
from bugbench.isolation import LEVELS
from bugbench.job import verdict_rows
from bugbench.judging import Bench, Exhibit, Judge, prefixes
from bugbench.judging_worker import JudgingWorker, NotConfined
from bugbench.plugins import CatalogueError, project_folder
from bugbench.recorder import Recorder
from bugbench.records import Record
from bugbench.runner import digest
from bugbench.worker import KEPT_ENVIRONMENT, WorkerPool
from court import STEPS, Court

FAULTS = {"softmax_dim": {"family": "loss"}, "lr_too_high": {"family": "optimizer"}}
ALARM = "return suspect('softmax_dim', 'seen')"

THREADS = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
FIXED = {*THREADS, "MPLBACKEND", "HOME", "USER", "TMPDIR"}
PYTHON = {"PYTHONPATH", "PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "LC_CTYPE"}


def test_a_detector_from_outside_does_not_choose_what_is_loaded_before_its_process_starts(court, exhibit):
    body = """
        names = ["bugbench.first_batch", "bugbench.keras_view", "bugbench.selfcheck", "pyarrow.dataset"]
        loaded = [name for name in names if name in sys.modules]
        if not names:  # it is enough to stand in the text
            import bugbench.first_batch, bugbench.keras_view, bugbench.selfcheck
        return suspect("crash", json.dumps(loaded))
    """
    assert court.said(exhibit, body) == ["bugbench.first_batch", "pyarrow.dataset"]


def test_a_server_that_has_joined_its_pages_answers_as_before(court, exhibit):
    said = [  # each another detector: what one said of a trace is stored
        court.said(exhibit, f"return suspect('crash', json.dumps([{i}, trace.train_steps().shape[0]]))")
        for i in range(JOIN_FIRST + 2)
    ]
    assert said == [[i, STEPS] for i in range(JOIN_FIRST + 2)]


# -- statuses and reasons -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("return HEALTHY", "ok", ""),
        ("return Diagnosis()", "ok", ""),
        ("raise NotApplicable('no classes here')", "not_applicable", "no classes here"),
        ("raise NotInstalled('pip install sometool')", "not_installed", "pip install sometool"),
        ("return 1 / 0", "crashed", "ZeroDivisionError: division by zero"),
        ("raise MemoryError('3 TB')", "out_of_memory", "3 TB"),
        ("sys.exit(3)", "crashed", "the process ended with exit code 3"),
        ("os._exit(5)", "crashed", "the process ended with exit code 5"),
        ("os.write(2, b'first\\nout of luck\\n'); os._exit(5)", "crashed", "ended with exit code 5: out of luck"),
        ("ctypes.string_at(0)", "crashed", "the process ended with signal SIGSEGV"),
        ("trace.layers", "crashed", "MissingAccess: layers.parquet is not in this trace: declare access {'tensors'}"),
        ("return None", "invalid", "diagnose returned NoneType, not a Diagnosis"),
        ("return [Suspect('softmax_dim')]", "invalid", "diagnose returned list, not a Diagnosis"),
        ("return Diagnosis(['softmax_dim'])", "invalid", "a suspect is a str, not a Suspect"),
        ("return suspect(7)", "invalid", "a suspect's fault is 7, not a fault's id"),
        ("return suspect('softmax_dim', confidence=float('nan'))", "invalid", "the confidence in softmax_dim is nan"),
        ("return suspect('softmax_dim', confidence=1.5)", "invalid", "the confidence in softmax_dim is 1.5"),
        (
            "return suspect('softmax_dim', confidence='high')",
            "invalid",
            "confidence or line of softmax_dim is no number",
        ),
        ("return suspect('softmax_dim', line='seven')", "invalid", "confidence or line of softmax_dim is no number"),
        ("return suspect('softmax_dim', line=7.5)", "invalid", "confidence or line of softmax_dim is no number"),
    ],
)
def test_status_and_reason(court, exhibit, body, status, reason):
    answer = court.bench.judge(exhibit, court.detector(body))
    assert answer["status"] == status
    assert reason in answer["reason"]
    assert (answer["reason"] == "") == (reason == "")
    assert answer["suspects"] == []
    assert answer["alarm_step"] is None
    assert "transient" not in answer


def test_a_hanging_detector_is_timed_out(court, exhibit):
    court.bench.judge_seconds = 1
    answer = court.bench.judge(exhibit, court.detector("while True: time.sleep(1)"))
    assert (answer["status"], answer["reason"]) == ("timed_out", "no answer within 1 s")
    assert 1 <= answer["seconds"] < 10


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def diagnose(", "SyntaxError"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("x = 1", "defines exactly one Detector class, this one 0"),
    ],
)
def test_a_broken_file_is_a_crash(court, exhibit, text, reason):
    judge = court.detector("pass")
    judge.file.write_text(text)
    answer = court.bench.judge(exhibit, judge)
    assert answer["status"] == "crashed"
    assert reason in answer["reason"]
    assert "own.py" in answer["reason"]


def test_an_unknown_knob_is_a_crash(court, exhibit):
    answer = court.bench.judge(exhibit, court.detector("return HEALTHY", patience=3))
    assert answer["status"] == "crashed"
    assert "patience" in answer["reason"]


def test_what_a_detector_says_comes_back_whole(court, exhibit):
    judge = court.detector("""\
        import numpy as np
        return Diagnosis([
            Suspect("softmax_dim", np.float32(0.5), "long" * 1000, np.int64(7), "out"),
            Suspect("loss", 1),
        ])
        """)
    answer = court.bench.judge(exhibit, judge)
    assert answer["suspects"] == [
        {"fault": "softmax_dim", "confidence": 0.5, "evidence": "long" * 125, "line": 7, "layer": "out"},
        {"fault": "loss", "confidence": 1.0, "evidence": "", "line": None, "layer": None},
    ]
    assert answer["seconds"] >= 0


def record(**changes) -> Record:
    return Record(
        **{
            **dict(
                bug="secret_bug", fault="softmax_dim", family="loss", control=False, workload="any", seed=0, onset=0
            ),
            **dict(lines=[3], accepts=[], trace_key="a", twin_key="b", program_key="c", data="d"),
            **dict(oracle_bug=0.5, oracle_twin=0.9, reported_bug=0.5, reported_twin=0.9, crashed_bug=False, error=None),
            **dict(seconds_bug=1.0, seconds_twin=1.0, oracle={}),
            **changes,
        }
    )


def test_misbehaviour_costs_its_own_row_only(court, exhibit):
    bodies = {
        "before": ALARM,
        "crash": "raise RuntimeError('no')",
        "death": "os._exit(9)",
        "nonsense": "return None",
        "unknown_fault": "return suspect('softmax_dimm')",
        "line_zero": "return suspect('softmax_dim', line=0)",
        "after": "return suspect('lr_too_high')",
    }
    judges = [court.detector(body, name=name) for name, body in bodies.items()]
    diagnoses = court.bench.judge_all([(exhibit, judge) for judge in judges], workers=2)
    rows = verdict_rows(record(), judges, diagnoses, FAULTS).set_index("detector")
    assert rows["status"].to_dict() == {
        **{"before": "ok", "crash": "crashed", "death": "crashed", "nonsense": "invalid"},
        **{"unknown_fault": "invalid", "line_zero": "invalid", "after": "ok"},
    }
    assert rows["alarm"].to_dict() == {name: name in ("before", "after") for name in bodies}
    assert rows["exact"].to_dict() == {name: name == "before" for name in bodies}
    assert "did you mean softmax_dim?" in rows.loc["unknown_fault", "reason"]
    assert "line of softmax_dim is 0" in rows.loc["line_zero", "reason"]
    assert rows.loc[["unknown_fault", "line_zero"], "alarm_step"].isna().all()


MISBEHAVIOUR = {
    "exits": ("os._exit(0)", "crashed", "exit code 0"),
    "ends_by_a_signal": ("ctypes.string_at(0)", "crashed", "signal SIGSEGV"),
    "allocates": ("hoard = [b'x']\nwhile True: hoard.append(hoard[-1] * 2)", "out_of_memory", ""),
    "allocates_in_children": (
        """\
        for _ in range(8):
            if os.fork() == 0:
                hoard = b"x" * 2**28
                time.sleep(3600)
        time.sleep(3600)
        """,
        "out_of_memory",
        "GiB in use",
    ),
    "keeps_forking": ("while os.fork(): pass\ntime.sleep(3600)", "crashed", "processes at once, allowed are 200"),
    "fills_the_disk": (
        """\
        for number in range(1000):
            with open(f"{number}", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, 2**28)
        while True: time.sleep(1)
        """,
        "crashed",
        "",
    ),
    "prints": ('for _ in range(1000): print(\'{"status": "ok"}\' * 1000, flush=True)\nreturn 7', "invalid", "int"),
    "writes_to_its_answer": ("os.write(3, b'no answer' * 1000)\nreturn HEALTHY", "invalid", "no diagnosis"),
    "answers_too_much": ("os.write(3, (2**40).to_bytes(8, 'little'))\nreturn HEALTHY", "invalid", "no diagnosis"),
    "forges_a_status": (
        """\
        text = b'{"status": "timed_out", "reason": "", "suspects": []}'
        os.write(3, len(text).to_bytes(8, "little") + text)
        return HEALTHY
        """,
        "invalid",
        "no diagnosis",
    ),
    "closes_its_answer": ("os.close(3)\ntime.sleep(3600)", "crashed", "closed the pipe of its answer and went on"),
    "leaves_children_behind": (
        """\
        if os.fork() == 0:
            os.setsid()
            os.fork()
            os.execlp("sleep", "bugbench-left-behind", "3600")
        return Diagnosis(7)
        """,
        "crashed",
        "'int' object is not iterable",
    ),
}


@pytest.fixture(params=[LEVELS[0], *(pytest.param(level, marks=pytest.mark.slow) for level in LEVELS[1:])])
def bounded(request, tmp_path):
    """A court at each level, where a diagnosis may use half a GiB."""
    if sys.platform != "linux":
        pytest.skip("elsewhere only the time is limited")
    worker = JudgingWorker(request.param, memory=2**29)
    try:
        worker.start()
    except NotConfined as error:
        pytest.skip(str(error))
    yield Court(tmp_path, WorkerPool([worker]))
    worker.close()


def test_whatever_a_detector_does_the_next_one_judges_as_if_nothing_had_happened(bounded, exhibit):
    honest = bounded.detector(ALARM, name="honest")
    before = bounded.bench.judge(exhibit, honest)
    server = bounded.bench.pool.workers[0]._process
    for name, (body, status, reason) in MISBEHAVIOUR.items():
        answer = bounded.bench.judge(exhibit, bounded.detector(body, name=name))
        assert (answer["status"], answer["suspects"]) == (status, []), (name, answer)
        assert reason in answer["reason"], (name, answer)
        after = bounded.bench.judge(exhibit, honest, again=True)
        assert {**after, "seconds": 0} == {**before, "seconds": 0}, name
        assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if words_of(p).startswith("bugbench-left-behind")]
    assert bounded.bench.pool.workers[0]._process is server, "the server has seen nothing of it"


@pytest.mark.slow
@pytest.mark.parametrize("bounded", [LEVELS[0]], indirect=True)
def test_a_process_that_doubles_is_ended(bounded, exhibit):
    """With namespaces only: elsewhere it may go on for as long as it can double faster than it is counted."""
    body = """\
        end = time.monotonic() + 20  # each ends by itself, should nobody else see to it
        while time.monotonic() < end:
            try:
                os.fork()
            except OSError:
                pass
        os._exit(0)
        """
    answer = bounded.bench.judge(exhibit, bounded.detector(body))
    assert (answer["status"], answer["reason"].partition(" ")[2]) == ("crashed", "processes at once, allowed are 200")
    assert bounded.bench.judge(exhibit, bounded.detector(ALARM, name="honest"))["status"] == "ok"


def words_of(path: Path) -> str:
    """Return a process's arguments; none if it is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# -- what is kept -------------------------------------------------------------------------------------------------


class Counted:
    """A detector whose calls are counted on their way to the worker."""

    def __init__(self, court, monkeypatch, body="return HEALTHY", access=("curves",)):
        self.court, self.access = court, access
        self.body = body
        self.calls = 0
        diagnose = JudgingWorker.diagnose

        def counting(*arguments):
            self.calls += 1
            return diagnose(*arguments)

        monkeypatch.setattr(JudgingWorker, "diagnose", counting)

    def judge(self, exhibit, again=False, body="", **knobs):
        judge = self.court.detector(body or self.body, self.access, knobs="patience: int = 1", **knobs)
        return self.court.bench.judge(exhibit, judge, again)


@pytest.fixture
def counting(court, monkeypatch):
    return lambda body="return HEALTHY": Counted(court, monkeypatch, body)


def test_a_stored_diagnosis_is_taken(court, counting, exhibit):
    counted = counting()
    first = counted.judge(exhibit)
    assert counted.judge(exhibit) == first
    assert counted.calls == 1
    assert len(court.stored()) == 1
    Bench(court.folder / "results", court.bench.pool).judge(
        exhibit, court.detector(counted.body, knobs="patience: int = 1")
    )
    assert counted.calls == 1
    counted.judge(exhibit, again=True)
    assert counted.calls == 2


def test_source_knobs_and_trace_decide_whether_it_is_judged_again(court, counting, exhibit):
    counted = counting()
    counted.judge(exhibit)
    counted.judge(exhibit, patience=2)
    assert counted.calls == 2
    counted.judge(exhibit, body=counted.body + "  # changed")
    assert counted.calls == 3
    counted.judge(Exhibit("4567cdef", exhibit.trace, exhibit.data, exhibit.truth))
    assert counted.calls == 4
    counted.judge(Exhibit(exhibit.key, exhibit.trace, exhibit.data, {"fault": "lr_too_high", "lines": []}))
    assert counted.calls == 4, "the truth is nothing to a detector that does not see it"
    assert len(court.stored()) == 4


def test_a_damaged_stored_diagnosis_is_replaced(court, counting, exhibit):
    counted = counting()
    counted.judge(exhibit)
    (path,) = (court.folder / "results").rglob("*.json")
    path.write_text('{"status": "o')
    assert counted.judge(exhibit)["status"] == "ok"
    assert counted.calls == 2
    assert read_sealed(path)["status"] == "ok"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("raise RuntimeError('no')", True),
        ("return None", True),
        ("raise NotApplicable('never')", True),
        ("raise NotInstalled('tomorrow')", False),
        ("raise MemoryError('today')", False),
        ("os._exit(1)", False),
        ("ctypes.string_at(0)", False),
    ],
)
def test_what_may_go_better_next_time_is_tried_again(court, counting, exhibit, body, kept):
    counted = counting(body)
    for _ in range(2):
        counted.judge(exhibit)
    assert counted.calls == (1 if kept else 2)
    assert bool(court.stored()) == kept


def test_time_outs_are_tried_again(court, counting, exhibit):
    counted = counting("while True: time.sleep(1)")
    court.bench.judge_seconds = 1
    counted.judge(exhibit)
    court.bench.judge_seconds = 60
    assert court.stored() == []
    assert counted.judge(exhibit, body="return HEALTHY")["status"] == "ok"


def test_the_place_of_a_diagnosis_does_not_name_the_case(court, counting, exhibit):
    counting().judge(exhibit)
    (path,) = (court.folder / "results").rglob("*.json")
    relative = path.relative_to(court.folder / "results")
    assert relative.parts[:3] == ("runs", "diagnoses", exhibit.key)


# -- when an alarm is raised --------------------------------------------------------------------------------------


def test_prefixes_end_after_each_kept_batch(exhibit):
    assert prefixes(exhibit.trace, STEPS) == [1, 2, 3, 4, 6, 11, 21]
    assert prefixes(exhibit.trace, 11) == [1, 2, 3, 4, 6]


@pytest.mark.parametrize(
    ("condition", "step"),
    [
        ("len(trace.train_steps()) >= 1", 0),
        ("len(trace.train_steps()) >= 4", 3),
        ("len(trace.train_steps()) >= 5", 5),  # batch 5 is the first kept one by which five had been
        ("len(trace.train_steps()) >= 6", 5),
        ("len(trace.train_steps()) >= 7", 10),
        ("len(trace.train_steps()) >= 21", 20),
        ("len(trace.train_steps()) >= 22", 24),
        ("len(trace.metric('val', 'loss')) >= 1", 10),
        ("trace.error", 24),
    ],
)
def test_alarm_step_is_measured_on_growing_prefixes(court, exhibit, condition, step):
    judge = court.detector(f"return suspect('softmax_dim') if {condition} else HEALTHY")
    assert court.bench.judge(exhibit, judge)["alarm_step"] == step


def test_a_crash_on_a_prefix_is_no_alarm(court, exhibit):
    judge = court.detector(f"trace.train_steps()['loss'][9]\n{ALARM}")
    assert court.bench.judge(exhibit, judge)["alarm_step"] == 10


def test_no_alarm_is_judged_once(court, counting, exhibit):
    counted = counting()
    assert counted.judge(exhibit)["alarm_step"] is None
    assert counted.calls == 1


@pytest.mark.parametrize(
    ("access", "asked", "step"), [({"rerun"}, 1, 0), ({"rerun", "source"}, 1, 0), ({"rerun", "tensors"}, 6, 5)]
)
def test_who_only_runs_the_program_again_is_asked_once_and_in_time(court, exhibit, monkeypatch, access, asked, step):
    """Whatever it reads of the curves besides; who asks for the record as well is timed by growing prefixes."""
    judge = court.detector("return suspect('softmax_dim') if len(trace.train_steps()) >= 6 else HEALTHY", access)
    asks = []
    ask = court.bench._ask
    monkeypatch.setattr(court.bench, "_ask", lambda *arguments: asks.append(arguments) or ask(*arguments))
    assert court.bench.judge(exhibit, judge)["alarm_step"] == step
    assert len(asks) == asked


def test_alarm_in_a_run_without_steps(court, tmp_path):
    Recorder(tmp_path / "trace").finish(error="SyntaxError")
    empty = Exhibit("empty", tmp_path / "trace", tmp_path, {})
    assert court.bench.judge(empty, court.detector(ALARM))["alarm_step"] == 0


# -- what a detector sees -----------------------------------------------------------------------------------------

LOOK = """\
files = [path for path in sorted(trace.folder.rglob("*")) if path.is_file()]
return say({
    "files": [str(path.relative_to(trace.folder)) for path in files],
    "text": [path.read_bytes().decode("latin-1") for path in files],
    "folders": [str(trace.folder.resolve()), os.getcwd(), os.listdir("."), sys.path],
    "environment": dict(os.environ),
    "arguments": sys.orig_argv,
    "command": Path("/proc/self/cmdline").read_text() + Path("/proc/self/environ").read_text(),
})
"""


@pytest.mark.parametrize(
    ("access", "more"),
    [
        ({"curves"}, set()),
        ({"tensors"}, {"layers.parquet"}),
        ({"source"}, {"program.py", "config.yaml"}),
        ({"rerun"}, {"program.py", "config.yaml", "data/table.csv"}),
    ],
)
def test_a_detector_sees_the_files_of_its_access(court, exhibit, access, more):
    files = set(court.said(exhibit, LOOK, access)["files"])
    assert files == {"meta.json", "error.txt", "steps.parquet", "metrics.parquet", *more}


def test_a_detector_sees_no_word_of_the_case(court, exhibit, judging_pool, monkeypatch):
    for name in ("BUGBENCH_PATH", "HYDRA_FULL_ERROR", "PWD", "OLDPWD", "PYTHONSTARTUP", "HOME", "USER"):
        monkeypatch.setenv(name, "secret_bug")
    monkeypatch.setattr(sys, "argv", ["bugbench", "bug=secret_bug"])
    monkeypatch.chdir(exhibit.trace)
    judging_pool.close()
    seen = court.said(exhibit, LOOK, {"curves", "tensors", "data", "source", "rerun"})
    assert set(seen["environment"]) <= {*KEPT_ENVIRONMENT, *FIXED, *PYTHON}
    assert seen["arguments"][1:] == ["-m", "bugbench.serving", "judge"]
    assert seen["folders"][2] == [], "the working directory is empty"
    assert "truth.json" not in seen["files"]
    assert any(name.startswith("batches/") for name in seen["files"])
    words = json.dumps(seen)
    for word in ("secret_bug", "secret_workload", "seed-7", exhibit.key):
        assert word not in words


def test_the_folder_is_gone_with_the_next_exhibit(court, exhibit, judging_pool):
    """Detectors with the same access share it, one after another."""
    fresh = Exhibit("fresh", exhibit.trace, exhibit.data, {})
    court.bench.judge(fresh, court.detector("return HEALTHY", {"data"}))
    with judging_pool.borrow() as worker:
        desk = worker.home / "desk"
    (first,) = desk.iterdir()
    court.bench.judge(fresh, court.detector("return HEALTHY # again", {"data"}))
    assert list(desk.iterdir()) == [first]
    court.bench.judge(Exhibit("other", exhibit.trace, exhibit.data, {}), court.detector("return HEALTHY", {"data"}))
    assert first.name not in [path.name for path in desk.iterdir()]


def test_what_a_detector_does_to_its_folder_does_not_reach_the_trace(court, exhibit):
    access = {"curves", "tensors", "data", "source", "rerun"}
    before = {path: path.read_bytes() for path in exhibit.trace.parent.rglob("*") if path.is_file()}
    body = """\
        for path in trace.folder.rglob("*"):
            try:
                path.unlink() if path.is_file() else path.rmdir()
            except OSError:
                pass
        return HEALTHY
        """
    assert court.bench.judge(exhibit, court.detector(body, access))["status"] == "ok"
    assert {path: path.read_bytes() for path in before} == before
    assert "program.py" in court.said(exhibit, LOOK, access)["files"], "nor what the next detector gets"


# -- the truth ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["own", "oracle"])
@pytest.mark.parametrize("parent", ["detectors", "mine/detectors"])
def test_truth_is_refused_to_any_other_detector(court, exhibit, name, parent):
    judge = court.detector("return HEALTHY", {"truth"}, name)
    path = court.folder / parent / f"{name}.py"
    path.parent.mkdir(parents=True)
    judge.file.rename(path)
    with pytest.raises(CatalogueError, match=r"unknown access 'truth': known: curves, data, rerun, source, tensors"):
        read_declaration(path)
    answer = court.bench.judge(exhibit, Judge(name, path, frozenset({"truth"}), {}))
    assert answer["status"] == "crashed"
    assert "the truth is for the project's own oracle" in answer["reason"]


def test_truth_is_granted_to_the_projects_oracle(court, exhibit):
    path = project_folder("detectors") / "oracle.py"
    judge = Judge("oracle", path, read_declaration(path).access, {})
    (suspect,) = court.bench.judge(exhibit, judge)["suspects"]
    assert (suspect["fault"], suspect["line"]) == ("softmax_dim", 3)
    healthy = Exhibit(exhibit.key, exhibit.trace, exhibit.data, {"fault": "none", "lines": []})
    assert court.bench.judge(healthy, judge)["suspects"] == [], "another truth, another diagnosis"
    assert len(court.stored()) == 2


def test_a_detector_from_outside_may_lie_below_the_checkout(court, exhibit, tmp_path, monkeypatch):
    """`mine/detectors` in the checkout is not the project's package `detectors`."""
    monkeypatch.setattr("bugbench.plugins.project_folder", lambda name: tmp_path / name)
    judge = court.detector("return say(__name__)")
    path = tmp_path / "detectors" / "mine" / "detectors" / "own.py"
    path.parent.mkdir(parents=True)
    judge.file.rename(path)
    answer = court.bench.judge(exhibit, Judge("own", path, frozenset({"curves"}), {}))
    assert "bugbench_plugin" in answer["suspects"][0]["evidence"]


def test_misspelt_origin_gets_the_nearest(court):
    with pytest.raises(CatalogueError, match=r"own\.py: unknown origin 'publishd': did you mean published\?"):
        read_declaration(court.detector("return HEALTHY", knobs='origin = "publishd"').file)


def test_misspelt_access_gets_the_nearest(court):
    judge = court.detector("return HEALTHY", {"tensor"})
    with pytest.raises(CatalogueError, match=r"own\.py: unknown access 'tensor': did you mean tensors\?"):
        read_declaration(judge.file)


def test_digest_is_of_source_and_knobs(court):
    judge = court.detector("return HEALTHY", patience=1)
    assert judge.digest == court.detector("return HEALTHY", patience=1).digest
    assert judge.digest == court.detector("return HEALTHY", name="renamed", patience=1).digest
    assert judge.digest != court.detector("return HEALTHY", patience=2).digest
    assert len(digest("any")) == 24
