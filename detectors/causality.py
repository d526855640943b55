"""Does a language model look ahead?"""

from dataclasses import dataclass

import torch
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace, suspect
from bugbench.first_batch import differ, first_batch


@dataclass
class Causality(Detector):
    """Does a language model look ahead?

    What is predicted from position t must not depend on token t + 1, which is the answer (Karpathy's recipe: "use
    backprop to chart dependencies", of the bug that mixes information where it must not). The program runs again up to
    its first training batch; in evaluation mode the tokens at the middle position are exchanged for others, and the
    outputs before it must not change: ``missing_causal_mask``, or ``inverted_mask`` where those after it do not change.

    Only for the task "language_model" with tokens (B, T) as inputs, outputs (B, T, C), and targets that are the next
    tokens, or the same where the loss shifts them. Masked language models look both ways on purpose and are not judged,
    nor are models that keep a state or draw random numbers.
    """

    access = {"rerun"}
    share: float = 0.99  # of the targets that must be next tokens: all but padding

    def diagnose(self, trace: Trace) -> Diagnosis:
        if trace.meta.get("task") != "language_model":
            raise NotApplicable("only a language model must not look ahead")
        run = first_batch(trace)
        tokens, targets, shape = run.inputs, run.targets, run.outputs.shape
        if tokens.is_floating_point() or tokens.ndim != 2 or targets.shape != tokens.shape or shape[:2] != tokens.shape:
            raise NotApplicable("inputs and targets are not tokens with one output each")
        known, middle = tokens.unique(), tokens.shape[1] // 2
        follows = [targets == tokens, targets[:, :-1] == tokens[:, 1:]]
        if len(known) < 2 or max(f.float().mean() for f in follows) < self.share:
            raise NotApplicable("the targets are not the next tokens")
        outputs = run.forward(tokens)
        if differ(outputs, run.forward(tokens, seed=1)).any():
            raise NotApplicable("the same tokens do not give the same outputs")
        inputs = tokens.clone()
        inputs[:, middle] = known[(torch.searchsorted(known, tokens[:, middle].contiguous()) + 1) % len(known)]
        changed = differ(outputs, run.forward(inputs)).flatten(2).any(dim=2).any(dim=0)
        before, after = int(changed[:middle].sum()), int(changed[middle + 1 :].sum())
        if not before:
            return HEALTHY
        evidence = (
            f"other tokens at position {middle} change the outputs at {before} places before and {after} after it"
        )
        return suspect("missing_causal_mask" if after else "inverted_mask", evidence)
