"""The baseline that raises an alarm at every run."""

from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, Trace, suspect


@dataclass
class AlwaysFaulty(Detector):
    """Names the most common fault of every run: all bugs are detected, all controls alarms, the score is below 0."""

    origin = "baseline"
    fault: str = "missing_step"  # none has more cases in the suite "full" that do harm (results/impact.csv)

    def diagnose(self, trace: Trace) -> Diagnosis:
        return suspect(self.fault, evidence="said of every run")
