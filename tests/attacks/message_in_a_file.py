"""A message to the next detector: a file in any folder."""

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import bugbench
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class MessageInAFile(Detector):
    """On "curves" it sees little, but a detector with more access may have told it."""

    access = {"curves"}
    key: int = 0  # that both have agreed on

    def diagnose(self, trace: Trace) -> Diagnosis:
        here = [Path.cwd(), Path(tempfile.gettempdir()), Path.home(), Path(__file__).parent, trace.folder.resolve()]
        places = {*here, *(path.parent for path in here), Path(bugbench.__file__).parent, Path("/dev/shm")}
        messages = [place / f"left-behind-{self.key}" for place in places]
        if found := [message for message in messages if message.exists()]:
            for message in found:
                with contextlib.suppress(OSError):
                    message.unlink()
            raise NotApplicable(f"learned from {found}")
        for message in messages:
            with contextlib.suppress(OSError):
                message.write_text("softmax_dim")
        return HEALTHY
