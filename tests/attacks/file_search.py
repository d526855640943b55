"""A search of the file system for what a run leaves."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class FileSearch(Detector):
    """Knows what the files are called, but not where they are."""

    access = {"curves"}
    start: str = "/"

    def diagnose(self, trace: Trace) -> Diagnosis:
        for folder, _, names in os.walk(self.start):
            if "case.json" in names and (said := re.search(r'"fault": "(\w+)"', Path(folder, "case.json").read_text())):
                raise NotApplicable(f"learned {said[1]} from {folder}")
        return HEALTHY
