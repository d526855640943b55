"""Are zero_grad, forward, backward and step called in an order that makes sense?"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect
from bugbench.gradient_sums import adds_up, grow

LETTER = {"zero_grad": "Z", "forward": "F", "backward": "B", "step": "S"}


@dataclass
class CallOrder(Detector):
    """Are zero_grad, forward, backward and step called in an order that makes sense?

    The calls of the whole run, in order, for each watched model (Karpathy's list of mistakes: "you forgot to
    .zero_grad() before .backward()"; TrainCheck's API-sequence invariants, OSDI'25):

    * no zero_grad between most pairs of steps: ``missing_zero_grad``;
    * zero_grad between backward and step: ``zero_grad_after_backward``;
    * step between forward and backward: ``step_before_backward``;
    * backward, but never a step, and a loss that does not fall: ``missing_step``;
    * steps that change no weight, in spite of gradients: ``optimizer_wrong_params``.

    Gradients may also be cleared in ways that leave no call (``p.grad = None``), or the wrong ones be cleared. Where
    the outputs are a layer's own, the gradient of its bias is the sum of d loss / d outputs: that of this batch alone
    if gradients are cleared, of all batches so far if not. This identity, where it applies, overrules the calls; so do
    zeros that come back into a gradient, which they cannot while gradients add up. Where neither decides and nothing
    ever called zero_grad, gradients must also grow as sums do, which have at least a random walk's length.

    All the same: zero_grad before or after step or forward, several backward passes per step, closures (the optimizer
    steps first and calls forward and backward), a step logged with the next batch. Calls between a batch and metrics
    that are reported before the next one are not recorded. So orders and pairs of steps across that gap are not judged,
    and nobody is said never to step in whose run an optimizer changed weights, which is recorded all the same.
    """

    access = {"tensors", "data"}
    share: float = 0.5  # of the steps that must break the order: one odd step is not the loop's habit
    patience: int = 32  # batches without a step: accumulating over more is rare
    tolerance: float = 1e-3  # of the bias gradient's statistics, which are float32 sums

    def diagnose(self, trace: Trace) -> Diagnosis:
        if "order" not in trace.steps or trace.steps.empty:
            return HEALTHY
        for model, calls in _calls(trace.steps, trace.metrics).items():
            steps = calls.count("S")
            closure = "B" in calls and -1 < calls.find("S") < calls.find("B")
            who = f" of {model.rstrip('.')}" if model else ""
            if steps and not closure and (times := calls.count("BZS")) > self.share * steps:
                return suspect("zero_grad_after_backward", f"zero_grad{who} preceded {times} of {steps} steps directly")
            if (times := calls.replace("Z", "").count("FSB")) > self.share * steps:
                return suspect("step_before_backward", f"{times} of {steps} steps{who} came before the backward pass")
            pairs = [p for p in calls.split("S")[1:-1] if "Z" in p or "|" not in p]  # across a gap nothing is known
            kept = sum("Z" not in p and "F" in p for p in pairs)
            if not model and _moves_nothing(trace.steps):
                return suspect("optimizer_wrong_params", "there are gradients and steps, but no step changes a weight")
            sums = adds_up(trace, model, self.tolerance)
            if sums:
                return suspect("missing_zero_grad", "the outputs' bias has as gradient the sum over all batches so far")
            unclear = sums is None and ("Z" in calls or grow(trace, model))
            if unclear and len(pairs) > 1 and kept > self.share * len(pairs):
                return suspect("missing_zero_grad", f"no zero_grad{who} between {kept} of {len(pairs)} pairs of steps")
            train = trace.train_steps()
            steps += _updates(trace.steps, model)
            if not steps and calls.count("B") and len(train) >= self.patience and np.isfinite(train["lr"]).any():
                quarter = train["loss"].head(len(train) // 4)
                if not train["loss"].tail(len(quarter)).median() < quarter.median() - quarter.std():
                    return suspect("missing_step", f"{len(train)} batches{who} and no optimizer step")
        return HEALTHY


def _moves_nothing(steps: pd.DataFrame) -> bool:
    """Tell whether no recorded step changed a weight, although there were gradients and a learning rate."""
    steps = steps.reindex(columns=["update_norm", "grad_norm", "lr"])
    seen = steps[steps["update_norm"].notna() & (steps["grad_norm"] > 0) & (steps["lr"] > 0)]
    return len(seen) > 2 and bool((seen["update_norm"] == 0).all())


def _updates(steps: pd.DataFrame, model: str) -> int:
    """Return how many of a model's steps left an update in the trace, which has them also where calls were lost."""
    name = f"{model}.update_norm" if model else "update_norm"
    return int(steps[name].notna().sum()) if name in steps else 0


def _calls(steps: pd.DataFrame, metrics: pd.DataFrame) -> dict[str, str]:
    """Return the calls of the run as letters Z, F, B, S for each model's prefix; | where some were not recorded."""
    gaps = set(metrics["step"])
    text: dict[str, list[str]] = {}
    last = -1
    for step, order in zip(steps["step"], steps["order"].fillna(""), strict=True):
        if step != last and step in gaps:
            for calls in text.values():
                calls.append("|")
        for word in order.split():
            prefix, _, name = word.rpartition(".")
            text.setdefault(prefix, []).append(LETTER.get(name, ""))
        last = step
    return {prefix: re.sub(r"\|+", "|", "".join(calls)) for prefix, calls in text.items()}
