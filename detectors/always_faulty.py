"""The baseline that raises an alarm at every run."""

from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, Trace, suspect


@dataclass
class AlwaysFaulty(Detector):
    """Names the same fault whatever happened: every bug detected, every control a false alarm, a score below 0."""

    origin = "baseline"
    # "The learning rate is perhaps the most important hyperparameter. If you have time to tune only one, tune the
    # learning rate" (Goodfellow, Bengio and Courville, Deep Learning, 2016, section 11.4.1): the usual first guess.
    fault: str = "lr_too_high"

    def diagnose(self, trace: Trace) -> Diagnosis:
        return suspect(self.fault, evidence="said of every run")
