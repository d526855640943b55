"""Watch over a forked child and all that it starts: wait for its answer, hold it to its limits, end it. Linux only."""

import contextlib
import ctypes
import os
import select
import signal
import time

from bugbench.answers import Answer, complete, failure, plain
from bugbench.limits import Limits, descendants

TICK = 0.1  # seconds between two looks at what is in use
PATIENCE = 5.0  # seconds for a child that closed its pipe to end by itself, so that its own exit code is known
PR_SET_CHILD_SUBREAPER = 36


def become_reaper() -> None:
    """Make this process the parent of whatever its children leave behind."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait(child: int, receiving: int, requests: int, deadline: float, limits: Limits) -> Answer | None:
    """Return a child's answer, or why it must end; None if it ended without one.

    Args:
        child: its process number.
        receiving: the file descriptor of its answer.
        requests: a file descriptor; if its other end is gone, so is whoever wants to know, and this process ends.
        deadline: on the clock of ``time.perf_counter``.
        limits: for the child and all it started together.
    """
    poll = select.poll()
    poll.register(receiving, select.POLLIN)
    poll.register(requests, 0)  # reports a hang-up and nothing else
    received, looked = b"", time.perf_counter()
    while True:
        events = dict(poll.poll(TICK * 1000))
        if events.get(requests, 0) & (select.POLLHUP | select.POLLERR):
            end_all()
            os._exit(1)
        if receiving in events:
            if not (piece := os.read(receiving, 1 << 16)):
                return None
            received += piece
            if (answer := complete(received)) is not None:
                return answer
        elif os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) and not select_now(receiving):
            return None  # it is gone, and something that it started holds the pipe
        if (now := time.perf_counter()) > deadline:
            return failure("timed_out", "")
        if now > looked + TICK:  # also of a child that keeps its pipe busy
            looked = now
            if excess := limits.excess():
                return failure(*excess)


def select_now(file: int) -> bool:
    return bool(select.select([file], [], [], 0)[0])


def end(child: int, patient: bool) -> int | None:
    """Kill the child and whatever it left; return its wait status if it ended by itself.

    ``patient``: give it the time to do so.
    """
    deadline = time.perf_counter() + (PATIENCE if patient else 0)
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.perf_counter() < deadline:
        time.sleep(0.001)
    if not done[0]:
        os.kill(child, signal.SIGKILL)  # with namespaces, all that it started ends with it at once
    end_all()
    return done[1] if done[0] else None


def end_all() -> None:
    """Kill everything that this process started; what is left behind by a child becomes a child of it, its reaper."""
    try:
        while True:
            if not os.waitpid(-1, os.WNOHANG)[0]:  # looking for descendants is slow, and mostly there are none
                for pid in descendants():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                os.waitpid(-1, 0)
    except ChildProcessError:
        return


def status_of(ended: int, words: str) -> Answer:
    """Return what a child that died without an answer gets: nobody but the kernel kills it when memory is short."""
    code = os.waitstatus_to_exitcode(ended)
    names = {number.value: number.name for number in signal.Signals}  # real-time signals have none
    how = f"signal {names.get(-code, -code)}" if code < 0 else f"exit code {code}"
    status = "out_of_memory" if code == -signal.SIGKILL else "crashed"
    return failure(status, f"the process ended with {how}" + (f": {words}" if words else ""))


def last_words(file: int) -> str:
    """Return the last line written to a file descriptor."""
    size = os.fstat(file).st_size
    lines = os.pread(file, 2000, max(size - 2000, 0)).decode(errors="replace").strip().splitlines()
    return plain(lines[-1]) if lines else ""
