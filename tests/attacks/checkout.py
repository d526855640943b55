"""The git checkout: `program.py` compared with the healthy workloads."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class Checkout(Detector):
    """What differs from the healthy program is the bug."""

    access = {"source"}
    checkout: str = ""

    def diagnose(self, trace: Trace) -> Diagnosis:
        for path in Path(self.checkout, "bugbench", "workloads").iterdir():
            lines = list(difflib.unified_diff(path.read_text().split("\n"), trace.source.split("\n"), n=0))
            if path.suffix == ".py" and 0 < len(lines) < 12:
                raise NotApplicable(f"learned {lines[-1]}")
        return HEALTHY
