"""Undoing the confinement: new namespaces, unmounting, other processes' roots, handles, devices."""

import contextlib
import ctypes
import glob
import os
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace

NEW_USER, NEW_MOUNTS, DETACH, BIND_ALL = 0x10000000, 0x00020000, 2, 4096 | 16384


@dataclass
class Escape(Detector):
    """Confinement that a process may put on without privilege, another may try to take off."""

    access = {"curves"}
    results: str = ""
    harness: int = 0  # its process number, as seen from outside

    def diagnose(self, trace: Trace) -> Diagnosis:
        libc = ctypes.CDLL(None, use_errno=True)
        roots = [f"/proc/{pid}/root" for pid in ("1", "self", os.getppid(), self.harness)]
        self.look("", *roots, *(f"/proc/{pid}/cwd/../../../.." for pid in ("1", os.getppid(), self.harness)))
        for pid in (os.getppid(), self.harness):
            with contextlib.suppress(OSError):
                for kind in ("user", "mnt"):
                    libc.setns(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY), 0)
        self.look("")
        own_mounts = os.getppid() == 0  # it is the first process of a namespace
        if libc.unshare(NEW_USER | NEW_MOUNTS) == 0 or own_mounts:
            for line in Path("/proc/self/mounts").read_text().splitlines():
                libc.umount2(line.split()[1].encode(), DETACH)
        self.look("")
        with contextlib.suppress(OSError):
            Path("again").mkdir()
            libc.mount(b"/", b"again", None, BIND_ALL, None)
            libc.mount(b"proc", b"again", b"proc", 0, None)
            os.chroot("again")
            os.chdir("..")
            os.chroot("../../../..")
        self.look("", "again", "..", "../../..")
        with contextlib.suppress(OSError):
            os.mknod("disk", 0o60600, os.makedev(254, 0))
            with open("disk", "rb") as disk:
                raise NotApplicable(f"learned {disk.read(1)!r} from the disk")
        return HEALTHY

    def look(self, *roots: str) -> None:
        for root in roots:
            for path in glob.glob(f"{root}{self.results}/runs/cases/*/*/*/case.json"):
                raise NotApplicable(f"learned from {path}: {Path(path).read_text()[:40]}")
