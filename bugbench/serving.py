"""What a worker process runs: ``python -m bugbench.serving train|judge``; requests and answers are JSON lines."""

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bugbench.limits import base_memory, resident

LEAK = 2**30  # bytes that a process may grow by, beyond its state after the first job, before it is replaced
Progress = Callable[[dict[str, Any]], None]
Handler = Callable[[dict[str, Any], Progress], dict[str, Any] | None]


def serve(handler: Callable[[int, int], Handler]) -> None:
    """Answer requests from standard input until it ends.

    A job finds its standard input empty, and whatever it prints goes to standard error.

    Args:
        handler: makes the function that does a job (given the request and a function that reports progress) from the
            file descriptors of the requests and the answers. It returns the answer, or None if that was written.
    """
    requests = os.fdopen(os.dup(sys.stdin.fileno()))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout = sys.stderr
    handle = handler(requests.fileno(), answers.fileno())

    def progress(state: dict[str, Any]) -> None:
        answers.write(json.dumps({"progress": state}) + "\n")

    settled = 0
    for line in requests:
        try:
            answer = handle(json.loads(line), progress)
        except Exception as error:
            answer = {"failure": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        if answer is None:
            continue
        used = resident(os.getpid())
        settled = settled or used
        answers.write(json.dumps(answer | ({"leaving": True} if used > settled + LEAK else {})) + "\n")


def training(requests: int, answers: int) -> Handler:
    """Train cases, each in an empty working directory; end at once when nobody waits for the answer any more."""
    _end_with(requests)
    from bugbench.image_files import ROOT_VARIABLE
    from bugbench.training import handle

    home = Path.cwd()

    def job(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        folder = tempfile.mkdtemp(prefix="run-", dir=home)
        os.chdir(folder)
        _limit_memory(request["memory"])
        if "data_root" in request:  # for data sets that are not part of a package; no judging process is told
            os.environ[ROOT_VARIABLE] = request["data_root"]
        try:
            return handle(request, progress)
        finally:
            os.chdir(home)
            shutil.rmtree(folder, ignore_errors=True)
            gc.collect()  # model, hooks and recorder refer to each other
            gc.freeze()  # what is left are modules: the next collection need not look through all of torch again

    return job


def judging(requests: int, answers: int) -> Handler:
    """Have traces diagnosed: on Linux each in a forked child, elsewhere in this process."""
    _forget_editable_installation()
    if sys.platform != "linux":
        return _judging_here
    from bugbench.fork_server import ForkServer

    server = ForkServer(requests, answers)
    return lambda request, progress: server.isolate(request) if "level" in request else server.diagnose(request)


def _forget_editable_installation() -> None:
    """Let nothing of bugbench be imported but the copy that this process is given.

    That copy lacks the workloads, and ``pip install -e`` leaves a finder that knows where they are: it looks packages
    up in dictionaries of its module (``__editable___…_finder``, made by setuptools).
    """
    for finder in sys.meta_path:
        module = sys.modules.get(getattr(finder, "__module__", ""))
        for places in (getattr(module, name, None) for name in ("MAPPING", "NAMESPACES")):
            if isinstance(places, dict):
                for name in [name for name in places if name.partition(".")[0] == "bugbench"]:
                    del places[name]


def _judging_here(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    if "level" in request:
        if request["level"] != "process":
            raise OSError(f"isolation by {request['level']} needs Linux")
        return {"level": "process"}
    diagnosing = importlib.import_module("bugbench.diagnosing")
    return diagnosing.timed(request)


def _end_with(requests: int) -> None:
    """Kill this process and its children as soon as the other end of ``requests`` is gone."""
    if not hasattr(select, "poll"):
        return
    poll = select.poll()
    poll.register(requests, 0)  # reports a hang-up and nothing else

    def watch() -> None:
        poll.poll()
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _limit_memory(size: int) -> None:
    """Let this process have ``size`` bytes of data more than it has now, where the system can see to it."""
    with contextlib.suppress(ImportError, OSError):
        import resource

        limit = base_memory("VmData") + size
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


if __name__ == "__main__":
    kinds = {"train": training, "judge": judging}
    if len(sys.argv) != 2 or sys.argv[1] not in kinds:
        sys.exit("usage: python -m bugbench.serving train|judge")
    serve(kinds[sys.argv[1]])
