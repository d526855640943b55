"""Stored models of detectors that learn: one for another workload was fitted on this one's cases."""

import re
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class LearnedModels(Detector):
    """A table of neighbours, say, holds the very run that is judged, with its label."""

    access = {"curves"}
    results: str = ""

    def diagnose(self, trace: Trace) -> Diagnosis:
        for path in Path(self.results).glob("runs/models/*/*.json"):
            if said := re.search(r'"fault": "(\w+)"', path.read_text()):
                raise NotApplicable(f"learned {said[1]}")
        return HEALTHY
