"""AutoTrainer's rules: vanishing and exploding gradients, dying ReLU, oscillation, slow convergence, improper data."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace
from bugbench.keras_view import evaluated_epochs, gradient_norms, latest, sizes, swings

# problems, the most urgent first (utils/modules.py: problem_evaluation), and the faults that its repairs would undo
FAULTS = {
    "abnormal_data": "missing_normalization",  # data: preprocess again
    "loss_issue": "nll_on_logits flipped_sign",  # loss: one that fits the outputs
    "relu": "dead_relu",  # other activations, batch norm, initialization
    "explode": "lr_too_high large_init",  # other activations, clipped gradients, batch norm
    "vanish": "saturating_activation",  # other activations, batch norm
    "not_converge": "lr_too_low zero_init optimizer",  # optimizer, learning rate, initialization
    "unstable": "lr_too_high momentum_too_high batch_size_one",  # learning rate, batch size, momentum, initialization
}
Reading = tuple[str, str]  # what of the problems was seen, in words
EVIDENCE = {"explode": ["nan_loss", "nan_tensor", "explode"], "not_converge": ["low", "slow"]}


@dataclass
class Autotrainer(Detector):
    """AutoTrainer (Zhang, Zhai, Ma & Shen, ICSE 2021), ported from shiningrain/AUTOTRAINER.

    Thresholds are those of AutoTrainer/reproduce.py ("the default value which is mentioned in our paper"; its demos
    have Theta 0.7), rules those of utils/monitor.py. Every third epoch is checked; what was seen once stays seen. The
    first problem ends training, the most urgent is answered. Problems are reported only half through the run, or once
    the loss is NaN, 1e3 or negative, or no epoch gains (utils/utils.py: on_epoch_end): never before the fourth epoch.

    - vanish: first kernel's gradient norm < beta_1 of the last one's and < beta_2; explode: > beta_3 times; relu: a
      share >= gamma of all gradients is zero (gradient_issue). Only where training does not converge. Gradients or
      weights that are not finite are "explode" where the loss is not, either.
    - unstable: training accuracy falls from a peak by >= zeta, as often as eta of the epochs (ol_judge).
    - not_converge: no accuracy of Theta, and no epoch's gain of delta (loss_issue). loss_issue: loss < 0.
    - abnormal_data: a layer but the last with mean absolute output >= omega_1 (layer_issue).

    Changed: curves count from 30 % of the epochs on, as in the paper; the source begins a gap earlier, in short runs
    with the first epoch, which never gains. A trace cut short is taken for a whole run. Gradients are those of training
    batches in training mode, of the last step looked at before a check, not of the first batch in test mode; sizes of
    tensors are solved for (keras_view.sizes), and all alike if that fails. Outputs of both signs are taken to be normal
    for their mean absolute value. Left out, as losses of PyTorch take raw scores: the loss's name, and "improper
    activation" (rows of outputs sum to above 1.1 or are NaN), what the source calls most losses of NaN or 1e3.
    Without accuracies in training there is no "unstable", without any there is no rule on curves but loss_issue.
    """

    access = {"tensors"}
    origin = "published"
    gap: int = 3  # epochs between checks
    start: float = 0.3  # of the epochs: judgment_point
    beta_1: float = 1e-3
    beta_2: float = 1e-4
    beta_3: float = 70.0
    gamma: float = 0.7
    zeta: float = 0.03
    eta: float = 0.2
    delta: float = 0.01
    theta: float = 0.6
    omega_1: float = 10.0
    large_loss: float = 1e3  # check_large_loss

    def diagnose(self, trace: Trace) -> Diagnosis:
        logs, size, halfway = evaluated_epochs(trace), sizes(trace), True
        seen: dict[str, str] = {}
        for epoch in range(0, len(logs), self.gap):
            step, middle = int(logs["until"].iloc[epoch]) - 1, halfway and epoch >= 0.5 * len(logs)
            halfway &= not middle
            looks = middle or not seen.keys().isdisjoint({"nan_loss", "loss_issue", "slow"})
            tensors = [*self._gradients(trace, size, step), *(self._outputs(trace, step) if looks else [])]
            for name, text in [*tensors, *self._curves(logs[: epoch + 1], len(logs))]:
                seen.setdefault(name, f"{text}, at epoch {epoch}")
            if looks and (found := _problem(seen.keys())):
                text = "; ".join(seen[name] for name in EVIDENCE.get(found, [found]) if name in seen)
                return Diagnosis(Suspect(fault, 1 / (i + 1), text) for i, fault in enumerate(FAULTS[found].split()))
        return HEALTHY

    def _outputs(self, trace: Trace, step: int) -> list[Reading]:
        size = latest(trace, "activation", step)["size"][:-1]
        return [("abnormal_data", f"{name} puts out {x:.3g}") for name, x in size.items() if x >= self.omega_1][:1]

    def _gradients(self, trace: Trace, size: dict[str, float], step: int) -> list[Reading]:
        if latest(trace, "gradient", step)["nonfinite"].any() or latest(trace, "weight", step)["nonfinite"].any():
            return [("nan_tensor", "gradients or weights are not finite")]
        norms, zeros = gradient_norms(trace, step, size)
        first, last = (float(norms[0]), float(norms[-1])) if len(norms) else (1.0, 1.0)
        ratio = first / last if last else math.inf * first  # 0 / 0 is NaN, which breaks no rule
        text = f"the first kernel's gradient has norm {first:.3g}, {ratio:.3g} of the last one's"
        found = [("vanish", text)] if ratio < self.beta_1 and first < self.beta_2 else []
        found += [("explode", text)] if ratio > self.beta_3 else []
        return found + ([("relu", f"{zeros:.0%} of all gradients are zero")] if zeros >= self.gamma else [])

    def _curves(self, past: pd.DataFrame, epochs: int) -> list[Reading]:
        losses, accuracy = past.filter(["loss", "val_loss"]).to_numpy(), past.filter(["acc", "val_acc"])
        if not np.isfinite(losses).all() or losses.max(initial=0) >= self.large_loss:
            return [("nan_loss", f"a loss is {losses.max():.3g}")]
        found = [("loss_issue", f"a loss is {losses.min():.3g}")] if losses.min(initial=0) < 0 else []
        if len(past) < self.start * epochs or accuracy.empty:
            return found
        best, gain = accuracy.max().max(), accuracy.diff().max().max()
        found += [("low", f"no accuracy above {best:.3g}")] if best < self.theta else []
        found += [("slow", f"no epoch gains {self.delta:g}")] if not gain >= self.delta else []
        acc = accuracy["acc"].to_numpy() if "acc" in accuracy else np.zeros(0)
        falls = swings(acc, self.zeta)
        return found + [("unstable", f"{falls} falls of training accuracy")] * bool(0 < len(acc) * self.eta <= falls)


def _problem(seen: Collection[str]) -> str | None:
    """Return the most urgent of the problems that monitor.py (judge_issue) makes of what was seen."""
    found = {"abnormal_data", "loss_issue", "unstable"}.intersection(seen)
    if "nan_loss" in seen and "nan_tensor" in seen and "loss_issue" not in seen:
        found.add("explode")
    if "low" in seen or "slow" in seen:
        tensors = [name for name in ("relu", "explode", "vanish") if name in seen][:1]
        found.update(tensors or ["not_converge"] * ("low" in seen and "slow" in seen and "abnormal_data" not in seen))
    return next((name for name in FAULTS if name in found), None)
