"""No attack: an honest detector that says what it was given. It must say the same whoever was judged before."""

import hashlib
from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace


@dataclass
class Honest(Detector):
    """Its answer stands for the content of all files in its trace."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        paths = sorted(path for path in trace.folder.rglob("*") if path.is_file())
        found = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in paths))
        raise NotApplicable(f"{len(trace.train_steps())} steps, {found.hexdigest()}")
