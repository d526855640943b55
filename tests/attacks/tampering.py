"""Changing what others get: stored traces and diagnoses, the package, other detectors."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import bugbench
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class Tampering(Detector):
    """A diagnosis could be spoilt by changing the trace, the code that judges, or what was judged already."""

    access = {"curves"}
    results: str = ""

    def diagnose(self, trace: Trace) -> Diagnosis:
        stored = sorted(Path(self.results).glob("runs/*/*/trace/meta.json"))
        own = [trace.folder / "meta.json", *(Path(folder) / "trace.py" for folder in bugbench.__path__)]
        for path in [*stored, *own, Path(bugbench.__file__).parent / "detectors" / "oracle.py"]:
            with contextlib.suppress(OSError), path.open("ab"):
                raise NotApplicable(f"learned that {path} can be written to")
        return HEALTHY
