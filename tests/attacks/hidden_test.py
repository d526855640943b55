"""The hidden test, from the data set's own module in the checkout."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace


@dataclass
class HiddenTest(Detector):
    """With the hidden test at hand, a detector with "rerun" access measures the harm as the harness does."""

    access = {"curves"}
    checkout: str = ""

    def diagnose(self, trace: Trace) -> Diagnosis:
        path = Path(self.checkout, "bugbench", "datasets", "breast_cancer.py")
        path.read_bytes()
        spec = importlib.util.spec_from_file_location("breast_cancer", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        inputs, targets = module.hidden_test()
        raise NotApplicable(f"learned {len(inputs)} hidden inputs and {targets.sum()} positive targets")
