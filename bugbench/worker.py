"""A worker: a reused process that trains cases, or another that judges traces.

The two kinds never share a process. A worker is told its job through a pipe, one JSON line at a time; its arguments,
environment and working directory are the same whatever it works on, so that a detector that looks at its own process
learns nothing of the case. A job that runs over its time, or a process that dies, costs that job only: the next one
gets a new process. What runs in the process is in :mod:`bugbench.serving`.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from bugbench.isolation import extra_packages

Kind = Literal["train", "judge"]
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "CUDA_VISIBLE_DEVICES")
DEFAULT_MEMORY = 8 * 2**30  # bytes


class WorkerDied(Exception):
    """The process ended before it answered; the text says how."""


class TimedOut(Exception):
    """The job ran over its time and its process was killed."""


class Worker:
    """One process of one kind; started at the first call, replaced when it dies or hangs."""

    def __init__(self, kind: Kind, memory: int = DEFAULT_MEMORY) -> None:
        self.kind = kind
        self.memory = memory
        self._process: subprocess.Popen[str] | None = None
        self._home: tempfile.TemporaryDirectory[str] | None = None
        self._log: Any = None
        self._answers: queue.Queue[str | None] = queue.Queue()

    @property
    def home(self) -> Path:
        """The process's own folder, which ends with it."""
        assert self._home is not None
        return Path(self._home.name)

    def call(
        self,
        request: dict[str, Any],
        timeout: float,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Args:
            request: a JSON-serialisable mapping, see :mod:`bugbench.training` and :mod:`bugbench.diagnosing`.
            timeout: seconds after which the process is killed.
            on_progress: called with what the job reports on the way.

        Raises:
            TimedOut, WorkerDied: the job has no answer.
        """
        return self._ask(self._started(), request | {"memory": self.memory}, timeout, on_progress)

    def _ask(
        self,
        process: subprocess.Popen[str],
        request: dict[str, Any],
        timeout: float,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        expired = threading.Event()
        clock = threading.Timer(timeout, _expire, [process, expired])
        clock.start()
        try:
            answer = self._converse(process, request, on_progress)
        except BaseException:  # raised by on_progress: what the process is at must not answer the next call
            self.close()
            raise
        finally:
            clock.cancel()
            clock.join()
        if answer is None:
            code = process.wait()
            last_words = self._last_words()
            self.close()
            if expired.is_set():
                raise TimedOut(f"no answer within {timeout:g} s")
            raise WorkerDied(f"the process ended with {_exit_text(code)}{last_words}")
        if answer.pop("leaving", False) or expired.is_set():  # the next call needs a process that lives, and is slim
            self.close()
        return answer

    def _converse(
        self,
        process: subprocess.Popen[str],
        request: dict[str, Any],
        on_progress: Callable[[dict[str, Any]], None] | None,
    ) -> dict[str, Any] | None:
        """Return the answer, or None if the process ends without one."""
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        while (line := self._answers.get()) is not None:
            message = json.loads(line)
            if "progress" not in message:
                return message
            if on_progress:
                on_progress(message["progress"])
        return None

    def interrupt(self) -> None:
        """Kill the process in the midst of what it does, from any thread: the call that waits for it fails."""
        if (process := self._process) is not None and process.poll() is None:
            _kill(process)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            if self._process.poll() is None:
                _kill(self._process)
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self._process = None
        if self._home is not None:
            self._home.cleanup()
            self._log.close()
            self._home = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._home = tempfile.TemporaryDirectory(prefix="job-", ignore_cleanup_errors=True)
        package = self._furnish()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 — what the jobs print; its end explains a death
        self._answers = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bugbench.serving", self.kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(package),
            cwd=self._home.name,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal is the harness's affair
        )
        threading.Thread(target=_forward, args=(self._process, self._answers), daemon=True).start()
        return self._process

    def _furnish(self) -> Path:
        """Prepare the process's folder; return where it imports bugbench from."""
        return Path(__file__).resolve().parent.parent  # the package may be run from a checkout, not installed

    def _last_words(self) -> str:
        """Return the last line that the process wrote to standard error, as ": line", or nothing."""
        assert self._log is not None
        self._log.seek(max(self._log.seek(0, os.SEEK_END) - 2000, 0))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


W = TypeVar("W", bound=Worker)


class WorkerPool(Generic[W]):
    """Workers that threads share.

    Args:
        workers: all of one kind.

    Attributes:
        interrupted: a call of :meth:`run` was broken off; deaths of workers since then say nothing of their jobs.
    """

    def __init__(self, workers: Iterable[W]) -> None:
        self.workers = list(workers)
        self.interrupted = False
        self._idle: queue.LifoQueue[W] = queue.LifoQueue()  # last used first: it has torch loaded
        for worker in reversed(self.workers):
            self._idle.put(worker)

    @contextlib.contextmanager
    def borrow(self) -> Iterator[W]:
        """Wait for an idle worker, and have it for a while."""
        worker = self._idle.get()
        try:
            yield worker
        finally:
            self._idle.put(worker)

    def call(self, request: dict[str, Any], timeout: float, on_progress: Any = None) -> dict[str, Any]:
        """See :meth:`Worker.call`; waits for an idle worker first."""
        with self.borrow() as worker:
            return worker.call(request, timeout, on_progress)

    def run(self, call: Callable[[Any], Any], items: Iterable[Any], threads: int) -> list[Any]:
        """Return ``call`` of each item, made by as many threads at a time; Ctrl-C ends what the workers are at."""
        executor = ThreadPoolExecutor(threads)
        try:
            return list(executor.map(call, items))
        except BaseException:
            self.interrupted = True
            executor.shutdown(wait=False, cancel_futures=True)
            for worker in self.workers:
                worker.interrupt()
            raise
        finally:
            executor.shutdown()

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


def _forward(process: subprocess.Popen[str], answers: "queue.Queue[str | None]") -> None:
    assert process.stdout is not None
    with contextlib.suppress(ValueError, OSError):  # closed while reading
        for line in process.stdout:
            answers.put(line)
    answers.put(None)


def _environment(package: Path) -> dict[str, str]:
    fixed = {
        "PYTHONPATH": os.pathsep.join([str(package), *extra_packages()]),
        "PYTHONSAFEPATH": "1",  # the working directory is no place to import from
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",  # a trace folder holds the program, not its cache
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "HOME": tempfile.gettempdir(),
        "USER": "bugbench",  # some packages ask for a name, and a judging process has no list of users
    }
    return {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ} | fixed


def _expire(process: subprocess.Popen[str], expired: threading.Event) -> None:
    expired.set()
    _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a process that was not waited for yet, and all that its jobs started: they may hold its pipe open."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def _exit_text(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
