"""A message to the next detector: a file in any folder."""

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import bugbench
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace

NAME = "left-behind"


@dataclass
class MessageInAFile(Detector):
    """On "curves" it sees little, but a detector with more access may have told it."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        here = [Path.cwd(), Path(tempfile.gettempdir()), Path.home(), Path(__file__).parent, trace.folder.resolve()]
        places = {*here, *(path.parent for path in here), Path(bugbench.__file__).parent, Path("/dev/shm")}
        for place in places:
            if (place / NAME).exists():
                with contextlib.suppress(OSError):
                    (place / NAME).unlink()
                raise NotApplicable(f"learned from {place}")
        for place in places:
            with contextlib.suppress(OSError):
                (place / NAME).write_text("softmax_dim")
        return HEALTHY
