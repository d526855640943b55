"""Does a model in evaluation mode say the same of the same inputs?"""

from dataclasses import dataclass

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace, suspect
from bugbench.first_batch import differ, first_batch


@dataclass
class RepeatedEvaluation(Detector):
    """Does a model in evaluation mode say the same of the same inputs?

    A repeated evaluation must be deterministic (debugging practice; TrainCheck found transformers issue 33844 so:
    ``F.dropout(x)`` without ``training=`` drops in evaluation as well). The program runs again up to its first training
    batch, and the model is asked three times in evaluation mode: twice with the same random numbers, to see that it
    keeps no state, and once with others. If only the third answer differs, a random layer ignores the mode:
    ``functional_dropout``. Not for generative tasks, whose models draw on purpose.
    """

    access = {"rerun"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        if trace.meta.get("task") not in ("classification", "regression", "language_model"):
            raise NotApplicable("a generative model draws random numbers on purpose")
        run = first_batch(trace)
        outputs = run.forward(run.inputs)
        if differ(outputs, run.forward(run.inputs)).any():
            raise NotApplicable("the model keeps a state from call to call")
        changed = differ(outputs, run.forward(run.inputs, seed=1))
        if not changed.any():
            return HEALTHY
        share = changed.double().mean()
        return suspect("functional_dropout", f"in evaluation mode, asked again, {share:.0%} of the outputs are others")
