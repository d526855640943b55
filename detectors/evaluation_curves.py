"""How does evaluation compare with training? Never as good, never off chance, far ahead, contradicting itself."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import Detector, Diagnosis, Suspect, Trace

OTHER_DATA = "train_only_normalization unshuffled_split class_map_mismatch label_off_by_one"
Reading = tuple[str, str] | None  # suspected faults in one string, the usual one first, and what was seen


@dataclass
class EvaluationCurves(Detector):
    """How does evaluation compare with training? Never as good, never off chance, far ahead, contradicting itself.

    A growing gap is over-fitting, which any small data set shows, and not reported. An answer is a list of causes, the
    usual one first. *Chance* is ln C, what a uniform guess over C classes costs; where the first losses are far from
    it, rules that need it are silent. The first rule that holds answers:

    * many answers are right, but all losses lie within ln(e + C - 1) - 1 and ln(e + C - 1), as a softmax before the
      cross-entropy forces them to, or evaluation costs more than chance: the loss is not that of the answers;
    * training improves, evaluation never leaves chance: without noise between batches they are one batch; fewer right
      than of guesses, other labels; off from the first epoch, other inputs; else what was learnt cannot be generalised;
    * evaluation is never as good as training was on new batches, nor much better than an untrained model: in the first
      epoch all batches are new and their loss a fair estimate (progressive validation, Blum, Kalai & Langford 1999);
    * evaluation is far better than training; a language model needs less than 0.6 bits per token in both, Shannon's
      (1951) lower bound for printed English.
    """

    access = {"curves"}
    near: float = 0.05  # of chance (TheDeepChecker: a loss that falls less than 5 % does not fall)
    gap: float = 1.5  # best evaluation over the first epoch's loss; means over small sets scatter by some ten percent
    ahead: float = 0.35  # of accuracy; dropout puts evaluation ahead of training by 0.1, strong augmentation by 0.25
    bits: float = 0.6  # per token

    def diagnose(self, trace: Trace) -> Diagnosis:
        c = Curves(trace)
        rules = (self._contradiction, self._stuck, self._never_as_good, self._ahead, self._too_good) if c.usable else ()
        faults, seen = next((found for rule in rules if (found := rule(c))), ("", ""))
        return Diagnosis(Suspect(fault, 0.6 / (i + 1), seen) for i, fault in enumerate(faults.split()))

    def _contradiction(self, c: "Curves") -> Reading:
        most = c.val_right.max(initial=0)
        if not c.chance or most < (0.1 if c.classes >= 20 else 0.5 + 0.5 / c.classes):
            return None
        floor, every = math.log(math.e + c.classes - 1) - 1, np.concatenate([c.loss, c.val])
        # an unsure model may lie there as well, but not have the loss of sure answers, of which a wrong one costs + 1
        sure = abs(c.val[-1] - floor - 1 + most) < 0.1 * min(1.0, floor) and every.min() < 1.1 * floor
        if most > 0.7 and floor - 1e-4 < every.min() and every.max() < floor + 1 and sure:
            return "redundant_softmax", f"{most:.0%} right, yet no loss below {floor:.3g}, the least after a softmax"
        if c.val.min() > c.chance:
            return "softmax_dim miscalibrated", f"{most:.0%} right at a loss above that of a guess, {c.chance:.3g}"
        return None

    def _stuck(self, c: "Curves") -> Reading:
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

    def _never_as_good(self, c: "Curves") -> Reading:
        # where evaluations are rare the first epoch may be several, whence the comparison with no training
        untrained, best = c.chance or float(np.median(c.loss[:5])), c.val.min()
        if not 0 < c.fresh < (1 - self.near) * untrained or best < max(self.gap * c.fresh, 0.8 * untrained):
            return None
        seen = f"the best evaluation has loss {best:.3g}; new batches had {c.fresh:.3g} in the first epoch"
        return OTHER_DATA, seen

    def _ahead(self, c: "Curves") -> Reading:
        ahead = c.val_right[-1] - c.train_right[-1] if len(c.val_right) and len(c.train_right) else 0.0
        if ahead < self.ahead or c.val[-1] > 0.5 * c.end:
            return None
        seen = f"evaluation is right {ahead:.0%} more often than training, at a loss of {c.val[-1]:.2g}"
        return "excess_dropout augmentation_too_strong easy_validation", seen

    def _too_good(self, c: "Curves") -> Reading:
        bound = self.bits * math.log(2) if c.language and c.classes >= 20 else -math.inf
        if max(c.val[-1], c.end) > bound:
            return None
        seen = f"evaluation needs {c.val[-1]:.2g} nats per token, printed English at least {bound:.2g}"
        faults = ["missing_causal_mask", "unshifted_lm_labels"]
        return " ".join(sorted(faults, reverse=bool(c.val[-1] < 0.1 * bound))), seen  # copying is done perfectly


class Curves:
    """Losses per batch and per evaluation, and what the program reported."""

    def __init__(self, trace: Trace) -> None:
        train, metrics, task = trace.train_steps(), trace.metrics, trace.meta.get("task")
        rows = metrics[(metrics["split"] != "train") & (metrics["name"] == "loss")]
        if rows.empty:  # a reported loss is the better one: a batch's may be a sum, as in PyTorch's MNIST example
            rows = trace.steps[trace.steps["split"] != "train"].rename(columns={"loss": "value"})
        self.loss = loss = train["loss"].to_numpy(dtype=np.float64)
        self.val = rows.groupby("step")["value"].mean().to_numpy(dtype=np.float64)
        known = task in ("classification", "regression", "language_model") and len(loss) >= 20 and len(self.val) > 1
        self.usable = known and bool(np.isfinite(loss).all() and np.isfinite(self.val).all())
        self.language = task == "language_model"
        self.classes = (trace.meta.get("classes") or 0) * (task != "regression")
        guess = math.log(self.classes) if self.classes > 1 else math.inf
        self.chance = guess if known and 0.5 < np.median(loss[:5]) / guess < 3 else 0.0
        self.first = first = int((train["epoch"] == train["epoch"].min()).sum())  # batches of the first epoch
        self.fresh = float(loss[first // 2 : first].mean()) if known else math.nan
        self.end = float(np.median(loss[-max(len(loss) // 10, 1) :])) if known else math.nan
        self.train_right, self.val_right = (_accuracy(metrics, training) for training in (True, False))


def _accuracy(metrics: pd.DataFrame, training: bool) -> np.ndarray:
    chosen = metrics["name"].str.contains("acc", case=False) & ((metrics["split"] == "train") == training)
    values = metrics.loc[chosen, "value"].to_numpy(dtype=np.float64)
    return values / 100 if values.max(initial=0) > 1 else values  # percent
