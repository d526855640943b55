"""A message to the next detector: a changed module or environment variable."""

import builtins
import os
from dataclasses import dataclass

import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class MessageInMemory(Detector):
    """Where detectors share a process, one that patches pandas spoils the others, by accident or not."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        if hasattr(builtins, "left_behind") or "LEFT_BEHIND" in os.environ or hasattr(pd, "left_behind"):
            raise NotApplicable("learned from memory")
        builtins.left_behind = pd.left_behind = "softmax_dim"
        os.environ["LEFT_BEHIND"] = "softmax_dim"
        return HEALTHY
