"""Which loss was computed? Recompute the recorded one under each hypothesis and see which equals the number."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from bugbench.class_view import ClassView, class_view, other_axes, spread
from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect
from scipy.special import log_softmax, softmax, xlogy

Formulas = Callable[[ClassView], dict[str, float]]  # the mean of each over a batch, by "words" or "fault: words"


@dataclass
class LossRecomputation(Detector):
    """Which loss was computed? Recompute the recorded one under each hypothesis and see which equals the number.

    Arithmetic on the recorded batches, in float64, for class targets, hard or soft. A fault is named only if its
    formula gives the recorded loss of all batches, up to a constant factor, and the right one does not. A loss that no
    formula here gives (custom, weighted, regularised) is not judged. Right: cross-entropy of logits, log-probabilities
    or probabilities; squared distance of outputs (Hui and Belkin 2021) or probabilities (Brier 1950) to one-hot labels;
    in sequences also with the targets one further (the shift inside the loss). Wrong: cross-entropy of
    softmax(outputs), ``redundant_softmax``; a softmax over another axis, ``softmax_dim``; nll of raw outputs,
    ``nll_on_logits``; squared distance of all outputs to the class index, ``mse_for_classes``; capped,
    ``clipped_loss``; smoothing above one half, ``label_smoothing_wrong``. Where the right formula holds: outputs that
    are probabilities, taken for logits, ``redundant_softmax``, or cut by a ReLU or sigmoid: ``activation_on_logits``;
    loss or gradient with the sign turned, ``flipped_sign``; a sum instead of a mean, a matter of the learning rate,
    only where the loss also tripled or never fell by a tenth, ``loss_reduction_sum``.
    """

    access = {"data"}
    tolerance: float = 1e-4  # relative; float32 losses agree with float64 ones to 1e-6
    most: int = 6  # batches looked at, spread over the run, for speed
    agreement: float = 0.99  # share of gradients that must have the wrong sign; the rest is left to ties

    def diagnose(self, trace: Trace) -> Diagnosis:
        views = [v for b in spread(trace.batches(), self.most) if (v := class_view(b, trace.meta)) is not None]
        if len(views) < 2:
            return HEALTHY
        moved = [ClassView(v.z[:, :-1], v.y[:, 1:], v.slope[:, :-1], v.loss) for v in views if v.z.ndim == 3]
        for these in (views, moved):
            if found := self._explain(these, _right_means):
                return self._after(*found, these, trace.train_steps()["loss"].to_numpy())
        losses, entropy = np.array([v.loss for v in views]), [_right_means(v)["cross-entropy"] for v in views]
        vary = np.ptp(losses) > 10 * self.tolerance * np.abs(losses).max()  # one number is soon explained
        if vary and (found := self._explain(views, _wrong_means)):
            fault, words = found[0].split(": ")
            return suspect(fault, f"{words} gives the loss of {len(views)} batches, the right formula does not")
        over, capped = np.greater(entropy, losses.max() * 1.01), np.minimum(entropy, losses.max())
        borne_out = not over.all() or all((v.slope == 0).all() for v in views)  # else the loss is merely constant
        if borne_out and over.sum() > 1 and np.allclose(capped, losses, rtol=self.tolerance):
            return suspect("clipped_loss", f"the loss is the cross-entropy, but never above {losses.max():.4g}")
        uniform = np.array([-(log_softmax(v.z, -1).mean(-1) * v.y.sum(-1)).sum() / max(v.y.sum(), 1) for v in views])
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (losses - entropy) / (uniform - entropy)
            if np.ptp(share) < 0.01 and 0.5 < share.mean() < 1.001:
                text = f"the loss spreads {share.mean():.0%} of a label over all classes"
                return suspect("label_smoothing_wrong", text)
        return HEALTHY

    def _explain(self, views: list[ClassView], formulas: Formulas) -> tuple[str, float] | None:
        """Return the first formula that gives all losses, and how many times its mean over a batch the loss is."""
        tables = [formulas(view) for view in views]
        losses, counts = np.array([v.loss for v in views]), np.array([v.y.sum() for v in views])
        for words in tables[0] if len(tables) > 1 else ():
            means = np.array([table[words] for table in tables])
            for weights in (np.ones(len(means)), counts) if np.isfinite(means).all() else ():
                values = means * weights
                largest = np.abs(values).argmax()
                ratio = losses[largest] / values[largest] if values[largest] else 0.0
                # a factor other than 1 must be borne out by losses that differ
                differ = len(values) > 2 and np.ptp(values) > 0.01 * np.abs(values).max()
                close = np.allclose(losses, ratio * values, rtol=self.tolerance, atol=1e-5 * abs(ratio))
                if close and (differ or abs(abs(ratio) - 1) < self.tolerance):
                    return words, float(ratio * weights.mean())
        return None

    def _after(self, words: str, factor: float, views: list[ClassView], curve: np.ndarray) -> Diagnosis:
        """Judge what the right formula leaves open: the sign, what the outputs went through, the reduction."""
        slopes = [v.slope[(v.y == 1) & (v.slope != 0)] for v in views]  # of the targets' outputs
        ascents = [(slope > 0).mean() for slope in slopes if slope.size]
        if factor < 0 or (len(ascents) > 1 and min(ascents) >= self.agreement):
            return suspect("flipped_sign", f"the loss is {factor:.3g} times the {words}, and its gradient ascends")
        values = np.concatenate([v.z.ravel() for v in views])
        low, high, zeros = values.min(), values.max(), (values == 0).mean()
        if words == "cross-entropy" and low >= 0 and high > 0:
            for fault, axis in [("redundant_softmax", -1), *(("softmax_dim", a) for a in other_axes(views[0].z))]:
                if all(np.abs(v.z.sum(axis) - 1).max() < 1e-3 for v in views):
                    text = f"the cross-entropy takes outputs for logits that sum to one over axis {axis}"
                    return suspect(fault, text)
            if zeros > 0.01 or high <= 1:
                text = f"the logits lie in [{low:.2g}, {high:.2g}], {zeros:.0%} of them are zero"
                return suspect("activation_on_logits", text)
        count, late = np.mean([v.y.sum() for v in views]), np.median(curve[-max(len(curve) // 5, 1) :])
        if count > 1.5 and abs(factor / count - 1) < 0.01 and not max(curve.max() / 3, late / 0.9) < curve[0]:
            return suspect("loss_reduction_sum", f"the loss is a sum over {count:.0f} entries and does not come down")
        return HEALTHY


def _right_means(v: ClassView) -> dict[str, float]:
    means = {
        "cross-entropy": -(v.y * log_softmax(v.z, -1)).sum(),
        "nll of probabilities": -xlogy(v.y, v.z).sum(),
        "squared distance to one-hot labels": ((v.z - v.y) ** 2).sum(),
        "Brier score": ((softmax(v.z, -1) - v.y) ** 2).sum(),
    }
    return {words: float(value) / max(v.y.sum(), 1) for words, value in means.items()}


def _wrong_means(v: ClassView) -> dict[str, float]:
    away = (v.z - v.y.argmax(axis=-1)[..., None])[v.y.max(axis=-1) == 1]
    sums = {"redundant_softmax: cross-entropy of softmax(outputs)": -(v.y * log_softmax(softmax(v.z, -1), -1)).sum()}
    for axis in other_axes(v.z):
        sums[f"softmax_dim: softmax over axis {axis}"] = -(v.y * log_softmax(v.z, axis)).sum()
        sums[f"softmax_dim: softmax over axis {axis} before"] = -(v.y * log_softmax(softmax(v.z, axis), -1)).sum()
    sums |= {
        "nll_on_logits: nll of raw outputs": -(v.y * v.z).sum(),
        "mse_for_classes: squared distance of all outputs to the class index": (away**2).sum(),
    }
    return {words: float(value) / max(v.y.sum(), 1) for words, value in sums.items()}
