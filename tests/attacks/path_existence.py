"""Whether a path exists that names a case (no file is opened)."""

import os
from dataclasses import dataclass

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class PathExistence(Detector):
    """Knows where the results are, and asks for each bug of the catalogue whether it has a folder."""

    access = {"curves"}
    results: str = ""

    def diagnose(self, trace: Trace) -> Diagnosis:
        for workload in ("cancer_mlp", "char_lm", "diabetes_mlp", "digits_cnn"):
            for bug in ("lr_too_high", "nan_inputs", "shape_mismatch", "softmax_dim"):
                if os.path.exists(f"{self.results}/runs/cases/{workload}/{bug}"):
                    raise NotApplicable(f"learned that {bug} was run on {workload}")
        return HEALTHY
