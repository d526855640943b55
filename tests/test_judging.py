"""Detectors of every misbehaviour before the bench: each costs its own row only, with the reason in it."""

import os
import platform
import sys
from pathlib import Path

import pytest
from bugbench.fork_server import JOIN_FIRST
from bugbench.isolation import LEVELS
from bugbench.job import verdict_rows
from bugbench.judging_worker import JudgingWorker, NotConfined
from bugbench.namespaces import MAX_TASKS
from bugbench.records import Record
from bugbench.worker import WorkerPool
from court import ALARM, STEPS, Court

FAULTS = {"softmax_dim": {"family": "loss"}, "lr_too_high": {"family": "optimizer"}}


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
        end = time.monotonic() + 40  # each ends by itself, should nobody else see to it
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


@pytest.mark.parametrize("bounded", [LEVELS[0]], indirect=True)
def test_the_kernel_limits_processes_where_it_can(bounded, exhibit):
    """The limit itself, as forking beyond 200 is noticed before, and threads run out of memory before."""
    release = tuple(int(number) for number in platform.release().split(".")[:2])
    if release < ((5, 14) if os.getuid() else (6, 14)):
        pytest.skip("this kernel counts processes on the whole machine alone")
    limits = "Path('/proc/sys/kernel/pid_max').read_text(), resource.getrlimit(resource.RLIMIT_NPROC)[1]"
    last, processes = bounded.said(exhibit, f"import resource\nreturn say([{limits}])")
    assert 0 < processes <= MAX_TASKS if os.getuid() else int(last) == MAX_TASKS


def words_of(path: Path) -> str:
    """Return a process's arguments; none if it is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
