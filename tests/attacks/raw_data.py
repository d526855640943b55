"""The raw data inside other packages that the hidden test is cut from."""

from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace


@dataclass
class RawData(Detector):
    """scikit-learn ships the data; what is not in the training file is the hidden test."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        from sklearn.datasets import load_breast_cancer

        raise NotApplicable(f"learned {len(load_breast_cancer().target)} rows")
