"""Between what was the distance taken? Recompute the recorded loss of continuous or binary targets."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from bugbench.class_view import spread
from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect
from bugbench.trace import Batch
from scipy.special import expit, xlogy

DISTANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "squared error": np.square,
    "absolute error": np.abs,
    "Huber loss": lambda d: np.where(np.abs(d) < 1, d**2 / 2, np.abs(d) - 0.5),
}


@dataclass
class RegressionLoss(Detector):
    """Between what was the distance taken? Recompute the recorded loss of continuous or binary targets.

    Arithmetic on the recorded batches, in float64, for targets with one number for each output. A fault is named only
    if its formula gives the recorded loss of all batches, up to a constant factor, and the right one does not. Right:
    the mean or sum of squared, absolute or Huber errors, the root of the mean square, and for targets 0 and 1 binary
    cross-entropy of logits or of probabilities. Wrong: the error over all pairs of a batch, which broadcasting makes of
    (B, 1) against (B,) (PyTorch warns of it in MSELoss), ``label_broadcast``; between outputs and inputs,
    ``wrong_target``; binary cross-entropy that takes sigmoids for logits, ``activation_on_logits``; distance to
    class indices above 1 (Brier's score has 0 and 1), ``mse_for_classes``; loss or gradient with the sign turned,
    ``flipped_sign``; a sum instead of a mean, if the loss tripled or never fell by a tenth, ``loss_reduction_sum``.
    """

    access = {"data"}
    tolerance: float = 1e-4  # relative; float32 losses agree with float64 ones to 1e-6
    most: int = 10  # batches looked at, spread over the run, for speed
    agreement: float = 0.99  # share of gradients that must have the wrong sign; the rest is left to ties

    def diagnose(self, trace: Trace) -> Diagnosis:
        batches = spread(trace.batches(), self.most)
        if len(batches) < 2 or any(b.outputs.size != b.targets.size for b in batches):
            return HEALTHY
        losses, counts = np.array([(b.loss, b.outputs.size) for b in batches]).T
        if np.ptp(losses) < 10 * self.tolerance * np.abs(losses).max():  # one number is soon explained
            return HEALTHY
        binary = all(np.isin(b.targets, (0, 1)).all() for b in batches)
        for formulas in (_right_means, _wrong_means):
            tables = [formulas(b, binary) for b in batches]
            for words in tables[0]:
                if factor := self._factor(np.array([table.get(words, np.nan) for table in tables]), losses, counts):
                    fault, _, formula = words.rpartition(": ")
                    if fault:
                        return suspect(fault, f"{formula} gives the loss of {len(batches)} batches, the right one not")
                    return self._after(formula, factor, batches, binary, trace)
        return HEALTHY

    def _factor(self, values: np.ndarray, losses: np.ndarray, counts: np.ndarray) -> float:
        """Return the constant that makes the means, their sums or their roots the losses, or 0."""
        sums, roots = values * counts, np.sqrt(np.abs(values))
        for form in (values, sums, roots) if np.isfinite(values).all() else ():
            largest = np.abs(form).argmax()
            factor = losses[largest] / form[largest] if form[largest] else 0.0
            differ = len(form) > 2 and np.ptp(form) > 0.01 * np.abs(form).max()  # to bear out a factor other than 1
            close = np.allclose(losses, factor * form, rtol=self.tolerance, atol=1e-7 * abs(factor))
            if close and (differ or abs(abs(factor) - 1) < self.tolerance):
                return float(factor * (counts.mean() if form is sums else 1))
        return 0.0

    def _after(self, formula: str, factor: float, batches: list[Batch], binary: bool, trace: Trace) -> Diagnosis:
        """Judge what the right formula leaves open: the sign, what the numbers mean, and the reduction."""
        ascents = [share for b in batches if (share := _ascent(b, binary)) is not None]
        if factor < 0 or (len(ascents) > 1 and min(ascents) >= self.agreement):
            return suspect("flipped_sign", f"the loss is {factor:.3g} times the {formula}, and its gradient ascends")
        outputs = np.concatenate([b.outputs.ravel() for b in batches])
        if formula == "binary cross-entropy of logits" and 0 <= outputs.min() < outputs.max() <= 1:
            return suspect("activation_on_logits", f"the logits lie in [{outputs.min():.2g}, {outputs.max():.2g}]")
        whole = all(np.equal(np.round(b.targets), b.targets).all() for b in batches)
        if whole and not binary and trace.meta.get("task") == "classification" and formula in DISTANCES:
            return suspect("mse_for_classes", f"the loss is the {formula} between outputs and class indices")
        count, curve = np.mean([b.outputs.size for b in batches]), trace.train_steps()["loss"]
        falls = curve.max() < 3 * curve[0] and curve.tail(max(len(curve) // 5, 1)).median() < 0.9 * curve[0]
        if count > 1.5 and abs(factor / count - 1) < 0.01 and not falls:
            return suspect("loss_reduction_sum", f"the loss is a sum over {count:.0f} entries and does not come down")
        return HEALTHY


def _right_means(batch: Batch, binary: bool) -> dict[str, float]:
    z, t = batch.outputs.astype(np.float64).ravel(), batch.targets.astype(np.float64).ravel()
    means = {words: float(distance(z - t).mean()) for words, distance in DISTANCES.items()}
    if binary:
        means["binary cross-entropy of logits"] = _entropy(z, t)
        means["binary cross-entropy of probabilities"] = -float((xlogy(t, z) + xlogy(1 - t, 1 - z)).mean())
    return means


def _wrong_means(batch: Batch, binary: bool) -> dict[str, float]:
    """Return the mean of each formula over the batch, by "fault: words"."""
    outputs, targets = batch.outputs.astype(np.float64), batch.targets.astype(np.float64)
    squashed = _entropy(expit(outputs.ravel()), targets.ravel()) if binary else np.nan
    means = {"activation_on_logits: that of sigmoid(outputs)": squashed}
    one_each = outputs.size == len(outputs) <= 4096  # then the shapes may go wrong inside the loss only
    for words, distance in DISTANCES.items():
        with contextlib.suppress(ValueError):  # shapes that do not go together
            pairs = outputs.reshape(-1, 1) - targets.reshape(1, -1) if one_each else outputs - targets
            means[f"label_broadcast: {words} of all pairs"] = float(distance(pairs).mean())
        if batch.inputs.shape == outputs.shape:
            means[f"wrong_target: {words} to the inputs"] = float(distance(outputs - batch.inputs).mean())
    return means


def _entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    return float((np.logaddexp(0, logits) - logits * targets).mean())


def _ascent(batch: Batch, binary: bool) -> float | None:
    """Return the share of outputs that the gradient drives away from their targets."""
    if batch.output_gradients is None or batch.output_gradients.size != batch.targets.size:
        return None
    away = batch.output_gradients.ravel() * ((0.5 if binary else batch.outputs.ravel()) - batch.targets.ravel())
    return float((away[away != 0] < 0).mean()) if away.any() else None
