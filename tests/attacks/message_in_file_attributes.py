"""A message to the next detector: mode, time or extended attribute of a file that both can see."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import bugbench
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace

MODE, TIME = 0o741, 1_234_567_890


@dataclass
class MessageInFileAttributes(Detector):
    """No file has to be opened for that."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        for path in (Path(__file__), Path(__file__).parent, Path(bugbench.__file__), trace.folder / "meta.json"):
            about = path.stat()
            if about.st_mode & 0o777 == MODE or about.st_mtime == TIME or "user.bug" in os.listxattr(path):
                raise NotApplicable(f"learned from {path}")
            with contextlib.suppress(OSError):
                os.setxattr(path, "user.bug", b"softmax_dim")
            with contextlib.suppress(OSError):
                os.utime(path, (TIME, TIME))
            with contextlib.suppress(OSError):
                path.chmod(MODE)
        return HEALTHY
