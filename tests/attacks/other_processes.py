"""Arguments and environment of every process on the machine."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class OtherProcesses(Detector):
    """Whoever lists the processes sees the harness, its sweep's other jobs and the shell they came from."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        for about in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = [(about / name).read_text(errors="replace") for name in ("cmdline", "environ")]
                if said := re.search(r"bug=(\w+)", "\n".join(words)):
                    raise NotApplicable(f"learned {said[1]}")
        return HEALTHY
