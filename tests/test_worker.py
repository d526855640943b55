"""A worker is reused, survives what its jobs do to it, and tells them nothing.

The jobs here write data sets, the least that a training worker does. Judging workers have their own protocol on top:
see test_judging.py, test_access.py and test_red_team.py.
"""

import fcntl
import json
import os
import sys
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest
from bugbench.worker import KEPT_ENVIRONMENT, TimedOut, Worker, WorkerDied, WorkerPool

LONG = 120  # seconds no job here comes near
THREADS = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
WORDS = {*THREADS, "MPLBACKEND", "PYTHONHASHSEED", "HOME", "USER"}
PYTHON = {"PYTHONPATH", "PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE"}


class Jobs:
    """Makes jobs of a few lines and has a worker run them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.worker = Worker("train")
        self.count = 0

    def request(self, body: str) -> dict:
        self.count += 1
        path = self.folder / f"job_{self.count}.py"
        head = """\
            import json, os, signal, subprocess, sys, time

            def write_training_data(folder):
                def say(what):
                    (folder / "said.json").write_text(json.dumps(what))
            """
        path.write_text(dedent(head) + indent(dedent(body), " " * 4))
        return {"do": "data", "dataset": str(path), "root": str(self.folder / "data")}

    def run(self, body: str, timeout: float = LONG) -> dict:
        return self.worker.call(self.request(body), timeout)

    def said(self, answer: dict) -> Any:
        """Return what a job said."""
        assert "failure" not in answer, answer
        return json.loads((self.folder / "data" / answer["folder"] / "said.json").read_text())

    def tell(self, expression: str) -> str:
        """Return what an expression is worth in the worker's process."""
        return self.said(self.run(f"say(str({expression}))"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    jobs = Jobs(tmp_path_factory.mktemp("jobs"))
    yield jobs
    jobs.worker.close()


@pytest.fixture
def jobs(shared):
    """The same worker for all tests; each leaves it able to work."""
    yield shared
    assert shared.tell("6 * 7") == "42"


def test_process_is_reused(jobs):
    pid = jobs.tell("os.getpid()")
    assert int(pid) != os.getpid()
    assert jobs.tell("os.getpid()") == pid


def test_what_a_job_prints_does_not_break_the_protocol(jobs):
    pid = jobs.tell("os.getpid()")
    answer = jobs.run("""\
        print("not an answer")
        print('{"status": "forged"}', flush=True)
        sys.stdout.write("half a line")
        sys.stderr.write("noise")
        os.write(1, b'{"status": "forged"}\\n')
        subprocess.run(["echo", "from a child"])
        say("the answer")
        """)
    assert set(answer) == {"folder", "mended"}
    assert jobs.said(answer) == "the answer"
    assert jobs.tell("os.getpid()") == pid


def test_a_job_finds_its_standard_input_empty(jobs):
    pid = jobs.tell("os.getpid()")
    assert jobs.tell("repr(sys.stdin.read())") == "''"
    assert jobs.tell("repr(os.read(0, 100))") == "b''"
    assert jobs.tell("subprocess.run(['cat'], capture_output=True).stdout") == "b''"
    answer = jobs.run("input()")
    assert answer["failure"].endswith("write_training_data: EOFError: EOF when reading a line")
    assert jobs.tell("os.getpid()") == pid


def test_exception_costs_the_job_but_not_the_process(jobs):
    pid = jobs.tell("os.getpid()")
    answer = jobs.run("raise KeyError('loss')")
    assert answer["failure"].endswith("write_training_data: KeyError: 'loss'")
    assert "raise KeyError('loss')" in answer["traceback"]
    assert jobs.tell("os.getpid()") == pid


def test_malformed_request_is_answered_with_a_failure(jobs):
    pid = jobs.tell("os.getpid()")
    answer = jobs.worker.call({"dataset": "any"}, LONG)
    assert set(answer) == {"failure", "traceback"}
    assert answer["failure"] == "KeyError: 'do'"
    assert jobs.tell("os.getpid()") == pid


def test_time_out_kills_the_process_and_the_next_call_works(jobs):
    pid = jobs.tell("os.getpid()")
    with pytest.raises(TimedOut, match=r"no answer within 0\.5 s"):
        jobs.run("while True: time.sleep(1)", timeout=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    assert jobs.tell("os.getpid()") != pid


def test_time_out_ends_what_the_job_had_started(jobs):
    """A forked child holds the pipe of the answers, another process a lock: both must go."""
    lock = jobs.folder / "lock"
    with pytest.raises(TimedOut):
        jobs.run(
            f"""\
            import fcntl
            file = open({str(lock)!r}, "w")
            fcntl.flock(file, fcntl.LOCK_EX)
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], pass_fds=[file.fileno()])
            os.fork()
            while True: time.sleep(1)
            """,
            timeout=2,
        )
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for as long as one of them lives


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os._exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV"),
        ("os.write(2, b'first\\nout of luck\\n'); os._exit(5)", "exit code 5: out of luck"),
    ],
)
def test_death_is_reported_with_its_reason(jobs, body, reason):
    pid = jobs.tell("os.getpid()")
    with pytest.raises(WorkerDied) as death:
        jobs.run(body)
    assert f"the process ended with {reason}" in str(death.value)
    assert jobs.tell("os.getpid()") != pid


def test_process_that_died_between_calls_is_replaced(jobs):
    pid = int(jobs.tell("os.getpid()"))
    jobs.worker._process.kill()
    jobs.worker._process.wait()
    assert int(jobs.tell("os.getpid()")) != pid


def test_closed_worker_starts_anew_and_leaves_nothing(jobs):
    pid, home = int(jobs.tell("os.getpid()")), Path(jobs.tell("os.path.dirname(os.getcwd())"))
    assert home.is_dir()
    jobs.worker.close()
    jobs.worker.close()
    assert not home.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# -- what a job can learn about itself ----------------------------------------------------------------------------


def test_the_process_holds_nothing_but_the_fixed_words(jobs, monkeypatch, tmp_path):
    place = tmp_path / "secret_bug"
    place.mkdir()
    monkeypatch.chdir(place)
    for name in (
        "BUGBENCH_PATH",
        "HYDRA_FULL_ERROR",
        "HYDRA_RUN_DIR",
        "PWD",
        "OLDPWD",
        "PYTHONSTARTUP",
        "HOME",
        "USER",
    ):
        monkeypatch.setenv(name, str(place))
    monkeypatch.setattr(sys, "argv", ["bugbench", "bug=secret_bug"])
    jobs.worker.close()
    answer = jobs.run("""\
        say({
            "environment": dict(os.environ),
            "arguments": sys.orig_argv,
            "command": open("/proc/self/cmdline").read(),
            "first_environment": open("/proc/self/environ").read(),
            "directory": os.getcwd(),
            "files": os.listdir("."),
            "path": sys.path,
        })
        """)
    seen = jobs.said(answer)
    assert "secret_bug" not in json.dumps(seen)
    assert set(seen["environment"]) <= {*KEPT_ENVIRONMENT, *WORDS, *PYTHON, "LC_CTYPE"}
    assert not [name for name in seen["environment"] if name.startswith(("HYDRA", "BUGBENCH"))]
    assert seen["arguments"][1:] == ["-m", "bugbench.serving", "train"]
    assert Path(seen["directory"]).name.startswith("run-")
    assert Path(seen["directory"]).parent.name.startswith("job-")
    assert seen["files"] == []


# -- several workers ----------------------------------------------------------------------------------------------


def test_pool_prefers_the_worker_that_runs(tmp_path):
    jobs = Jobs(tmp_path)
    pool = WorkerPool(Worker("train") for _ in range(2))
    try:
        request = jobs.request("say(os.getpid())")
        pids = {jobs.said(pool.call(request, LONG)) for _ in range(3)}
        assert len(pids) == 1
        with pytest.raises(WorkerDied):
            pool.call(jobs.request("os._exit(1)"), LONG)
        assert "folder" in pool.call(request, LONG), "the worker came back to the pool"
    finally:
        pool.close()
