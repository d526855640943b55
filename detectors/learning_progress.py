"""Does the model learn at all, and fast enough? Curves that stand still, creep, or stay at chance."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace
from bugbench.reported import accuracies, chance_loss, evaluation_losses, evaluation_split, r2_name

TASKS = ("classification", "regression", "language_model")
Reading = tuple[str, str] | None  # suspected faults in one string, the usual one first, and what was seen


@dataclass
class LearningProgress(Detector):
    """Does the model learn at all, and fast enough? Curves that stand still, creep, or stay at chance.

    An answer is a list of possible causes, the usual one first. *Chance* is ln C, what a uniform guess over C classes
    costs; where the first losses are a quarter or more from it the rules that need it are silent: the loss is another,
    weighted or with other terms, or the model was trained before. The first rule that holds answers:

    * all evaluations are the same to the last digit: the weights do not move;
    * the learning rate is below a thousandth of its peak for half of the run or more;
    * the loss falls slowly and nearly linearly in the sum of the learning rates, in the second half at least half as
      much as in the first, as where steps are too small; most of it is left and few answers are right;
    * R2 never above 0, or the training loss at chance to the end: with many answers right (a softmax flattens it), with
      jumps (the rate), with better evaluations (training is made too hard), or not even down to chance. A loss that
      falls and ends elsewhere is learning.
    """

    access = {"curves"}
    near: float = 0.05  # of chance (TheDeepChecker: a loss that falls less than 5 % does not fall)
    slow: float = 0.3  # whoever has lost less than this share of the loss has most of the way before him

    def diagnose(self, trace: Trace) -> Diagnosis:
        train = trace.train_steps()
        loss = train["loss"].to_numpy(dtype=np.float64)
        if trace.meta.get("task") not in TASKS or len(loss) < 20 or not np.isfinite(loss).all():
            return HEALTHY
        parts = np.array([np.median(part) for part in np.array_split(loss, 10)])
        rates = np.nan_to_num(train["lr"].to_numpy(dtype=np.float64), nan=1.0)
        classes = (trace.meta.get("classes") or 0) if trace.meta["task"] != "regression" else 0
        guess, right = chance_loss(loss, classes), accuracies(trace, evaluation_split(trace)).max(initial=0)
        knows = classes > 1 and right > (0.1 if classes >= 20 else 0.5 + 0.5 / classes)
        val, sizes = evaluation_losses(trace), train.groupby("epoch").size()
        # evaluations are of the same samples each time, and so have less noise than training batches
        start = min(loss[0], float(np.median(loss[:5])))
        smooth = val if len(val) > 4 else pd.Series(parts, np.linspace(0, len(loss), 10).astype(int))
        with np.errstate(all="ignore"):  # a curve without noise has no correlation
            readings = [
                _standing_still(val, parts),
                _decayed(rates, sizes.iloc[0] if len(sizes) > 1 else 0),
                None if knows else self._creeping(smooth, start, rates, guess),
                self._no_better_than_the_mean(trace, parts) if len(sizes) > 1 else None,
                self._at_chance(parts, start, val, guess, knows) if len(sizes) > 1 else None,
            ]
        faults, seen = next((r for r in readings if r), ("", ""))
        return Diagnosis(Suspect(fault, 0.6 / (i + 1), seen) for i, fault in enumerate(faults.split()))

    def _creeping(self, series: pd.Series, start: float, rates: np.ndarray, chance: float) -> Reading:
        curve, at = series.to_numpy(), np.append(0.0, np.cumsum(rates))[series.index]
        first = curve[0] - np.interp((at[0] + at[-1]) / 2, at, curve)
        second = curve[0] - first - curve[-1]
        steady = np.mean(np.diff(curve) < 0) >= 0.8 and 0 < curve[0] < 1.1 * start
        left = first + second < self.slow * curve[0] and curve[-1] > (1 - self.slow) * chance
        left &= not chance or abs(curve[-1] - chance) > 0.005 * chance  # whoever sits at chance has arrived somewhere
        if not (steady and left and 0 < 0.5 * first <= second <= 2 * first):
            return None
        seen = f"the loss falls nearly linearly, by {first:.2g} and then {second:.2g} from {curve[0]:.3g}"
        return "lr_too_low too_few_epochs clip_too_small", seen

    def _no_better_than_the_mean(self, trace: Trace, parts: np.ndarray) -> Reading:
        r2 = trace.metric(str(evaluation_split(trace)), str(r2_name(trace)))
        if r2.empty or r2.max() >= 0.01:
            return None
        seen = f"R2 is never above {r2.max():.2g}: the mean predicts as well"
        if parts[-1] < 0.7 * parts[0]:
            return "train_only_normalization misaligned_labels", seen + ", though the training loss falls"
        return "misaligned_labels zero_inputs label_broadcast dead_relu lr_too_low", seen

    def _at_chance(self, parts: np.ndarray, start: float, val: pd.Series, chance: float, knows: bool) -> Reading:
        if not chance or parts[1:].min() < (1 - self.near) * chance:
            return None
        if parts[-1] < (1 - self.near) * start and parts[-1] > (1 + self.near) * chance:
            return None
        seen = f"the loss stays at {parts[-1]:.3g}, and a uniform guess costs {chance:.3g}"
        above = parts[1:].max() > 1.1 * chance
        if knows and parts[-1] < 1.5 * chance:
            return (
                "softmax_dim lr_too_low" if above else "redundant_softmax lr_too_low"
            ), seen + ", yet many are right"
        if above:
            return "lr_too_high missing_zero_grad large_init misaligned_labels", seen
        if len(val) and val.min() < (1 - 2 * self.near) * chance:
            return "excess_dropout augmentation_too_strong", seen + f", but evaluation gets to {val.min():.3g}"
        if parts[-1] < 1.005 * chance:
            return "misaligned_labels zero_inputs dead_relu lr_too_low", seen
        if np.corrcoef(parts, np.arange(len(parts)))[0, 1] < -0.6:
            return "lr_too_low clip_too_small misaligned_labels", seen + " and is still on its way there"
        return "zero_grad_after_backward missing_step optimizer_wrong_params lr_too_low", seen + " and goes nowhere"


def _standing_still(val: pd.Series, parts: np.ndarray) -> Reading:
    same = len(val) > 2 and 0 <= np.ptp(val) <= 1e-7 * abs(val.iloc[0])
    if not same or not val.iloc[0] or parts[-1] < 0.5 * parts[0]:
        return None
    seen = f"all {len(val)} evaluations give {val.iloc[0]:.6g}: the weights do not move"
    return "zero_grad_after_backward missing_step optimizer_wrong_params step_before_backward", seen


def _decayed(rates: np.ndarray, first: int) -> Reading:
    small = rates < 1e-3 * rates.max()
    if not small[len(small) // 2 :].all():
        return None
    within = (np.diff(rates[:first]) != 0).sum() > 1  # changed in the midst of an epoch
    seen = f"the learning rate is below a thousandth of its peak from step {int(np.argmax(small))} of {len(small)} on"
    return ("scheduler_per_batch lr_decays_early" if within else "lr_decays_early scheduler_per_batch"), seen
