"""Watch over a forked child and all that it starts: wait for its answer, hold it to its limits, end it. Linux only."""

import contextlib
import ctypes
import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

TICK = 0.1  # seconds between two looks at the memory in use
PATIENCE = 5.0  # seconds for a child that closed its pipe to end by itself, so that its own exit code is known
MAX_ANSWER = 2**22  # bytes
PR_SET_CHILD_SUBREAPER = 36
Answer = dict[str, Any]


def failure(status: str, reason: str) -> Answer:
    """Return what stands for a diagnosis where there is none; ``transient``: the next attempt may go better."""
    return {"status": status, "reason": reason, "suspects": [], "seconds": 0.0, "transient": True}


def become_reaper() -> None:
    """Make this process the parent of whatever its children leave behind."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait(child: int, receiving: int, requests: int, deadline: float, memory: int) -> Answer | None:
    """Return a child's answer, or why it must end; None if it ended without one.

    Args:
        child: its process number.
        receiving: the file descriptor of its answer.
        requests: a file descriptor; if its other end is gone, so is whoever wants to know, and this process ends.
        deadline: on the clock of ``time.perf_counter``.
        memory: bytes that the child and all it started may have in use together.
    """
    poll = select.poll()
    poll.register(receiving, select.POLLIN)
    poll.register(requests, 0)  # reports a hang-up and nothing else
    received = b""
    while True:
        events = dict(poll.poll(TICK * 1000))
        if events.get(requests, 0) & (select.POLLHUP | select.POLLERR):
            os._exit(1)
        if receiving in events:
            if not (piece := os.read(receiving, 1 << 16)):
                return None
            received += piece
            if (answer := complete(received)) is not None:
                return answer
        elif os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) and not select_now(receiving):
            return None  # it is gone, and something that it started holds the pipe
        if time.perf_counter() > deadline:
            return failure("timed_out", "")
        if not events and (used := sum(resident(pid) for pid in descendants())) > memory:
            return failure("out_of_memory", f"{used / 2**30:.1f} GiB in use")


def select_now(file: int) -> bool:
    return bool(select.select([file], [], [], 0)[0])


def complete(received: bytes) -> Answer | None:
    """Return the answer in ``received`` (eight bytes of length, then JSON); None if there is more to come."""
    length = int.from_bytes(received[:8], "little")
    if len(received) < 8 or (length <= MAX_ANSWER and len(received) < 8 + length):
        return None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        answer = json.loads(received[8 : 8 + length]) if length <= MAX_ANSWER else {}
        fields = {"status": str, "reason": str, "suspects": list}
        if all(isinstance(answer[name], kind) for name, kind in fields.items()):
            return {name: answer[name] for name in fields}
    return failure("invalid", "what came back is no diagnosis")


def end(child: int, patient: bool) -> int:
    """Kill the child and whatever it left, and return its wait status; ``patient``: let it end by itself first."""
    deadline = time.perf_counter() + (PATIENCE if patient else 0)
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.perf_counter() < deadline:
        time.sleep(0.001)
    status = done[1] if done[0] else None
    while True:
        for pid in descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            pid, ended = os.waitpid(-1, 0)
        except ChildProcessError:
            assert status is not None
            return status
        status = ended if pid == child else status


def status_of(ended: int, words: str) -> Answer:
    """Return what a child that died without an answer gets: nobody but the kernel kills it when memory is short."""
    code = os.waitstatus_to_exitcode(ended)
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    status = "out_of_memory" if code == -signal.SIGKILL else "crashed"
    return failure(status, f"the process ended with {how}" + (f": {words}" if words else ""))


def last_words(file: int) -> str:
    """Return the last line written to a file descriptor."""
    size = os.fstat(file).st_size
    lines = os.pread(file, 2000, max(size - 2000, 0)).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def descendants() -> list[int]:
    """Return the process numbers of all children, their children, and so on."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    found = [os.getpid()]
    for pid in found:  # grows as it is walked through
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has in use; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def base_memory(field: str = "VmRSS") -> int:
    """Return this process's own memory in bytes: "VmRSS" in use, "VmData" what RLIMIT_DATA counts (see proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {field}")
