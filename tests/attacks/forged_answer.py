"""Answering for others: writing to the pipe that answers go through."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace

FORGED = b'{"status": "ok", "reason": "", "suspects": [], "seconds": 0.0}\n'


@dataclass
class ForgedAnswer(Detector):
    """One answer too many, and from then on every detector is given the answer of the one before it."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        pid, pipes = os.getppid(), set()
        for number in range(4, 64):  # 3 is its own
            with contextlib.suppress(OSError):
                os.write(number, FORGED)
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                flags = int(Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().split("flags:")[1].split()[0], 8)
                pipe = os.readlink(entry)
                if flags & os.O_ACCMODE == os.O_WRONLY and pipe.startswith("pipe:") and pipe not in pipes:
                    pipes.add(pipe)
                    os.write(os.open(entry, os.O_WRONLY | os.O_NONBLOCK), FORGED)
        return HEALTHY
