"""An installed copy of bugbench in the folders that packages are imported from."""

import difflib
import sys
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class InstalledWheel(Detector):
    """A wheel holds the workloads and the cards; an editable install holds the way to the checkout."""

    access = {"source"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        folders = [Path(entry) for entry in sys.path]
        folders += [Path(str(found.locate_file(""))) for found in distributions() if found.name == "bugbench"]
        for path in (path for folder in folders for path in folder.glob("bugbench/workloads/*.py")):
            lines = list(difflib.unified_diff(path.read_text().split("\n"), trace.source.split("\n"), n=0))
            if 0 < len(lines) < 12:
                raise NotApplicable(f"learned {lines[-1]}")
        return HEALTHY
