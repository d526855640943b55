"""Results and run folders, by absolute and by relative path."""

import re
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class Results(Detector):
    """A case that was run before has a file with the truth."""

    access = {"curves"}
    results: str = ""

    def diagnose(self, trace: Trace) -> Diagnosis:
        here = [Path("results"), *Path.cwd().parents, *trace.folder.resolve().parents]
        for folder in (Path(self.results), *here):
            for path in folder.glob("runs/cases/*/*/*/case.json"):
                if said := re.search(r'"fault": "(\w+)"', path.read_text()):
                    raise NotApplicable(f"learned {said[1]} from {path}")
        return HEALTHY
