"""TrainCheck: invariants of healthy training runs, checked on another run."""

from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.third_party import own_interpreter

FAULTS: dict[str, list[str]] = {}
PACKAGES = "traincheck==0.2.0 torch==2.13.0"


@dataclass
class Traincheck(Detector):
    """TrainCheck 0.2.0 (OSDI 2025; PyPI, traincheck): an honest row of reasons, for it cannot take part here.

    It infers invariants from instrumented runs of two or more healthy reference scripts, and reports those that another
    run violates. A detector is given no healthy version of the program that it judges, and invariants of other programs
    name learning rates and layers of theirs. An instrumented run takes 80 to 170 times as long: minutes, where a
    diagnosis has one. Tried by hand with two references of the same program, it names a missing zero_grad, frozen
    layers and NaN. It has an environment of its own, as ``deepchecks`` does.
    """

    access = {"source", "rerun"}
    python: str = ""

    def diagnose(self, trace: Trace) -> Diagnosis:
        own_interpreter("traincheck", self.python, PACKAGES)
        raise NotApplicable(
            "TrainCheck needs two healthy runs of the program as references, which no detector is given"
        )
