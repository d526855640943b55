"""How does evaluation compare with training? Never as good, never off chance, far ahead, contradicting itself."""

import math
from dataclasses import dataclass

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace
from bugbench.reported import Curves, cost_of_accuracy

OTHER_DATA = "train_only_normalization unshuffled_split class_map_mismatch label_off_by_one"
Reading = tuple[str, str] | None  # suspected faults in one string, the usual one first, and what was seen


@dataclass
class EvaluationCurves(Detector):
    """How does evaluation compare with training? Never as good, never off chance, far ahead, contradicting itself.

    A growing gap, validation diverging from training, is over-fitting, which any small data set shows: left out on
    purpose. An answer is a list of causes, the usual one first. *Chance* is ln C, what a uniform guess over C classes
    costs; where the first losses are a quarter or more from it, rules that need it are silent. The first rule that
    holds answers:

    * many answers are right, but all losses lie within ln(e + C - 1) - 1 and ln(e + C - 1), as a softmax before the
      cross-entropy forces them to, or evaluation costs more than chance: the loss is not that of the answers. What the
      loss was above chance at the start is left out of that, for it may have other terms; the rest must still be more
      than who knows nothing but how often he is right would pay;
    * training improves, evaluation never leaves chance: without noise between batches they are one batch; fewer right
      than of guesses, other labels; off from the first epoch, other inputs; else what was learnt cannot be generalised;
    * evaluation is never as good as training was on new batches, nor much better than an untrained model: in the first
      epoch all batches are new and their loss a fair estimate (progressive validation, Blum, Kalai & Langford 1999);
    * evaluation is far better than training; a language model needs less than 0.6 bits per token in both, Shannon's
      (1951) lower bound for printed English;
    * loss and accuracy of evaluation both rise over the last half, to a loss that is again above that of who knows only
      how often he is right: over-fitting of the confidence (Guo et al. 2017).
    """

    access = {"curves"}
    near: float = 0.05  # of chance (TheDeepChecker: a loss that falls less than 5 % does not fall)
    gap: float = 1.5  # best evaluation over the first epoch's loss; means over small sets scatter by some ten percent
    ahead: float = 0.35  # of accuracy; dropout puts evaluation ahead of training by 0.1, strong augmentation by 0.25
    bits: float = 0.6  # per token
    rise: float = 0.5  # correlation with time (TheDeepChecker's least correlation of loss and metric)

    def diagnose(self, trace: Trace) -> Diagnosis:
        c = Curves(trace)
        if not c.usable:
            return HEALTHY
        rules = (self._contradiction, self._stuck, self._never_as_good, self._ahead, self._too_good, self._both_rise)
        faults, seen = next((found for rule in rules if (found := rule(c))), ("", ""))
        return Diagnosis(Suspect(fault, 0.6 / (i + 1), seen) for i, fault in enumerate(faults.split()))

    def _contradiction(self, c: Curves) -> Reading:
        if not c.knows:
            return None
        most, guess = c.val_right.max(), math.log(c.classes)
        floor, every = math.log(math.e + c.classes - 1) - 1, np.concatenate([c.loss, c.val])
        # an unsure model may lie there as well, but not have the loss of sure answers, of which a wrong one costs + 1
        sure = abs(c.val[-1] - floor - 1 + most) < 0.1 * min(1.0, floor) and every.min() < 1.1 * floor
        if c.chance and most > 0.7 and floor - 1e-4 < every.min() and every.max() < floor + 1 and sure:
            return "redundant_softmax", f"{most:.0%} right, yet no loss below {floor:.3g}, the least after a softmax"
        beyond = c.val.min() - max(min(c.loss[0], float(np.median(c.loss[:5]))) - guess, 0.0)
        if c.val.min() > guess and beyond > cost_of_accuracy(most, c.classes):
            return "softmax_dim miscalibrated", f"{most:.0%} right at a loss above that of a guess, {guess:.3g}"
        return None

    def _stuck(self, c: Curves) -> Reading:
        low = (1 - self.near) * c.chance
        if not c.chance or c.val.min() < low or c.end > 0.85 * c.chance:
            return None
        seen = f"training reaches {c.end:.3g}, evaluation only {c.val.min():.3g}; a guess costs {c.chance:.3g}"
        if np.mean(np.diff(c.loss[: c.first]) < 0) > 0.9:
            return "same_batch train_only_normalization", seen
        if len(c.val_right) and c.val_right[-1] < 0.5 / c.classes:
            return "label_off_by_one class_map_mismatch unshuffled_split", seen + "; fewer are right than of guesses"
        # nobody knows by heart what he sees for the first time: it is the evaluation that differs
        if c.fresh < low or c.val[0] > self.gap * c.fresh:
            return OTHER_DATA, seen
        return "misaligned_labels label_noise", seen

    def _never_as_good(self, c: Curves) -> Reading:
        # where evaluations are rare the first epoch may be several, whence the comparison with no training
        untrained, best = c.chance or float(np.median(c.loss[:5])), c.val.min()
        if not 0 < c.fresh < (1 - self.near) * untrained or best < max(self.gap * c.fresh, 0.8 * untrained):
            return None
        seen = f"the best evaluation has loss {best:.3g}; new batches had {c.fresh:.3g} in the first epoch"
        return OTHER_DATA, seen

    def _ahead(self, c: Curves) -> Reading:
        ahead = c.val_right[-1] - c.train_right[-1] if len(c.val_right) and len(c.train_right) else 0.0
        if ahead < self.ahead or c.val[-1] > 0.5 * c.end:
            return None
        seen = f"evaluation is right {ahead:.0%} more often than training, at a loss of {c.val[-1]:.2g}"
        return "excess_dropout augmentation_too_strong easy_validation", seen

    def _too_good(self, c: Curves) -> Reading:
        bound = self.bits * math.log(2) if c.language and c.classes >= 20 else -math.inf
        if max(c.val[-1], c.end) > bound:
            return None
        seen = f"evaluation needs {c.val[-1]:.2g} nats per token, printed English at least {bound:.2g}"
        faults = ["missing_causal_mask", "unshifted_lm_labels"]
        return " ".join(sorted(faults, reverse=bool(c.val[-1] < 0.1 * bound))), seen  # copying is done perfectly

    def _both_rise(self, c: Curves) -> Reading:
        half = len(c.val) // 2
        loss, right = c.val[half:], c.val_right[half:]
        if not c.knows or len(loss) < 5 or len(loss) != len(right) or loss[-1] < (1 + self.near) * loss[0]:
            return None
        if min(_trend(loss), _trend(right)) < self.rise or loss[-1] < cost_of_accuracy(right[-1], c.classes):
            return None
        seen = f"evaluation's loss rises from {loss[0]:.3g} to {loss[-1]:.3g}, its accuracy from {right[0]:.0%}"
        return "miscalibrated", seen + f" to {right[-1]:.0%}"


def _trend(values: np.ndarray) -> float:
    return float(np.corrcoef(values, np.arange(len(values)))[0, 1]) if np.ptp(values) > 0 else 0.0
