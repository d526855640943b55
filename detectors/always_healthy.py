"""The baseline that never raises an alarm."""

from dataclasses import dataclass

from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace


@dataclass
class AlwaysHealthy(Detector):
    """Says of every run that nothing is wrong: no false alarm, no bug found, a score of 0."""

    origin = "baseline"

    def diagnose(self, trace: Trace) -> Diagnosis:
        return HEALTHY
