"""What does the shape of the curves say? Loss per batch, and loss and accuracy per evaluation."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace

Finding = tuple[str, str] | None  # suspected faults in one string, the usual one first, and what was seen


@dataclass
class LearningCurves(Detector):
    """What does the shape of the curves say? Loss per batch, and loss and accuracy per evaluation.

    The reading of curves that debugging lectures teach, in numbers without a unit. A shape has several causes, so an
    answer is a list, the usual cause first. *Chance* is ln C, the cross-entropy of a uniform guess over C classes
    (Karpathy's recipe: "verify loss @ init"); where the first losses are nowhere near it (a sum, another loss), rules
    that need it are silent. The first rule that holds answers:

    1. the loss is not finite; a cross-entropy is negative; every evaluation is the same to the last digit;
    2. saw-tooth: in each later epoch some batches lie above chance and some far below, at the same places;
    3. the last fifth of the run lies above all first batches; or the whole run stays at chance;
    4. many answers are right but the loss stays at ln(e + C - 1) - 1, the least that a softmax before the
       cross-entropy lets it reach; the learning rate is a thousandth of its peak for half of the run or more;
    5. slow and nearly linear: the second half falls at least half as much as the first, and most of the loss is left;
    6. evaluation is never as good as training was on new batches: in the first epoch all are new, so that their loss is
       a fair estimate (progressive validation, Blum, Kalai & Langford 1999) which further training only should beat;
    7. training improves and evaluation never leaves chance; evaluation is far better than training;
    8. a language model needs less than 0.6 bits per token, Shannon's (1951) lower bound for printed English.
    """

    access = {"curves"}
    near: float = 0.03  # within 3 % of chance nothing has been learnt
    slow: float = 0.3  # whoever has lost less than this share of the loss has most of the way before him
    gap: float = 1.5  # best evaluation over the first epoch's loss; means over small sets scatter by some ten percent
    ahead: float = 0.25  # of accuracy; dropout and augmentation put evaluation ahead of training by 0.1 to 0.15
    bits: float = 0.6  # per token

    def diagnose(self, trace: Trace) -> Diagnosis:
        curves = Curves(trace)
        rules: list[Callable[[Curves], Finding]] = [
            *(_not_finite, _negative, _unmoved, _saw_tooth, _rises, _softmax_floor, _decays_early),
            *(self._stays_at_chance, self._falls_slowly, self._never_as_good, self._never_leaves_chance),
            *(self._far_ahead, self._too_good),
        ]
        found = next((f for rule in rules if (f := rule(curves))), None) if len(curves.loss) else None
        if not found:
            return HEALTHY
        faults, evidence = found
        return Diagnosis(Suspect(fault, 0.6 / (i + 1), evidence) for i, fault in enumerate(faults.split()))

    def _stays_at_chance(self, c: "Curves") -> Finding:
        if not c.chance or c.epochs < 2 or c.parts[1:].min() < (1 - self.near) * c.chance:
            return None
        seen = f"the loss stays at {c.parts[-1]:.3g}, and a uniform guess costs {c.chance:.3g}"
        if c.parts[1:].max() > 1.1 * c.chance:
            return "lr_too_high large_init misaligned_labels", seen + ", with jumps"
        return "misaligned_labels zero_inputs dead_relu lr_too_low clip_too_small", seen

    def _falls_slowly(self, c: "Curves") -> Finding:
        if len(c.loss) < 20 or not c.parts[0] > 0:
            return None
        first, second = c.parts[0] - c.parts[len(c.parts) // 2], c.parts[len(c.parts) // 2] - c.parts[-1]
        lost = (first + second) / c.parts[0]
        steady = np.mean(np.diff(c.parts) < 0) >= 0.8
        left = not c.chance or c.parts[-1] > (1 - self.slow) * c.chance
        if not (steady and left and 0 < lost < self.slow and 0.5 * first <= second <= 2 * first):
            return None
        seen = f"the loss falls nearly linearly, by {first:.2g} and then {second:.2g} from {c.parts[0]:.3g}"
        return ("lr_too_low too_few_epochs" if c.epochs > 3 else "too_few_epochs lr_too_low") + " clip_too_small", seen

    def _never_as_good(self, c: "Curves") -> Finding:
        if c.epochs < 2 or not len(c.val) or not c.fresh > 0 or not c.val.min() > self.gap * c.fresh:
            return None
        if c.chance and c.val.min() - c.fresh < 0.1 * c.chance:
            return None
        seen = f"the best evaluation has loss {c.val.min():.3g}; new batches had {c.fresh:.3g} in the first epoch"
        if np.mean(np.diff(c.loss[: c.first]) < 0) > 0.9:
            return "same_batch train_only_normalization", seen + ", which fell without noise"
        below = c.val_accuracy is not None and c.classes and c.val_accuracy.max() < 0.5 / c.classes
        if below:
            return "label_off_by_one class_map_mismatch unshuffled_split", seen + "; evaluation is below chance"
        return "train_only_normalization unshuffled_split class_map_mismatch label_off_by_one", seen

    def _never_leaves_chance(self, c: "Curves") -> Finding:
        if not c.chance or c.epochs < 2 or not len(c.val) or c.val.min() < (1 - self.near) * c.chance:
            return None
        if c.parts[-1] > 0.7 * c.chance:
            return None
        return (
            "misaligned_labels train_only_normalization label_noise same_batch",
            f"training reaches {c.parts[-1]:.3g}, evaluation never less than {c.val.min():.3g} (chance: {c.chance:.3g})",
        )

    def _far_ahead(self, c: "Curves") -> Finding:
        if c.val_accuracy is None or c.train_accuracy is None or not len(c.val):
            return None
        ahead = c.val_accuracy[-1] - c.train_accuracy[-1]
        if ahead < self.ahead or c.val[-1] > 0.5 * c.parts[-1]:
            return None
        seen = f"evaluation is right {ahead:.0%} more often than training, at a loss of {c.val[-1]:.2g}"
        return "excess_dropout augmentation_too_strong easy_validation", seen

    def _too_good(self, c: "Curves") -> Finding:
        bound = self.bits * math.log(2)
        if c.task != "language_model" or c.classes < 20 or not len(c.val) or c.val[-1] > bound or c.parts[-1] > bound:
            return None
        seen = f"evaluation needs {c.val[-1]:.2g} nats per token, printed English at least {bound:.2g}"
        copies = c.val[-1] < 0.1 * bound
        return (
            "unshifted_lm_labels missing_causal_mask" if copies else "missing_causal_mask unshifted_lm_labels"
        ), seen


class Curves:
    """The curves of a trace as arrays.

    Attributes:
        loss: per training batch; ``first`` is the number of batches in the first epoch.
        parts: medians of ten equal parts of ``loss`` (fewer if it is short).
        fresh: mean loss of the second half of the first epoch, whose batches were all new.
        val: mean loss per evaluation; ``val_accuracy`` and ``train_accuracy`` as reported, None if they were not.
        chance: ln C where the first losses show that the loss is a mean cross-entropy, else 0.
    """

    def __init__(self, trace: Trace) -> None:
        steps = trace.steps
        train = steps[steps["split"] == "train"]
        self.task, self.classes = trace.meta.get("task"), trace.meta.get("classes") or 0
        self.loss = train["loss"].to_numpy(dtype=np.float64)
        self.epoch = train["epoch"].to_numpy()
        self.lr = train["lr"].to_numpy(dtype=np.float64)
        self.epochs = len(np.unique(self.epoch))
        self.first = int((self.epoch == self.epoch[0]).sum()) if len(self.epoch) else 0
        self.fresh = float(np.mean(self.loss[self.first // 2 : self.first])) if self.first else math.nan
        self.parts = np.array([np.median(p) for p in np.array_split(self.loss, min(10, len(self.loss)) or 1)])
        evaluation = steps[steps["split"] != "train"]
        evaluation = evaluation[evaluation["split"] == evaluation["split"].iloc[0]] if len(evaluation) else evaluation
        self.val = evaluation.groupby("step")["loss"].mean().to_numpy(dtype=np.float64)
        self.val_accuracy = _reported(trace.metrics[trace.metrics["split"] != "train"], "acc")
        self.train_accuracy = _reported(trace.metrics[trace.metrics["split"] == "train"], "acc")
        uniform = math.log(self.classes) if self.classes > 1 else 0.0
        known = self.task in ("classification", "language_model") and len(self.loss) > 0
        self.chance = uniform if known and 0.5 < np.median(self.loss[:5]) / (uniform or np.nan) < 3 else 0.0


def _reported(metrics: pd.DataFrame, word: str) -> np.ndarray | None:
    values = metrics.loc[metrics["name"].str.contains(word, case=False), "value"].to_numpy(dtype=np.float64)
    return (values / 100 if values.max() > 1 else values) if len(values) else None


def _not_finite(c: Curves) -> Finding:
    wrong = np.flatnonzero(~np.isfinite(c.loss))
    if not len(wrong):
        return None
    step = int(wrong[0])
    before = c.loss[:step]
    seen = f"the loss of step {step} is {c.loss[step]}"
    if not step:
        return "nan_inputs divide_by_zero_std log_of_zero exp_overflow", seen
    if np.isinf(c.loss[step]) or before[-5:].max() > 2 * np.median(before[:5]):
        return "lr_too_high exp_overflow inf_inputs", seen + f", after {before[-1]:.3g}"
    return "nan_inputs log_of_zero sqrt_grad_at_zero", seen + f", after {before[-1]:.3g}"


def _negative(c: Curves) -> Finding:
    chance = math.log(c.classes) if c.classes > 1 and c.task in ("classification", "language_model") else math.inf
    start, end = float(np.median(c.loss[:3])), float(np.median(c.loss[-max(len(c.loss) // 5, 1) :]))
    if abs(start + chance) < 0.25 * chance:
        return "flipped_sign", f"the loss starts at {start:.3g}, which is minus ln {c.classes}"
    # a loss that is bounded by -1, such as a cosine, may well be negative; one that falls below -ln C has no bound
    return ("nll_on_logits flipped_sign", f"the loss falls from {start:.3g} to {end:.3g}") if end < -chance else None


def _unmoved(c: Curves) -> Finding:
    if len(c.val) < 3 or np.ptp(c.val) > 1e-7 * abs(c.val[0]) or not c.val[0] or c.parts[-1] < 0.5 * c.parts[0]:
        return None
    seen = f"all {len(c.val)} evaluations give {c.val[0]:.6g}: the weights do not move"
    return "zero_grad_after_backward missing_step optimizer_wrong_params step_before_backward", seen


def _saw_tooth(c: Curves) -> Finding:
    sizes = np.bincount(c.epoch)
    whole = [np.flatnonzero(c.epoch == e) for e in np.flatnonzero(sizes == np.median(sizes[sizes > 0]))[1:]]
    if len(whole) < 2 or len(whole[0]) < 6:
        return None
    reference = c.chance or float(np.median(c.loss[:5]))
    teeth = c.loss[np.array(whole)]
    both = (teeth.max(axis=1) > reference) & (teeth.min(axis=1) < 0.25 * reference)
    ranks = teeth.argsort(axis=1).argsort(axis=1)
    same_place = np.mean([np.corrcoef(ranks[i], ranks[i + 1])[0, 1] for i in range(len(ranks) - 1)])
    if both.mean() < 0.8 or not same_place > 0.5:
        return None
    low, high = np.median(teeth.min(axis=1)), np.median(teeth.max(axis=1))
    seen = f"each epoch goes from {low:.2g} to {high:.2g}, at the same places (rank correlation {same_place:.2f})"
    return "unshuffled_loader", seen


def _decays_early(c: Curves) -> Finding:
    small = c.lr < 1e-3 * np.nanmax(c.lr)
    if len(c.lr) < 20 or not small[len(small) // 2 :].all() or not np.nanmax(c.lr) > 0:
        return None
    changes = int((np.diff(c.lr[: c.first]) != 0).sum())
    seen = f"the learning rate is below a thousandth of its peak from step {int(np.argmax(small))} of {len(small)} on"
    return ("scheduler_per_batch lr_decays_early" if changes > 1 else "lr_decays_early scheduler_per_batch"), seen


def _rises(c: Curves) -> Finding:
    end, start = float(np.median(c.loss[-max(len(c.loss) // 5, 1) :])), float(c.loss[:5].max())
    if len(c.loss) < 20 or not end > 1.05 * max(start, 0):
        return None
    seen = f"the loss rises: the first batches have at most {start:.3g}, the last fifth {end:.3g}"
    steadily = np.mean(np.diff(c.parts) > 0) >= 0.8
    return ("flipped_sign lr_too_high" if steadily else "lr_too_high loss_reduction_sum flipped_sign"), seen


def _softmax_floor(c: Curves) -> Finding:
    if c.classes < 2 or c.train_accuracy is None or not c.chance:
        return None
    floor = math.log(math.e + c.classes - 1) - 1
    end, right = float(c.parts[-1]), float(c.train_accuracy[-1])
    expected = floor + 1 - right  # sure of all answers, and a wrong one costs one nat more
    reached = floor - 1e-4 < c.loss.min() < 1.05 * floor
    if right < 0.7 or not reached or abs(end - expected) > 0.1 * expected:
        return None
    return (
        "redundant_softmax",
        f"{right:.0%} right at a loss of {end:.3g}: after a softmax it cannot be below {floor:.3g}",
    )
