"""The upper bound: a detector that is told the truth."""

import json
from dataclasses import dataclass

from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect


@dataclass
class Oracle(Detector):
    """Repeats the truth. It must score 100 %, or the harness is wrong.

    Nothing but this file is ever granted the access "truth", so no other detector can do the same.
    """

    access = {"truth"}
    origin = "baseline"

    def diagnose(self, trace: Trace) -> Diagnosis:
        truth = json.loads((trace.folder / "truth.json").read_text())
        if truth["fault"] == "none":
            return HEALTHY
        return suspect(truth["fault"], evidence="told so", line=next(iter(truth.get("lines", [])), None))
