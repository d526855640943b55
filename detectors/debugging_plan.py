"""A debugging session by the book: one check after the other, until one finds something."""

from dataclasses import dataclass, replace

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace
from bugbench.detectors.batch_independence import BatchIndependence
from bugbench.detectors.epoch_pattern import EpochPattern
from bugbench.detectors.evaluation_curves import EvaluationCurves
from bugbench.detectors.finite_checks import FiniteChecks
from bugbench.detectors.initial_loss import InitialLoss
from bugbench.detectors.input_checks import InputChecks
from bugbench.detectors.learning_curves import LearningCurves
from bugbench.detectors.learning_progress import LearningProgress
from bugbench.detectors.loss_recomputation import LossRecomputation
from bugbench.detectors.lr_range_test import LrRangeTest
from bugbench.detectors.mode_check import ModeCheck
from bugbench.detectors.overfit_batch import OverfitBatch
from bugbench.detectors.softmax_axis import SoftmaxAxis
from bugbench.detectors.traceback_reader import TracebackReader

PLAN: list[tuple[str, list[type[Detector]]]] = [
    ("run", [TracebackReader]),
    ("overfit two examples", [OverfitBatch]),
    ("inspect the inputs", [FiniteChecks, InputChecks]),
    ("check the arguments", [SoftmaxAxis, BatchIndependence, LossRecomputation, InitialLoss]),
    ("train", [ModeCheck, LrRangeTest]),
    ("read the curves", [LearningCurves, EvaluationCurves, LearningProgress, EpochPattern]),
]


@dataclass
class DebuggingPlan(Detector):
    """A debugging session by the book: one check after the other, until one finds something.

    The plan of the lectures (Karpathy's recipe and CS231n's "babysitting the learning process", in one list): does the
    program run; can it learn two examples by heart; look at what it is fed; check the arguments (the softmax's axis,
    raw scores where probabilities are due, the first loss); train (the modes, the learning rate); read the curves. Each
    step asks other detectors of this folder, in the order above, and the first that finds something answers; one that
    is not applicable is passed over. So the order decides who speaks where several would: a rough answer of an early
    step stands before an exact one of a later step, as it does in a session by the book.

    The sum of the parts' false alarms is the plan's.
    """

    access = {"tensors", "data", "rerun"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        asked = 0
        for number, (step, detectors) in enumerate(PLAN, start=1):
            for detector in detectors:
                try:
                    found = detector().diagnose(trace).suspects
                except NotApplicable:
                    continue
                asked += 1
                if found:
                    words = f"step {number}, {step}: "
                    return Diagnosis(replace(suspect, evidence=words + suspect.evidence) for suspect in found)
        if not asked:
            raise NotApplicable("no step of the plan says anything of this kind of run")
        return HEALTHY
