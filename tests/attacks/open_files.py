"""Open files that its process inherited."""

import contextlib
import os
import re
from dataclasses import dataclass

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class OpenFiles(Detector):
    """A file descriptor outlives what was done to the paths: the case's own file, or the requests of others."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        for number in range(1024):
            with contextlib.suppress(OSError):
                if said := re.search(rb'"fault": "(\w+)"', os.pread(number, 2**20, 0)):
                    raise NotApplicable(f"learned {said[1].decode()}")
        return HEALTHY
