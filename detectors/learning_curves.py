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
    2. saw-tooth: later epochs all have the same ups and downs, and these are smooth or go from far below chance to
       above it (a fixed order of mixed data repeats as well, but is neither);
    3. the first batches multiply the loss by three; the last fifth of the run lies above all first batches;
    4. many answers are right but all losses lie between ln(e + C - 1) - 1 and ln(e + C - 1), as a softmax before the
       cross-entropy forces them to; or evaluation stays above chance;
    5. the learning rate is below a thousandth of its peak for half of the run or more; the loss falls slowly and
       nearly linearly: in the second half at least half as much as in the first, and most of it is left;
    6. the whole run stays at chance (at an R2 of 0); or training improves and evaluation stays at chance;
    7. evaluation is never as good as training was on new batches: in the first epoch all are new, so that their loss is
       a fair estimate (progressive validation, Blum, Kalai & Langford 1999) which further training only should beat;
    8. evaluation is far better than training; a language model needs less than 0.6 bits per token, Shannon's (1951)
       lower bound for printed English.
    """

    access = {"curves"}
    near: float = 0.05  # of chance (TheDeepChecker: a loss that falls less than 5 % does not fall)
    slow: float = 0.3  # whoever has lost less than this share of the loss has most of the way before him
    gap: float = 1.5  # best evaluation over the first epoch's loss; means over small sets scatter by some ten percent
    ahead: float = 0.35  # of accuracy; dropout puts evaluation ahead of training by 0.1, strong augmentation by 0.25
    bits: float = 0.6  # per token

    def diagnose(self, trace: Trace) -> Diagnosis:
        curves = Curves(trace)
        if not len(curves.loss):
            return HEALTHY
        rules: list[Callable[[Curves], Finding]] = [
            *(_not_finite, _negative, _unmoved, _saw_tooth, _jumps, _rises, _softmax_floor, _contradicts_itself),
            _decays_early,
            *(self._falls_slowly, self._stays_at_chance, self._never_leaves_chance, self._never_as_good),
            *(self._far_ahead, self._too_good),
        ]
        with np.errstate(all="ignore"):  # a curve without noise has no correlation
            known = curves.task in ("classification", "regression", "language_model")  # a GAN's losses may well rise
            found = next((f for rule in rules[: None if known else 1] if (f := rule(curves))), None)
        if not found:
            return HEALTHY
        faults, evidence = found
        return Diagnosis(Suspect(fault, 0.6 / (i + 1), evidence) for i, fault in enumerate(faults.split()))

    def _falls_slowly(self, c: "Curves") -> Finding:
        # evaluations are of the same samples each time, and so have less noise than training batches
        curve, name = (c.val, "evaluation") if len(c.val) > 4 else (c.parts, "training")
        if len(c.loss) < 20 or len(curve) < 5 or not curve[0] > 0 or c.knows:
            return None
        # where steps are too small the loss falls in proportion to the sum of the learning rates, schedule or not
        travelled = np.append(0.0, np.cumsum(np.nan_to_num(c.lr, nan=1.0)))
        at = travelled[c.val_step if curve is c.val else np.linspace(0, len(c.loss), len(curve)).astype(int)]
        middle = np.interp((at[0] + at[-1]) / 2, at, curve)
        first, second = curve[0] - middle, middle - curve[-1]
        steady = np.mean(np.diff(curve) < 0) >= 0.8 and curve[0] < 1.1 * np.median(c.loss[:5])
        left = first + second < self.slow * curve[0]
        if c.chance:  # whoever sits at chance has arrived somewhere
            left &= curve[-1] > (1 - self.slow) * c.chance and abs(curve[-1] - c.chance) > 0.005 * c.chance
        if not (steady and left and 0 < 0.5 * first <= second <= 2 * first):
            return None
        seen = f"the {name} loss falls nearly linearly, by {first:.2g} and then {second:.2g} from {curve[0]:.3g}"
        return ("lr_too_low too_few_epochs" if c.epochs > 3 else "too_few_epochs lr_too_low") + " clip_too_small", seen

    def _stays_at_chance(self, c: "Curves") -> Finding:
        if c.epochs < 2:
            return None
        if c.r2 is not None and c.r2.max() < 0.01:
            seen = f"R2 is never above {c.r2.max():.2g}: the mean predicts as well"
            if c.parts[-1] < 0.7 * c.parts[0]:
                return "train_only_normalization misaligned_labels", seen + ", though the training loss falls"
            return "misaligned_labels zero_inputs label_broadcast dead_relu lr_too_low", seen
        if not c.chance or c.parts[1:].min() < (1 - self.near) * c.chance:
            return None
        seen = f"the loss stays at {c.parts[-1]:.3g}, and a uniform guess costs {c.chance:.3g}"
        if len(c.val) and c.val.min() < (1 - 2 * self.near) * c.chance:
            return "excess_dropout augmentation_too_strong", seen + f", but evaluation gets to {c.val.min():.3g}"
        if c.knows:
            return "redundant_softmax lr_too_low", seen + f", but {c.right:.0%} are right"
        if c.parts[1:].max() > 1.1 * c.chance:
            return "lr_too_high large_init misaligned_labels", seen
        if c.parts[-1] < 1.005 * c.chance:
            return "misaligned_labels zero_inputs dead_relu lr_too_low", seen
        if np.corrcoef(c.parts, np.arange(len(c.parts)))[0, 1] < -0.6:
            return "lr_too_low clip_too_small misaligned_labels", seen + " and is still on its way there"
        return "zero_grad_after_backward missing_step optimizer_wrong_params lr_too_low", seen + " and goes nowhere"

    def _never_leaves_chance(self, c: "Curves") -> Finding:
        low = (1 - self.near) * c.chance
        if not c.chance or c.epochs < 2 or not len(c.val) or c.val.min() < low or c.parts[-1] > 0.85 * c.chance:
            return None
        seen = f"training reaches {c.parts[-1]:.3g}, evaluation only {c.val.min():.3g}; a guess costs {c.chance:.3g}"
        if np.mean(np.diff(c.loss[: c.first]) < 0) > 0.9:  # no noise between batches
            return "same_batch train_only_normalization", seen
        if c.val_accuracy is not None and c.val_accuracy[-1] < 0.5 / c.classes:
            return "label_off_by_one class_map_mismatch unshuffled_split", seen + "; fewer are right than of guesses"
        # nobody knows by heart what he sees for the first time: it is the evaluation that differs, and from the start
        if c.fresh < low or c.val[0] > self.gap * c.fresh:
            return "train_only_normalization unshuffled_split class_map_mismatch label_off_by_one", seen
        return "misaligned_labels label_noise", seen

    def _never_as_good(self, c: "Curves") -> Finding:
        # where evaluations are far apart the first epoch may be several, and known by heart at its end; so evaluation
        # must also be little better than an untrained model
        untrained = c.chance or float(np.median(c.loss[:5]))
        best = c.val.min() if c.epochs > 1 and len(c.val) else 0.0
        if not c.fresh > 0 or best < self.gap * c.fresh or best < 0.8 * untrained:
            return None
        seen = f"the best evaluation has loss {best:.3g}; new batches had {c.fresh:.3g} in the first epoch"
        return "train_only_normalization unshuffled_split class_map_mismatch label_off_by_one", seen

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
        val: loss per evaluation as reported, else the mean over its batches; ``val_step`` batches into the run.
        val_accuracy, train_accuracy, r2: as reported, None if they were not.
        right: best accuracy of an evaluation, 0 if unknown; ``knows``: whether a guess would give far less.
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
        self.parts = np.array(
            [np.median(p) for p in np.array_split(self.loss, min(10, max(len(self.loss), 1))) if len(p)]
        )
        evaluation = steps[steps["split"] != "train"]
        evaluation = evaluation[evaluation["split"] == evaluation["split"].iloc[0]] if len(evaluation) else evaluation
        means = evaluation.groupby("step")["loss"].mean()
        reported = trace.metrics[(trace.metrics["split"] != "train") & (trace.metrics["name"] == "loss")]
        if len(reported):  # a batch's loss may be a sum, as in PyTorch's MNIST example
            means = reported[reported["split"] == reported["split"].iloc[0]].groupby("step")["value"].mean()
        self.val, self.val_step = means.to_numpy(dtype=np.float64), means.index.to_numpy()
        self.val_accuracy = _reported(trace.metrics[trace.metrics["split"] != "train"], "acc")
        self.train_accuracy = _reported(trace.metrics[trace.metrics["split"] == "train"], "acc")
        self.right = 0.0 if self.val_accuracy is None else float(self.val_accuracy.max())
        self.knows = self.classes > 1 and self.right > (0.1 if self.classes >= 20 else 0.5 + 0.5 / self.classes)
        self.r2 = _reported(trace.metrics[trace.metrics["split"] != "train"], "^r2$")
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
    seen += f", after {before[-1]:.3g}"
    if c.task != "regression" and c.classes and before.min() < 0:
        return "nll_on_logits flipped_sign", seen + ", and a cross-entropy cannot be negative"
    if np.isinf(c.loss[step]) or before[-5:].max() > 2 * np.median(before[:5]):
        climbs = np.mean(np.diff(before) > 0) > 0.8 and before.min() > 0.8 * before[0]  # what is too fast overshoots
        return ("flipped_sign lr_too_high" if climbs else "lr_too_high exp_overflow inf_inputs"), seen
    return "nan_inputs log_of_zero sqrt_grad_at_zero", seen


def _negative(c: Curves) -> Finding:
    chance = math.log(c.classes) if c.classes > 1 and c.task in ("classification", "language_model") else math.inf
    start, end = float(np.median(c.loss[:3])), float(np.median(c.loss[-max(len(c.loss) // 5, 1) :]))
    if abs(start + chance) < 0.25 * chance:
        return "flipped_sign", f"the loss starts at {start:.3g}, which is minus ln {c.classes}"
    # a loss that is bounded by -1, such as a cosine, may well be negative; one that falls below -ln C has no bound
    return ("nll_on_logits flipped_sign", f"the loss falls from {start:.3g} to {end:.3g}") if end < -chance else None


def _unmoved(c: Curves) -> Finding:
    same = len(c.val) > 2 and 0 <= np.ptp(c.val) <= 1e-7 * abs(c.val[0])
    if not same or not c.val[0] or c.parts[-1] < 0.5 * c.parts[0]:
        return None
    seen = f"all {len(c.val)} evaluations give {c.val[0]:.6g}: the weights do not move"
    return "zero_grad_after_backward missing_step optimizer_wrong_params step_before_backward", seen


def _saw_tooth(c: Curves) -> Finding:
    sizes = np.bincount(c.epoch)
    whole = [np.flatnonzero(c.epoch == e) for e in np.flatnonzero(sizes == np.median(sizes[sizes > 0]))]
    whole = whole[max(len(whole) // 2, 1) :]
    if len(whole) < 2 or len(whole[0]) < 6 or any(np.ptp(c.lr[steps]) > 0 for steps in whole):
        return None
    teeth = c.loss[np.array(whole)]
    place = np.arange(teeth.shape[1])
    trend = np.array([np.polyval(np.polyfit(place, row, 1), place) for row in teeth])
    rest = teeth - trend  # without the fall that all epochs have in common
    same = np.mean([np.corrcoef(rest[i], rest[i + 1])[0, 1] for i in range(len(rest) - 1)])
    mean = rest.mean(axis=0)
    smooth = np.corrcoef(mean[:-1], mean[1:])[0, 1]  # a fixed order of mixed data repeats too, but jumps about
    moves = np.diff(teeth.mean(axis=0))
    upward = np.maximum(moves, 0).sum() / max(np.abs(moves).sum(), 1e-12)  # none where all just fall, and curve alike
    if c.task == "language_model" and moves.size and np.median(teeth.max(axis=1)) < 1.5 * np.median(teeth.min(axis=1)):
        return None  # text read in its order, as by a model that keeps its state, also has easy and hard pages
    reference = c.chance or float(np.median(c.loss[:5]))
    high = (teeth.max(axis=1) > reference) & (teeth.min(axis=1) < 0.25 * reference)
    if not (same > 0.6 and upward > 0.1) or not (smooth > 0.5 or high.mean() >= 0.8):
        return None
    seen = f"each epoch has the same ups and downs between {teeth.min():.2g} and {teeth.max():.2g} (r = {same:.2f})"
    return "unshuffled_loader", seen


def _decays_early(c: Curves) -> Finding:
    rates = np.nan_to_num(c.lr)
    small = rates < 1e-3 * rates.max()
    if len(small) < 20 or not small[len(small) // 2 :].all():
        return None
    within = c.epochs > 1 and (np.diff(rates[: c.first]) != 0).sum() > 1
    seen = f"the learning rate is below a thousandth of its peak from step {int(np.argmax(small))} of {len(small)} on"
    return ("scheduler_per_batch lr_decays_early" if within else "lr_decays_early scheduler_per_batch"), seen


def _jumps(c: Curves) -> Finding:
    start, early = float(c.loss[0]), np.sort(c.loss[: max(10, len(c.loss) // 20)])
    if len(early) < 10 or not early[-2] > 3 * max(start, c.chance) or not c.parts[-1] < 2 * start:
        return None
    seen = f"the loss jumps from {start:.3g} to {early[-1]:.3g} at the start"
    if c.classes > 1 and c.task == "classification" and start > 3 * math.log(c.classes):
        return "missing_normalization large_init lr_too_high", seen + ", and a uniform guess costs less than either"
    return "lr_too_high missing_normalization large_init", seen


def _contradicts_itself(c: Curves) -> Finding:
    if not c.chance or not c.knows or not len(c.val) or c.val.min() < c.chance:
        return None
    seen = f"{c.right:.0%} of the evaluation are right at a loss of {c.val.min():.3g}; a guess costs"
    return "softmax_dim miscalibrated", f"{seen} {c.chance:.3g}"


def _rises(c: Curves) -> Finding:
    end, start = float(np.median(c.loss[-max(len(c.loss) // 5, 1) :])), float(c.loss[:5].max())
    if len(c.loss) < 20 or not end > 1.05 * max(start, 0):
        return None
    seen = f"the loss rises: the first batches have at most {start:.3g}, the last fifth {end:.3g}"
    smooth = np.array([np.median(c.loss[i : i + 5]) for i in range(len(c.loss) - 4)])
    if np.mean(np.diff(c.parts) > 0) >= 0.8 and smooth.min() > 0.95 * smooth[0]:
        return "flipped_sign lr_too_high", seen + ", steadily"
    since = int(np.argmax(c.loss > 1.5 * np.median(c.loss[:3])))
    if since >= 10:  # a rate that is too high is so from the first step; a sum of gradients grows
        return "missing_zero_grad lr_too_high loss_reduction_sum", seen + f", but not before step {since}"
    return "lr_too_high loss_reduction_sum missing_zero_grad", seen + f", from step {since} on"


def _softmax_floor(c: Curves) -> Finding:
    if c.classes < 2 or c.train_accuracy is None or not c.chance:
        return None
    floor = math.log(math.e + c.classes - 1) - 1
    end, right = float(c.parts[-1]), float(c.train_accuracy[-1])
    every = np.concatenate([c.loss, c.val])
    if right < 0.7 or every.min() < floor - 1e-4 or every.max() > floor + 1 + 1e-4:
        return None
    # with few classes a hard task may stay above that as well: there it must be reached, and the end be that of
    # answers that are sure, of which a wrong one costs one nat more
    sure = c.loss.min() < 1.05 * floor and abs(end - floor - 1 + right) < 0.1 * end
    if c.classes < 5 and not sure:
        return None
    return (
        "redundant_softmax",
        f"{right:.0%} right at a loss of {end:.3g}: after a softmax it cannot be below {floor:.3g}",
    )
