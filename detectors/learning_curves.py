"""What does the shape of the training loss say? Not finite, negative, jumping, rising."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace


@dataclass
class LearningCurves(Detector):
    """What does the shape of the training loss say? Not finite, negative, jumping, rising.

    The reading of curves that debugging lectures teach, in numbers without a unit. A shape has several causes, so an
    answer is a list, the usual cause first. The first rule that holds answers:

    * not finite: from the start (the inputs), out of nothing (a logarithm or root), or after growth, where a rate that
      is too high overshoots to and fro and a turned sign climbs steadily;
    * a cross-entropy below zero: one that starts at -ln C has the sign turned (ln C is what a uniform guess over C
      classes costs; Karpathy's recipe: "verify loss @ init"), one that falls without bound takes raw scores;
    * tripled within the first batches: if it starts far above ln C it is the scale of the inputs, else the rate;
    * the last fifth above all first batches: steadily (the sign), at once (the rate), or later (gradients that add up:
      a rate that is too high is so from the first step).

    Flat, slow and low curves are read by learning_progress, evaluation by evaluation_curves, rhythm by epoch_pattern.
    """

    access = {"curves"}
    jump: float = 3.0  # times the first loss; batches that scatter by half of their mean stay far below
    patience: int = 10  # first batches in which a rate that is too high shows

    def diagnose(self, trace: Trace) -> Diagnosis:
        # the losses of two models that play against each other may well rise
        if trace.meta.get("task") not in ("classification", "regression", "language_model"):
            return HEALTHY
        loss = trace.train_steps()["loss"].to_numpy(dtype=np.float64)
        classes = trace.meta.get("classes") or 0
        guess = math.log(classes) if classes > 1 and trace.meta["task"] != "regression" else 0.0
        finite = bool(np.isfinite(loss).all())
        readings = self._of_finite(loss, guess) if finite else self._not_finite(loss, guess)
        faults, seen = next(readings, ("", "")) if len(loss) else ("", "")
        return Diagnosis(Suspect(fault, 0.6 / (i + 1), seen) for i, fault in enumerate(faults.split()))

    def _not_finite(self, loss: np.ndarray, guess: float) -> Iterator[tuple[str, str]]:
        """Yield suspected faults, in one string, and what was seen."""
        step = int(np.flatnonzero(~np.isfinite(loss))[0])
        before, seen = loss[:step], f"the loss of step {step} is {loss[step]}"
        if not step:
            yield "nan_inputs divide_by_zero_std log_of_zero exp_overflow", seen
            return
        seen += f", after {before[-1]:.3g}"
        if guess and before.min() < 0:
            yield "nll_on_logits flipped_sign", seen + ", and a cross-entropy cannot be negative"
        if np.isinf(loss[step]) or before[-5:].max() > 2 * np.median(before[:5]):
            smooth = _running_median(before)
            climbs = len(smooth) > 3 and np.mean(np.diff(smooth) > 0) > 0.9 and before.min() > 0.8 * before[0]
            yield ("flipped_sign lr_too_high" if climbs else "lr_too_high exp_overflow inf_inputs"), seen
        yield "nan_inputs log_of_zero sqrt_grad_at_zero", seen

    def _of_finite(self, loss: np.ndarray, guess: float) -> Iterator[tuple[str, str]]:
        start, end = float(np.median(loss[:5])), float(np.median(loss[-max(len(loss) // 5, 1) :]))
        if guess and abs(start + guess) < 0.25 * guess:
            yield "flipped_sign", f"the loss starts at {start:.3g}, minus what a uniform guess costs"
        if guess and end < -guess:  # a cosine may be negative as well, but has a bound
            yield "nll_on_logits flipped_sign", f"the loss falls from {start:.3g} to {end:.3g}"
        if len(loss) < 2 * self.patience or start <= 0:
            return
        early = np.sort(loss[: max(self.patience, len(loss) // 20)])  # two high ones, for one may be an odd batch
        # a loss that is a sum, or starts low since the model was trained before, has another scale
        usual = max(loss[0], guess if 0.5 * guess < start < 3 * guess else 0.0)
        if early[-2] > self.jump * usual and end < 2 * loss[0]:
            seen = f"the loss jumps from {loss[0]:.3g} to {early[-1]:.3g} at the start"
            if early[0] < 0.1 * min(loss[0], guess or loss[0]):
                yield "unshuffled_loader lr_too_high", seen + f", and falls to {early[0]:.2g}, as sorted classes do"
            if guess and loss[0] > 3 * guess:
                yield "missing_normalization large_init lr_too_high", seen + f"; a uniform guess costs {guess:.3g}"
            yield "lr_too_high missing_normalization large_init", seen
        if end > 1.05 * loss[:5].max():
            parts, smooth = [np.median(part) for part in np.array_split(loss, 10)], _running_median(loss)
            seen = f"the loss rises: the first batches have at most {loss[:5].max():.3g}, the last fifth {end:.3g}"
            if np.mean(np.diff(parts) > 0) >= 0.8 and smooth.min() > 0.95 * smooth[0]:
                yield "flipped_sign lr_too_high", seen + ", steadily"
            if (since := int(np.argmax(loss > 1.5 * start))) >= self.patience:
                yield "missing_zero_grad lr_too_high loss_reduction_sum", seen + f", but not before step {since}"
            yield "lr_too_high loss_reduction_sum missing_zero_grad", seen


def _running_median(loss: np.ndarray) -> np.ndarray:
    return np.array([np.median(loss[i : i + 5]) for i in range(len(loss) - 4)])
