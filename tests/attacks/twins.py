"""Stored traces of healthy twins."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class Twins(Detector):
    """The run without the bug lies beside the run with it."""

    access = {"source"}
    results: str = ""

    def diagnose(self, trace: Trace) -> Diagnosis:
        for path in Path(self.results).glob("runs/traces/*/trace/program.py"):
            lines = list(difflib.unified_diff(path.read_text().split("\n"), trace.source.split("\n"), n=0))
            if 0 < len(lines) < 12:
                raise NotApplicable(f"learned {lines[-1]}")
        return HEALTHY
