"""Arguments, environment and working directory of the processes that started it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class Ancestors(Detector):
    """The harness was started as ``… bug=softmax_dim``, and every process knows who started it."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        pid = os.getppid()
        while pid > 1:
            about = Path(f"/proc/{pid}")
            words = [(about / name).read_text(errors="replace") for name in ("cmdline", "environ")]
            if said := re.search(r"bug=(\w+)", "\n".join([*words, os.readlink(about / "cwd")])):
                raise NotApplicable(f"learned {said[1]}")
            pid = int((about / "stat").read_text().rpartition(")")[2].split()[1])
        return HEALTHY
