"""How much a process and all that it started have in use, as Linux's /proc tells."""

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_PROCESSES = 200
MAX_SPAN = 20_000  # process numbers that are tried one by one
MAX_SCRATCH = 2**30  # bytes of files; with namespaces the scratch folder is no larger than half of that


@dataclass(frozen=True)
class Limits:
    """What a diagnosis may have in use: bytes of memory, and bytes of files in its scratch folder."""

    memory: int
    scratch: Path

    def excess(self) -> tuple[str, str] | None:
        """Return status and reason if the children of this process have more in use, else None."""
        pids = descendants()
        if len(pids) > MAX_PROCESSES:
            return too_many(pids)
        used, unnamed = sum(map(resident, pids)), unnamed_files(pids)
        if used + unnamed > self.memory:
            used = 0
            for pid in pids:
                used += proportional(pid)  # slow to tell, but counts a page once that forked processes share
                if len(now := descendants()) > MAX_PROCESSES:
                    return too_many(now)
        if used + unnamed > self.memory:
            return "out_of_memory", f"{(used + unnamed) / 2**30:.1f} GiB in use"
        if (files := size_of(self.scratch)) > MAX_SCRATCH:
            return "crashed", f"{files / 2**30:.1f} GiB of files written, allowed is {MAX_SCRATCH / 2**30:.0f}"
        return None


def too_many(pids: list[int]) -> tuple[str, str]:
    return "crashed", f"{len(pids)} processes at once, allowed are {MAX_PROCESSES}"


def descendants() -> list[int]:
    """Return the process numbers of all children, their children, and so on."""
    children: dict[int, list[int]] = {}
    for pid in _younger():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            parent = int(file.read(4096).rpartition(b")")[2].split(None, 2)[1])
            children.setdefault(parent, []).append(pid)
    found = [os.getpid()]
    for pid in found:  # grows as it is walked through
        found += children.get(pid, [])
    return found[1:]


def _younger() -> Iterable[int]:
    """Return process numbers among which all are that this process started, directly or not.

    Numbers are given in rising order, so a list of ``/proc`` would not end while a child forks faster than it is read.
    """
    own, last = os.getpid(), int(Path("/proc/loadavg").read_text().split()[-1])
    if own <= last <= own + MAX_SPAN:
        return range(own + 1, last + 1)
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # they began anew, or this process is old


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has in use; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def proportional(pid: int) -> int:
    """Return the same with every page divided among the processes that share it."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def unnamed_files(pids: Iterable[int]) -> int:
    """Return the bytes of open files without a name (memfd_create and the like): memory that no process maps."""
    sizes = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    about = os.stat(entry.path)
                    if not about.st_nlink and stat.S_ISREG(about.st_mode):
                        sizes[about.st_dev, about.st_ino] = about.st_blocks * 512
    return sum(sizes.values())


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
    return total


def base_memory(field: str = "VmRSS") -> int:
    """Return this process's own memory in bytes: "VmRSS" in use, "VmData" what RLIMIT_DATA counts (see proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {field}")
