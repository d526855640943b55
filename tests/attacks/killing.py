"""Killing whoever watches it, and what that one belongs to."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace


@dataclass
class Killing(Detector):
    """Without them nobody counts the seconds, and the next detector finds no server."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        victims = [os.getppid()]
        with contextlib.suppress(OSError):
            victims.insert(0, int(Path(f"/proc/{victims[0]}/stat").read_text().rpartition(")")[2].split()[1]))
        for victim in victims:
            if victim > 1:
                with contextlib.suppress(OSError):
                    os.kill(victim, signal.SIGKILL)
                    time.sleep(10)  # it dies with them
        return HEALTHY
