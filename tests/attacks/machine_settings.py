"""The machine's settings, which root may write without any capability: a command there would run outside."""

import os
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace

SETTINGS = ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_ratio", "/proc/sys/kernel/pid_max")


@dataclass
class MachineSettings(Detector):
    """See sysctl(8); nothing is changed: what is written is what was there."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        refused = OSError()
        for path in map(Path, SETTINGS):
            try:
                file = os.open(path, os.O_WRONLY)
                os.write(file, path.read_bytes())
                raise NotApplicable(f"wrote {path}")
            except OSError as error:
                refused = error
        raise refused
